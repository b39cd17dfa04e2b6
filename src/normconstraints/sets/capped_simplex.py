"""Capped simplex: entries between bounds whose weighted sum is a total in every group."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, entry_at, running_count
from normconstraints._oracle import Group, every_digit
from normconstraints._parameters import (
    PER_ENTRY,
    Axis,
    Number,
    assign,
    check_axis,
    check_bound,
    check_finite,
    check_number,
    check_order,
    extent,
)
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasLMO, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_capped_simplex(
    w: Array,
    lower: Number | None,
    upper: Number | None,
    total: Number,
    weights: Number = 1.0,
    *,
    axis: Axis,
) -> Array:
    """The nearest array between the bounds with weighted sums of `total`; see `CappedSimplex`."""
    groups = Groups(w, axis, "CappedSimplex")
    with _array.quiet(groups.xp):
        section = _Section(groups, lower, upper, total, weights)
        _, outside = section.excess()
        return groups.put_back(section.nearest(), outside)


class _Section:
    """The bounds, weights and totals of one call."""

    def __init__(
        self,
        groups: Groups,
        lower: Number | None,
        upper: Number | None,
        total: Number,
        weights: Number,
    ) -> None:
        self.groups = groups
        self.xp = xp = groups.xp
        self._check(lower, upper, total, weights)
        ones = xp.ones_like(groups.wide)
        # The weights at least 1, so that multipliers do not overflow.
        unit = 2.0 ** math.floor(math.log2(extent(weights)[0]))
        self.weights = groups.entries(weights, "weights") / unit * ones
        # And all else so small that sums do not overflow where nothing wider takes them.
        self.w, self.down = groups.shrunk()
        self.total = groups.number(total, "total") / unit * self.down
        self.low = self._bound(lower, "lower", -math.inf) * ones * self.down
        self.high = self._bound(upper, "upper", math.inf) * ones * self.down
        # What one bound and the total imply for the other.
        if lower is not None:
            room = self.total - groups.sum(self.low * self.weights)
            self.most = _smaller(self.high, self.low + room / self.weights, xp)
        else:
            self.most = self.high
        if upper is not None:
            room = self.total - groups.sum(self.high * self.weights)
            self.least = -_smaller(-self.low, -(self.high + room / self.weights), xp)
        else:
            self.least = self.low

    def _bound(self, value: Number | None, name: str, missing: float) -> Any:
        """A bound as the dtype of the weight holds it, in the dtype that computes."""
        groups = self.groups
        if value is None:
            return missing
        if isinstance(value, float):
            return _array.representable(value, groups.precision)
        entries = groups.entries(value, name)
        return groups.widen(_array.cast(entries, groups.w.dtype, groups.xp))

    def _check(self, *values: Any) -> None:
        """Refuse numbers between which there is no group of this size with that total."""
        if self.groups.size == 0 or not all(v is None or isinstance(v, float) for v in values):
            return
        lower, upper, total, weights = values
        least = -math.inf if lower is None else lower * weights * self.groups.size
        most = math.inf if upper is None else upper * weights * self.groups.size
        slack = self.groups.slack * max(abs(total), abs(most if upper is not None else total))
        if not least - slack <= total <= most + slack:
            raise ValueError(
                f"CappedSimplex: total must be from {least:g} to {most:g} for groups of "
                f"{self.groups.size} entries between {lower} and {upper} with weights {weights}, "
                f"got {total!r}"
            )

    def excess(self) -> tuple[Array, Array]:
        """The largest excess over a bound and the distance from the plane; who is outside."""
        groups, xp, w = self.groups, self.xp, self.w
        below, above = self.low - w, w - self.high
        beyond = groups.max(xp.where(below > above, below, above))
        parts = w * self.weights
        off = abs(groups.sum(parts) - self.total)
        floor = groups.size * groups.quantum * self.down * groups.max(self.weights)
        allowed = groups.slack * (groups.sum(abs(parts)) + abs(self.total)) + floor
        amount = off / xp.sqrt(groups.sum(self.weights * self.weights))
        amount = xp.where(beyond > amount, beyond, amount) / self.down
        return amount, (off > allowed) | (beyond > 0)

    def nearest(self) -> Array:
        """Clipped at the multiplier that the sorted ends of the entries' ranges enclose."""
        groups, xp, a = self.groups, self.groups.xp, self.weights
        w = self.w
        # The multiplier at which an entry leaves its upper bound, and at which it meets its lower.
        leaves, meets = (w - self.most) / a, (w - self.least) / a
        start, end = self._enclosing([leaves, meets], lambda theta, p: _clip(p.w - theta * p.a, p))
        at_high, at_low = leaves >= end, meets <= start
        free = ~(at_high | at_low)
        fixed = xp.where(at_high, self.most, xp.where(at_low, self.least, 0.0 * w))
        rest = self.total - groups.sum(fixed * a)
        x = xp.where(free, w, 0.0)
        slope = groups.sum(xp.where(free, a * a, 0.0))
        slope = xp.where(slope > 0, slope, 1.0)
        for want in (0.0, rest):  # a second time for what the first one rounds
            x = xp.where(free, x - (groups.sum(a * x) - want) / slope * a, 0.0)
        x = _clip(xp.where(free, x, fixed), self)
        # Ends that the numbers do not tell apart: what is missing goes to the entries between them
        # that have room for it.
        between = free | ((leaves == meets) & (leaves >= start) & (leaves <= end))
        missing = self.total - groups.sum(a * x)
        between = between & xp.where(missing > 0, x < self.most, x > self.least)
        slope = groups.sum(xp.where(between, a * a, 0.0))
        step = missing / xp.where(slope > 0, slope, 1.0)
        return _clip(xp.where(between, x + step * a, x), self) / self.down

    def vertex(self) -> Array:
        """The entries that lower the inner product with the weight most at their upper bounds."""
        groups, xp, a = self.groups, self.groups.xp, self.weights
        order = -self.w / a
        last, _ = self._enclosing(
            [order], lambda theta, p: xp.where(-p.w / p.a >= theta, p.most, p.least)
        )
        x = xp.where(order > last, self.most, self.least)
        room = xp.where(order == last, self.most - self.least, 0.0)
        slope = groups.sum(room * a)
        missing = (self.total - groups.sum(a * x)) / xp.where(slope > 0, slope, 1.0)
        return _clip(x + missing * room, self) / self.down

    def _enclosing(
        self, ends: list[Array], at: Callable[[Any, _Flat], Array]
    ) -> tuple[Array, Array]:
        """The neighbours among all ends between which the weighted sum passes the total.

        ``at(theta, flat)`` are the entries for a multiplier.
        """
        groups, xp = self.groups, self.groups.xp
        ends_ = xp.sort(xp.concat([groups.flat(e) for e in ends], axis=-1), axis=-1)
        place, count = running_count(ends_ == ends_, xp), ends_.shape[-1]
        flat = _Flat(xp, *(groups.flat(x) for x in (self.w, self.least, self.most, self.weights)))
        total = groups.flat_one(self.total)
        # By halving: at how many ends the sum is at least the total.
        passed = xp.astype(0 * total, xp.int32)
        for bit in reversed(range(count.bit_length())):
            tried = passed + (1 << bit)
            x = at(entry_at(ends_, tried, xp, place), flat)
            enough = _array.accurate_sum(x * flat.a, (x.ndim - 1,), xp) >= total
            passed = xp.where(enough & (tried <= count), tried, passed)
        start = xp.where(passed > 0, entry_at(ends_, passed, xp, place), -math.inf)
        end = xp.where(passed < count, entry_at(ends_, passed + 1, xp, place), math.inf)
        shape = groups.max(self.w).shape
        return xp.reshape(start, shape), xp.reshape(end, shape)


