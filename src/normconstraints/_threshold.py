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

from normconstraints import _host
from normconstraints._array import Array
from normconstraints._groups import Groups
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
    groups: Groups, y: Array, total: Any, mask: Array, always: Array | None = None
) -> Array:
    r"""The entries above the threshold, found from a mask that holds them all.

    Entries of `always` count whether they are above it or not.
    """
    xp = groups.xp
    library = _host.name_of(groups.w, groups.precision)
    for _ in range(newton_steps(groups.size, groups.precision.eps)):
        count = groups.count(mask)
        theta = (groups.sum(xp.where(mask, y, 0.0)) - total) / xp.where(count > 0, count, 1.0)
        above = y > theta
        smaller = mask & (above if always is None else above | always)
        if library is not None and _host.count(smaller, library) == _host.count(mask, library):
            break
        mask = smaller
    return mask


# --------------------------------------------------------------------------------- the simplex


def onto_simplex(groups: Groups, y: Array, total: Any, *, inward: bool = False) -> Array:
    """The nearest array with entries >= 0 whose sum over each group is `total`.

    With `inward` the sum ends below `total` by as much as rounding to the dtype of the weight may
    add. `y` is in the dtype that computes; entries of minus infinity become 0.
    """
    xp = groups.xp
    y = y - groups.max(y)
    mask = support(groups, y, total, y > -total)
    count = groups.count(mask)
    count = xp.where(count > 0, count, 1.0)
    share = total / count
    if inward:
        # Numbers below the normal ones are rounded by half the smallest of them.
        share = share * groups.inward - groups.quantum
        share = xp.where(share > 0, share, xp.zeros_like(share))
    y = xp.where(mask, y, 0.0)
    y = xp.where(mask, y - groups.sum(y) / count, 0.0)
    # The mean was rounded in proportion to the entries; a second one is exact in proportion to
    # what is left of them.
    x = y - groups.sum(y) / count + share
    return xp.where(mask & (x > 0), x, xp.zeros_like(x))


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


def vertex(groups: Groups, total: Any) -> Array:
    """`total` at the smallest entry of each group of the weight, the first of them, 0 elsewhere."""
    xp, g = groups.xp, groups.wide
    chosen = groups.first(g == -groups.max(-g))
    return groups.put_back(total * xp.astype(chosen, g.dtype), xp.ones_like(chosen))


def tangent_to_simplex(groups: Groups, w: Array) -> Array:
    """The groups of a gradient without what leaves the simplex at `w`."""
    xp = groups.xp
    g, scale = groups.shrunk()
    free = w > 0
    x = balanced(groups, -g, free)
    return groups.put_back(-x / scale, xp.ones_like(free))


def balanced(groups: Groups, h: Array, free: Array) -> Array:
    """The nearest array with sums of 0 and with entries >= 0 where they are not `free`."""
    xp = groups.xp
    mask = support(groups, h, 0.0, xp.ones_like(free), free)
    count = groups.count(mask)
    h = xp.where(mask, h - groups.sum(xp.where(mask, h, 0.0)) / count, 0.0)
    h = xp.where(mask, h - groups.sum(h) / count, 0.0)
    return xp.where(free | (h > 0), h, xp.zeros_like(h))


def of_dirichlet(groups: Groups, draw: Draw, total: Any) -> Array:
    """Entries >= 0 with sums of `total`, every such group equally likely."""
    e = draw.exponential()
    return groups.put_back(
        total * (e / groups.sum(e)), groups.xp.ones_like(e, dtype=groups.xp.bool)
    )
