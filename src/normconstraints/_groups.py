"""The groups of one array, as sets of vectors look at them: widened, summed, and put back.

Half and single precision are computed in double. Where the library has nothing wider, `shrunk` gives
groups whose sums do not overflow.
"""

from __future__ import annotations

import math
from typing import Any

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._parameters import Axis, Number


class Groups:
    """An array seen as groups that span some of its axes; what is reduced keeps its axes.

    Parameters
    ----------
    w : array
        The weight.
    axis : int, tuple of int or None
        The axes of a group.
    owner : str
        The class in whose name errors are raised.
    allow_complex : bool
        Whether complex weights have a meaning for the set.
    """

    def __init__(self, w: Array, axis: Axis, owner: str, *, allow_complex: bool = False) -> None:
        """Check the axes of `w` and widen it."""
        self.w, self.owner = w, owner
        self.xp = _array.namespace(w, owner)
        self.precision = _array.precision(w, self.xp, owner, allow_complex=allow_complex)
        self.axes = _array.normalise_axis(axis, w.ndim, owner)
        self.size = _array.group_size(w, self.axes)
        """Entries in a group."""
        self.wide = self.widen(w)

    def widen(self, x: Array) -> Array:
        """`x`, of the dtype of the weight, in the dtype that computes."""
        p = self.precision
        if p.wide is None:
            return x
        return self.xp.astype(x, p.wide_complex if p.is_complex else p.wide)

    # ------------------------------------------------------------------------------ parameters

    def number(self, value: Number, name: str) -> Any:
        """A parameter of the groups, as a number or an array that combines with reductions."""
        return _array.groupwise(
            value, self.w, self.axes, self.xp, self.precision.accumulator, f"{self.owner}: {name}"
        )

    def entries(self, value: Number, name: str) -> Any:
        """A parameter of the entries, as a number or an array of the shape of the weight."""
        return _array.entrywise(
            value, self.w, self.xp, self.precision.accumulator, f"{self.owner}: {name}"
        )

    # ------------------------------------------------------------------------------ reductions

    def sum(self, x: Array, axes: tuple[int, ...] | None = None) -> Array:
        """The sum over each group, whose error grows with log(size) at most."""
        return _array.accurate_sum(x, self.axes if axes is None else axes, self.xp)

    def max(self, x: Array) -> Array:
        """The largest entry of each group, 0 for a group without entries."""
        if not self.axes:
            return x
        if self.size == 0:
            return self.xp.sum(x, axis=self.axes, keepdims=True)
        return self.xp.max(x, axis=self.axes, keepdims=True)

    def count(self, mask: Array) -> Array:
        """How many entries of each group are true, in the dtype that computes."""
        ones = self.xp.astype(mask, self.precision.accumulator)
        return self.xp.sum(ones, axis=self.axes, keepdims=True) if self.axes else ones

    @property
    def finite(self) -> Array:
        """Groups without NaN and infinity."""
        return self.every(self.xp.isfinite(self.w))

    @property
    def bounded(self) -> Array:
        """Groups without NaN and plus infinity whose entries are not all minus infinity."""
        return self.xp.isfinite(self.max(self.wide))

    def every(self, mask: Array) -> Array:
        """Groups in which the mask holds everywhere."""
        return self.xp.all(mask, axis=self.axes, keepdims=True) if self.axes else mask

    def shrunk(self) -> tuple[Array, Any]:
        """The widened groups times a power of two of at most 1, and that: their sums are finite."""
        if self.precision.wide is not None and not self.precision.scaled:
            return self.wide, 1.0
        xp = self.xp
        entry = (
            xp.abs(self.wide)
            if not self.precision.is_complex
            else xp.maximum(xp.abs(xp.real(self.wide)), xp.abs(xp.imag(self.wide)))
        )
        # Above the root of the range by its digits: sums of as many entries as fit into memory are
        # finite, and so are their products with numbers of moderate size.
        far = 2.0 ** (self.precision.exponent // 2)
        scale = xp.where(self.max(entry) > far, 1 / far, xp.ones_like(self.max(entry)))
        return self.wide * scale, scale

    # -------------------------------------------------------------------------------- order

    def flat(self, x: Array) -> Array:
        """An array of the shape of the weight with each group along the last axis, in order."""
        batch = [i for i in range(self.w.ndim) if i not in self.axes]
        x = self.xp.permute_dims(x, (*batch, *self.axes))
        return self.xp.reshape(x, (*[self.w.shape[i] for i in batch], self.size))

    def unflat(self, x: Array) -> Array:
        """What `flat` made, in the shape of the weight again."""
        order = [*[i for i in range(self.w.ndim) if i not in self.axes], *self.axes]
        x = self.xp.reshape(x, tuple(self.w.shape[i] for i in order))
        return self.xp.permute_dims(x, tuple(order.index(i) for i in range(self.w.ndim)))

    def first(self, mask: Array) -> Array:
        """The first true entry of each group alone: ties go to the lowest index."""
        flat = self.flat(mask)
        return self.unflat(flat & (running_count(flat, self.xp) == 1))

    def largest(self, x: Array, k: int) -> Array:
        """The `k` largest entries of each group, of ties those with the lowest index."""
        if k >= self.size:
            return self.xp.ones_like(x, dtype=self.xp.bool)
        return self.unflat(largest(self.flat(x), k, self.xp))

    # ------------------------------------------------------------------------------ tolerances

    @property
    def slack(self) -> float:
        """How far, relative to what was summed, a group may be out and count as inside.

        Half the tolerance: the other half is for what the projection itself rounds.
        """
        p = self.precision
        return _array.tolerance(p.eps, self.size, wide=p.wide is not None) / 2

    @property
    def ball_slack(self) -> float:
        """The same for a ball, which is not left at all where a wider dtype measures."""
        return 0.0 if self.precision.wide is not None else self.slack

    @property
    def quantum(self) -> float:
        """Half the smallest number of the dtype: what rounding adds to an entry near 0."""
        return self.precision.smallest * self.precision.eps / 2

    @property
    def inward(self) -> float:
        """A factor that takes a bound inside by one rounding of every entry and of the sum."""
        return 1 - self.precision.unit * (1 + 1 / 64)

    # ------------------------------------------------------------------------------ results

    def put_back(self, result: Array, moved: Array, finite: Array | None = None) -> Array:
        """`result` in the dtype of the weight where `moved` and finite, elsewhere the weight."""
        narrow = _array.cast(result, self.w.dtype, self.xp)
        finite = self.finite if finite is None else finite
        return self.xp.where(moved & finite, narrow, self.w)

    def report(self, amount: Array, outside: Array, finite: Array | None = None) -> Array:
        """`amount` where `outside`, 0 inside, NaN for groups that are not finite; axes dropped."""
        xp = self.xp
        finite = self.finite if finite is None else finite
        if self.size == 0:
            outside = outside & ~finite  # nothing is there that could be moved
        found = xp.where(outside, amount, xp.zeros_like(amount))
        found = xp.where(finite, found, xp.full_like(found, math.nan))
        found = _array.cast(found, self.precision.real, xp)
        return xp.squeeze(found, axis=self.axes) if self.axes else found


def moduli(groups: Groups) -> Array:
    """The moduli of the entries; at 0 with a derivative of 0, where the root has none."""
    xp, y = groups.xp, groups.wide
    if not groups.precision.is_complex:
        return xp.where(y < 0, -y, y)
    re, im = xp.abs(xp.real(y)), xp.abs(xp.imag(y))
    large, small = xp.where(re > im, re, im), xp.where(re > im, im, re)
    zero = large == 0
    ratio = small / xp.where(zero, 1.0, large)
    return large * xp.sqrt(1 + ratio * ratio)


def running_count(mask: Array, xp: Namespace) -> Array:
    """How many entries are true up to each one, along the last axis."""
    # Integers: in half precision a count is exact to 256 only.
    return xp.cumulative_sum(xp.astype(mask, xp.int32), axis=-1, dtype=xp.int32)


def largest(x: Array, k: int, xp: Namespace) -> Array:
    """The `k` largest entries along the last axis, of ties those with the lowest index."""
    # From sorted values and not from sorted indices: those of a device without int64 are refused.
    size = x.shape[-1]
    bound = xp.sort(x, axis=-1)[..., size - k : size - k + 1]
    above, ties = x > bound, x == bound
    free = k - xp.sum(xp.astype(above, xp.int32), axis=-1, keepdims=True, dtype=xp.int32)
    return above | (ties & (running_count(ties, xp) <= free))
