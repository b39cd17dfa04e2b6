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
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from normconstraints import _array, _host, _linalg
from normconstraints._array import Array
from normconstraints._groups import Groups
from normconstraints._norms import measure, power_of_two
from normconstraints._parameters import Axis, Number
from normconstraints._structure import MatrixGroups, half, mirrored, symmetric
from normconstraints._threshold import balanced


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

    roundings = 1
    """How many times the errors of a decomposition those of the method are."""

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

    def first(self, y: Array, count: int) -> Array:
        """The first values of each spectrum: the largest singular ones, the smallest others."""
        return _array.places(self.xp.ones_like(y), y.ndim - 1, self.xp) <= count

    # ------------------------------------------------------------------------------- tolerances

    @property
    def slack(self) -> float:
        """How far, relative to its largest singular value, a matrix may be out and count as inside.

        Half the tolerance: the other half is for what the projection itself rounds.
        """
        p, size = self.groups.precision, self.groups.size
        found = _array.tolerance(p.eps, size, wide=p.wide is not None, decomposed=True) / 2
        return found if p.wide is not None else found * self.roundings

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
            library = _host.name_of(self.groups.w, self.groups.precision)
            outside = self._plainly_outside(find, library)
            if outside is None:
                _, outside = self._off(find)
            if library is not None and not _host.count(outside & self.groups.finite, library):
                return _array.copy(self.groups.w, self.xp)
            return self._put(self._nearest(find), outside)

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
            # To a set that is curved everywhere its members are no less so.
            curved = self._curved(find) if convex else xp.ones_like(self.groups.finite)
            return xp.where(curved & self.groups.finite, found, g)

    def norm(self, of: Callable[[Array], Array]) -> Array:
        """A number for each matrix, made of its spectrum, with the axes of the matrices dropped."""
        with _array.quiet(self.xp):
            amount = self._of_groups(of(self.values()))
            every = self.xp.ones_like(amount, dtype=_array.boolean(self.xp))
            return self.groups.report(amount / self._scale, every)

    @abstractmethod
    def values(self) -> Array:
        """The spectra alone, in the units of `number`."""

    @abstractmethod
    def with_values(self, of: Callable[[Array], Array]) -> Array:
        """The weight with the spectra that are made of its own."""

    def _put(self, found: Array, where: Array | None = None) -> Array:
        """Matrices in the units of the spectra, in place of those of the weight."""
        every = self.xp.ones_like(self.groups.finite)
        found = self.matrices.back(found) / self._scale
        return self.groups.put_back(found, every if where is None else where)

    def _plainly_outside(self, find: Find, library: str | None) -> Array | None:
        """Those that have to move, as groups, if it is plain of all without exact spectra."""
        return None

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

    def _evened(self, v: Array) -> Array:
        """Columns made orthonormal to a few units, by one step of Newton and Schulz.

        Where values are nearly equal, as in a matrix that was projected and trained on, libraries
        give vectors that are not, and results off by that: 49 eps of 64 singular values were seen.
        A wider dtype does not see it.
        """
        if self.groups.precision.wide is not None:
            return v
        gram = _linalg.product(mirrored(v, self.matrices), v, self.xp)
        unit = self.is_diagonal(_real(gram[..., 0, :], self.matrices))
        off = self.xp.where(unit, 1.0 - gram, -gram)
        return v + 0.5 * _linalg.product(v, off, self.xp)

    def is_diagonal(self, y: Array) -> Array:
        """The diagonals of square matrices with as many rows as a spectrum is long."""
        place = _array.places(self.xp.ones_like(y), y.ndim - 1, self.xp)
        return place[..., None] == place[..., None, :]

    def _spread(self, m: Array, y: Array, change: Change, convex: bool) -> Array:
        """A self-adjoint matrix times the divided differences, its diagonal times the Jacobian."""
        xp, f, free = self.xp, change.values, change.free
        rise = f[..., None] - f[..., None, :]
        run = y[..., None] - y[..., None, :]
        both = free[..., None] & free[..., None, :]
        slope = xp.where(both, 1.0, self._quotient(rise, run, both, convex))
        diagonal = xp.sum(xp.where(self.is_diagonal(y), _real(m, self.matrices), 0.0), axis=-1)
        h = xp.where(free, diagonal, xp.zeros_like(diagonal))
        if change.shared:
            count = xp.sum(xp.astype(free, h.dtype), axis=-1, keepdims=True)
            mean = xp.sum(h, axis=-1, keepdims=True) / xp.where(count > 0, count, 1.0)
            h = xp.where(free, h - mean, h)
        return xp.where(self.is_diagonal(y), h[..., None], slope * m)

    def _quotient(self, a: Array, b: Array, free: Array, convex: bool) -> Array:
        """`a / b`; at 0 / 0 1 for free values, which are what they were, else 0."""
        xp, p = self.xp, self.groups.precision
        found = a / xp.where(b == 0, 1.0, b)
        # Projections onto convex sets do not expand: more is rounding. For others it is kept so far
        # in range that 0 times it is 0. (array_api_compat's clip for CuPy waits for the device.)
        least, most = 0.0, 1.0
        if not convex:
            most = 2.0 ** ((p.exponent if p.wide is None else 128) - 24)
            least = -most
        found = xp.where(found > most, most, xp.where(found < least, least, found))
        return xp.where(b == 0, xp.astype(free, found.dtype), found)


