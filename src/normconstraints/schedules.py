"""Constraints that change while a model is trained: how often they act, and with which numbers."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias, final

from normconstraints import _array
from normconstraints._array import Array
from normconstraints._parameters import assign, is_array
from normconstraints.constraint import (
    Constraint,
    Parametrised,
    parameters,
    parts,
    register,
    with_parts,
)

__all__ = ["Cosine", "Linear"]

Step: TypeAlias = Any
"""The count of steps: an int, or an integer array, traced perhaps, as a compiled step has it."""

Schedule: TypeAlias = Callable[[Step], Any]
"""A number as a function of the step."""


class _Ramp(Parametrised):
    start: float
    end: float
    steps: int

    def _check(self) -> None:
        name = type(self).__name__
        for field in ("start", "end"):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ValueError(f"{name}: {field} must be a finite number, got {value!r}")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ValueError(f"{name}: steps must be a positive integer, got {self.steps!r}")
        assign(self, start=float(self.start), end=float(self.end))

    def _done(self, step: Step) -> Any:
        """How much of the way is done at a step, 0 to 1."""
        if not is_array(step):
            return min(max(step, 0), self.steps) / self.steps
        xp = _array.namespace(step, type(self).__name__)
        return xp.clip(xp.astype(step, xp.float32), 0.0, float(self.steps)) / self.steps


@register
@final
@dataclass(frozen=True, eq=False)
class Linear(_Ramp):
    """From `start` to `end` in a straight line over so many steps, then `end`.

    Examples
    --------
    >>> from normconstraints.schedules import Linear
    >>> [Linear(3.0, 1.0, steps=4)(step) for step in range(6)]
    [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        self._check()

    def __call__(self, step: Step) -> Any:
        """The number at a step."""
        done = self._done(step)
        return self.start * (1 - done) + self.end * done


@register
@final
@dataclass(frozen=True, eq=False)
class Cosine(_Ramp):
    """From `start` to `end` along half a wave of the cosine over so many steps, then `end`.

    Examples
    --------
    >>> from normconstraints.schedules import Cosine
    >>> [round(Cosine(3.0, 1.0, steps=4)(step), 3) for step in range(6)]
    [3.0, 2.707, 2.0, 1.293, 1.0, 1.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        self._check()

    def __call__(self, step: Step) -> Any:
        """The number at a step."""
        turned = self._done(step) * math.pi
        wave = _array.namespace(step, "Cosine").cos(turned) if is_array(step) else math.cos(turned)
        left = (1 + wave) / 2
        return self.start * left + self.end * (1 - left)


@final
@dataclass(frozen=True, eq=False)
class Scheduled(Parametrised):
    """A constraint that acts on some steps only, or with numbers that depend on the step.

    Rules take it in place of a constraint.

    Parameters
    ----------
    constraint : Constraint
        What holds, but for the parameters given next.
    changing : mapping of str to callable, optional
        Parameters of the constraint as functions of the step: `Linear`, `Cosine`, or your own. They
        get an int, or an integer array where the step is compiled.
    every : int, default 1
        It acts on each step whose count from `start` is a multiple of this.
    start : int, default 0
        It does not act before this step.

    Raises
    ------
    TypeError
        If `constraint` is none, or a parameter no callable.
    ValueError
        If the constraint has no such parameter, or a number is out of range.

    Examples
    --------
    >>> import normconstraints as nc
    >>> radius = nc.schedules.Linear(3.0, 1.0, steps=100)
    >>> c = nc.Scheduled(nc.MaxNorm(3.0, axis=0), {"max_value": radius}, every=10)
    >>> c.at(50)
    MaxNorm(max_value=2.0, axis=0)
    >>> [step for step in range(30) if c.due(step)]
    [0, 10, 20]
    """

    constraint: Constraint
    changing: Mapping[str, Schedule] | tuple[tuple[str, Schedule], ...] = ()
    _: KW_ONLY
    every: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.constraint, Constraint):
            raise TypeError(f"Scheduled: constraint must be a constraint, got {self.constraint!r}")
        for name, least in (("every", 1), ("start", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"Scheduled: {name} must be an integer >= {least}, got {value!r}")
        changing = dict(self.changing)
        known = list(_numbers(self.constraint))
        for name, schedule in changing.items():
            if name not in known:
                raise ValueError(
                    f"Scheduled: changing must name parameters of {type(self.constraint).__name__} "
                    f"({', '.join(known) or 'it has none'}), got {name!r}"
                )
            if not callable(schedule):
                raise TypeError(
                    f"Scheduled: {name} must be a function of the step, got {schedule!r}; a number "
                    "that does not change belongs to the constraint"
                )
        assign(self, changing=tuple(changing.items()))
        self.at(self.start)  # a schedule that leaves the range of its parameter should fail now

    def at(self, step: Step) -> Constraint:
        """The constraint as it is at a step."""
        if not self.changing:
            return self.constraint
        values = {name: schedule(step) for name, schedule in dict(self.changing).items()}
        return _changed(self.constraint, values, looked=not is_array(step))

    def due(self, step: Step) -> Any:
        """Whether it acts at a step: a bool, or an array if the step is one."""
        return (step >= self.start) & ((step - self.start) % self.every == 0)

    def project(self, w: Array, step: Step) -> Array:
        """`w` projected if this is due at the step, else as it is; the step may be traced."""
        due = self.due(step)
        if not is_array(due):
            return self.at(step).project(w) if due else w
        return _array.namespace(w, "Scheduled").where(due, self.at(step).project(w), w)

    @property
    def always(self) -> bool:
        """Whether it acts at every step."""
        return self.every == 1 and self.start == 0


_FIXED = ("axis", "group_axis", "view", "part", "rounds", "k", "n", "m", "mask", "signs")
"""Parameters that are no numbers of the weights."""


def _numbers(constraint: Constraint) -> Iterator[str]:
    """The parameters of a constraint, and of those inside it, that may change."""
    for name, value in parameters(constraint).items():
        for part in parts(value):
            yield from _numbers(part)
        if not parts(value) and name not in _FIXED and name not in _places(constraint):
            yield name


def _places(constraint: Constraint) -> list[str]:
    """The parameters that say where and not how much."""
    fields: dict[str, dataclasses.Field[Any]] = getattr(constraint, "__dataclass_fields__", {})
    return [field.name for field in fields.values() if field.metadata.get("places")]


def _changed(constraint: Constraint, values: dict[str, Any], *, looked: bool) -> Constraint:
    own = parameters(constraint)
    changes = {name: value for name, value in values.items() if name in own}
    for name, value in own.items():
        if parts(value):
            changes[name] = with_parts(value, lambda c: _changed(c, values, looked=looked))
    # NumPy's scalars are numbers to the constructor, and arrays to nothing else.
    if looked or any(isinstance(value, numbers.Real) for value in changes.values()):
        return dataclasses.replace(constraint, **changes)  # type: ignore[type-var]
    # The constructor would look at the numbers, which a compiled step does not have (Dynamo breaks
    # the graph), and for which Python would have to wait for a device.
    made: Constraint = object.__new__(type(constraint))
    assign(made, **{**own, **changes})
    return made
