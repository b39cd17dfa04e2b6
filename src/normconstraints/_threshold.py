r"""The threshold that simplices and L1 balls have in common.

For numbers y of a group and a total s > 0 there is one :math:`\theta` with :math:`\sum_i \max(y_i -
\theta, 0) = s`. It is the root of a convex, piecewise linear function, which Newton's method, begun
to the left of it, reaches from the left after finitely many steps: each makes the support smaller
or is the last. `newton_steps` bounds their number (docs/adr/0010-newton-thresholds.md). Sums are of
numbers shifted so that the largest of a group is 0, and no sorting is needed.

The support is all that is kept of the iteration. The result is computed from it anew, once more
accurately and so that autodiff, to which a mask is a constant, gives the exact derivative.
"""

from __future__ import annotations

import math
from typing import Any

from normconstraints import _array, _host
from normconstraints._array import Array
from normconstraints._groups import Groups, Polar, moduli
from normconstraints._random import Draw


def newton_steps(size: int, eps: float) -> int:
    """Newton steps after which the support is final, for groups of `size` entries.

    Each step but the last drops an entry, and each divides the product of the excess and the
    number of entries above the threshold by 4 at least; it begins below ``size**2`` times the total
    and has no effect below ``eps`` times it.
    """
    size = max(size, 1)
    return min(size, math.ceil(math.log2(size) - math.log2(eps) / 2)) + 1


def support(
    groups: Groups,
    y: Array,
    total: Any,
    mask: Array,
    *,
    always: Array | None = None,
    weights: Any = None,
    ratio: float = 1.0,
) -> Array:
    r"""The entries above the threshold, found from a mask that holds them all.

    Entries of `always` count whether they are above it or not. With `weights` a the threshold is
    that of :math:`\sum_i a_i \max(y_i - \theta a_i, 0) = s`; `ratio` is that of the largest of a
    group to the smallest.
    """
    library = _host.name_of(groups.w, groups.precision)
    for _ in range(newton_steps(groups.size, groups.precision.eps / ratio**2)):
        theta = _threshold(groups, y, total, mask, weights)
        above = y > (theta if weights is None else theta * weights)
        smaller = mask & (above if always is None else above | always)
        if library is not None and _host.count(smaller, library) == _host.count(mask, library):
            break
        mask = smaller
    return mask


def _threshold(groups: Groups, y: Array, total: Any, mask: Array, weights: Any) -> Array:
    """The threshold if the entries above it are those of the mask."""
    xp = groups.xp
    if weights is None:
        above, slope = groups.sum(xp.where(mask, y, 0.0)), groups.count(mask)
    else:
        above = groups.sum(xp.where(mask, weights * y, 0.0))
        slope = groups.sum(xp.where(mask, weights * weights * xp.ones_like(y), 0.0))
    return (above - total) / xp.where(slope > 0, slope, 1.0)


# --------------------------------------------------------------------------------- the simplex


def onto_simplex(
    groups: Groups,
    y: Array,
    total: Any,
    *,
    inward: tuple[float, float] = (1.0, 0.0),
    low: Array | None = None,
) -> Array:
    """The nearest array with entries >= 0 whose sum over each group is `total`.

    `inward` are a factor of the sum and what every positive entry is made smaller by, for a sum
    that rounding to the dtype of the weight does not carry beyond `total`. `y` is in the dtype that
    computes; entries of minus infinity become 0. Digits that `y` had no room for are in `low`.
    """
    xp = groups.xp
    y = y - groups.max(y)
    if low is not None:
        y = y + low
        y = y - groups.max(y)
    mask = support(groups, y, total, y > -total)
    count = groups.count(mask)
    count = xp.where(count > 0, count, 1.0)
    share = total / count
    if inward != (1.0, 0.0):
        share = share * inward[0] - inward[1]
        share = xp.where(share > 0, share, xp.zeros_like(share))
    y = xp.where(mask, y, 0.0)
    y = xp.where(mask, y - groups.sum(y) / count, 0.0)
    # The mean was rounded in proportion to the entries; a second one is exact in proportion to
    # what is left of them.
    x = y - groups.sum(y) / count + share
    return xp.where(mask & (x > 0), x, xp.zeros_like(x))


