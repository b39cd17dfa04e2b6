"""Non-negative unit norm: entries are >= 0 and every group has a Euclidean norm of 1."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._norms import Norms, lengthen, measure
from normconstraints._oracle import Group, length, positive, scaled
from normconstraints._parameters import Axis, assign, check_axis
from normconstraints._random import Draw
from normconstraints.constraint import (
    Grouped,
    HasLMO,
    HasSample,
    HasTangent,
    ZeroStays,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_non_neg_unit_norm(w: Array, *, axis: Axis) -> Array:
    """A nearest array with entries >= 0 and groups of norm 1; see `NonNegUnitNorm`."""
    groups = Groups(w, axis, "NonNegUnitNorm")
    with _array.quiet(groups.xp):
        outside = _outside(groups, _measure(groups, w))
        zero = groups.every(~(groups.xp.abs(w) > 0))
        return groups.put_back(_furthest(groups, w), outside & ~zero)


def _measure(groups: Groups, w: Array) -> Norms:
    return measure(w, groups.axes, groups.xp, groups.precision)


def _outside(groups: Groups, norms: Norms) -> Array:
    """Groups with a negative entry or of another norm than 1."""
    return norms.off(1.0) | norms.zero | ~groups.every(groups.wide >= 0)


def _furthest(groups: Groups, x: Array) -> Array:
    """The members with the largest inner products with the groups of `x`.

    The positive part divided by its norm; where nothing is positive, 1 at the largest entry.
    """
    xp = groups.xp
    above = xp.where(x > 0, x, xp.zeros_like(x))
    norms = _measure(groups, above)
    pointed = norms.scaled > 0
    there = lengthen(above, norms, 1.0, pointed & norms.finite, groups.precision)
    wide = groups.widen(x)
    top = groups.top(wide)
    return xp.where(pointed, there, xp.astype(top, x.dtype))


@register
@final
@dataclass(frozen=True, eq=False)
class NonNegUnitNorm(Grouped, ZeroStays, HasLMO, HasTangent, HasSample):
    r"""Entries are >= 0 and the Euclidean norm of every group is 1.

    .. math:: \{ w : w_i \ge 0, \|w_G\|_2 = 1 \text{ for every group } G \}

    Parameters
    ----------
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or at the call if the weight is complex.
    ValueError
        At the call, if an axis does not exist.

    Notes
    -----
    The positive part of a group divided by its norm. Where nothing is positive, the unit vector at
    the largest entry, the first of those. The set is no convex one; the projection is unique unless
    nothing is positive and the largest entry is there twice. A group of zeros has no direction and
    stays at zero, with a violation of 1. A group without negative entries whose norm is 1 within
    the rounding of its dtype comes back bit for bit. Cost: three passes over the array. The
    dictionary of non-negative sparse coding and the factors of a non-negative matrix factorisation
    are such groups.

    Gradient: :math:`(I - p p^T) M / n` with the result p, the mask M of the positive entries and
    the norm n of those; 0 where nothing is positive, the identity in the set and at zero. Groups
    with NaN or infinity come back as they are.

    The violation is the largest of the negative entries and the distance of the norm from 1. A
    sample is uniformly distributed over the set.

    References
    ----------
    P. O. Hoyer, "Non-negative sparse coding", IEEE Workshop on Neural Networks for Signal
    Processing 2002.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[3.0, -2.0], [4.0, -1.0], [-9.0, -5.0]])
    >>> NonNegUnitNorm(axis=0)(w).round(6)
    array([[0.6, 0. ],
           [0.8, 1. ],
           [0. , 0. ]])
    """

    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(self, axis=check_axis(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_non_neg_unit_norm(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "NonNegUnitNorm")
        with _array.quiet(xp):
            norms = _measure(groups, w)
            off, below = abs(norms.length - 1.0), groups.max(-groups.wide)
            amount = xp.where(below > off, below, off)
            return groups.report(amount, _outside(groups, norms))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "NonNegUnitNorm")
        return groups.put_back(_furthest(groups, -g), groups.finite)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "NonNegUnitNorm")
        h, scale = groups.shrunk()
        p, free = groups.widen(w), w > 0
        # Along the sphere where entries are positive; elsewhere a step must not make them negative.
        slope = groups.sum(p * h)
        square = groups.sum(p * p)
        along = h - p * (slope / xp.where(square > 0, square, 1.0))
        part = xp.where(free, along, xp.where(h < 0, h, xp.zeros_like(h)))
        finite = groups.finite & groups.every(xp.isfinite(w))
        return groups.put_back(part / scale, finite & (square > 0), finite)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return _array.cast(xp.abs(draw.normal()), like.dtype, xp)


def slow_projection(group: Group) -> Group:
    """By definition, in as many digits as the decimal context has."""
    above: Group = [(positive(x),) for (x,) in group]
    norm = length(above)
    if norm:
        return scaled(above, 1 / norm)
    if not any(x for (x,) in group):
        return group
    top = max(range(len(group)), key=lambda i: (group[i], -i))
    return [(norm + int(i == top),) for i in range(len(group))]


def slow_violation(group: Group) -> Decimal:
    """By definition."""
    return max(abs(length(group) - 1), *(-x for (x,) in group))


EXAMPLES: tuple[Any, ...] = (
    NonNegUnitNorm(axis=0),
    NonNegUnitNorm(axis=1),
    NonNegUnitNorm(axis=None),
)