def _real(x: Array, matrices: MatrixGroups) -> Array:
    return matrices.xp.real(x) if matrices.groups.precision.is_complex else x


# ------------------------------------------------------------------------------ singular values


class SingularSpectra(Spectra):
    """Singular values, from the largest to the smallest."""

    capped = False
    """Whether the set asks for the largest singular value alone, and that it be small."""
    _parts: tuple[Array, Array, Array] | None = None

    def _plainly_outside(self, find: Find, library: str | None) -> Array | None:
        if not self.capped or library is None or not self.size:
            return None
        least, most = self._bounds()
        change = find(least)
        # What the bounds are off by is far below twice the slack.
        outside = change.amount > 2 * self.slack * most
        if _host.count(outside, library) < _host.entries(outside):
            return None
        return self._of_groups(outside)

    def _bounds(self) -> tuple[Array, Array]:
        """What the largest singular value is at least, by a few steps of the power method; at most.

        Both as the last axis of spectra.
        """
        xp, x = self.xp, self.x
        xt = xp.matrix_transpose(x)
        columns = xp.sum(x * x, axis=-2, keepdims=True)
        v = xp.sqrt(xp.matrix_transpose(columns))
        norm = xp.sqrt(xp.sum(columns, axis=-1, keepdims=True))
        length = xp.ones_like(norm)
        for _ in range(8):
            v = _linalg.product(xt, _linalg.product(x, v, xp), xp)
            length = xp.sqrt(xp.sum(v * v, axis=-2, keepdims=True))
            v = v / xp.where(length > 0, length, 1.0)
        return xp.sqrt(length)[..., 0], norm[..., 0]

    def values(self) -> Array:
        """The singular values alone."""
        blank = self._blank()
        return _linalg.singular_values(self.x, self.xp) if blank is None else blank

    def decomposed(self) -> tuple[Array, Array, Array]:
        """The left singular vectors as columns, the values, the right ones as rows, conjugated."""
        if self._parts is None:
            self._parts = self._even_parts(*_linalg.svd(self.x, self.xp))
        return self._parts

    def _even_parts(self, u: Array, y: Array, vh: Array) -> tuple[Array, Array, Array]:
        if self.groups.precision.wide is not None:
            return u, y, vh
        u, v = self._evened(u), self._evened(mirrored(vh, self.matrices))
        turned = _linalg.product(mirrored(u, self.matrices), self.x, self.xp)
        y = self.xp.sum(_real(self.xp.matrix_transpose(turned) * v, self.matrices), axis=-2)
        y = self.xp.where(y > 0, y, self.xp.zeros_like(y))
        return u, y, mirrored(v, self.matrices)

    def sharper(self) -> Array | None:
        """Values with few errors, where those of `values` have more; None where they have not.

        What finds the values alone was seen to put the largest of a cluster 48 eps too high.
        """
        if self.groups.precision.wide is not None or self._blank() is not None:
            return None
        return self.decomposed()[1]

    def _off(self, find: Find) -> tuple[Array, Array]:
        # It takes a decomposition. In host memory it can be seen first whether that matters.
        library = _host.name_of(self.groups.w, self.groups.precision)
        y = self.sharper() if library is None else None
        y = self.values() if y is None else y
        change = find(y)
        near = abs(change.amount) <= 8 * self.slack * self.vectors(y).max(y)
        if library is not None and _host.count(near, library):
            sharper = self.sharper()
            y = y if sharper is None else sharper
            change = find(y)
        return self._of_groups(change.amount), self._outside(y, change)

    def _curved(self, find: Find) -> Array:
        return self._off(find)[1]

    def _nearest(self, find: Find) -> Array:
        u, y, vh = self.decomposed()
        return self.composed(u, find(y).values, vh)

    def with_values(self, of: Callable[[Array], Array]) -> Array:
        with _array.quiet(self.xp):
            u, y, vh = self.decomposed()
            return self._put(self.composed(u, of(y), vh))

    def composed(self, u: Array, values: Array, vh: Array) -> Array:
        """The matrices of these singular vectors with other values."""
        return _linalg.product(u * values[..., None, :], vh, self.xp)

    def _pulled_back(self, find: Find, g: Array, convex: bool) -> Array:
        xp, matrices = self.xp, self.matrices
        u, y, vh = self.decomposed()
        change = find(y)
        uh, v = mirrored(u, matrices), mirrored(vh, matrices)
        left, right = _linalg.product(uh, g, xp), _linalg.product(g, v, xp)
        m = _linalg.product(left, v, xp)
        f, free = change.values, change.free
        both = free[..., None] & free[..., None, :]
        pairs = f[..., None] + f[..., None, :], y[..., None] + y[..., None, :]
        mean = self._quotient(*pairs, both, convex)
        core = self._spread(half(m, matrices, 1.0), y, change, convex)
        core = core + mean * half(m, matrices, -1.0)
        found = _linalg.product(_linalg.product(u, core, xp), vh, xp)
        # What is at right angles to all singular vectors on one side.
        ratio = self._quotient(f, y, free, convex)
        if matrices.rows > self.size:
            rest = (right - _linalg.product(u, m, xp)) * ratio[..., None, :]
            found = found + _linalg.product(rest, vh, xp)
        if matrices.cols > self.size:
            rest = (left - _linalg.product(m, vh, xp)) * ratio[..., None]
            found = found + _linalg.product(u, rest, xp)
        return found


