"""What constraints did during training: how many groups they hold, and how hard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, final

from normconstraints import _array, _table
from normconstraints._array import Array
from normconstraints.constraint import Constraint

__all__ = ["Entry", "Report"]

# A group that leaves the set when it grows by this much is at the bound; by more where the dtype
# hardly tells such numbers apart.
_NEAR = 1e-3

_MEANING = {
    "at_bound": "share of groups at the bound",
    "violation": "largest violation before the projection",
    "change": "size of the projection, relative to the weight",
}


@final
@dataclass(frozen=True)
class Entry:
    """One weight at one step."""

    step: int
    name: str
    at_bound: float
    """The share of groups that the constraint holds: a thousandth longer they would be outside."""
    violation: float
    """The largest violation of a group before the projection, in the units of the weights."""
    change: float
    """The norm of what the projection changed, relative to that of the weight before it."""


@final
class Report:
    """Entries over time; as data, as a table, as a picture and as scalars for TensorBoard.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints.report import Report
    >>> report = Report()
    >>> c, w = nc.MaxNorm(1.0, axis=0), np.array([[3.0, 0.3], [4.0, 0.4]])
    >>> report.record(10, "kernel", c, w, c(w))
    >>> print(report)
    step  weight  at bound  violation  change
    10    kernel  50%       4          0.796
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order in which they were recorded."""
        return tuple(self._entries)

    def record(
        self, step: int, name: str, constraint: Constraint, before: Array, after: Array
    ) -> None:
        """Take down what a projection did to one weight.

        Parameters
        ----------
        step : int
            The step of training.
        name : str
            The weight.
        constraint : Constraint
            The constraint with its axes resolved.
        before, after : array
            The weight before and after the projection; they are read, which waits for a GPU.
        """
        before, after = _array.looked_at(before), _array.looked_at(after)
        xp = _array.namespace(before, "Report")
        if 0 in before.shape:
            return
        near = max(_NEAR, 8 * _array.precision(after, xp, "Report").eps)
        held = constraint.violation(after * (1 + near)) > 0
        change = _length(after - before, xp)
        size = _length(before, xp)
        entry = Entry(
            step=int(step),
            name=name,
            at_bound=float(xp.mean(xp.astype(held, xp.float32))),
            violation=float(xp.max(constraint.violation(before))),
            change=change / size if size > 0 else change,
        )
        self._entries.append(entry)

    def as_data(self) -> list[dict[str, Any]]:
        """The entries as plain data, for a data frame or a file."""
        return [asdict(entry) for entry in self._entries]

    def scalars(self) -> Iterator[tuple[str, float, int]]:
        """Tag, value and step of each number: ``for s in report.scalars(): writer.add_scalar(*s)``.

        Tags are ``normconstraints/<quantity>/<weight>``.
        """
        for entry in self._entries:
            for quantity in _MEANING:
                tag = f"normconstraints/{quantity}/{entry.name}"
                yield tag, getattr(entry, quantity), entry.step

    def latest(self) -> dict[str, Entry]:
        """The last entry of each weight."""
        return {entry.name: entry for entry in self._entries}

    _HEAD = ("step", "weight", "at bound", "violation", "change")

    def __str__(self) -> str:
        return _table.as_text(self._HEAD, list(self._cells()))

    def __rich__(self) -> Any:
        return _table.as_rich("Last entry of each weight", self._HEAD, list(self._cells()))

    def _cells(self) -> Iterator[list[str]]:
        for e in self.latest().values():
            numbers = (f"{e.at_bound:.0%}", f"{e.violation:.3g}", f"{e.change:.3g}")
            yield [str(e.step), e.name, *numbers]

    def picture(self, quantity: str = "at_bound") -> Any:
        """A heat map, weights by steps, as a matplotlib figure.

        Parameters
        ----------
        quantity : {"at_bound", "violation", "change"}
            What the colours show.

        Raises
        ------
        ValueError
            If there is no such quantity, or no entry yet.
        ImportError
            If matplotlib is not installed.
        """
        if quantity not in _MEANING:
            raise ValueError(
                f"Report: quantity must be one of {', '.join(_MEANING)}, got {quantity!r}"
            )
        if not self._entries:
            raise ValueError("Report: a picture must have entries, and none was recorded yet")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                'a picture needs matplotlib; run: pip install "normconstraints[report]"'
            ) from error
        names = list(self.latest())
        steps = sorted({entry.step for entry in self._entries})
        grid = [[float("nan")] * len(steps) for _ in names]
        rows, columns = ({x: i for i, x in enumerate(xs)} for xs in (names, steps))
        for entry in self._entries:
            grid[rows[entry.name]][columns[entry.step]] = getattr(entry, quantity)
        figure = Figure(figsize=(8, 1.6 + 0.3 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        edges = [*steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)]
        top = 1.0 if quantity == "at_bound" else None
        mesh = axes.pcolormesh(edges, range(len(names) + 1), grid, vmin=0.0, vmax=top)
        axes.set_yticks([i + 0.5 for i in range(len(names))], names)
        axes.invert_yaxis()
        axes.set_xlabel("step")
        axes.set_title(_MEANING[quantity])
        figure.colorbar(mesh)
        return figure


def _length(x: Array, xp: Any) -> float:
    """The norm of all entries, scaled by the largest so that squares stay in range."""
    largest = float(xp.max(xp.abs(x)))
    if not 0 < largest < float("inf"):
        return largest
    y = x / largest
    return largest * math.sqrt(float(xp.sum(xp.abs(y) ** 2)))
