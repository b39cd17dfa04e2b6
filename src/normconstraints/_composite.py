"""What constraints made of constraints share: whose groups they have, and what they can do.

None of them says by itself which entries are a group; where the parts agree about that, violations
are one number for each of those groups, and else one for the whole array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from normconstraints import _array
from normconstraints._array import Array, Namespace, Precision
from normconstraints.constraint import Constraint, Entrywise, Grouped, parameters, parts


class Composite(Constraint):
    """A set made of others: its groups are as far as theirs together."""

    _inherits: ClassVar[tuple[type, ...]] = ()
    """What it is, or can do, wherever all of its parts are or can."""

    def _span(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({axis for part in members(self) for axis in part._span(ndim)}))

    def _whole(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({axis for part in members(self) for axis in part._whole(ndim)}))

    def _can(self, kind: type) -> bool:
        if isinstance(self, kind) or kind not in self._inherits:
            return isinstance(self, kind)
        return all([part._can(kind) for part in members(self)])  # noqa: C419 - for Dynamo

    def _group_axes(self, ndim: int) -> tuple[int, ...] | None:
        """The axes of a group of which `violation` has one number; None if that is not known."""
        return None


def members(constraint: Constraint) -> tuple[Constraint, ...]:
    """The constraints of which one is made."""
    return tuple(part for value in parameters(constraint).values() for part in parts(value))


def check_constraint(owner: Constraint, value: Any) -> Constraint:
    """A constraint that is a parameter of another."""
    if not isinstance(value, Constraint):
        raise TypeError(
            f"{type(owner).__name__}: constraint must be a constraint, got {value!r}; build it "
            "first, as in MaxNorm(1.0, axis=0)"
        )
    return value


def call(owner: Constraint, method: Callable[[Array], Array], w: Array) -> Array:
    """What a part gives; its refusals in the name of the whole."""
    try:
        return method(w)
    except (TypeError, ValueError) as error:
        # Errors of tracing are subclasses: they are not ours, and cannot be built from a string.
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{type(owner).__name__}: {error}") from error


def group_axes(constraint: Constraint, ndim: int) -> tuple[int, ...] | None:
    """The axes of a group: none if each entry is one, None if that is not known."""
    if isinstance(constraint, Composite):
        return constraint._group_axes(ndim)
    if isinstance(constraint, Grouped):
        return _array.normalise_axis(constraint.axis, ndim, type(constraint).__name__)
    return () if isinstance(constraint, Entrywise) else None


def common_axes(parts: Iterable[Constraint], ndim: int) -> tuple[int, ...] | None:
    """The same of several; single entries are parts of whatever groups the others have."""
    found = {group_axes(c, ndim) for c in parts} - {()}
    if not found:
        return ()
    return found.pop() if len(found) == 1 else None


def worst(
    owner: Constraint, parts: tuple[Constraint, ...], w: Array, xp: Namespace
) -> tuple[Array, tuple[int, ...] | None]:
    """The largest violation of the parts for each group, and the axes of the groups."""
    found = [call(owner, c.violation, w) for c in parts]
    axes = common_axes(parts, w.ndim)
    if axes is None:
        found = [largest(v, tuple(range(v.ndim)), xp) for v in found]
    elif axes:
        found = [
            v if group_axes(c, w.ndim) else largest(v, axes, xp)
            for v, c in zip(found, parts, strict=True)
        ]
    most = found[0]
    for v in found[1:]:
        # Not maximum: what libraries make of NaN differs, and the standard leaves it open.
        most = xp.where((v > most) | (v != v), v, most)
    return most, axes


def largest(v: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """The largest over some axes, 0 of nothing."""
    if not axes:
        return v
    return xp.sum(v, axis=axes) if 0 in v.shape else xp.max(v, axis=axes)


def over_entries(x: Array, axes: tuple[int, ...] | None, xp: Namespace) -> Array:
    """One value for each group in a shape that combines with the entries."""
    for axis in axes or ():
        x = xp.expand_dims(x, axis=axis)
    return x


def widen(w: Array, precision: Precision, xp: Namespace) -> Array:
    """The weight in the dtype that computes."""
    if precision.wide is None:
        return w
    wide = precision.wide_complex if precision.is_complex else precision.wide
    return _array.cast(w, wide, xp)
