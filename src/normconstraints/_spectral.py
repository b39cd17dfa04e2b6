r"""Spectral calculus: a set of vectors applied to the singular values or eigenvalues of matrices.

For a set that does not care for the order of entries and, for singular values, for their signs, the
nearest matrix has the same singular vectors, and for spectrum the vector that is nearest (Lewis
1995, von Neumann 1937). So a set says what becomes of the spectrum (`Change`), and everything else
is here: the decomposition, the matrix that it gives, how far a matrix is outside, and the
derivative.

That of the decomposition itself is infinite for a value that is there twice, where that of the
projection is harmless. So it is stated by divided differences (Daleckii and Krein 1965):

.. math:: DP(W)[H] = U (\Gamma_1 \circ \mathrm{sym} M + \Gamma_2 \circ \mathrm{skew} M) V^H, \quad
    M = U^H H V, \quad (\Gamma_1)_{ij} = \frac{f_i - f_j}{\sigma_i - \sigma_j}, \quad
    (\Gamma_2)_{ij} = \frac{f_i + f_j}{\sigma_i + \sigma_j}

with the Jacobian of the vectors in place of the diagonal of the first.

A decomposition is exact for a matrix that differs from the given one by rounding, relative to its
largest singular value. That, and not the size of the result, is what the results are exact to.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from normconstraints import _array, _host
from normconstraints._array import Array
from normconstraints._groups import Groups
from normconstraints._norms import measure, power_of_two
from normconstraints._parameters import Axis, Number
from normconstraints._structure import MatrixGroups, half, mirrored, symmetric


@dataclass(frozen=True)
class Change:
    """What a set makes of a spectrum: the nearest vector, and its derivative."""

    values: Array
    """The spectrum of the nearest matrix."""
    amount: Array
    """How far each spectrum is outside, not positive inside, with the last axis of length 1."""
    free: Array
    """The values that follow their like; the others stay where they are."""
    shared: bool = False
    """Whether the free values have a sum to keep."""


Find: TypeAlias = Callable[[Array], Change]
"""What a set makes of spectra, which are along the last axis of an array of real numbers."""


class Spectra(ABC):
    """The singular values or the eigenvalues of the matrices of a weight, as vectors."""

    def __init__(self, w: Array, axis: Axis, owner: str, *, square: bool = False) -> None:
        """Take the matrices; those with NaN or infinity count as zero, no library decomposes them.

        They are multiplied by a power of two that keeps sums of squares in range, and all of the
        spectrum is meant relative to that.
        """
        self.matrices = MatrixGroups(w, axis, owner, square=square)
        self.groups = groups = self.matrices.groups
        self.xp = xp = groups.xp
        self.size = min(self.matrices.rows, self.matrices.cols)
        """The length of a spectrum."""
        p = groups.precision
        self._real = dataclasses.replace(p, dtype=p.real, is_complex=False)
        self._scale: Any = 1.0
        with _array.quiet(xp):
            y = groups.wide
            if p.wide is None or p.scaled:
                far = 2.0 ** (p.exponent // 2)
                scale = power_of_two(y, groups.axes, xp, p)
                self._scale = xp.where(scale > far, far, xp.where(scale < 1 / far, 1 / far, scale))
            self.x = self.matrices.of(xp.where(groups.finite, y * self._scale, xp.zeros_like(y)))

    # ------------------------------------------------------------------------------ for the sets

    def number(self, value: Number, name: str) -> Any:
        """A parameter of the matrices, in the units of the spectrum."""
        found = self.groups.number(value, name) * self._scale
        return found if isinstance(found, float) else self._of_each(found)

    def vectors(self, y: Array) -> Groups:
        """Spectra as groups, for what sets of vectors are made of."""
        return Groups(y, -1, self.groups.owner, precision=self._real)

    # ------------------------------------------------------------------------------- tolerances

    @property
    def slack(self) -> float:
        """How far, relative to its largest singular value, a matrix may be out and count as inside.

        Half the tolerance: the other half is for what the projection itself rounds.
        """
        p, size = self.groups.precision, self.groups.size
        return _array.tolerance(p.eps, size, wide=p.wide is not None, decomposed=True) / 2

    def _outside(self, y: Array, change: Change) -> Array:
        """The matrices that have to move, as groups of the weight."""
        size = abs(y)
        allowed = self.slack * self.vectors(size).max(size)
        floor = self.groups.quantum * max(self.groups.size, 1) ** 0.5 * self._scale
        amount = self._of_groups(change.amount)
        return (amount > self._of_groups(allowed)) & (amount > floor)

    # ---------------------------------------------------------------------------------- results

    def nearest(self, find: Find) -> Array:
        """The weight with the matrices outside replaced by the nearest ones."""
        with _array.quiet(self.xp):
            _, outside = self._off(find)
            library = _host.name_of(self.groups.w, self.groups.precision)
            if library is not None and not _host.count(outside & self.groups.finite, library):
                return _array.copy(self.groups.w, self.xp)
            found = self.matrices.back(self._nearest(find)) / self._scale
            return self.groups.put_back(found, outside)

    def violation(self, find: Find) -> Array:
        """How far each matrix is outside."""
        with _array.quiet(self.xp):
            amount, outside = self._off(find)
            return self.groups.report(amount / self._scale, outside)

    def pulled_back(self, find: Find, g: Array, *, convex: bool) -> Array:
        """The product of a gradient with the Jacobian of the projection, which is symmetric."""
        xp = self.xp
        with _array.quiet(xp):
            wide = self.matrices.of(self.groups.widen(g))
            found = _array.cast(
                self.matrices.back(self._pulled_back(find, wide, convex)), g.dtype, xp
            )
            return xp.where(self._curved(find) & self.groups.finite, found, g)

    @abstractmethod
    def _off(self, find: Find) -> tuple[Array, Array]:
        """How far each matrix is outside, and those that have to move, as groups of the weight."""

    @abstractmethod
    def _curved(self, find: Find) -> Array:
        """The matrices around which the projection is not the identity."""

    @abstractmethod
    def _nearest(self, find: Find) -> Array:
        """The matrices with the spectra that are found."""

    @abstractmethod
    def _pulled_back(self, find: Find, g: Array, convex: bool) -> Array:
        """The product of the matrices of a gradient with the Jacobian."""

    # ------------------------------------------------------------------------------------ shapes

    def _of_each(self, x: Array) -> Array:
        """What there is one of for each group of the weight, as the last axis of the spectra."""
        w, axes = self.groups.w, self.groups.axes
        return self.xp.reshape(x, (*(s for i, s in enumerate(w.shape) if i not in axes), 1))

    def _of_groups(self, x: Array) -> Array:
        """The last axis of the spectra as one of for each group of the weight."""
        return self.xp.reshape(x, self.groups.reduced)

    def _blank(self) -> Array | None:
        """Spectra of one 0 for matrices without entries, of which there is nothing to decompose."""
        if 0 not in self.groups.w.shape:
            return None
        sums = self.xp.sum(abs(self.groups.wide), axis=self.groups.axes, keepdims=True)
        return self._of_each(sums)

    def _diagonal(self, y: Array) -> Array:
        """Vectors as diagonal matrices."""
        return self.xp.where(self._is_diagonal(y), y[..., None], self.xp.zeros_like(y[..., None]))

    def _is_diagonal(self, y: Array) -> Array:
        place = _array.places(self.xp.ones_like(y), y.ndim - 1, self.xp)
        return place[..., None] == place[..., None, :]

    def _spread(self, m: Array, y: Array, change: Change, convex: bool) -> Array:
        """A self-adjoint matrix times the divided differences, its diagonal times the Jacobian."""
        xp, f, free = self.xp, change.values, change.free
        rise = f[..., None] - f[..., None, :]
        run = y[..., None] - y[..., None, :]
        both = free[..., None] & free[..., None, :]
        slope = rise / xp.where(run == 0, 1.0, run)
        if convex:
            slope = _within_one(slope, xp)
        slope = xp.where(both, 1.0, xp.where(run == 0, xp.zeros_like(slope), slope))
        diagonal = xp.sum(xp.where(self._is_diagonal(y), _real(m, self.matrices), 0.0), axis=-1)
        h = xp.where(free, diagonal, xp.zeros_like(diagonal))
        if change.shared:
            count = xp.sum(xp.astype(free, h.dtype), axis=-1, keepdims=True)
            mean = xp.sum(h, axis=-1, keepdims=True) / xp.where(count > 0, count, 1.0)
            h = xp.where(free, h - mean, h)
        return xp.where(self._is_diagonal(y), h[..., None], slope * m)


def _real(x: Array, matrices: MatrixGroups) -> Array:
    return matrices.xp.real(x) if matrices.groups.precision.is_complex else x


# ------------------------------------------------------------------------------ singular values


class SingularSpectra(Spectra):
    """Singular values, from the largest to the smallest."""

    def values(self) -> Array:
        """The singular values alone."""
        blank = self._blank()
        return _array.singular_values(self.x, self.xp) if blank is None else blank

    def decomposed(self) -> tuple[Array, Array, Array]:
        """The left singular vectors as columns, the values, the right ones as rows, conjugated."""
        return _array.svd(self.x, self.xp)

    def _off(self, find: Find) -> tuple[Array, Array]:
        y = self.values()
        change = find(y)
        return self._of_groups(change.amount), self._outside(y, change)

    def _curved(self, find: Find) -> Array:
        return self._off(find)[1]

    def _nearest(self, find: Find) -> Array:
        u, y, vh = self.decomposed()
        return self.composed(u, find(y).values, vh)

    def composed(self, u: Array, values: Array, vh: Array) -> Array:
        """The matrices of these singular vectors with other values."""
        return _array.product(u * values[..., None, :], vh, self.xp)

    def _pulled_back(self, find: Find, g: Array, convex: bool) -> Array:
        xp, matrices = self.xp, self.matrices
        u, y, vh = self.decomposed()
        change = find(y)
        uh, v = mirrored(u, matrices), mirrored(vh, matrices)
        left, right = _array.product(uh, g, xp), _array.product(g, v, xp)
        m = _array.product(left, v, xp)
        f, free = change.values, change.free
        both = free[..., None] & free[..., None, :]
        mean = _quotient(
            f[..., None] + f[..., None, :], y[..., None] + y[..., None, :], both, convex, xp
        )
        core = self._spread(half(m, matrices, 1.0), y, change, convex)
        core = core + mean * half(m, matrices, -1.0)
        found = _array.product(_array.product(u, core, xp), vh, xp)
        # What is at right angles to all singular vectors on one side.
        ratio = _quotient(f, y, free, convex, xp)
        if matrices.rows > self.size:
            rest = (right - _array.product(u, m, xp)) * ratio[..., None, :]
            found = found + _array.product(rest, vh, xp)
        if matrices.cols > self.size:
            rest = (left - _array.product(m, vh, xp)) * ratio[..., None]
            found = found + _array.product(u, rest, xp)
        return found


def _quotient(a: Array, b: Array, free: Array, convex: bool, xp: Any) -> Array:
    """`a / b`, which is 1 for free values and 0 where there is no derivative."""
    found = a / xp.where(b == 0, 1.0, b)
    if convex:
        found = _within_one(found, xp)
    return xp.where(free, 1.0, xp.where(b == 0, xp.zeros_like(found), found))


def _within_one(x: Array, xp: Any) -> Array:
    """What rounding took below 0 or above 1 back: projections onto convex sets do not expand."""
    # array_api_compat's clip for CuPy waits for the device.
    return xp.where(x < 0, xp.zeros_like(x), xp.where(x > 1, xp.ones_like(x), x))


# ---------------------------------------------------------------------------------- eigenvalues


class EigenSpectra(Spectra):
    """Eigenvalues of the self-adjoint parts, from the smallest to the largest."""

    def __init__(self, w: Array, axis: Axis, owner: str) -> None:
        """Take the matrices, which must be square."""
        super().__init__(w, axis, owner, square=True)
        with _array.quiet(self.xp):
            self._skew = half(self.x, self.matrices, -1.0)
            self.x = half(self.x, self.matrices, 1.0)

    def values(self) -> Array:
        """The eigenvalues alone."""
        blank = self._blank()
        return _array.eigenvalues(self.x, self.xp) if blank is None else blank

    def decomposed(self) -> tuple[Array, Array]:
        """The eigenvalues, and the eigenvectors as columns."""
        return _array.eigh(self.x, self.xp)

    def _off(self, find: Find) -> tuple[Array, Array]:
        y = self.values()
        change = find(y)
        outside = self._outside(y, change)
        amount = self._of_groups(change.amount)
        amount = self.xp.where(outside, amount, self.xp.zeros_like(amount))
        if self._blank() is not None:
            return amount, outside
        groups = self.groups
        skew = self.matrices.back(self._skew)
        length = measure(skew, groups.axes, self.xp, self._accumulating).length
        crooked = self.xp.logical_not(symmetric(self.matrices, 1.0))
        amount = self.xp.where(crooked & (length > amount), length, amount)
        return amount, outside | crooked

    @property
    def _accumulating(self) -> Any:
        return _array.precision(self.x, self.xp, self.groups.owner)

    def _curved(self, find: Find) -> Array:
        # Around a symmetric matrix the others are: the projection takes their symmetric part.
        return self.xp.ones_like(self.groups.finite)

    def _nearest(self, find: Find) -> Array:
        y, v = self.decomposed()
        return self.composed(find(y).values, v)

    def composed(self, values: Array, v: Array) -> Array:
        """The matrices of these eigenvectors with other values."""
        vh = mirrored(v, self.matrices)
        return half(_array.product(v * values[..., None, :], vh, self.xp), self.matrices, 1.0)

    def _pulled_back(self, find: Find, g: Array, convex: bool) -> Array:
        xp, matrices = self.xp, self.matrices
        y, v = self.decomposed()
        vh = mirrored(v, matrices)
        m = _array.product(_array.product(vh, half(g, matrices, 1.0), xp), v, xp)
        core = self._spread(half(m, matrices, 1.0), y, find(y), convex)
        found = _array.product(_array.product(v, core, xp), vh, xp)
        return half(found, matrices, 1.0)
