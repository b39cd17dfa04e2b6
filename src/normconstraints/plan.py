"""What rules will do to a model, to be read before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array, _table
from normconstraints._norms import measure
from normconstraints.constraint import Ball, Constraint, Grouped
from normconstraints.layout import InView, LayoutError

if TYPE_CHECKING:
    from normconstraints._array import Array
    from normconstraints.rules import Bound, Rules
    from normconstraints.weights import Weight

__all__ = ["Plan", "Row"]

# A group that stays inside when it grows so many times, and when it shrinks as much, is so far from
# the bound that training will hardly bring it there.
_FAR = 3.0


@final
@dataclass(frozen=True)
class Row:
    """One weight."""

    name: str
    shape: tuple[int, ...]
    roles: str
    """The roles of its axes, empty if they are not known."""
    constraint: str
    """Empty for a weight without one."""
    groups: int | None
    outside: float | None
    """The share of groups that are outside now, 0 to 1."""
    norms: tuple[float, float, float] | None
    """The least, the median and the largest norm of a group now, in the units of the weights."""
    note: str
    """What should make you look twice."""


@final
@dataclass(frozen=True)
class Plan:
    """The weights of a model with what rules will do to each; prints as a table.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> weights = {"kernel": np.eye(2) * 0.1, "bias": np.zeros(2)}
    >>> print(nc.Rules({"kernel": nc.MaxNorm(3.0, axis=0)}).plan(weights))
    weight  shape  roles  constraint                      groups  outside  norms        note
    kernel  2x2           MaxNorm(max_value=3.0, axis=0)  2       0%       0.1 0.1 0.1  will \
hardly bind: 3 times as long they would still be inside
    bias    2                                                                           no \
constraint
    """

    rows: tuple[Row, ...]

    _HEAD = ("weight", "shape", "roles", "constraint", "groups", "outside", "norms", "note")

    @property
    def unconstrained(self) -> list[str]:
        """Names of the weights that no rule constrains."""
        return [row.name for row in self.rows if not row.constraint]

    def as_data(self) -> list[dict[str, Any]]:
        """The rows as plain data, for a data frame or a file."""
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        return _table.as_text(self._HEAD, list(self._cells()))

    def __rich__(self) -> Any:
        return _table.as_rich("Plan", self._HEAD, list(self._cells()))

    def _cells(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [
                row.name,
                "x".join(map(str, row.shape)) or "scalar",
                row.roles,
                row.constraint,
                "" if row.groups is None else str(row.groups),
                "" if row.outside is None else f"{row.outside:.0%}",
                "" if row.norms is None else " ".join(f"{norm:.3g}" for norm in row.norms),
                row.note,
            ]


def make_plan(rules: Rules, model: Any) -> Plan:
    """The plan of a model; see `Rules.plan`."""
    from normconstraints.weights import weights_of

    weights = weights_of(model)
    bound = {id(b.weight): b for b in rules.bind(weights)} if weights else {}
    return Plan(tuple(_row(rules, weight, bound.get(id(weight))) for weight in weights))


def _row(rules: Rules, weight: Weight, bound: Bound | None) -> Row:
    roles, ties = "", ", ".join(place.name for place in weight.ties)
    with suppress(LayoutError):  # a plan also shows what is not known
        roles = rules.layout_of(weight.place).roles
    notes = [f"tied to {ties}"] if ties else []
    if bound is None:
        shape: tuple[int, ...] = ()
        try:
            shape = weight.shape
        except ValueError:  # of a lazy module
            notes.append("no shape yet")
        note = "; ".join(["no constraint", *notes])
        return Row(weight.name, shape, roles, "", None, None, None, note)
    array = _array.looked_at(weight.array)
    constraint = bound.at(0)
    amounts = _flat(bound.check(array))
    outside = sum(amount > 0 for amount in amounts) / max(len(amounts), 1)
    if any(math.isnan(amount) for amount in amounts):
        notes.append("holds NaN or infinity")
    if isinstance(_innermost(constraint), Grouped) and _is_far(constraint, array, outside):
        notes.append(f"will hardly bind: {_FAR:g} times as long they would still be inside")
    norms = _norms(constraint, array)
    return Row(
        weight.name,
        weight.shape,
        roles,
        repr(bound.constraint),
        len(amounts),
        outside,
        norms,
        "; ".join(notes),
    )


def _is_far(constraint: Constraint, array: Array, outside: float) -> bool:
    if outside:
        return False
    # What is in a ball stays in it when it shrinks.
    factors = (_FAR,) if _innermost(constraint)._can(Ball) else (_FAR, 1 / _FAR)
    return not any(any(_flat(constraint.violation(array * f))) for f in factors)


def _norms(constraint: Constraint, array: Array) -> tuple[float, float, float] | None:
    """Of the groups of a set of vectors."""
    if isinstance(constraint, InView):
        xp = _array.namespace(array, "Plan")
        return _norms(constraint.constraint, xp.reshape(array, constraint.view))
    if not isinstance(constraint, Grouped) or 0 in array.shape:
        return None
    xp = _array.namespace(array, "Plan")
    axes = _array.normalise_axis(constraint.axis, array.ndim, "Plan")
    import statistics  # here, for it is slow to import

    found = _flat(measure(array, axes, xp, _array.precision(array, xp, "Plan")).length)
    return min(found), statistics.median(found), max(found)


def _innermost(constraint: Constraint) -> Constraint:
    return constraint.constraint if isinstance(constraint, InView) else constraint


def _flat(x: Array) -> list[float]:
    found = _array.to_list(x)
    while found and isinstance(found, list) and isinstance(found[0], list):
        found = [value for row in found for value in row]
    return found if isinstance(found, list) else [found]