class SignedSpectra(SingularSpectra):
    """Singular values of square matrices, the last of them with the sign of the determinant.

    The singular vectors are rotations then: one of the last pair is turned round.
    """

    def __init__(self, w: Array, axis: Axis, owner: str) -> None:
        """Take the matrices, which must be square."""
        super().__init__(w, axis, owner, square=True)

    def values(self) -> Array:
        blank = self._blank()
        return self._signed(super().values(), self.x) if blank is None else blank

    def decomposed(self) -> tuple[Array, Array, Array]:
        u, y, vh = super().decomposed()
        signs = self._signed(self.xp.ones_like(y), u) * self._signed(self.xp.ones_like(y), vh)
        return u, y * signs, vh * signs[..., None]

    def _signed(self, y: Array, x: Array) -> Array:
        """`y` with its last entries negative where the determinant of `x` is."""
        last = _array.places(self.xp.ones_like(y), y.ndim - 1, self.xp) == self.size
        negative = _linalg.determinant_sign(x, self.xp)[..., None] < 0
        return self.xp.where(last & negative, -y, y)


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
        return _linalg.eigenvalues(self.x, self.xp) if blank is None else blank

    def decomposed(self) -> tuple[Array, Array]:
        """The eigenvalues, and the eigenvectors as columns."""
        y, v = _linalg.eigh(self.x, self.xp)
        return y, self._evened(v)

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

    def with_values(self, of: Callable[[Array], Array]) -> Array:
        with _array.quiet(self.xp):
            y, v = self.decomposed()
            return self._put(self.composed(of(y), v))

    def composed(self, values: Array, v: Array) -> Array:
        """The matrices of these eigenvectors with other values."""
        vh = mirrored(v, self.matrices)
        return half(_linalg.product(v * values[..., None, :], vh, self.xp), self.matrices, 1.0)

    def _pulled_back(self, find: Find, g: Array, convex: bool) -> Array:
        xp, matrices = self.xp, self.matrices
        y, v = self.decomposed()
        vh = mirrored(v, matrices)
        m = _linalg.product(_linalg.product(vh, half(g, matrices, 1.0), xp), v, xp)
        core = self._spread(half(m, matrices, 1.0), y, find(y), convex)
        found = _linalg.product(_linalg.product(v, core, xp), vh, xp)
        return half(found, matrices, 1.0)


# ------------------------------------------------------------------------------------- tangents


def below_bound(s: SingularSpectra, radius: Any, g: Array) -> Array:
    r"""The part of a gradient that does not leave a spectral ball at a member, by first order.

    Among the singular vectors whose value is the bound, :math:`U_1^H H V_1` must have no positive
    eigenvalue.
    """
    xp, m = s.xp, s.matrices
    u, y, vh = s.decomposed()
    h = -m.of(s.groups.widen(g))
    active = y >= radius * (1 - 4 * s.slack)
    inner = _linalg.product(_linalg.product(mirrored(u, m), h, xp), mirrored(vh, m), xp)
    rising = _part_of_block(s, inner, active, xp.maximum)
    part = _linalg.product(_linalg.product(u, rising, xp), vh, xp) - h
    point = radius * xp.ones_like(y[..., :1]) <= 0  # a ball of radius 0 has no way to go
    return m.back(xp.where(point[..., None], xp.zeros_like(part), part))


