"""Monotone: the entries of every group are in order along an axis."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, running_count
from normconstraints._oracle import Group
from normconstraints._order import both_finite, check_single_axis
from normconstraints._parameters import PER_SET, Axis, assign, check_switch
from normconstraints.constraint import Convex, HasTangent, HasVJP, Quadratic, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_monotone(w: Array, *, axis: Axis, increasing: bool = True) -> Array:
    """The nearest array whose groups are in order; see `Monotone`."""
    groups = Groups(w, axis, "Monotone")
    with _array.quiet(groups.xp):
        y = _rising(groups, groups.wide, increasing)
        fall = _fall(groups, y)
        nearest = _from_rising(groups, _isotonic(groups, y), increasing)
        return groups.put_back(nearest, groups.max(fall) > 0)


def _rising(groups: Groups, x: Array, increasing: bool) -> Array:
    """`x` with the groups along the last axis, turned so that they are to increase."""
    return groups.flat(x if increasing else -x)


def _from_rising(groups: Groups, x: Array, increasing: bool) -> Array:
    """What `_rising` gave, in the shape of the weight again."""
    return groups.unflat(x if increasing else -x)


def _fall(groups: Groups, y: Array) -> Array:
    """How far each entry is below the largest before it, in the shape of the weight."""
    return groups.unflat(_running_max(y, groups.xp) - y)


def _running_max(y: Array, xp: Namespace) -> Array:
    """The largest entry up to each one, along the last axis."""
    # The standard has cumulative sums only. Each round doubles how far back an entry looks.
    step = 1
    while step < y.shape[-1]:
        y = xp.concat([y[..., :step], xp.maximum(y[..., step:], y[..., :-step])], axis=-1)
        step *= 2
    return y


def _running_min_back(y: Array, xp: Namespace) -> Array:
    """The smallest entry from each one on, along the last axis."""
    step = 1
    while step < y.shape[-1]:
        y = xp.concat([xp.minimum(y[..., step:], y[..., :-step]), y[..., -step:]], axis=-1)
        step *= 2
    return y


def _isotonic(groups: Groups, y: Array, pieces: Array | None = None) -> Array:
    """The nearest array that increases along the last axis; of `pieces`, each by itself."""
    xp = groups.xp
    scale = _scale(groups, y)
    y = y * scale
    together = _same(_blocks(groups, y, pieces))
    count = xp.sum(xp.astype(together, y.dtype), axis=-1)
    # The blocks are a mask, to which autodiff is blind, so that the derivative is that of means.
    mean = _sum(groups, xp.where(together, y[..., None, :], 0.0)) / count
    if pieces is None:
        # Means of blocks rise, their roundings need not.
        mean = _running_max(mean, xp)
    return mean / scale


def _scale(groups: Groups, y: Array) -> Any:
    """A power of two of at most 1 that keeps sums of groups finite."""
    p, xp = groups.precision, groups.xp
    if p.wide is not None and not p.scaled:
        return 1.0
    small = 2.0 ** -(math.ceil(math.log2(max(y.shape[-1], 1))) + 2)
    largest = xp.max(xp.abs(y), axis=-1, keepdims=True)
    return xp.where(largest > small * 2.0 ** (p.exponent - 1), small, xp.ones_like(largest))


def _blocks(groups: Groups, y: Array, pieces: Array | None) -> Array:
    r"""A number for each entry, the same where entries are to get one mean.

    From the min-max formula :math:`x_i = \max_{j \le i} \min_{k \ge i} \bar y_{j..k}`: entries of a
    block get the same of the means there, bit for bit.
    """
    xp = groups.xp
    # What all entries of a group have in common is taken off: the smallest of them if all are
    # positive. Nothing is lost by that, and sums are rounded in proportion to what is left.
    low, high = xp.min(y, axis=-1, keepdims=True), xp.max(y, axis=-1, keepdims=True)
    zero = xp.zeros_like(low)
    y = y - xp.where(low > 0, low, xp.where(high < 0, high, zero))
    place = xp.ones_like(y, dtype=xp.int32)
    place = _array.running_sum(place, -1, xp)
    length = place[..., None, :] - place[..., :, None] + 1
    later = length > 0
    if pieces is not None:
        later = later & _same(pieces)
    # Rows begin at j, so that no sum is the difference of two.
    sums = _array.running_sum(xp.where(later, y[..., None, :], 0.0), -1, xp)
    means = sums / xp.astype(xp.where(later, length, 1), y.dtype)
    least = _running_min_back(xp.where(later, means, math.inf), xp)
    x = xp.max(xp.where(later, least, -math.inf), axis=-2)
    return _steps(x, xp, pieces)


def _steps(x: Array, xp: Namespace, pieces: Array | None = None) -> Array:
    """A number for each entry, larger than that of the entry before it if `x` is."""
    new = x[..., 1:] > x[..., :-1]
    if pieces is not None:
        new = new | (pieces[..., 1:] != pieces[..., :-1])
    first = xp.zeros_like(x[..., :1], dtype=_array.boolean(xp))
    return running_count(xp.concat([first, new], axis=-1), xp)


def _same(numbers: Array) -> Array:
    """Pairs of entries with the same number."""
    return numbers[..., :, None] == numbers[..., None, :]


def _averaged(x: Array, blocks: Array, xp: Namespace) -> Array:
    """The mean of `x` over each block, along the last axis, with memory for a few arrays of `x`."""
    count = _over_blocks(xp.ones_like(blocks), blocks, xp)
    # Divided first, so that huge numbers do not overflow.
    return _over_blocks(x / _array.cast(count, x.dtype, xp), blocks, xp)


def _over_blocks(x: Array, blocks: Array, xp: Namespace) -> Array:
    """The sum of `x` over each block, for all its entries, along the last axis."""
    # Each round doubles how far back an entry adds up, then how far on it looks for the last one
    # of its block, which has the whole sum.
    zero = xp.zeros_like(x)
    step = 1
    while step < x.shape[-1]:
        same = blocks[..., step:] == blocks[..., :-step]
        before = xp.where(same, x[..., :-step], zero[..., step:])
        x = xp.concat([x[..., :step], x[..., step:] + before], axis=-1)
        step *= 2
    step = 1
    while step < x.shape[-1]:
        same = blocks[..., step:] == blocks[..., :-step]
        after = xp.where(same, x[..., step:], x[..., :-step])
        x = xp.concat([after, x[..., -step:]], axis=-1)
        step *= 2
    return x


def _sum(groups: Groups, rows: Array) -> Array:
    """The sum along the last axis, exact but for one rounding and for squares of roundings."""
    xp = groups.xp
    if groups.precision.wide is not None:
        return _array.accurate_sum(rows, (rows.ndim - 1,), xp)[..., 0]
    # Entries of both signs may leave a mean far below them, with few right digits. So what each
    # addition rounds off is added up too; it is itself a number of the dtype (Knuth's two-sum).
    rest = xp.zeros_like(rows)
    while (size := rows.shape[-1]) > 1:
        half = size // 2
        a, b = rows[..., :half], rows[..., half : 2 * half]
        total = a + b
        part = total - a
        lost = (a - (total - part)) + (b - part)
        lost = lost + (rest[..., :half] + rest[..., half : 2 * half])
        if size % 2:
            total = xp.concat([total, rows[..., -1:]], axis=-1)
            lost = xp.concat([lost, rest[..., -1:]], axis=-1)
        rows, rest = total, lost
    return (rows + rest)[..., 0]


@register
@final
@dataclass(frozen=True, eq=False)
class Monotone(Quadratic, Convex, HasTangent, HasVJP):
    r"""The entries of every group are in order along an axis.

    .. math:: \{ w : w_1 \le w_2 \le \dots \le w_n \}

    Parameters
    ----------
    axis : int or "unit"
        The axis along which entries are in order, by keyword; all other axes are batch. "unit" is
        resolved by an adapter from the layer, if a unit has its weights along one axis.
    increasing : bool, default True
        False for :math:`w_1 \ge w_2 \ge \dots \ge w_n`.

    Raises
    ------
    TypeError
        If `axis` is left out or no single axis, `increasing` is no bool, or at the call if the
        weight is complex.
    ValueError
        At the call, if the axis does not exist.

    Notes
    -----
    Isotonic regression: the projection is unique, :math:`x_i = \max_{j \le i} \min_{k \ge i}
    \mathrm{mean}(w_j, \dots, w_k)`. It cuts a group into blocks, and each entry becomes the mean of
    its block. The result is in order exactly, not only to rounding. Cost: memory for n squared
    numbers for each group of n, and log2(n) passes over that; for groups above a few thousand
    entries use pool adjacent violators, as in scikit-learn.

    Gradient: averaging over the blocks of the result; for a group that is in order, the identity.
    The set states that itself (`HasVJP`): where an adapter has registered, as that of PyTorch does,
    the backward pass keeps the weight and the result, and not what is n squared. Groups with NaN or
    infinity come back as they are.

    The violation is the largest distance from a plane :math:`w_j = w_k` that a pair of entries in
    the wrong order is away: their difference over the root of 2.

    References
    ----------
    T. Robertson, F. T. Wright, R. L. Dykstra, "Order restricted statistical inference", 1988,
    section 1.4. R. E. Barlow et al., "Statistical inference under order restrictions", 1972.

    Examples
    --------
    >>> import numpy as np
    >>> Monotone(axis=0)(np.array([1.0, 3.0, 2.0, 4.0]))
    array([1. , 2.5, 2.5, 4. ])
    >>> Monotone(axis=0, increasing=False)(np.array([1.0, 3.0, 2.0]))
    array([2., 2., 2.])
    """

    _: KW_ONLY
    axis: Axis
    increasing: bool = field(default=True, metadata=PER_SET)
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            axis=check_single_axis(self, self.axis),
            increasing=check_switch(self, "increasing", self.increasing),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_monotone(w, axis=self.axis, increasing=self.increasing)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Monotone")
        with _array.quiet(xp):
            fall = groups.max(_fall(groups, _rising(groups, groups.wide, self.increasing)))
            return groups.report(fall / 2**0.5, fall > 0)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "Monotone")
        # Entries that are equal must stay in order among themselves.
        pieces = _steps(_rising(groups, groups.widen(w), self.increasing), xp)
        h = _rising(groups, -groups.wide, self.increasing)
        part = _from_rising(groups, -_isotonic(groups, h, pieces), self.increasing)
        finite = both_finite(groups, w)
        return groups.put_back(part, finite, finite)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        groups, weights = Groups(g, self.axis, "Monotone"), Groups(w, self.axis, "Monotone")
        if weights.precision.eps > 1e-6:
            # Half precision rounds means of different blocks to one number often enough.
            y = _rising(weights, weights.wide, self.increasing)
            blocks = _blocks(weights, y * _scale(weights, y), None)
        else:
            blocks = _steps(_rising(groups, result, self.increasing), xp)
        mean = groups.unflat(_averaged(groups.flat(groups.wide), blocks, xp))
        moved = xp.logical_not(groups.every(w == result)) & weights.finite
        return groups.put_back(mean, moved, moved)


def slow_projection(group: Group, increasing: bool) -> Group:
    """Pool adjacent violators: means of neighbours are joined until they are in order."""
    blocks: list[tuple[Decimal, int]] = []
    for (x,) in group if increasing else reversed(group):
        blocks.append((x, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]:
            total, count = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + count)
    found: Group = [(total / count,) for total, count in blocks for _ in range(count)]
    return found if increasing else found[::-1]


def slow_violation(group: Group, increasing: bool) -> Decimal:
    """The largest fall of all pairs of entries."""
    values = [x for (x,) in group] if increasing else [x for (x,) in reversed(group)]
    falls = [a - b for i, a in enumerate(values) for b in values[i:]]
    return max(falls) / (values[0] * 0 + 2).sqrt()


EXAMPLES: tuple[Any, ...] = (
    Monotone(axis=0),
    Monotone(axis=-1),
    Monotone(axis=0, increasing=False),
)