@dataclass(frozen=True)
class _Flat:
    """A section with each group along the last axis."""

    xp: Namespace
    w: Array
    least: Array
    most: Array
    a: Array


def _clip(x: Array, bounds: Any) -> Array:
    xp = bounds.xp
    return xp.where(x < bounds.least, bounds.least, xp.where(x > bounds.most, bounds.most, x))


def _smaller(x: Array, y: Array, xp: Namespace) -> Array:
    return xp.where(x < y, x, y)


@register
@final
@dataclass(frozen=True, eq=False)
class CappedSimplex(Grouped, Convex, HasLMO, HasSample):
    r"""The entries of every group lie between bounds, and their weighted sum is `total`.

    .. math:: \{ w : l_i \le w_i \le u_i, \textstyle\sum_{i \in G} a_i w_i = s
        \text{ for every group } G \}

    Portfolios with limits, the k-subset polytope (0, 1, k), the dual of a support vector machine.

    Parameters
    ----------
    lower, upper : float, array or None
        The bounds l <= u, in the units of the weights: numbers, arrays (or nested tuples) that
        broadcast against the weight, or None for no bound on that side. They are rounded to the
        dtype of the weight.
    total : float or array
        The sum s, in the units of the weights: one number, or an array (or nested tuples) that
        broadcasts against the groups.
    weights : float or array, default 1.0
        The factors a > 0, without unit: a number, or an array that broadcasts against the weight.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, a parameter is no number, or at the call if the weight is complex.
    ValueError
        If a parameter is out of its range, or at the call if all are numbers and no group of that
        size has such a sum. Where they are arrays, a group without members ends at the bounds, and
        the violation says so.

    Notes
    -----
    The projection is unique: :math:`\mathrm{clip}(w_i - \theta a_i, l_i, u_i)`. The 2 n multipliers
    at which an entry meets a bound are sorted, the two neighbours that enclose :math:`\theta` are
    found by halving, which leaves the entries between the bounds, and those are a plane. Cost: a
    sort, and log2(2 n) + 1 passes over the array.

    Gradient: that of the plane for the entries between their bounds, 0 for the others. Groups with
    NaN or infinity come back as they are.

    The violation is the largest of the excesses over the bounds and the distance from the plane.

    References
    ----------
    K. Kiwiel, "Breakpoint searching algorithms for the continuous quadratic knapsack problem",
    Math. Programming 112 (2008).

    Examples
    --------
    >>> import numpy as np
    >>> CappedSimplex(0.0, 0.5, 1.0, axis=0)(np.array([2.0, 0.25, 0.0]))
    array([0.5  , 0.375, 0.125])
    """

    lower: Number | None = field(metadata=PER_ENTRY)
    upper: Number | None = field(metadata=PER_ENTRY)
    total: Number
    weights: Number = field(default=1.0, metadata=PER_ENTRY)
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            lower=check_bound(self, "lower", self.lower, missing=-math.inf),
            upper=check_bound(self, "upper", self.upper, missing=math.inf),
            total=check_finite(self, "total", self.total),
            weights=check_number(self, "weights", self.weights, above=0, strict=True),
            axis=check_axis(self, self.axis),
        )
        if self.lower is None and self.upper is None:
            raise ValueError(
                "CappedSimplex: lower or upper must be given, got None for both; use Hyperplane"
            )
        check_order(self, "lower", "upper")

    def _section(self, w: Array) -> _Section:
        groups = Groups(w, self.axis, "CappedSimplex")
        return _Section(groups, self.lower, self.upper, self.total, self.weights)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_capped_simplex(
            w, self.lower, self.upper, self.total, self.weights, axis=self.axis
        )

    def _violation(self, w: Array, xp: Namespace) -> Array:
        with _array.quiet(xp):
            section = self._section(w)
            return section.groups.report(*section.excess())

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        if self.lower is None or self.upper is None:
            raise ValueError(
                f"CappedSimplex: lower and upper must be given for a linear minimiser, got {self!r}"
            )
        section = self._section(g)
        return section.groups.put_back(section.vertex(), _array.trues_like(g, xp))

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        section = self._section(like)
        x = draw.normal()
        if self.lower is not None and self.upper is not None:
            x = (section.low + (section.high - section.low) * draw.uniform()) / section.down
        return x


