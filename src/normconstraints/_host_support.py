"""Thresholds for plain host memory, where most entries are so small that nobody needs to look.

On a simplex of a small total only entries near the largest of a group can stay. Where an eager
library may look at values these few are taken out, and Newton's method runs on them alone, with the
result of `_threshold`. Entries are looked at once or twice, and never widened.
"""

from __future__ import annotations

import sys
from typing import Any

from normconstraints import _array, _host
from normconstraints._array import Array, Precision

LEAST = 1 << 14
"""Entries of an array from which on it is worth it."""
MOST = 1 / 4
"""The part of the entries that may stay for it to be worth it."""


def few_stay(
    w: Array,
    axes: tuple[int, ...],
    total: Any,
    precision: Precision,
    *,
    inward: tuple[float, float] = (1.0, 0.0),
    moduli: bool = False,
) -> Array | None:
    """The nearest array with entries >= 0 and sums of `total`, of the moduli if so; or None.

    None where it is not worth it, or a group needs a closer look: one that is inside already, or
    holds NaN or infinity.
    """
    library = _host.name_of(w, precision)
    small = _host.entries(w) < LEAST or type(total) is not float or total <= 0
    if library is None or not precision.by_factor or small or not axes:
        return None
    xp = _array.namespace(w, "few_stay")
    batch = [i for i in range(w.ndim) if i not in axes]
    x = xp.permute_dims(w.detach() if library == "torch" else w, (*batch, *axes))
    moved = tuple(x.shape)
    x = xp.reshape(x, (-1, _array.group_size(w, axes)))
    sizes = abs(x) if moduli else x
    top = xp.max(sizes, axis=1, keepdims=True)
    if moduli:
        outside = xp.sum(sizes, axis=1, dtype=xp.float64) > total
    else:
        outside = xp.min(sizes, axis=1) < 0
    finite = (top - top == 0)[:, 0]
    if _host.count(outside & finite, library) < x.shape[0]:
        return None
    wide = xp.astype(top, xp.float64)
    bound = xp.astype(wide - total - abs(wide) * precision.eps, w.dtype)
    near = sizes > bound
    if _host.count(near, library) > MOST * _host.entries(w):
        return None
    rows, columns = xp.nonzero(near)
    kept = _newton(xp.astype(sizes[near], xp.float64) - wide[rows, 0], rows, total, inward, library)
    kept = _array.cast(kept, w.dtype, xp)
    result = xp.zeros_like(x)
    signs = xp.where(x[near] < 0, -kept, kept) if moduli else kept
    result[rows, columns] = signs
    order = [*batch, *axes]
    back = tuple(order.index(i) for i in range(w.ndim))
    return xp.permute_dims(xp.reshape(result, moved), back)


def _newton(
    y: Array, rows: Array, total: float, inward: tuple[float, float], library: str
) -> Array:
    """`_threshold.onto_simplex` of entries that are listed with the rows they are of."""
    module = sys.modules[library]

    def sums(x: Array) -> Array:
        """The sums of each row; every row has its largest entry, and so does the last."""
        return module.bincount(rows, x)

    keep = y > -total
    left, before = _host.count(keep, library), -1
    while left != before:  # each step but the last drops an entry
        theta = (sums(y * keep) - total) / sums(keep * 1.0)
        keep = keep & (y > theta[rows])
        left, before = _host.count(keep, library), left
    count = sums(keep * 1.0)
    share = total / count
    if inward != (1.0, 0.0):
        share = share * inward[0] - inward[1]
        share = share * (share > 0)
    z = (y - (sums(y * keep) / count)[rows]) * keep
    x = z - (sums(z) / count)[rows] + share[rows]
    return x * (keep & (x > 0))