def onto_solid_simplex(groups: Groups, y: Array, total: Any) -> Array:
    """The nearest array with entries >= 0 whose sum over each group is at most `total`."""
    xp = groups.xp
    positive = xp.where(y > 0, y, xp.zeros_like(y))
    heavy, _ = heavier(groups, total)
    return xp.where(heavy, onto_simplex(groups, y, total, inward=groups.inward), positive)


def heavier(groups: Groups, total: Any) -> tuple[Array, Array]:
    """The groups whose positive entries sum to more than `total`, and by what distance."""
    xp = groups.xp
    y, scale = groups.shrunk()
    sums = groups.sum(xp.where(y > 0, y, xp.zeros_like(y)))
    bound = total * scale
    amount = (sums - bound) / scale / max(groups.size, 1) ** 0.5
    return sums > bound * (1 + groups.ball_slack), amount


def off_simplex(groups: Groups, total: Any) -> tuple[Array, Array]:
    """How far groups are from the simplex, and which are outside.

    The largest of the negative entries and the distance from the plane of the right sums.
    """
    xp = groups.xp
    below = groups.max(-groups.wide)
    amount, off = off_plane(groups, total)
    return xp.where(below > amount, below, amount), off | (below > 0)


def off_plane(groups: Groups, total: Any) -> tuple[Array, Array]:
    """The distance from the plane of entries that sum to `total`, and the groups outside."""
    y, scale = groups.shrunk()
    off = abs(groups.sum(y) - total * scale)
    allowed = (groups.slack * total + groups.size * groups.quantum) * scale
    return off / scale / max(groups.size, 1) ** 0.5, off > allowed


def vertex(groups: Groups, total: Any, *, at_zero: bool = True) -> Array:
    """`total` at the smallest entry of each group of a gradient, the first of them, 0 elsewhere.

    Unless `at_zero`, 0 everywhere in a group whose smallest entry is not negative.
    """
    xp, g = groups.xp, groups.wide
    least = -groups.max(-g)
    chosen = groups.first((g == least) & (at_zero | (least < 0)))
    return groups.put_back(total * xp.astype(chosen, g.dtype), xp.ones_like(chosen))


def tangent_to_simplex(groups: Groups, w: Array, bound: Any = None) -> Array:
    """The groups of a gradient without what leaves the simplex at `w`.

    Where the sum of `w` is below `bound`, if that is given, only what makes entries negative; else
    the sum may fall.
    """
    xp = groups.xp
    g, scale = groups.shrunk()
    free = w > 0
    x = balanced(groups, -g, free)
    if bound is not None:
        rising = xp.where(free | (g < 0), -g, xp.zeros_like(g))
        full = groups.sum(groups.widen(w)) >= bound
        x = xp.where(full & (groups.sum(rising) > 0), x, rising)
    return groups.put_back(-x / scale, xp.ones_like(free))


def balanced(groups: Groups, h: Array, free: Array) -> Array:
    """The nearest array with sums of 0 and with entries >= 0 where they are not `free`."""
    xp = groups.xp
    mask = support(groups, h, 0.0, xp.ones_like(free), always=free)
    count = groups.count(mask)
    h = xp.where(mask, h - groups.sum(xp.where(mask, h, 0.0)) / count, 0.0)
    h = xp.where(mask, h - groups.sum(h) / count, 0.0)
    return xp.where(free | (h > 0), h, xp.zeros_like(h))


def of_dirichlet(groups: Groups, draw: Draw, total: Any, *, solid: bool = False) -> Array:
    """Entries >= 0 with sums of `total`, or at most that, every such group equally likely."""
    e = draw.exponential()
    sums = groups.sum(e)
    if solid:
        sums = sums + draw.exponential(tuple(sums.shape))
    return total * (e / sums)


# --------------------------------------------------------------------------------- the L1 ball


def over_l1(groups: Groups, radius: Any) -> tuple[Array, Array]:
    """The distance from the faces of sums of moduli of `radius`, and which groups are over."""
    y, scale = groups.shrunk()
    sums = groups.sum(moduli(y, groups))
    slack = groups.ball_slack * radius * scale
    amount = (sums - radius * scale) / scale / max(groups.size, 1) ** 0.5
    return amount, sums > radius * scale + slack


