"""Slab: the inner product of every group with a normal lies between two bounds."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Planes, check_normal, of_normal
from normconstraints._oracle import Group
from normconstraints._parameters import (
    PER_ENTRY,
    Axis,
    Number,
    assign,
    check_axis,
    check_finite,
    check_order,
)
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_slab(w: Array, normal: Number, lower: Number, upper: Number, *, axis: Axis) -> Array:
    """The nearest array with inner products with `normal` from `lower` to `upper`; see `Slab`."""
    groups = Groups(w, axis, "Slab")
    with _array.quiet(groups.xp):
        planes = Planes(groups, normal)
        low, high = _bounds(planes, lower, upper)
        below, above = _sides(planes, low, high)
        goal = groups.xp.where(above, high, low)
        return planes.put_back(planes.onto(goal), below | above)


def _bounds(planes: Planes, lower: Number, upper: Number) -> tuple[Array, Array]:
    xp = planes.groups.xp
    zero = xp.zeros_like(planes.dot)
    return zero + planes.offset(lower, "lower"), zero + planes.offset(upper, "upper")


def _sides(planes: Planes, low: Array, high: Array) -> tuple[Array, Array]:
    """The groups below the lower bound, and those above the upper one."""
    return planes.off(low) < -planes.slack, planes.off(high) > planes.slack


@register
@final
@dataclass(frozen=True, eq=False)
class Slab(Grouped, Convex, HasTangent, HasSample):
    r"""The inner product of every group with `normal` lies between `lower` and `upper`.

    .. math:: \{ w : l \le a_G^T w_G \le u \text{ for every group } G \}

    Parameters
    ----------
    normal : float or array
        The normal a: one number for all entries, or an array (or nested tuples) that broadcasts
        against the weight. Not all 0.
    lower, upper : float or array
        The bounds l <= u: numbers, or arrays (or nested tuples) that broadcast against the groups.
        For one bound alone see `HalfSpace`.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, a parameter is no number, or at the call if the weight is complex.
    ValueError
        If a parameter is not finite, the normal is all 0, or lower > upper.

    Notes
    -----
    The projection is unique: that onto the hyperplane of the bound that is passed, taken twice as
    that of `Hyperplane`. Cost: five passes over the array, about ten in double.

    Gradient: the identity inside, :math:`I - a a^T / \|a\|^2` outside; on a bound one of the two.
    Groups with NaN or infinity come back as they are. So does a group whose own part of the normal
    is all 0 while others' is not: it has no planes, and its violation is NaN.

    The violation is the distance from the slab, :math:`\max(l - a^T w, a^T w - u, 0) / \|a\|`.

    References
    ----------
    A. Beck, "First-order methods in optimization", 2017, lemma 6.26.

    Examples
    --------
    >>> import numpy as np
    >>> c = Slab((3.0, 4.0), -5.0, 5.0, axis=1)
    >>> c(np.array([[3.0, 4.0], [-3.0, -4.0], [0.3, 0.4]])).round(6)
    array([[ 0.6,  0.8],
           [-0.6, -0.8],
           [ 0.3,  0.4]])
    """

    normal: Number = field(metadata=PER_ENTRY)
    lower: Number
    upper: Number
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            normal=check_normal(self, "normal", self.normal),
            lower=check_finite(self, "lower", self.lower),
            upper=check_finite(self, "upper", self.upper),
            axis=check_axis(self, self.axis),
        )
        check_order(self, "lower", "upper")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_slab(w, self.normal, self.lower, self.upper, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Slab")
        with _array.quiet(xp):
            planes = Planes(groups, self.normal)
            low, high = _bounds(planes, self.lower, self.upper)
            below, above = _sides(planes, low, high)
            off = xp.where(above, planes.off(high), planes.off(low))
            return planes.report(off, below | above)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        at = Planes(Groups(w, self.axis, "Slab"), self.normal)
        step = Planes(Groups(g, self.axis, "Slab"), self.normal)
        low, high = _bounds(at, self.lower, self.upper)
        # The step is against the gradient.
        up = (at.off(high) >= -at.slack) & (step.dot < 0)
        down = (at.off(low) <= at.slack) & (step.dot > 0)
        return step.put_back(step.across(), up | down)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group, normal: list[Decimal], lower: Decimal, upper: Decimal) -> Group:
    """The inner product clipped, and the group moved along the normal until it has that one."""
    product = _product(group, normal)
    step = (product - min(max(product, lower), upper)) / sum(a * a for a in normal)
    return [(x - step * a,) for (x,), a in zip(group, normal, strict=True)] if step else group


def slow_violation(group: Group, normal: list[Decimal], lower: Decimal, upper: Decimal) -> Decimal:
    """By definition."""
    product = _product(group, normal)
    off = max(lower - product, product - upper, lower * 0)
    return off / (lower * 0 + sum(a * a for a in normal)).sqrt()


def _product(group: Group, normal: list[Decimal]) -> Decimal:
    return sum((x * a for (x,), a in zip(group, normal, strict=True)), normal[0] * 0)


EXAMPLES: tuple[Any, ...] = (
    Slab(-2.0, -0.25, 0.75, axis=None),
    Slab((1.0, -0.5, 0.0, 2.5, 1e-3, -1.75), 0.125, 0.5, axis=1),
    Slab(
        tuple(
            (x, 1.0, -x, 3.0, x * x, 1e3) for x in (0.5, 1.25, -2.0, 3.0, 0.125, 1.5, -0.75, 2.0)
        ),
        (-0.5, 1.0, -2.0, 0.0, -1e3, 0.25),
        (0.5, 1.0, -1.0, 0.0, 1e3, 0.5),
        axis=0,
    ),
)
