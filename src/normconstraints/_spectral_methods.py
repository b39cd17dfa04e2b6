r"""Singular values without a singular value decomposition: by Gram matrices, and by products alone.

`GramSpectra` takes the eigenvectors V of the smaller Gram matrix, and for singular values the norms
of the columns of X V. That costs half of a decomposition on a CPU. What is lost are digits of
directions whose singular values are small beside the largest one: those of the result are off by
:math:`u (\sigma_1 / r)^2`, u the rounding of the dtype that computes.

`ProductSpectra` knows of a matrix only what products tell. The matrix sign, :math:`U V^H` of
:math:`U \Sigma V^H`, is what odd polynomials that push singular values to 1 converge to. Each of
degree 5, optimal for the interval in which the one before has left them (the Polar Express of Amsel
et al. 2025), costs three products. From it the cap at r is

.. math:: \tfrac12 (W + r O - (W - r O) \, \mathrm{sign}(O^H W - r I)), \quad O = \mathrm{sign}(W)

and the largest singular value is the limit of :math:`\|(W^H W)^m\|_F^{1/(2m)}`, by squaring.
"""

from __future__ import annotations

import math
from typing import Any

from normconstraints import _array, _host, _host_spectral, _linalg
from normconstraints._array import Array
from normconstraints._norms import power_of_two
from normconstraints._parameters import Axis
from normconstraints._spectral import Find, SingularSpectra
from normconstraints._structure import half, mirrored

METHODS = ("svd", "gram", "polar")
"""How the nearest matrix is computed."""
ROUNDINGS = 64
"""How many times the errors of a decomposition those of the many products are."""


def check_method(owner: object, value: Any, methods: tuple[str, ...] = METHODS) -> str:
    """One of `methods`."""
    rule = f"{type(owner).__name__}: method must be one of {', '.join(map(repr, methods))}"
    if not isinstance(value, str):
        raise TypeError(f"{rule}, got {value!r}")
    if value not in methods:
        raise ValueError(f"{rule}, got {value!r}")
    return value


def spectra(w: Array, axis: Axis, owner: str, method: str) -> SingularSpectra:
    """The singular values of the matrices of a weight, to be capped by that method."""
    kinds: dict[str, type[SingularSpectra]] = {
        "svd": SingularSpectra,
        "gram": GramSpectra,
        "polar": ProductSpectra,
    }
    found = kinds[method](w, axis, owner)
    found.capped = True
    return found


