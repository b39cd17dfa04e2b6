"""Maps around one constraint: part of the way to it, on a part of the weight, at another place."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._composite import (
    Composite,
    call,
    check_constraint,
    group_axes,
    over_entries,
    widen,
)
from normconstraints._norms import measure
from normconstraints._parameters import PER_ENTRY, Number, assign, check_finite, check_number
from normconstraints.constraint import Constraint, Convex, Gradual, register
from normconstraints.sets.box import Box
from normconstraints.sets.max_norm import MaxNorm
from normconstraints.sets.simplex import Simplex


@register
@final
@dataclass(frozen=True, eq=False)
class Relaxed(Composite, Gradual):
    r"""Part of the way to a set at each call.

    .. math:: w + \lambda \, (P(w) - w)

    Parameters
    ----------
    constraint : Constraint
        Where the way leads.
    rate : float or array, default 1.0
        The part :math:`\lambda` in (0, 1], a number or an array (or nested tuples) that broadcasts
        against the weight. With 1 the result is that of the constraint, bit for bit. Below 1 it is
        *not yet* in the set.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `rate` no number.
    ValueError
        If `rate` is out of its range.

    Notes
    -----
    Computed in double precision where the library has it. What is in the set comes back bit for
    bit. The violation is that of the constraint. An infinity stays, however far a set would clip
    it, unless the rate is 1; so does an entry whose way to the set is longer than the largest
    number of the dtype.

    Gradient: :math:`(1 - \lambda) I + \lambda J` with the derivative J of the constraint. Groups
    with NaN are left as they are if the constraint does that.

    `MinMaxNorm` has a rate of its own, which is the same for this set.

    References
    ----------
    H. Bauschke, P. Combettes, "Convex analysis and monotone operator theory in Hilbert spaces",
    2nd edition, 2017, section 4.5, for relaxed projections.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> Relaxed(nc.MaxNorm(1.0, axis=0), rate=0.5)(np.array([3.0, 4.0])).round(6)
    array([1.8, 2.4])
    """

    constraint: Constraint
    rate: Number = field(default=1.0, metadata=PER_ENTRY)

    def __post_init__(self) -> None:
        assign(
            self,
            constraint=check_constraint(self, self.constraint),
            rate=check_number(self, "rate", self.rate, above=0, strict=True, upto=1),
        )

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the constraint has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _group_axes(self, ndim: int) -> tuple[int, ...] | None:
        return group_axes(self.constraint, ndim)

    def _project(self, w: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        whole = type(self.rate) is float and self.rate == 1
        rate = _array.entrywise(self.rate, w, xp, precision.accumulator, "Relaxed: rate")
        nearest = call(self, self.constraint.project, w)
        if whole:
            return nearest
        with _array.quiet(xp):
            y = widen(w, precision, xp)
            away = y - widen(nearest, precision, xp)
            away = xp.where(xp.isfinite(away), away, xp.zeros_like(away))
            # Minus, since a negative zero less zero keeps its sign.
            result = _array.cast(y - rate * away, w.dtype, xp)
        return result if type(rate) is float else xp.where(rate == 1, nearest, result)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return call(self, self.constraint.violation, w)


@register
@final
@dataclass(frozen=True, eq=False)
class Masked(Composite):
    r"""A constraint on a rectangular part of a weight; the rest of it is left alone.

    .. math:: \{ w : w_{part} \in C \}

    Parameters
    ----------
    constraint : Constraint
        Applied to the part as if that were the whole weight.
    part : tuple
        For each axis of the weight, in order, an integer or a slice as a triple ``(start, stop,
        step)`` with None for what is left out, as a configuration can hold it; slices of Python
        (``numpy.s_[:, 2:5]``) are taken too. Steps are positive. Axes that are not named are taken
        whole. An integer keeps its axis, with a length of 1, so that the `axis` of the constraint
        means the axes of the weight.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `part` no such tuple.
    ValueError
        If a step is not positive, or at the call if the weight has fewer axes or an integer is out
        of its range.

    Notes
    -----
    A part and not a mask of single entries: what the nearest member is under a mask depends on the
    set (0 in place of what is masked is right for norms and wrong for sums), while a part is a
    smaller weight, of which every set knows the nearest member. This is a projection: what is
    outside the part does not move. For a support where all else is 0 there is `Mask`.

    The violation is that of the part.

    Gradient: that of the constraint in the part, the identity outside. NaN and infinity outside the
    part are left as they are; those in it as the constraint does.

    References
    ----------
    Keras' users ask for constraints on a part of a kernel: https://github.com/keras-team/keras
    issues 7456 and 20067.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = Masked(nc.NonNeg(), part=((0, 2, None),))
    >>> c(np.array([-1.0, 2.0, -3.0]))
    array([ 0.,  2., -3.])
    >>> Masked(nc.MaxNorm(1.0, axis=0), np.s_[:, 1])(np.array([[3.0, 3.0], [4.0, 4.0]])).round(6)
    array([[3. , 0.6],
           [4. , 0.8]])
    """

    constraint: Constraint
    part: tuple[int | tuple[int | None, int | None, int | None], ...]
    _inherits: ClassVar[tuple[type, ...]] = (Convex,)

    def __post_init__(self) -> None:
        assign(self, constraint=check_constraint(self, self.constraint), part=_check_part(self))

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the constraint has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _span(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({*super()._span(ndim), *range(min(len(self.part), ndim))}))

    def _whole(self, ndim: int) -> tuple[int, ...]:
        # Along the axes that it cuts it has to know which places are its own.
        return tuple(sorted({*super()._whole(ndim), *range(min(len(self.part), ndim))}))

    def _ranges(self, w: Array) -> list[range]:
        """The places along each axis."""
        if len(self.part) > w.ndim:
            raise ValueError(
                f"Masked: part must have an entry for each axis at most, got {len(self.part)} for "
                f"an array with {w.ndim} dimension{'' if w.ndim == 1 else 's'}"
            )
        found = [range(size) for size in w.shape]
        for axis, (entry, size) in enumerate(zip(self.part, w.shape, strict=False)):
            if isinstance(entry, tuple):
                found[axis] = range(*slice(*entry).indices(size))
            elif -size <= entry < size:
                found[axis] = range(entry % size, entry % size + 1)
            else:
                raise ValueError(
                    f"Masked: part must be within the weight, got {entry} for axis {axis}, which "
                    f"has {size} entries"
                )
        return found

    def _project(self, w: Array, xp: Namespace) -> Array:
        ranges = self._ranges(w)
        found = call(self, self.constraint.project, _cut(w, ranges))
        return _put(found, w, ranges, xp)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return call(self, self.constraint.violation, _cut(w, self._ranges(w)))


def _check_part(owner: Masked) -> tuple[Any, ...]:
    rule = (
        "Masked: part must be a tuple with an integer or a (start, stop, step) for each axis, None "
        "for what is left out of it"
    )
    given: Any = owner.part
    if isinstance(given, slice) or (isinstance(given, int) and not isinstance(given, bool)):
        given = (given,)
    if not isinstance(given, tuple | list):
        raise TypeError(f"{rule}, got {given!r}")
    return tuple(_check_place(entry, f"{rule}, got {given!r}") for entry in given)


def _check_place(entry: Any, message: str) -> Any:
    if isinstance(entry, slice):
        entry = (entry.start, entry.stop, entry.step)
    several = isinstance(entry, tuple | list)
    values = entry if several else (entry,)
    try:
        found = tuple(None if several and v is None else _integer(v) for v in values)
    except TypeError:
        raise TypeError(message) from None
    if not several:
        return found[0]
    if len(found) != 3:
        raise TypeError(message)
    if found[2] is not None and found[2] < 1:
        raise ValueError(f"{message}; a step must be at least 1")
    return found


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _cut(w: Array, ranges: list[range]) -> Array:
    """The entries at these places along each axis."""
    for axis, places in enumerate(ranges):
        if len(places) < w.shape[axis]:
            w = _along(w, axis, places)
    return w


def _along(x: Array, axis: int, places: range) -> Array:
    return x[(*(slice(None),) * axis, slice(places.start, places.stop, places.step), ...)]


def _put(found: Array, w: Array, ranges: list[range], xp: Namespace) -> Array:
    """`w` with `found` at these places."""
    if 0 in found.shape:
        return _array.copy(w, xp)
    # Stretched over the whole, no matter with what between, and chosen by masks, which leave a
    # sharded array sharded.
    for axis, places in enumerate(ranges):
        if len(places) < w.shape[axis]:
            found = _stretch(found, axis, places, w.shape[axis], xp)
    for axis, places in enumerate(ranges):
        size = w.shape[axis]
        if len(places) < size:
            chosen = tuple(i in places for i in range(size))
            mask = _array.like(chosen, w, xp, _array.boolean(xp), "Masked: part")
            shape = tuple(size if i == axis else 1 for i in range(w.ndim))
            found = xp.where(xp.reshape(mask, shape), found, w)
    return found


def _stretch(x: Array, axis: int, places: range, size: int, xp: Namespace) -> Array:
    """`x` with its entries at these places of an axis of another size."""
    count, step = len(places), places.step
    if step > 1:
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        x = xp.expand_dims(x, axis=axis + 1)
        x = xp.broadcast_to(x, (*before, count, step, *after))
        x = xp.reshape(x, (*before, count * step, *after))
        x = _along(x, axis, range(min(count * step, size - places.start)))
    edge = _along(x, axis, range(1))

    def filler(length: int) -> list[Array]:
        shape = tuple(length if i == axis else s for i, s in enumerate(x.shape))
        return [xp.broadcast_to(edge, shape)] if length else []

    last = size - places.start - x.shape[axis]
    return xp.concat([*filler(places.start), x, *filler(last)], axis=axis)


@register
@final
@dataclass(frozen=True, eq=False)
class Translated(Composite):
    r"""A set moved to another place: around pretrained weights, say.

    .. math:: c + C = \{ w : w - c \in C \}, \qquad P(w) = c + P_C(w - c)

    Parameters
    ----------
    constraint : Constraint
        The set C.
    center : float or array
        The place c of what was the origin, in the units of the weights: a number, or an array (or
        nested tuples) that broadcasts against the weight.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `center` no number.
    ValueError
        If `center` is not finite, or at the call if its shape does not fit.

    Notes
    -----
    Computed in double precision where the library has it. A difference has an error in proportion
    to what is subtracted: a group counts as inside, and comes back bit for bit, where it is outside
    by at most the norm of the moduli of group and center together, times eps of the dtype where a
    wider one measures and else the tolerance (`normconstraints.tolerance`). That holds for balls
    too, so that they may be left by this much. If the constraint does not say what a group is, the
    whole array is one.

    The violation is that of the moved weight, in the units of the weights.

    Gradient: that of the constraint at ``w - c``, and in the center the identity less that. Groups
    with NaN or infinity come back as the constraint leaves them.

    References
    ----------
    H. Bauschke, P. Combettes, "Convex analysis and monotone operator theory in Hilbert spaces",
    2nd edition, 2017, proposition 29.1.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = Translated(nc.MaxNorm(1.0, axis=0), center=(1.0, 2.0))
    >>> c(np.array([4.0, 6.0])).round(6)
    array([1.6, 2.8])
    >>> c.violation(np.array([4.0, 6.0])).round(6)
    np.float64(4.0)
    """

    constraint: Constraint
    center: Number = field(metadata=PER_ENTRY)
    _inherits: ClassVar[tuple[type, ...]] = (Convex,)

    def __post_init__(self) -> None:
        assign(
            self,
            constraint=check_constraint(self, self.constraint),
            center=check_finite(self, "center", self.center),
        )

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the set has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _group_axes(self, ndim: int) -> tuple[int, ...] | None:
        return group_axes(self.constraint, ndim)

    def _project(self, w: Array, xp: Namespace) -> Array:
        with _array.quiet(xp):
            center, moved = self._moved(w, xp)
            _, inside, axes = self._off(w, center, moved, xp)
            nearest = call(self, self.constraint.project, moved)
            # What the set leaves alone, for whatever reason, is w less nothing: to add the center
            # again would round. The same derivative either way.
            step = xp.where(xp.isfinite(moved), moved - nearest, xp.zeros_like(moved))
            still = widen(w, self._precision(w, xp), xp) - step
            found = xp.where(nearest == moved, still, center + nearest)
            inside = over_entries(inside, axes, xp)
            return xp.where(inside, w, _array.cast(found, w.dtype, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        with _array.quiet(xp):
            center, moved = self._moved(w, xp)
            amount, inside, _ = self._off(w, center, moved, xp)
            found = xp.where(inside, xp.zeros_like(amount), amount)
            return _array.cast(found, precision.real, xp)

    def _moved(self, w: Array, xp: Namespace) -> tuple[Any, Array]:
        """The center and the weight less it, in the dtype that computes."""
        precision = self._precision(w, xp)
        center = _array.entrywise(self.center, w, xp, precision.accumulator, "Translated: center")
        return center, _array.as_array(widen(w, precision, xp) - center, w, xp)

    def _off(
        self, w: Array, center: Any, moved: Array, xp: Namespace
    ) -> tuple[Array, Array, tuple[int, ...] | None]:
        """The violation, which groups count as inside, and the axes of the groups."""
        precision = self._precision(w, xp)
        amount = call(self, self.constraint.violation, moved)
        axes = group_axes(self.constraint, w.ndim)
        spanned = tuple(range(w.ndim)) if axes is None else axes
        sizes = xp.abs(widen(w, precision, xp)) + abs(center)
        norms = measure(sizes, spanned, xp, _array.precision(sizes, xp, "Translated"))
        # Measured in a wider dtype there is one rounding, of the result, and without one also those
        # of the difference and of the set itself.
        share = precision.eps
        if precision.wide is None:
            share = _array.tolerance(precision.eps, _array.group_size(w, spanned), wide=False)
        slack = norms.scaled * share / norms.scale
        slack = xp.squeeze(slack, axis=spanned) if spanned else slack
        near = (amount <= slack) & xp.isfinite(slack)
        if axes is None:
            near = xp.all(near)
            return amount, near | xp.all(amount == 0), axes
        return amount, near | (amount == 0), axes


EXAMPLES: tuple[Any, ...] = (
    Relaxed(MaxNorm(0.5, axis=0), rate=0.25),
    Relaxed(Box(-0.5, 0.25)),
    Masked(MaxNorm(0.3, axis=0), ((0, 6, 2), (None, None, 5))),
    Masked(Box(-0.5, 0.25), ((None, 3, None),)),
    Translated(MaxNorm(0.5, axis=0), (0.1, -1.0, 0.0, 2.0, 1e2, 1e-3)),
    Translated(Simplex(axis=-1), 0.25),
    Translated(Box(-0.5, 0.25), 1.0),
)
