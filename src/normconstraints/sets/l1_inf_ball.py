"""L1-infinity ball: the largest moduli of the inner groups sum to at most a bound."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, Polar, running_count
from normconstraints._oracle import Group, every_digit, positive, with_moduli
from normconstraints._oracle import moduli as exact_moduli
from normconstraints._parameters import (
    PER_SET,
    Axis,
    Number,
    assign,
    check_axis,
    check_group_axis,
    check_number,
)
from normconstraints._random import Draw
from normconstraints._threshold import newton_steps, of_dirichlet
from normconstraints.constraint import Ball, Grouped, HasDualNorm, HasLMO, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_l1_inf_ball(w: Array, radius: Number, *, axis: Axis, group_axis: Axis) -> Array:
    """The nearest array whose largest inner moduli sum to at most `radius`; see `L1InfBall`."""
    with _array.quiet(_array.namespace(w, "L1InfBall")):
        rows = _Rows(w, axis, group_axis)
        groups = rows.groups
        r = groups.number(radius, "radius")
        _, outside = rows.excess(r)
        return groups.put_back(rows.nearest(r), outside)


class _Rows:
    """The inner groups, called rows here, of the groups of one call."""

    def __init__(self, w: Array, axis: Axis, group_axis: Axis) -> None:
        owner = "L1InfBall"
        self.groups = Groups(w, axis, owner, allow_complex=True)
        self.xp = self.groups.xp
        inner = _array.normalise_axis(group_axis, w.ndim, owner)
        rest = tuple(a for a in self.groups.axes if a not in inner)
        if len(rest) + len(inner) != len(self.groups.axes):
            raise ValueError(
                f"{owner}: group_axis must be among axis, got group_axis={group_axis!r} and "
                f"axis={axis!r} for an array with {w.ndim} dimensions"
            )
        self.polar = Polar(self.groups)
        # Sums of a whole group must not overflow.
        self.unit = 2.0 ** -math.ceil(math.log2(max(self.groups.size, 1)))
        self.sizes = self.polar.sizes * self.unit
        self.within = Groups(self.sizes, inner, owner, precision=self.groups.precision)
        self.across = Groups(
            self.within.max(self.sizes), rest, owner, precision=self.groups.precision
        )

    def excess(self, radius: Any) -> tuple[Array, Array]:
        """The distance from the nearest face of the largest moduli, and who is outside."""
        unit = self.unit * self.polar.unit
        bound = radius * unit
        sums = self.across.sum(self.across.wide)
        amount = (sums - bound) / unit / max(self.across.size, 1) ** 0.5
        return amount, sums > bound * (1 + self.groups.ball_slack)

    def nearest(self, radius: Any) -> Array:
        """Every row clipped at a level, which takes the same sum from each row that stays."""
        xp = self.xp
        unit = self.unit * self.polar.unit
        tops = self.across.wide
        mask, active = self._support(radius * unit)
        factor, quantum = self.groups.inward
        rows = self.across.sum(xp.astype(active, tops.dtype))
        bound = radius * unit * factor - quantum * unit * rows
        bound = xp.where(bound > 0, bound, xp.zeros_like(bound))
        level = self._levels(self.sizes, mask, active, bound)
        # Once more for what is left when the levels are taken off: sums of it lose fewer digits.
        rest = xp.where(mask, self.sizes - level, 0.0)
        more = self._levels(rest, mask, active, bound - self.across.sum(level))
        level = level + more
        level = xp.where(level > 0, level, xp.zeros_like(level))
        sizes = xp.where(self.sizes > level, level, self.sizes)
        return self.polar.with_sizes(sizes / self.unit) / self.polar.unit

    def _levels(self, sizes: Array, mask: Array, active: Array, total: Any) -> Array:
        """The levels of the active rows if the entries above them are those of the mask.

        For the sums S of k entries of each row the levels are (S - t) / k, with t such that those
        of the active rows sum to `total`.
        """
        xp = self.xp
        sums = self.within.sum(xp.where(mask, sizes, 0.0))
        count = self.within.count(mask)
        count = xp.where(count > 0, count, 1.0)
        # Relative to the largest: t may have no digits for the total.
        top = self.across.max(xp.where(active, sums, -math.inf))
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
        sums = xp.where(active, sums - top, 0.0)
        inverse = xp.where(active, 1 / count, 0.0)
        slope = self.across.sum(inverse)
        taken = (self.across.sum(sums * inverse) - total) / xp.where(slope > 0, slope, 1.0)
        return xp.where(active, (sums - taken) / count, 0.0)

    def _support(self, total: Any) -> tuple[Array, Array]:
        """The entries above the levels, and the rows whose level is not negative.

        For a sum t that is taken from a row its level is the largest over k of (S - t) / k, with S
        the sum of the k largest entries. The sum of the levels falls with t and is convex, so that
        Newton's method from the left ends after finitely many steps, as in `_threshold`.
        """
        xp, tops = self.xp, self.across.wide
        high = -xp.sort(-self.within.flat(self.sizes), axis=-1)
        sums = _array.running_sum(high, -1, xp)
        k = xp.astype(running_count(high == high, xp), tops.dtype)
        bound = self._rows(total * xp.ones_like(tops))
        # No t is smaller than what one row alone would need; relative to that, for it may have no
        # digits for the total.
        least = xp.max(sums - k * bound, axis=-1, keepdims=True)
        sums = sums - self._rows(
            self.across.max(xp.reshape(least, tops.shape)) * xp.ones_like(tops)
        )
        taken = xp.zeros_like(tops)
        for _ in range(newton_steps(self.groups.size, self.groups.precision.eps)):
            levels = (sums - self._rows(taken)) / k
            best = xp.max(levels, axis=-1, keepdims=True)
            slopes = xp.max(xp.where(levels == best, 1 / k, 0.0), axis=-1, keepdims=True)
            level, slope = xp.reshape(best, tops.shape), xp.reshape(slopes, tops.shape)
            active = level >= 0
            fall = self.across.sum(xp.where(active, slope, 0.0))
            excess = self.across.sum(xp.where(active, level, 0.0)) - total
            taken = taken + excess / xp.where(fall > 0, fall, 1.0)
        level = xp.reshape(xp.max((sums - self._rows(taken)) / k, axis=-1), tops.shape)
        return self.sizes > level, (level >= 0) & (tops > 0)

    def _rows(self, x: Array) -> Array:
        """What there is one of for each row, as a last axis of length 1 behind the other axes."""
        shape = tuple(s for i, s in enumerate(self.groups.w.shape) if i not in self.within.axes)
        return self.xp.reshape(x, (*shape, 1))


@register
@final
@dataclass(frozen=True, eq=False)
class L1InfBall(Grouped, Ball, HasDualNorm, HasLMO, HasSample):
    r"""The largest moduli of the inner groups of every group sum to at most `radius`.

    .. math:: \{ w : \|w_G\|_{1,\infty} = \textstyle\sum_{J \subset G} \max_{i \in J} |w_i| \le r
        \text{ for every group } G \}

    It makes whole inner groups 0 and the large entries of the others alike.

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups.
    axis : int, tuple of int, None or "unit"
        All axes of a group, as in ``numpy.sum(axis=)``, by keyword; all other axes are batch. None
        is the whole array. "unit" is resolved by an adapter from the layer.
    group_axis : int or tuple of int
        Those among `axis` that one inner group J spans.

    Raises
    ------
    TypeError
        If `axis` or `group_axis` is left out, or a parameter is no number.
    ValueError
        If a parameter is out of its range, or at the call if `group_axis` is not among `axis`.

    Notes
    -----
    The projection is unique: every inner group is clipped at a level, so that the same sum is taken
    from each that does not become 0. That sum is found by Newton's method on sorted inner groups.
    Cost: a sort, and two passes over the array for each of at most log2(n) + 12 steps for float32
    (+ 26 for float64). Complex entries keep their phase.
    Where a wider dtype measures, the ball is never left.

    Gradient: exact for the masks that were found. Groups with NaN or infinity come back as they
    are.

    The violation is the distance from the nearest face, the excess divided by the root of the
    number of inner groups, a lower bound of the distance from the ball.

    References
    ----------
    A. Quattoni, X. Carreras, M. Collins, T. Darrell, "An efficient projection for l1,infinity
    regularization", ICML 2009. G. Chau, B. Wohlberg, P. Rodriguez, "Efficient projection onto the
    l-infinity,1 mixed-norm ball using a Newton root search method", SIAM J. Imaging Sci. 12 (2019).

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[3.0, 2.0], [0.5, 0.25], [1.0, -2.0]])
    >>> L1InfBall(3.0, axis=None, group_axis=1)(w).round(6)
    array([[ 2.,  2.],
           [ 0.,  0.],
           [ 1., -1.]])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis
    group_axis: Axis = field(metadata=PER_SET)

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_axis(self, self.axis),
            group_axis=check_group_axis(self, self.group_axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_l1_inf_ball(w, self.radius, axis=self.axis, group_axis=self.group_axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        with _array.quiet(xp):
            rows = _Rows(w, self.axis, self.group_axis)
            radius = rows.groups.number(self.radius, "radius")
            return rows.groups.report(*rows.excess(radius))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        rows = _Rows(g, self.axis, self.group_axis)
        radius = rows.groups.number(self.radius, "radius") * (1 - 4 * rows.groups.precision.unit)
        chosen = rows.across.top(rows.within.sum(rows.sizes))
        lengths = xp.where(chosen & (rows.sizes > 0), -radius, 0.0 * rows.sizes)
        ends = rows.polar.with_sizes(lengths)
        return rows.groups.put_back(ends, _array.trues_like(ends, xp))

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        rows = _Rows(g, self.axis, self.group_axis)
        largest = rows.across.max(rows.within.sum(rows.sizes)) / rows.unit / rows.polar.unit
        return rows.groups.report(largest, _array.trues_like(largest, xp))

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        rows = _Rows(like, self.axis, self.group_axis)
        radius = rows.groups.number(self.radius, "radius")
        levels = of_dirichlet(rows.across, draw, radius, solid=True)
        d = draw.direction()
        return d * (levels * draw.uniform() / abs(d))


def slow_projection(group: Group, radius: Decimal, parts: list[list[int]]) -> Group:
    """Between the neighbours that enclose the right sum, of all at which a mask changes."""
    sizes = exact_moduli(group)
    rows = [[sizes[i] for i in part] for part in parts]
    if sum(max(row) for row in rows) <= radius:
        return group

    def level(row: list[Decimal], taken: Decimal) -> Decimal:
        """The level above which the entries of a row have that sum, 0 if they have less."""
        high = sorted(row, reverse=True)
        return positive(max(sum(high[:j], -taken) / j for j in range(1, len(row) + 1)))

    with every_digit():
        # Levels fall as more is taken, and are linear between the sums at which one meets an entry
        # or 0.
        ends = sorted(
            {sum((x - y for x in row if x > y), y * 0) for row in rows for y in (*row, radius * 0)}
        )
        last = bisect_left(ends, True, key=lambda t: sum((level(r, t) for r in rows), -radius) <= 0)
        left, right = ends[max(last - 1, 0)], ends[last]
        before, after = ([level(row, t) for row in rows] for t in (left, right))
        fall = sum(before) - sum(after)
        share = (sum(before) - radius) / fall if fall else fall
        levels = [a + (b - a) * share for a, b in zip(before, after, strict=True)]
    for part, bound in zip(parts, levels, strict=True):
        for i in part:
            sizes[i] = min(sizes[i], bound)
    return with_moduli(group, sizes)


def slow_violation(group: Group, radius: Decimal, parts: list[list[int]]) -> Decimal:
    """By definition."""
    sizes = exact_moduli(group)
    excess = sum((max(sizes[i] for i in part) for part in parts), -radius)
    return positive(excess) / (radius * 0 + len(parts)).sqrt()


EXAMPLES: tuple[Any, ...] = (
    L1InfBall(1.0, axis=None, group_axis=0),
    L1InfBall(2.0, axis=(0, 1), group_axis=1),
    L1InfBall((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=(1,), group_axis=(1,)),
)