class _Evened(SingularSpectra):
    """Singular values by products, for which matrices are brought near 1 and made tall."""

    def __init__(self, w: Array, axis: Axis, owner: str) -> None:
        """Take the matrices."""
        super().__init__(w, axis, owner)
        m = self.matrices
        self._wide = m.rows < m.cols
        with _array.quiet(self.xp):
            x = mirrored(self.x, m) if self._wide else self.x
            if 0 in x.shape:
                return
            # No more than leaves room for a bound that is scaled by it.
            far = 2.0 ** (m.groups.precision.exponent // 2 - 8)
            even = self._even(x)
            even = self.xp.where(even > far, far, even)
            self._tall, self._factor = x * even, even[..., 0]

    def sharper(self) -> None:
        """Nothing that does not take a decomposition."""

    def _even(self, x: Array) -> Array:
        """A power of two that brings the largest entry of each matrix near 1."""
        return power_of_two(x, (x.ndim - 2, x.ndim - 1), self.xp, self.groups.precision)

    @property
    def _unit(self) -> float:
        """The rounding of the dtype that computes."""
        p = self.groups.precision
        return p.eps if p.wide is None else self.xp.finfo(p.wide).eps

    def _untall(self, x: Array) -> Array:
        """What tall matrices were made of."""
        return mirrored(x, self.matrices) if self._wide else x

    def _gram(self, x: Array) -> Array:
        return _linalg.product(mirrored(x, self.matrices), x, self.xp)

    def _squares(self, x: Array) -> Array:
        return _real_part(x * _conjugate(x, self), self)


def _conjugate(x: Array, s: SingularSpectra) -> Array:
    return _array.conjugate(x, s.xp) if s.groups.precision.is_complex else x


def _real_part(x: Array, s: SingularSpectra) -> Array:
    return s.xp.real(x) if s.groups.precision.is_complex else x


# ------------------------------------------------------------------------------- Gram matrices


class GramSpectra(_Evened):
    """Singular values as roots of the eigenvalues of the smaller Gram matrix."""

    def values(self) -> Array:
        blank = self._blank()
        if blank is not None:
            return blank
        squares = self.xp.flip(_linalg.eigenvalues(self._gram(self._tall), self.xp), axis=-1)
        squares = self.xp.where(squares > 0, squares, self.xp.zeros_like(squares))
        return self.xp.sqrt(squares) / self._factor

    _in_single: _host_spectral.Eigen | None = None

    def _eigen(self, library: str | None) -> _host_spectral.Eigen | None:
        """Eigenvectors in single precision, where there is a use for them."""
        if library != "torch" or not self.groups.precision.by_factor or not self.size:
            return None
        if self._in_single is None:
            self._in_single = _host_spectral.eigen(self._tall.detach())
        return self._in_single

    def _plainly_outside(self, find: Find, library: str | None) -> Array | None:
        eigen = self._eigen(library)
        if eigen is None:
            return super()._plainly_outside(find, library)
        largest, off = self.xp.sqrt(eigen.largest) / self._factor, _host_spectral.CLOSE
        outside = find((1.0 - off) * largest).amount > 2 * self.slack * largest
        doubtful = ~outside & (find((1.0 + off) * largest).amount > 0)
        return None if _host.count(doubtful, "torch") else self._of_groups(outside)

    def _nearest(self, find: Find) -> Array:
        library = _host.name_of(self.groups.w, self.groups.precision)
        eigen = self._eigen(library)
        if eigen is not None:
            # Where nothing is above the bound the largest value is what it may be.
            most = self.xp.sqrt(eigen.largest) / self._factor
            bound = find(2.0 * most).values * self._factor
            found, far = _host_spectral.capped(self._tall.detach(), bound, eigen)
            if not _host.count(far, "torch"):
                return self._untall(found / self._factor[..., None])
        x, doubt = self._once(find, self._tall, self._factor)
        again = doubt > self.slack / 4
        if library is None or _host.count(again, library):
            # The columns of the first result are no longer than they should be. So the second one
            # begins near the end, where nothing is lost.
            second, _ = self._once(find, x, 1.0)
            x = self.xp.where(again[..., None], second, x)
        return self._untall(x)

    def _once(self, find: Find, x: Array, factor: Array | float) -> tuple[Array, Array]:
        """Tall matrices, given times a factor, with the values that are found.

        And how far they may be off, relative.
        """
        xp = self.xp
        even = self._even(x)
        x, factor = x * even, factor * even[..., 0]
        _, v = _linalg.eigh(self._gram(x), xp)
        v = xp.flip(v, axis=-1)
        b = _linalg.product(x, v, xp)
        # Eigenvalues are off by the square of the largest singular value; norms of columns are not.
        y = xp.sqrt(xp.sum(self._squares(b), axis=-2))
        f = find(y / factor).values
        # Not relative to the factor, beside which a bound may be below the smallest number.
        ratio = xp.where(y > 0, f / xp.where(y > 0, y, 1.0), 1.0 / factor)
        result = _linalg.product(b * ratio[..., None, :], mirrored(v, self.matrices), xp)
        vectors = self.vectors(y)
        most = vectors.max(f)
        worst = vectors.max(y) * vectors.max(ratio) / xp.where(most > 0, most, 1.0)
        return result, self._unit * self.size * worst**2


# ------------------------------------------------------------------------------------ products


class ProductSpectra(_Evened):
    """The largest singular value, and the cap, by products of matrices."""

    roundings = ROUNDINGS

    def values(self) -> Array:
        """The largest singular value alone."""
        blank = self._blank()
        return self._largest(self._tall) / self._factor if blank is None else blank

    def _largest(self, x: Array) -> Array:
        """The largest singular values of tall matrices, as the last axis of spectra."""
        xp = self.xp
        power, log = self._normed(self._gram(x))
        # The Frobenius norm of a power is at most the root of the size too large.
        count = math.log2(math.log(self.size + 1) / self.groups.precision.eps) + 4

        def square(state: Any) -> Any:
            power, total, part = state
            power, log = self._normed(_linalg.product(power, power, xp))
            return power, total + part / 2 * log, part / 2

        state = power, log, xp.ones_like(log)
        _, total, _ = _array.repeat(square, state, math.ceil(count), xp)
        return xp.exp(total[..., 0] / 2)

    def _normed(self, x: Array) -> tuple[Array, Array]:
        """Matrices of Frobenius norm 1, zeros as they are, and the logarithms of the norms."""
        xp = self.xp
        length = xp.sqrt(xp.sum(self._squares(x), axis=(-2, -1), keepdims=True))
        some = length > 0
        # For a matrix of zeros something whose exponential is 0.
        log = xp.where(some, xp.log(xp.where(some, length, 1.0)), -1e4 * xp.ones_like(length))
        return x / xp.where(some, length, 1.0), log

    def _nearest(self, find: Find) -> Array:
        xp, m, x = self.xp, self.matrices, self._tall
        bound = find(self.values()).values * self._factor
        r = bound[..., None]
        o = self._sign(x)
        h = _linalg.product(mirrored(o, m), x, xp)
        unit = xp.astype(self.is_diagonal(_real_part(h[..., 0, :], self)), r.dtype)
        rest = _linalg.product(x - r * o, self._sign(half(h, m, 1.0) - r * unit), xp)
        found = 0.5 * (x + r * o - rest)
        # The terms cancel where singular values are far above the bound, and leave rounding.
        most = self._largest(found)
        over = most > bound
        shrink = xp.where(over, bound / xp.where(over, most, 1.0), xp.ones_like(most))
        return self._untall(found * (shrink / self._factor)[..., None])

    def _sign(self, x: Array) -> Array:
        """The matrix sign of tall matrices."""
        xp = self.xp
        x, _ = self._normed(x)
        for a, b, c in polynomials(self._smallest):
            gram = self._gram(x)
            x = a * x + _linalg.product(x, b * gram + c * _linalg.product(gram, gram, xp), xp)
        return x

    @property
    def _smallest(self) -> float:
        """The singular value, relative to the Frobenius norm, below which the sign may be less."""
        return self._unit / 4


class SignSpectra(ProductSpectra):
    """The matrix sign itself, for matrices all of whose singular values are to be alike."""

    def values(self) -> Array:
        """The singular value that is furthest from 1, or as far on the other side of it."""
        blank = self._blank()
        if blank is not None:
            return blank
        one = self.number(1.0, "radius")
        off = self._tall - (one * self._factor)[..., None] * self._signed()
        even = self._even(off)
        return one + self._largest(off * even) / even[..., 0] / self._factor

    def _signed(self) -> Array:
        """The sign, of singular matrices that of one nearby."""
        xp, x = self.xp, self._tall
        # Directions in which there is nothing are filled in by rounding, which must not be 0.
        ones = xp.ones_like(_real_part(x, self))
        i, j = (_array.places(ones, x.ndim - 2 + k, xp) for k in (0, 1))
        noise = xp.sin(_array.cast(i * i * 7 + j * 5 + i * j, ones.dtype, xp))
        x, _ = self._normed(x)
        return self._sign(x + 8 * self._smallest * noise)

    def _nearest(self, find: Find) -> Array:
        target = find(self.values()).values
        return self._untall(target[..., None] * self._signed())


# Odd polynomials of degree 5, as coefficients of x, of its third and of its fifth power. Each is
# the best approximation of 1 on the interval in which the one before leaves singular values (they
# are found again in tests/test_spectral_methods.py). The first is best for [0.024, 1] and made to
# stay below 1: the best one for a longer interval takes some values down to its lower end, where
# they have no digits. All are scaled by 1 + 2^-12, for beyond the interval they grow fast.
_RAISING = (4.160125945384745, -11.840734955573161, 8.677669852933873)
_GROWTH = 4.16
_FINISHING = (
    (7.565903600239068, -21.534410353425564, 15.781833156959008),
    (3.0837698325274228, -2.3102159445516817, 0.4895328941690611),
    (2.1317743967327925, -1.512306525375782, 0.40177678446716797),
    (1.8788955525062685, -1.2540184965210681, 0.3751318099012977),
    # The limit of these, which cubes the distance from 1, nearly.
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
)


def polynomials(smallest: float) -> tuple[tuple[float, float, float], ...]:
    """What takes all of [smallest, 1] to 1, but for rounding."""
    return (_RAISING,) * math.ceil(math.log(0.024 / smallest, _GROWTH)) + _FINISHING
