"""The groups of one array, as sets of vectors look at them: widened, summed, and put back.

Half and single precision are computed in double. Where the library has nothing wider, `shrunk`
gives groups whose sums do not overflow.
"""

from __future__ import annotations

import math
from typing import Any

from normconstraints import _array
from normconstraints._array import Array, Namespace, Precision
from normconstraints._norms import measure, power_of_two
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
    precision : Precision, optional
        That of the weight, if `w` is something computed from it.
    """

    def __init__(
        self,
        w: Array,
        axis: Axis,
        owner: str,
        *,
        allow_complex: bool = False,
        precision: Precision | None = None,
    ) -> None:
        """Check the axes of `w` and widen it."""
        self.w, self.owner = w, owner
        self.xp = _array.namespace(w, owner)
        self.axes = _array.normalise_axis(axis, w.ndim, owner)
        self.size = _array.group_size(w, self.axes)
        """Entries in a group."""
        if precision is None:
            self.precision = _array.precision(w, self.xp, owner, allow_complex=allow_complex)
            self._wide: Array | None = None
        else:
            self.precision, self._wide = precision, w

    @property
    def wide(self) -> Array:
        """The weight in the dtype that computes."""
        if self._wide is None:
            self._wide = self.widen(self.w)
        return self._wide

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
        return _array.exchanged(self.xp.max(x, axis=self.axes, keepdims=True), self.xp)

    def count(self, mask: Array) -> Array:
        """How many entries of each group are true, in the dtype that computes."""
        ones = self.xp.astype(mask, self.precision.accumulator)
        if not self.axes:
            return ones
        return _array.exchanged(self.xp.sum(ones, axis=self.axes, keepdims=True), self.xp)

    @property
    def reduced(self) -> tuple[int, ...]:
        """The shape of the weight with the axes of the groups of length 1."""
        return tuple(1 if i in self.axes else s for i, s in enumerate(self.w.shape))

    @property
    def finite(self) -> Array:
        """Groups without NaN and infinity."""
        return self.every(self.xp.isfinite(self.w))

    @property
    def bounded(self) -> Array:
        """Groups without NaN and plus infinity whose entries are not all minus infinity."""
        # Not by the largest entry: across devices XLA's may hide a NaN.
        below: Array = self.every(self.w < math.inf)
        some: Array = self.xp.logical_not(self.every(self.w == -math.inf))
        return below & some if self.size else below

    def every(self, mask: Array) -> Array:
        """Groups in which the mask holds everywhere."""
        if not self.axes:
            return mask
        return _array.exchanged(self.xp.all(mask, axis=self.axes, keepdims=True), self.xp)

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

    def flat_one(self, x: Any) -> Array:
        """A number, or what there is one of for each group, as the last axis of `flat`."""
        x = x * self.xp.ones_like(self.max(self.wide))
        batch = tuple(s for i, s in enumerate(self.w.shape) if i not in self.axes)
        return self.xp.reshape(x, (*batch, 1))

    def unflat(self, x: Array) -> Array:
        """What `flat` made, in the shape of the weight again."""
        order = [*[i for i in range(self.w.ndim) if i not in self.axes], *self.axes]
        x = self.xp.reshape(x, tuple(self.w.shape[i] for i in order))
        return self.xp.permute_dims(x, tuple(order.index(i) for i in range(self.w.ndim)))

    def first(self, mask: Array) -> Array:
        """The first true entry of each group alone: ties go to the lowest index."""
        flat = self.flat(mask)
        return self.unflat(flat & (running_count(flat, self.xp) == 1))

    def top(self, x: Array) -> Array:
        """The largest entry of each group alone: ties go to the lowest index."""
        x = _array.settled(x, self.xp)
        return self.first(x == self.max(x))

    def largest(self, x: Array, k: int) -> Array:
        """The `k` largest entries of each group, of ties those with the lowest index."""
        if k >= self.size:
            return self.xp.ones_like(x, dtype=_array.boolean(self.xp))
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
        least = self.precision.smallest * self.precision.eps
        return least / 2 or least  # half of float64's smallest number is none

    @property
    def inward(self) -> tuple[float, float]:
        """What takes a bound inside by the rounding of every entry to the dtype of the weight.

        A factor of the bound, with a sixty-fourth for the sum, and what is subtracted from every
        entry: those below the normal numbers are rounded by half the smallest number.
        """
        return 1 - self.precision.unit * (1 + 1 / 64), self.quantum

    # ------------------------------------------------------------------------------ results

    def put_back(self, result: Array, moved: Array, finite: Array | None = None) -> Array:
        """`result` in the dtype of the weight where `moved` and finite, elsewhere the weight."""
        narrow = _array.cast(result, self.w.dtype, self.xp)
        finite = self.finite if finite is None else finite
        return self.xp.where(moved & finite, narrow, self.w)

    def report(self, amount: Array, outside: Array, finite: Array | None = None) -> Array:
        """`amount` where `outside`, 0 inside, NaN for groups that are not finite; axes dropped."""
        xp = self.xp
        judged: Array = self.finite if finite is None else finite
        if self.size == 0:
            outside = outside & ~judged  # nothing is there that could be moved
        found = xp.where(outside, amount, xp.zeros_like(amount))
        found = xp.where(judged, found, xp.full_like(found, math.nan))
        found = _array.cast(found, self.precision.real, xp)
        return xp.squeeze(found, axis=self.axes) if self.axes else found


def moduli(y: Array, groups: Groups) -> Array:
    """The moduli of the entries; at 0 with a derivative of 0, where the root has none."""
    xp = groups.xp
    if not groups.precision.is_complex:
        return xp.where(y < 0, -y, y)
    re, im = abs(xp.real(y)), abs(xp.imag(y))
    large, small = xp.where(re > im, re, im), xp.where(re > im, im, re)
    ratio = small / xp.where(large == 0, 1.0, large)
    return large * xp.sqrt(1 + ratio * ratio)


class Inner:
    """Groups whose axes fall into those of an inner group and the rest, with the inner norms."""

    def __init__(self, w: Array, axis: Axis, group_axis: Axis, owner: str) -> None:
        """Take the Euclidean norms over `group_axis`, which must be among `axis`."""
        self.groups = Groups(w, axis, owner, allow_complex=True)
        self.xp = xp = self.groups.xp
        precision = self.groups.precision
        self.axes = _array.normalise_axis(group_axis, w.ndim, owner)
        """The axes of an inner group."""
        rest = tuple(a for a in self.groups.axes if a not in self.axes)
        if len(rest) + len(self.axes) != len(self.groups.axes):
            raise ValueError(
                f"{owner}: group_axis must be among axis, got group_axis={group_axis!r} and "
                f"axis={axis!r} for an array with {w.ndim} dimensions"
            )
        with _array.quiet(xp):
            self.norms = measure(w, self.axes, xp, precision)
            self.unit = 2.0 ** -math.ceil(math.log2(max(self.norms.size, 1)) / 2)
            """What the norms are multiplied by so that they do not overflow."""
            self.lengths = self.norms.scaled * (self.unit / self.norms.scale)
        self.outer = Groups(self.lengths, rest, owner, precision=precision)
        """The norms as groups."""

    @property
    def measured(self) -> Array:
        """The widened weight times the scale of its norms."""
        assert self.norms.measured is not None
        return self.norms.measured


class Polar:
    """The moduli of the entries of groups, and the entries with other moduli.

    Small differences of large moduli are what is left of a group on an L1 ball. Those of real
    numbers are exact, those of complex ones are rounded: where nothing wider holds them, `low` has
    the digits that were rounded away.
    """

    def __init__(self, groups: Groups) -> None:
        """Take the moduli of `groups`."""
        self._xp = xp = groups.xp
        self._is_complex = groups.precision.is_complex
        self.low: Array | None = None
        self.unit = 1.0
        """What the moduli are multiplied by so that those of complex numbers do not overflow."""
        self._entries: Array = groups.wide
        if not self._is_complex:
            self._size = self.sizes = moduli(groups.wide, groups)
            return
        scale: Any = 1.0
        if groups.precision.wide is None:
            self.unit = 0.5
            scale = power_of_two(groups.wide, (), xp, groups.precision)
            self._entries = groups.wide * scale
        re, im = xp.real(self._entries), xp.imag(self._entries)
        squares = re * re + im * im
        zero = squares == 0
        self._size = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squares)))
        self.sizes = self._size * self.unit / scale
        if groups.precision.wide is None:
            self.low = self._rounded_away(re, im, groups.precision.eps) * self.unit / scale

    def _rounded_away(self, re: Array, im: Array, eps: float) -> Array:
        """What the moduli lack, from the squares with all their digits."""
        xp, size = self._xp, self._size
        parts = [_square(x, eps) for x in (re, im, size)]
        (a, a_low), (b, b_low), (c, c_low) = parts
        # The square of the modulus lies within a few units of the sum, so that the differences of
        # the leading parts are exact in this order.
        large, small = xp.where(a > b, a, b), xp.where(a > b, b, a)
        rest = ((large - c) + small) + ((a_low + b_low) - c_low)
        return rest / (2 * xp.where(size > 0, size, 1.0))

    def with_sizes(self, sizes: Array) -> Array:
        """The entries with other moduli; zeros become real numbers."""
        if not self._is_complex:
            return self._xp.where(self._entries < 0, -sizes, sizes)
        zero = self._size == 0
        unit = self._entries / self._xp.where(zero, 1.0, self._size)
        return self._xp.where(zero, sizes, sizes * unit)


def _square(x: Array, eps: float) -> tuple[Array, Array]:
    """The square of numbers near 1 and what its rounding took, by Veltkamp's splitting."""
    half = x * (2.0**27 + 1 if eps < 1e-10 else 2.0**12 + 1)
    high = half - (half - x)
    low = x - high
    square = x * x
    return square, ((high * high - square) + 2 * high * low) + low * low


def running_count(mask: Array, xp: Namespace) -> Array:
    """How many entries are true up to each one, along the last axis."""
    # Integers: in half precision a count is exact to 256 only.
    return _array.running_sum(xp.astype(mask, xp.int32), -1, xp)


def entry_at(x: Array, place: Any, xp: Namespace, places: Array | None = None) -> Array:
    """The entry along the last axis at a place counted from 1, which may differ; 0 beyond the end.

    By a mask: places may be in an array, and some fake tensors have no slices. `places` are those
    of all entries, where they are known.
    """
    places = running_count(x == x, xp) if places is None else places
    chosen = places == place
    return xp.sum(xp.where(chosen, x, 0.0), axis=-1, keepdims=True)


def largest(x: Array, k: int, xp: Namespace) -> Array:
    """The `k` largest entries along the last axis, of ties those with the lowest index."""
    # From sorted values and not from sorted indices: those of a device without int64 are refused.
    x, size = _array.settled(x, xp), x.shape[-1]
    bound = entry_at(xp.sort(x, axis=-1), size - k + 1, xp)
    above, ties = x > bound, x == bound
    free = k - _array.tally(above, (-1,), xp)
    return above | (ties & (running_count(ties, xp) <= free))