def slow_projection(
    group: Group,
    lower: list[Decimal] | None,
    upper: list[Decimal] | None,
    total: Decimal,
    weights: list[Decimal],
) -> Group:
    """Between the neighbours that enclose the multiplier, of all that meet a bound."""
    w = [x for (x,) in group]

    def at(theta: Decimal) -> list[Decimal]:
        x = [y - theta * a for y, a in zip(w, weights, strict=True)]
        x = x if lower is None else [max(y, b) for y, b in zip(x, lower, strict=True)]
        return x if upper is None else [min(y, b) for y, b in zip(x, upper, strict=True)]

    def excess(theta: Decimal) -> Decimal:
        return sum((a * y for a, y in zip(weights, at(theta), strict=True)), -total)

    with every_digit():
        ends = {
            (x - b) / a
            for bounds in (lower, upper)
            for x, b, a in zip(w, bounds or w, weights, strict=True)
            if bounds is not None
        }
        # Beyond the ends the sum is linear too, or constant: far enough for any total.
        far = 1 + sum((abs(x) / a for x, a in zip(w, weights, strict=True)), abs(total))
        far += max((abs(e) for e in ends), default=far) + abs(total) / min(weights)
        order = [-far, *sorted(ends), far]
        last = bisect_left(order, True, key=lambda theta: excess(theta) <= 0)
        last = min(max(last, 1), len(order) - 1)
        left, right = order[last - 1], order[last]
        high, low = excess(left), excess(right)
        share = high / (high - low) if high != low else high * 0
        return [(a + (b - a) * share,) for a, b in zip(at(left), at(right), strict=True)]


def slow_violation(
    group: Group,
    lower: list[Decimal] | None,
    upper: list[Decimal] | None,
    total: Decimal,
    weights: list[Decimal],
) -> Decimal:
    """By definition."""
    w = [x for (x,) in group]
    below = [b - x for b, x in zip(lower or [], w, strict=lower is not None)]
    above = [x - b for b, x in zip(upper or [], w, strict=upper is not None)]
    off = sum((a * x for a, x in zip(weights, w, strict=True)), -total)
    return max([abs(off) / sum((a * a for a in weights), total * 0).sqrt(), *below, *above])


EXAMPLES: tuple[Any, ...] = (
    CappedSimplex(0.0, 0.5, 1.0, axis=0),
    CappedSimplex(-0.25, None, 1.0, ((0.5, 1.0, 2.0, 4.0, 1.0, 3.0),), axis=None),
    CappedSimplex(
        (-0.5, 0.0, 0.0, -1.0, -0.25, 0.0),
        (0.5, 1.0, 0.25, 1.0, 0.25, 2.0),
        (0.1, 1.0, 2.5, -1.0, 3.0, 0.0, 0.75, 1.5),
        axis=-1,
    ),
)
