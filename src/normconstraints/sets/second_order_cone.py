"""Second-order cone: the norm of all entries of a group but the last is at most the last."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, running_count
from normconstraints._linear import of_normal, square_error, sum_of_squares, unshrunk
from normconstraints._norms import measure
from normconstraints._oracle import Group, positive, square
from normconstraints._parameters import Axis, assign, check_axis
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_second_order_cone(w: Array, *, axis: Axis) -> Array:
    """The nearest array whose groups are in the cone; see `SecondOrderCone`."""
    cone = _Cone(Groups(w, axis, "SecondOrderCone"))
    with _array.quiet(cone.groups.xp):
        return cone.groups.put_back(cone.nearest(), cone.outside)


class _Cone:
    """The groups of a weight beside the cone, times a power of two where squares could overflow."""

    def __init__(self, groups: Groups) -> None:
        xp = groups.xp
        self.groups = groups
        flat = running_count(groups.flat(_array.trues_like(groups.w, xp)), xp)
        self.last = groups.unflat(flat == groups.size)
        with _array.quiet(xp):
            norms = measure(groups.w, groups.axes, xp, groups.precision)
            y, self.scale = norms.measured, norms.scale
            self.x = xp.where(self.last, 0.0, y)
            self.t = groups.sum(xp.where(self.last, y, 0.0))
            squares, self.error = sum_of_squares(self.x, groups)
            # The root of 0 has an infinite derivative, which a mask would turn into NaN.
            zero = squares == 0
            self.norm = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squares)))
            p = groups.precision
            rounding = groups.size**0.5 * p.smallest * p.eps * self.scale
            self.slack = groups.slack * abs(self.t) + rounding
            """How far the norm may be above the last entry and count as right."""
        self.squares = squares
        self.excess = self.norm - self.t
        self.outside = self.excess > self.slack

    def nearest(self) -> Array:
        """The groups of the cone nearest to those outside, 0 where the polar cone holds them."""
        xp = self.groups.xp
        # Where t is negative n + t cancels: it is (n^2 - t^2) / (n - t), with squares in twice the
        # digits.
        square = self.t * self.t
        left = (self.squares - square) + (self.error - square_error(self.t, square, self.groups))
        divide = self.outside & (self.t < 0)
        quotient = left / xp.where(divide, self.excess, 1.0)
        sum_ = xp.where(divide, quotient, self.norm + self.t)
        beside = self.outside & (sum_ > 0)
        middle = xp.where(beside, sum_, 0.0) / 2
        # The direction of x, made large where the group was made small: derivatives are multiplied
        # by both factors one after the other, and must not overflow in between.
        large, less = 1.0, 1.0
        if type(self.scale) is not float:
            ones, exponent = xp.ones_like(self.scale), self.groups.precision.exponent
            large = xp.where(self.scale < 1, 2.0 ** (exponent * 3 // 10), ones)
            less = xp.where(self.scale < 1, 2.0 ** (-3 - exponent // 128), ones)
        direction = self.x * (large / xp.where(beside, self.norm, 1.0))
        x = direction * (unshrunk(middle * less, self.scale) * (1 / less / large))
        return xp.where(self.last, unshrunk(middle, self.scale), x)


@register
@final
@dataclass(frozen=True, eq=False)
class SecondOrderCone(Grouped, Convex, HasTangent, HasSample):
    r"""The norm of all entries of every group but the last is at most the last.

    .. math:: \{ w : \|x\|_2 \le t \text{ where } w_G = (x, t) \text{ for every group } G \}

    Also called the Lorentz or ice-cream cone.

    Parameters
    ----------
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. The entries are in the order of the weight (C order) over these axes: t is the one
        with the highest indices. None is the whole array. "unit" is resolved by an adapter from the
        layer.

    Raises
    ------
    TypeError
        If `axis` is left out or is no axis, or at the call if the weight is complex.

    Notes
    -----
    The projection is unique. With the norm n of x: the group itself where :math:`n \le t`, 0 where
    :math:`n \le -t`, else :math:`\frac{n + t}{2} (x / n, 1)`. Norms are taken in twice the
    precision, or of groups scaled by a power of two, so that nothing overflows or underflows; in
    double squares are summed with their rounding errors, so that a result that is much smaller than
    the group, close to the second case, is right too. Cost: four passes over the array, about
    twelve in double.

    Gradient: the identity inside, 0 in the second case; in the third, with u = x / n, the block of
    x is :math:`\frac{1}{2} ((1 + t / n) I - (t / n) u u^T)`, that of t is 1/2, and the two beside
    them are u / 2. Groups with NaN or infinity come back as they are.

    The violation is :math:`(n - t) / \sqrt{2}`, the distance from the half-space that supports the
    cone in the direction of x: that from the cone itself, unless the nearest member is 0.

    References
    ----------
    A. Beck, "First-order methods in optimization", 2017, example 6.37.

    Examples
    --------
    >>> import numpy as np
    >>> SecondOrderCone(axis=1)(np.array([[3.0, 4.0, 0.0], [0.3, 0.4, 1.0], [0.3, 0.4, -1.0]]))
    array([[1.5, 2. , 2.5],
           [0.3, 0.4, 1. ],
           [0. , 0. , 0. ]])
    """

    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(self, axis=check_axis(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_second_order_cone(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        cone = _Cone(Groups(w, self.axis, "SecondOrderCone"))
        with _array.quiet(xp):
            amount = unshrunk(cone.excess / 2**0.5, cone.scale)
            return cone.groups.report(amount, cone.outside)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        at = _Cone(Groups(w, self.axis, "SecondOrderCone"))
        groups = Groups(g, self.axis, "SecondOrderCone")
        # At 0 the tangent cone is the cone itself.
        step = _Cone(Groups(-g, self.axis, "SecondOrderCone"))
        apex = xp.where(step.outside, -step.nearest(), groups.wide)
        # On the rest of the boundary it is the half-space with the normal (x / n, -1).
        y, scale = groups.shrunk()
        along = at.x / xp.where(at.norm > 0, at.norm, 1.0)
        normal = xp.where(at.last, -xp.ones_like(along), along)
        inward = groups.sum(normal * y)
        part = xp.where((inward < 0) & (at.excess >= -at.slack), inward, 0.0) / 2
        side = unshrunk(y - normal * part, scale)
        zero = (at.norm == 0) & (at.t == 0)
        return groups.put_back(xp.where(zero, apex, side), at.groups.finite)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group) -> Group:
    """The nearest point of the ray through (x, |x|), the best of those of all directions of x."""
    *x, (t,) = group
    norm = (t * 0 + (square(x) if x else 0)).sqrt()
    if norm <= t:
        return group
    reach = positive(norm + t) / 2
    return [*((reach * e / norm,) for (e,) in x), (reach,)]


def slow_violation(group: Group) -> Decimal:
    """By definition."""
    *x, (t,) = group
    norm = (t * 0 + (square(x) if x else 0)).sqrt()
    return positive(norm - t) / (t * 0 + 2).sqrt()


EXAMPLES: tuple[Any, ...] = (
    SecondOrderCone(axis=0),
    SecondOrderCone(axis=None),
    SecondOrderCone(axis=(1,)),
)