def within_nuclear(s: SingularSpectra, radius: Any, g: Array) -> Array:
    r"""The part of a gradient that does not leave a nuclear ball at a member, by first order.

    With the singular vectors U, V of the values that are not 0, and P, Q what is at right angles to
    them, the norm grows along H by :math:`\langle U V^H, H \rangle + \|P H Q\|_*`. Where that is
    positive on the boundary, a threshold is taken off until it is 0, of both terms as of the free
    entries and the others of an L1 ball.
    """
    xp, m = s.xp, s.matrices
    u, y, vh = s.decomposed()
    h = -m.of(s.groups.widen(g))
    top = s.vectors(y).max(y)
    free = y > 4 * s.slack * top
    u = xp.where(free[..., None, :], u, xp.zeros_like(u))
    vh = xp.where(free[..., None], vh, xp.zeros_like(vh))
    uh, v = mirrored(u, m), mirrored(vh, m)
    rest = h - _linalg.product(u, _linalg.product(uh, h, xp), xp)
    rest = rest - _linalg.product(_linalg.product(rest, v, xp), vh, xp)
    a, z, bh = _linalg.svd(rest, xp)
    # The values of the rest take the places of those that are 0, which come last.
    slope = _linalg.product(_linalg.product(uh, h, xp), v, xp)
    slope = xp.sum(xp.where(s.is_diagonal(y), _real(slope, m), 0.0), axis=-1)
    turned = xp.where(free, slope, xp.flip(z, axis=-1))
    growth = s.vectors(turned).sum(turned)
    even = balanced(s.vectors(turned), turned, free)
    taken = s.vectors(turned).max(xp.where(free, turned - even, -math.inf))
    kept = xp.where(z > taken, z - taken, xp.zeros_like(z))
    # Those values come first here, as many as are not free.
    kept = xp.where(xp.flip(free, axis=-1), xp.zeros_like(kept), kept)
    less = s.composed(u, taken * xp.ones_like(y), vh) + s.composed(a, z - kept, bh)
    edge = s.vectors(y).sum(y) >= radius - 4 * s.slack * top
    part = xp.where((edge & (growth > 0))[..., None], less - h, -h)
    point = radius * xp.ones_like(top) <= 0
    return m.back(xp.where(point[..., None], xp.zeros_like(part), part))


def along_orthogonal(w: Array, g: Array, axis: Axis, owner: str) -> Array:
    """The part of a gradient that is tangent to the matrices with orthonormal columns or rows."""
    weights = MatrixGroups(w, axis, owner)
    m = MatrixGroups(g, axis, owner)
    with _array.quiet(m.xp):
        q, h = weights.of(weights.groups.wide), m.of(m.groups.wide)
        tall = m.rows >= m.cols
        q, h = (q, h) if tall else (mirrored(q, m), mirrored(h, m))
        part = h - _linalg.product(q, half(_linalg.product(mirrored(q, m), h, m.xp), m, 1.0), m.xp)
        part = part if tall else mirrored(part, m)
        return m.groups.put_back(m.back(part), weights.groups.finite & m.groups.finite)


def above_floor(s: EigenSpectra, minimum: Any, g: Array) -> Array:
    """The part of a gradient that lets no eigenvalue at the floor fall, by first order."""
    xp, m = s.xp, s.matrices
    y, v = s.decomposed()
    h = -half(m.of(s.groups.widen(g)), m, 1.0)
    size = s.vectors(y).max(abs(y))
    active = y <= minimum + 4 * s.slack * size
    vh = mirrored(v, m)
    inner = _linalg.product(_linalg.product(vh, h, xp), v, xp)
    falling = _part_of_block(s, inner, active, xp.minimum)
    part = h - _linalg.product(_linalg.product(v, falling, xp), vh, xp)
    return m.back(half(-part, m, 1.0))


def _part_of_block(s: Spectra, x: Array, active: Array, keep: Callable[..., Array]) -> Array:
    """Of the self-adjoint part of a block of matrices the positive or the negative part."""
    xp = s.xp
    block = xp.where(active[..., None] & active[..., None, :], half(x, s.matrices, 1.0), 0.0)
    values, vectors = _linalg.eigh(block, xp)
    kept = keep(values, xp.zeros_like(values))
    return _linalg.product(vectors * kept[..., None, :], mirrored(vectors, s.matrices), xp)
