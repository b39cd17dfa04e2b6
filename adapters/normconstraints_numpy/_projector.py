"""Projection in place of the arrays in dicts, lists and the attributes of objects."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, TypeVar, final

from normconstraints import Bound, Constraint, Rules, Scheduled
from normconstraints.plan import Plan
from normconstraints.report import Report
from normconstraints_numpy._walk import walk

Weights = TypeVar("Weights")


@final
class Projector:
    """Projects the arrays of a training loop in place, after each update.

    Parameters
    ----------
    rules : Rules or mapping of patterns to Constraint, Scheduled or None
        Names or globs of the weights.
    report_every : int, optional
        Add to `report` what the projection does, at each step that this divides. Weights that are
        not due then are left out.

    Raises
    ------
    ValueError
        If `report_every` is no positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints_numpy import Projector
    >>> projector = Projector({"hidden.*.kernel": nc.MaxNorm(2.5, axis=0)})
    >>> weights = {"hidden": [{"kernel": np.array([[3.0, 0.3], [4.0, 0.4]])}]}
    >>> projector(weights)["hidden"][0]["kernel"].round(3)
    array([[1.5, 0.3],
           [2. , 0.4]])
    >>> projector.violation(weights)
    {'hidden.0.kernel': array([0., 0.])}

    An object with arrays in its attributes is as good as a dict:

    >>> class Layer:
    ...     def __init__(self):
    ...         self.kernel, self.rate = np.array([[3.0], [4.0]]), 0.1
    >>> Projector({"kernel": nc.MaxNorm(1.0, axis=0)})(Layer()).kernel.round(3).tolist()
    [[0.6], [0.8]]
    """

    def __init__(
        self,
        rules: Rules | Mapping[Any, Constraint | Scheduled | None],
        *,
        report_every: int | None = None,
    ) -> None:
        if report_every is not None and not _is_count(report_every, least=1):
            raise ValueError(
                f"Projector: report_every must be a positive integer or None, got {report_every!r}"
            )
        self._rules = Rules.of(rules)
        self._report_every = None if report_every is None else int(report_every)
        self._report = Report()
        self._step = 0
        self._checked: set[Any] = set()

    def __repr__(self) -> str:
        every = f", report_every={self._report_every}" if self._report_every else ""
        return f"Projector({self._rules!r}{every})"

    @property
    def step(self) -> int:
        """The step that the next call is, if it is not told: one more than the last."""
        return self._step

    @property
    def report(self) -> Report:
        """What the projections did, at the steps that `report_every` divides."""
        return self._report

    def __call__(self, weights: Weights, *, step: int | None = None) -> Weights:
        """Project in place.

        Parameters
        ----------
        weights : dict, list or tuple of arrays, or an object with arrays in its attributes
            Nested as you like. The name of an array is the path to it, joined with dots: keys,
            indices and attributes. Attributes whose names begin with an underscore are left out,
            and so are those that hold no arrays. Of an estimator of scikit-learn that was fitted,
            the weights; see `normconstraints_numpy.sklearn`.
        step : int, optional
            Which step of training this is, for constraints that change or act now and then. Calls
            are counted if it is left out, from 0, or from the last that was told.

        Returns
        -------
        dict, list, tuple or object
            `weights` itself.

        Raises
        ------
        TypeError, ValueError
            If a pattern matches no array, two arrays have one name, or an array is read-only, has
            entries that share memory, or does not fit its constraint. Nothing is changed then, and
            no step is counted.
        """
        if step is None:
            step = self._step
        elif not _is_count(step, least=0):
            raise ValueError(f"Projector: step must be an integer, 0 or more, got {step!r}")
        step = int(step)
        due = [b for b in self._bind(weights) if b.due(step)]
        checked = set(self._checked)
        for b in due:
            if (kind := _kind(b)) not in checked:
                b.check(step=step)
                checked.add(kind)
            b.at(step)  # which may refuse what a schedule gives
            _check_writable(b.name, b.weight.array)
        if self._report_every and step % self._report_every == 0:
            for b in due:
                c, array = b.at(step), b.weight.array
                self._report.record(step, b.name, c, array, c.project(array))
        for b in due:
            b.at(step).project_(b.weight.array)
        self._step, self._checked = step + 1, checked
        return weights

    def violation(self, weights: object, *, step: int | None = None) -> dict[str, Any]:
        """How far each group of each constrained array is outside, by the names of the arrays.

        Parameters
        ----------
        weights : dict, list or tuple of arrays, or an object with arrays in its attributes
            As for the call.
        step : int, optional
            For constraints that change, the step of which is asked; that of the last call if it is
            left out.

        Returns
        -------
        dict of str to array
            One number per group, in the units of the weights, 0 inside.

        Raises
        ------
        TypeError, ValueError
            As for the call, but arrays may be read-only.
        """
        if step is None:
            step = max(self._step - 1, 0)
        return {b.name: b.check(step=step) for b in self._bind(weights)}

    def plan(self, weights: object) -> Plan:
        """What the rules will do to the arrays, as a table to print before training.

        Parameters
        ----------
        weights : dict, list or tuple of arrays, or an object with arrays in its attributes
            As for the call. Nothing is changed.

        Returns
        -------
        Plan
            That of `normconstraints.Rules.plan`.
        """
        return self._rules.plan(walk(weights))

    def _bind(self, weights: object) -> list[Bound]:
        return self._rules.bind(walk(weights))


def _is_count(value: object, *, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _kind(b: Bound) -> Any:
    """What decides whether a weight fits its constraint; to ask costs as much as to project."""
    array = b.weight.array
    shape, dtype = getattr(array, "shape", None), str(getattr(array, "dtype", None))
    return b.name, b.rule, type(b.weight.place.layer), type(array), dtype, shape


def _check_writable(name: str, array: Any) -> None:
    # Libraries differ in whether and how they tell; all refuse to write, even no entries.
    part = array[:0, ...] if array.ndim else array
    try:
        part[...] = part
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Projector: {name!r} must be an array that can be changed, got a read-only one; put "
            "a copy of it there"
        ) from error
    # NumPy makes broadcast arrays read-only, CuPy does not.
    strides = getattr(array, "strides", None)
    if strides is None or 0 in array.shape:
        return
    reach = array.itemsize - 1
    for stride, size in sorted(zip(map(abs, strides), array.shape, strict=True)):
        if size > 1 and stride <= reach:
            raise ValueError(
                f"Projector: {name!r} must be an array whose entries have each their own memory, "
                f"got strides {strides} for shape {array.shape}; put a copy of it there"
            )
        reach += stride * (size - 1)