def off_l1(groups: Groups, radius: Any) -> tuple[Array, Array]:
    """The distance from the faces of sums of moduli of `radius`, and which groups are off."""
    y, scale = groups.shrunk()
    off = abs(groups.sum(moduli(y, groups)) - radius * scale)
    allowed = (groups.slack * radius + groups.size * groups.quantum) * scale
    return off / scale / max(groups.size, 1) ** 0.5, off > allowed


def onto_l1_sphere(
    groups: Groups, radius: Any, *, inward: tuple[float, float] = (1.0, 0.0)
) -> Array:
    """The nearest array whose moduli sum to `radius` in each group."""
    y = Polar(groups)
    sizes = onto_simplex(groups, y.sizes, radius * y.unit, inward=inward, low=y.low)
    return y.with_sizes(sizes) / y.unit


def extreme(groups: Groups, radius: Any) -> Array:
    """`radius` against the direction of the entry of largest modulus, 0 elsewhere."""
    xp, y = groups.xp, Polar(groups)
    chosen = groups.top(y.sizes)
    ends = y.with_sizes(xp.where(chosen, -radius * xp.ones_like(y.sizes), 0.0))
    return groups.put_back(ends, xp.ones_like(chosen))


def onto_weighted_simplex(
    groups: Groups, y: Polar, total: Any, weights: Any, *, smallest: float, ratio: float
) -> Array:
    """The nearest sizes >= 0 whose sums, each times its weight, are `total`, less what rounds.

    `smallest` is the smallest weight, `ratio` that of the largest to it.
    """
    xp = groups.xp
    # Ratios to weights below 1 must not overflow.
    down = 0.5 ** max(0, math.ceil(-math.log2(smallest)))
    sizes, total = y.sizes * down, total * down
    # No threshold is smaller than what one entry alone would have. Sizes are taken relative to the
    # largest of these, for it may have no digits for the total; its own entry would be rounded.
    alone = (sizes - total / weights) / weights
    least = groups.max(alone)
    low = xp.zeros_like(sizes) if y.low is None else y.low * down
    shifted = xp.where(alone == least, total / weights, sizes - least * weights + low)
    sizes = xp.where(least > 0, shifted, sizes + low)
    mask = sizes > 0
    mask = support(groups, sizes, total, mask, weights=weights, ratio=ratio)
    factor, quantum = groups.inward
    bound = total * factor - quantum * down * groups.sum(
        xp.where(mask, weights * xp.ones_like(sizes), 0.0)
    )
    bound = xp.where(bound > 0, bound, xp.zeros_like(bound))
    sizes = xp.where(mask, sizes, 0.0)
    for rest in (xp.zeros_like(bound), bound):
        theta = _threshold(groups, sizes, rest, mask, weights)
        sizes = xp.where(mask, sizes - theta * weights, 0.0)
    return xp.where(mask & (sizes > 0), sizes / down, xp.zeros_like(sizes))


def largest_modulus(groups: Groups) -> Array:
    """The largest modulus of each group, NaN for groups that are not finite; axes dropped."""
    sizes = groups.max(moduli(groups.wide, groups))
    return groups.report(sizes, groups.xp.ones_like(sizes, dtype=_array.boolean(groups.xp)))


def tangent_to_l1(groups: Groups, w: Array, radius: Any, *, ball: bool) -> Array:
    """The groups of a real gradient without what leaves the L1 ball, or its sphere, at `w`."""
    xp = groups.xp
    g, scale = groups.shrunk()
    free = w != 0
    signs = xp.where(
        free, xp.where(w < 0, -1.0, xp.ones_like(g)), xp.where(g > 0, -1.0, xp.ones_like(g))
    )
    x = signs * balanced(groups, -g * signs, free)
    if ball:
        outward = groups.sum(-g * signs) > 0
        at = groups.sum(abs(groups.widen(w))) >= radius * (1 - 4 * groups.slack)
        x = xp.where(at & outward, x, -g)
    return groups.put_back(-x / scale, xp.ones_like(free))


def random_signs(groups: Groups, draw: Draw, sizes: Array) -> Array:
    """Numbers of these moduli with random signs, or phases where the weight is complex."""
    d = draw.direction()
    size = moduli(d, groups)
    return d * (sizes / groups.xp.where(size > 0, size, 1.0))
