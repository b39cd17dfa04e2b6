"""Sums of squares and products for plain host memory of NumPy and torch, in blocks.

An eager library writes every intermediate result to memory, and memory is slower than arithmetic.
Blocks stay in cache together with their double precision copy. Everything here is a faster way to
what `_norms` does for every other array, with the same result.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from normconstraints import _array
from normconstraints._array import Array, Precision

# Entries in a block. torch splits each operation over all cores and pays for that, so that its
# blocks are larger.
BLOCK = {"numpy": 1 << 19, "torch": 1 << 20}
_ACROSS = 1 << 18
_THREADED = 1 << 22
_GLANCED = 1 << 14
_LONGEST_GLANCED = 1 << 16
"""Of longer rows the norms in single precision are known too roughly."""


def name_of(w: Array, precision: Precision) -> str | None:
    """The library of `w` if Python may look at its values and its squares are summed in float64."""
    library = _array.host_library(w)
    if library is None or precision.is_complex or 0 in w.shape:
        return None
    if precision.wide is None:
        return library if library == "numpy" and precision.eps == 2.0**-52 else None
    return library


def can_glance(w: Array, axes: tuple[int, ...], library: str | None, precision: Precision) -> bool:
    """Whether norms in single precision say enough: of groups that follow each other in torch."""
    if library != "torch" or not precision.by_factor or not axes or not w.is_contiguous():
        return False
    if axes != tuple(range(axes[0], w.ndim)) or "numpy" not in sys.modules:
        return False
    return entries(w) >= _GLANCED and _array.group_size(w, axes) <= _LONGEST_GLANCED


def glance(rows: Array, precision: Precision) -> tuple[Any, list[Array], Callable[[], list[Array]]]:
    """Bounds of the norms of the rows of a matrix of torch: of the ends of them, and of every one.

    In NumPy, which is quicker with few. Where squares overflow the upper bound is infinite.
    """
    norm, np = sys.modules["torch"].linalg.vector_norm, sys.modules["numpy"]
    norms = norm(rows.detach(), dim=1).numpy()
    # Whatever the order of the sum, each entry adds one rounding, and what underflows is flushed.
    relative = rows.shape[1] * precision.eps
    absolute = math.sqrt(rows.shape[1] * precision.smallest)

    def every() -> list[Array]:
        wide = norms.astype(np.float64)
        low = np.maximum(wide * (1 - relative) - absolute, 0.0)
        return [low, wide * (1 + relative) + absolute]

    least, largest = float(norms.min()), float(norms.max())
    if math.isnan(largest):  # it hides the others
        ends = every()
    else:
        low = max(least * (1 - relative) - absolute, 0.0)
        high = [x * (1 + relative) + absolute for x in (least, largest)]
        ends = [np.asarray([low, *high])]  # what may be 0 may also be a little more
    return _array.namespace(norms, "glance"), ends, every


def chosen(masks: Sequence[Array]) -> Array:
    """The rows in which one of the masks is true, for torch."""
    mask = masks[0] if len(masks) == 1 else masks[0] | masks[1]
    return sys.modules["torch"].from_numpy(mask.nonzero()[0])


class Rows:
    """An array as blocks of rows: slices of the axis that is slowest in memory.

    The axes are ordered from the slowest to the fastest, whatever layout the array has.
    """

    def __init__(self, w: Array, library: str, block: int | None = None) -> None:
        """Choose the order of the axes and the blocks for `w`, of `block` entries or the usual."""
        self.name = library
        self.xp = _array.namespace(w, "Rows")
        self.size = entries(w)
        strides = [abs(s) for s in (w.strides if hasattr(w, "strides") else w.stride())]
        self.order = sorted(range(w.ndim), key=lambda i: (-strides[i], i))
        shape = [w.shape[i] for i in self.order]
        count = max(1, (block or BLOCK[library]) // max(1, math.prod(shape[1:])))
        self.blocks = [slice(i, i + count) for i in range(0, shape[0], count)]
        self.shape = (count, *shape[1:])

    def axes(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Where these axes of the array are in the order."""
        return tuple(sorted(self.order.index(a) for a in axes))

    def ordered(self, x: Array) -> Array:
        """A view of an array with as many axes, in the order."""
        return self.xp.permute_dims(x, self.order)

    def restored(self, x: Array) -> Array:
        """A view of an ordered array with its axes as they were."""
        return self.xp.permute_dims(x, [self.order.index(i) for i in range(x.ndim)])

    def scratch(self) -> Array:
        """Memory for the squares of a block: fresh for each, it would cost more than they do."""
        return self.xp.empty(self.shape, dtype=self.xp.float64)

    def each(self, work: Callable[[Sequence[slice]], list[Any]]) -> list[Any]:
        """What ``work`` lists for the blocks, in order; large NumPy arrays in threads."""
        blocks = self.blocks
        if self.name != "numpy" or self.size < _THREADED or len(blocks) < 2:
            return work(blocks)
        # Here, for importing both costs more than the rest of the package.
        import os
        from concurrent.futures import ThreadPoolExecutor

        count = min(4, os.cpu_count() or 1)
        share = -(-len(blocks) // count)
        chunks = [blocks[i : i + share] for i in range(0, len(blocks), share)]
        # A pool for each call: one that is kept would not survive a fork, and starting it costs
        # little beside what an array of this size costs. The thread that asks works too: beside one
        # that waits the others took longer.
        with ThreadPoolExecutor(max(1, len(chunks) - 1)) as pool:
            others = [pool.submit(work, chunk) for chunk in chunks[1:]]
            found = work(chunks[0])
            for other in others:
                found += other.result()
        return found


def row(x: Any, rows: slice) -> Any:
    """These rows of a number, or of an array that may have one row for all."""
    return x if type(x) is float or x.shape[0] == 1 else x[rows]


def square_sums(
    w: Array, axes: tuple[int, ...], library: str, scratch: Array | None = None
) -> Array:
    """Sums of squares over `axes`, kept, in float64; of one block if there is `scratch` for it."""
    if scratch is not None or entries(w) <= BLOCK[library]:
        return _square_sums(w, axes, library, scratch)
    rows = Rows(w, library)
    v, moved = rows.ordered(w), rows.axes(axes)
    if library == "torch" and 0 in moved:
        return _torch_sums_across(w, axes)

    def work(blocks: Sequence[slice]) -> list[Array]:
        scratch = rows.scratch()
        return [_square_sums(v[r], moved, library, scratch) for r in blocks]

    parts = rows.each(work)
    if 0 not in moved:
        squares = rows.xp.concat(parts, axis=0)
    else:
        while len(parts) > 1:  # pairwise, for the sake of the sum
            parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
        squares = parts[0]
    return rows.restored(squares)


def _square_sums(block: Array, axes: tuple[int, ...], library: str, scratch: Array | None) -> Array:
    if scratch is not None:
        scratch = scratch[: block.shape[0]]
    if library == "torch":
        return _torch_sums(sys.modules["torch"], block, axes, scratch)
    if block.dtype.itemsize < 8:
        return _numpy_sums(sys.modules["numpy"], block, axes, scratch)
    return _numpy_double_sums(sys.modules["numpy"], block, axes, scratch)


def _torch_sums(torch: Any, block: Array, axes: tuple[int, ...], scratch: Array | None) -> Array:
    wide = block.to(torch.float64) if scratch is None else scratch.copy_(block)
    return torch.sum(torch.multiply(wide, wide, out=wide), dim=axes, keepdim=True)


def _torch_sums_across(w: Array, axes: tuple[int, ...]) -> Array:
    # torch is slow at sums along the slowest axis: add the blocks entry by entry, and sum once.
    rows = Rows(w, "torch", _ACROSS)
    v, scratch, total = rows.ordered(w), rows.scratch(), rows.scratch().zero_()
    for r in rows.blocks:
        wide = scratch[: v[r].shape[0]].copy_(v[r])
        total[: wide.shape[0]].addcmul_(wide, wide)
    return rows.restored(rows.xp.sum(total, axis=rows.axes(axes), keepdims=True))


def _numpy_sums(np: Any, block: Array, axes: tuple[int, ...], scratch: Array | None) -> Array:
    # float64 has more than enough digits for the squares of anything shorter: add in any order.
    last = axes == (block.ndim - 1,) and hasattr(np, "vecdot")  # NumPy 2
    if scratch is None:
        wide = block.astype(np.float64)
    else:
        wide = scratch
        wide[...] = block
    if last:
        return np.vecdot(wide, wide)[..., None]
    if scratch is not None:  # one pass over what is in cache; it may cast too, but more slowly
        every = list(range(block.ndim))
        kept = [i for i in every if i not in axes]
        sums = np.einsum(wide, every, wide, every, kept)
        return sums.reshape([1 if i in axes else s for i, s in enumerate(block.shape)])
    axis = axes[0] if len(axes) == 1 else axes  # a tuple takes half as long again
    return np.add.reduce(np.multiply(wide, wide, out=wide), axis=axis, keepdims=True)


def _numpy_double_sums(
    np: Any, block: Array, axes: tuple[int, ...], scratch: Array | None
) -> Array:
    with np.errstate(all="ignore"):  # the caller looks whether it overflowed
        squares = np.multiply(block, block, out=scratch)
        pairwise = axes == (block.ndim - 1,) and squares.flags.c_contiguous  # by NumPy itself
        for axis in axes:
            folded = squares if pairwise else _array.fold(squares, axis, np)
            squares = np.add.reduce(folded, axis=axis, keepdims=True)
        return squares


def multiply(w: Array, factor: Any, out: Array | None, precision: Precision, library: str) -> Array:
    """``w * factor`` for host memory, written to `out`, which may be `w`, if that is given."""
    if type(factor) is float:  # every group stays; a factor of a 0-d array is a NumPy scalar
        if out is None:
            return w.detach().clone() if library == "torch" else w.copy("K")
        if out is not w:
            _array.write(out, w)
        return out
    if library == "torch":
        w = w.detach()  # a view: nobody here asks for a gradient, and out= refuses leaves
    if precision.by_factor:
        factor = _to(factor, precision.dtype, library)
    if entries(w) <= BLOCK[library] or (library == "torch" and precision.by_factor):
        if out is not None:
            return _multiply_into(w, factor, out, precision, library)
        product = w * factor
        narrow = precision.wide is not None and not precision.by_factor
        return _to(product, precision.dtype, library) if narrow else product
    module = sys.modules[library]
    target = module.empty_like(w) if out is None else out
    rows = Rows(w, library)
    w, view, factor = (rows.ordered(a) for a in (w, target, factor))

    def work(blocks: Sequence[slice]) -> list[None]:
        for r in blocks:
            _multiply_into(w[r], row(factor, r), view[r], precision, library)
        return []

    rows.each(work)
    return target


def _multiply_into(
    w: Array, factor: Array, out: Array, precision: Precision, library: str
) -> Array:
    if precision.by_factor or precision.wide is None:
        view = out.detach() if library == "torch" else out
        sys.modules[library].multiply(w, factor, out=view)
    else:
        _array.write(out, w * factor)
    return out


def clip_(w: Array, low: Any, high: Any, library: str | None) -> bool:
    """Bring the entries of `w` between two numbers, in place; False if that is not for here.

    NaN stays, and so does the sign of a zero.
    """
    if library is None or not all(x is None or type(x) is float for x in (low, high)):
        return False
    if library == "torch":
        w.detach().clamp_(min=low, max=high)
        return True
    copyto = sys.modules["numpy"].copyto  # maximum would take either zero
    if low is not None:
        copyto(w, w.dtype.type(low), where=w < low)
    if high is not None:
        copyto(w, w.dtype.type(high), where=w > high)
    return True


# What Python asks of a few numbers, in the call that costs least.


def most(x: Array, library: str) -> float:
    """An upper bound of numbers >= 0; infinite or NaN if one of them is (or very large)."""
    if library == "numpy":
        return math.sqrt(sys.modules["numpy"].vdot(x, x))
    return float(x.max())


def least(x: Array, library: str) -> float:
    """The smallest number, NaN if one is."""
    if library == "numpy":
        return float(sys.modules["numpy"].minimum.reduce(x, axis=None))
    return float(x.min())


def count(mask: Array, library: str) -> int:
    """How many are true."""
    return int(sys.modules[library].count_nonzero(mask))


def _to(x: Array, dtype: Any, library: str) -> Array:
    return x.to(dtype) if library == "torch" else x.astype(dtype)


def entries(w: Array) -> int:
    """Number of entries."""
    return math.prod(w.shape)
