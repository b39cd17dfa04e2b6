"""Groups whose entries are tied to each other; matrices along diagonals and across them.

Each set is a linear subspace in which the entries of an orbit are equal, up to a sign or a
conjugation, so that the nearest matrix has the mean of every orbit. A matrix that is in the set
already is found by comparing entries, not by its mean, which is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normconstraints import _array
from normconstraints._array import Array
from normconstraints._groups import Groups
from normconstraints._norms import measure
from normconstraints._parameters import Axis


class Averages:
    """The groups of a weight, whose nearest members are means of their entries."""

    def __init__(self, w: Array, axis: Axis, owner: str, *, sums: bool = True) -> None:
        """Take the groups; with `sums` entries are added, which must not overflow."""
        self.groups = Groups(w, axis, owner, allow_complex=True)
        self.xp, self._sums = self.groups.xp, sums

    def of(self, x: Array) -> Array:
        """An array of the shape of the weight with each group along the last axis."""
        return self.groups.flat(x)

    def back(self, x: Array) -> Array:
        """What `of` made, in the shape of the weight again."""
        return self.groups.unflat(x)

    def measured(self) -> tuple[Array, Any]:
        """The weight in the dtype that computes, times a power of two for sums, and that."""
        if not self._sums:
            return self.groups.wide, 1.0
        y, scale = self.groups.shrunk()
        if isinstance(scale, float):
            return y, scale
        # A compiler that fuses products with sums would round one of two summands and not the
        # other, and not the same one on both sides of a diagonal. What has to be looked at is
        # rounded first; groups with NaN are put back later.
        return self.xp.where(y == y, y, self.xp.zeros_like(y)), scale

    def nearest(self, find: Callable[[Array], Array], member: Array) -> Array:
        """The weight with the groups that are no members replaced by those that are found."""
        w = self.groups.w
        with _array.quiet(self.xp):
            y, scale = self.measured()
            found = _array.cast(self.back(find(self.of(y))) / scale, w.dtype, self.xp)
            # A member whose mean is not rounded is taken from the mean, which has the derivative.
            return self.groups.put_back(found, ~member | ((found == w) & (w != 0)))

    def distance(self, rest: Callable[[Array], Array], member: Array) -> Array:
        """The norm of what takes each group out of the set, 0 for members."""
        xp, groups = self.xp, self.groups
        with _array.quiet(xp):
            y, scale = self.measured()
            off = y if 0 in y.shape else self.back(rest(self.of(y)))
            norms = measure(off, groups.axes, xp, _array.precision(off, xp, groups.owner))
            return groups.report(norms.length / scale, ~member)

    def along(self, find: Callable[[Array], Array], w: Array) -> Array:
        """The part of a gradient that stays in the subspace, where that and `w` are finite."""
        groups = self.groups
        with _array.quiet(self.xp):
            y, scale = self.measured()
            found = self.back(find(self.of(y))) / scale
            finite = groups.finite & groups.every(self.xp.isfinite(w))
            return groups.put_back(found, finite)

    def pulled_back(self, find: Callable[[Array], Array], g: Array) -> Array:
        """The product of a gradient with the derivative of `nearest`, of members too.

        Linear in the gradient, whose values decide nothing: JAX transposes it.
        """
        groups = self.groups
        found = self.back(find(self.of(groups.widen(g))))
        return self.xp.where(groups.finite, _array.cast(found, g.dtype, self.xp), g)


class MatrixGroups(Averages):
    """The groups of a weight as matrices, with rows and columns as the last two axes."""

    def __init__(
        self, w: Array, axis: Axis, owner: str, *, square: bool = False, sums: bool = False
    ) -> None:
        """Take the axes of the rows and of the columns; a ValueError if a square one is not."""
        assert isinstance(axis, tuple)
        super().__init__(w, axis, owner, sums=sums)
        rows, cols = (a % w.ndim for a in axis)
        self._turned = rows > cols
        self._batch = tuple(s for i, s in enumerate(w.shape) if i not in (rows, cols))
        self.rows, self.cols = w.shape[rows], w.shape[cols]
        if square and self.rows != self.cols:
            raise ValueError(
                f"{owner}: w must have square matrices, got {self.rows} rows and {self.cols} "
                f"columns along the axes {axis}; give the axes of rows and columns that are as "
                "many, or reshape the weight"
            )

    def of(self, x: Array) -> Array:
        """An array of the shape of the weight as matrices."""
        shape = (self.cols, self.rows) if self._turned else (self.rows, self.cols)
        x = self.xp.reshape(self.groups.flat(x), (*self._batch, *shape))
        return self.xp.matrix_transpose(x) if self._turned else x

    def back(self, x: Array) -> Array:
        """What `of` made, in the shape of the weight again."""
        x = self.xp.matrix_transpose(x) if self._turned else x
        return self.groups.unflat(self.xp.reshape(x, (*self._batch, self.rows * self.cols)))

    def each(self, held: Array) -> Array:
        """What is said of each matrix as what is said of each group; true if of all entries."""
        return self.xp.reshape(self.xp.all(held, axis=(-2, -1)), self.groups.reduced)


# ------------------------------------------------------------------------------------- mirrors


def mirrored(x: Array, matrices: MatrixGroups) -> Array:
    """The conjugate transposes."""
    t = matrices.xp.matrix_transpose(x)
    return _array.conjugate(t, matrices.xp) if matrices.groups.precision.is_complex else t


def symmetric(matrices: MatrixGroups, sign: float) -> Array:
    """Matrices that are their mirror image, times `sign`."""
    w = matrices.of(matrices.groups.w)
    with _array.quiet(matrices.xp):
        return matrices.each(w == sign * mirrored(w, matrices))


def half(x: Array, matrices: MatrixGroups, sign: float) -> Array:
    """The part that is its mirror image times `sign`."""
    return 0.5 * (x + sign * mirrored(x, matrices))


# ----------------------------------------------------------------------------------- diagonals


def constant_diagonals(matrices: MatrixGroups, *, round_the_corner: bool = False) -> Array:
    """Matrices whose diagonals are constant; those that leave to the right come in at the left."""
    w = matrices.groups.w
    if 0 in w.shape:  # which dask does not reshape
        return matrices.groups.every(w == w)
    w = matrices.of(w)
    same = matrices.each(w[..., 1:, 1:] == w[..., :-1, :-1])
    if round_the_corner:
        ends = w[..., 1:, :1] == w[..., :-1, -1:]
        same = same & matrices.each(ends)
    return same


def diagonal_means(x: Array, matrices: MatrixGroups) -> Array:
    """Every diagonal with its mean."""
    xp, n, m = matrices.xp, matrices.rows, matrices.cols
    count = n + m - 1
    sheared = _diagonals_as_columns(x, matrices)
    total = _array.accurate_sum(sheared, (x.ndim - 2,), xp)
    lengths = tuple(float(min(d + 1, n, m, count - d)) for d in range(count))
    mean = total / _array.like(lengths, x, xp, matrices.groups.precision.accumulator, "diagonals")
    rows = xp.broadcast_to(mean, (*x.shape[:-2], n, count))
    flat = xp.reshape(rows, (*x.shape[:-2], n * count))
    padded = xp.concat([flat, xp.zeros_like(flat[..., :n])], axis=-1)
    return _upside_down(xp.reshape(padded, (*x.shape[:-2], n, n + m))[..., :m], matrices)


def _diagonals_as_columns(x: Array, matrices: MatrixGroups) -> Array:
    """Each row moved on by one more than the one below it; zeros where nothing is."""
    xp, n, m = matrices.xp, matrices.rows, matrices.cols
    batch = x.shape[:-2]
    blank = xp.broadcast_to(xp.zeros_like(x[..., :1]), (*batch, n, n))
    wide = xp.concat([_upside_down(x, matrices), blank], axis=-1)
    # To read the rows as if they were one shorter moves each of them.
    flat = xp.reshape(wide, (*batch, n * (n + m)))[..., : n * (n + m - 1)]
    return xp.reshape(flat, (*batch, n, n + m - 1))


def _upside_down(x: Array, matrices: MatrixGroups) -> Array:
    return matrices.xp.flip(x, axis=-2)


def wrapped_diagonal_means(x: Array, matrices: MatrixGroups) -> Array:
    """Every diagonal that goes on round the corner with its mean, of square matrices."""
    xp, n = matrices.xp, matrices.rows
    batch = x.shape[:-2]
    twice = xp.reshape(xp.concat([x, x], axis=-1), (*batch, 2 * n * n))
    padded = xp.concat([twice, xp.zeros_like(twice[..., :n])], axis=-1)
    turned = xp.reshape(padded, (*batch, n, 2 * n + 1))[..., :n]
    mean = _array.accurate_sum(turned, (x.ndim - 2,), xp) / n
    rows = xp.broadcast_to(mean, (*batch, n, n))
    twice = xp.reshape(xp.concat([rows, rows], axis=-1), (*batch, 2 * n * n))
    return xp.reshape(twice[..., n:], (*batch, n, 2 * n - 1))[..., :n]


def below_diagonal(x: Array, matrices: MatrixGroups) -> Array:
    """True on the diagonals of matrices and below them."""
    xp = matrices.xp
    ones = _array.trues_like(x, xp)
    return _array.places(ones, x.ndim - 2, xp) >= _array.places(ones, x.ndim - 1, xp)
