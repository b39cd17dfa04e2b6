"""Spectral ball: the largest singular value of every matrix is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group, positive
from normconstraints._parameters import Axis, Number, assign, check_number, check_two_axes
from normconstraints._spectral import Change, SingularSpectra, below_bound
from normconstraints._spectral_methods import ROUNDINGS, check_method, spectra
from normconstraints.constraint import (
    Decomposed,
    HasDualNorm,
    HasLMO,
    HasTangent,
    HasVJP,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_spectral_ball(
    w: Array, radius: Number, *, axis: Axis = (-2, -1), method: str = "svd"
) -> Array:
    """The nearest array with no singular value above `radius`; see `SpectralBall`."""
    s = spectra(w, axis, "SpectralBall", method)
    return s.nearest(lambda y: _capped(s, y, radius))


def _capped(s: SingularSpectra, y: Array, radius: Number) -> Change:
    r = s.number(radius, "radius")
    inside = y <= r
    return Change(s.xp.where(inside, y, r), s.vectors(y).max(y) - r, inside)


@register
@final
@dataclass(frozen=True, eq=False)
class SpectralBall(Decomposed, HasDualNorm, HasLMO, HasTangent, HasVJP):
    r"""The largest singular value of every matrix is at most `radius`.

    .. math:: \{ W : \|W\|_2 = \sigma_1(W) \le r \}

    So no input is made longer than r times by it: a bound of the Lipschitz constant of a layer.

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the matrices.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.
    method : "svd", "gram" or "polar", default "svd"
        A singular value decomposition; the eigenvectors of the smaller Gram matrix, which take half
        of the time for large matrices on a CPU; or products of matrices alone, for accelerators.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers, `radius` is no number or `method` is no string.
    ValueError
        If `axis` has not two entries, `radius` is out of its range or `method` is unknown.

    Notes
    -----
    The projection is unique: the singular values above r become r, and the others stay. To divide
    the matrix by its largest singular value, as spectral normalization does, is another map, which
    makes all of them smaller. Matrices with no singular value above r, to 2 eps, come back bit for
    bit.

    Accuracy: half precision and float32 are computed in float64, where the library has it, and the
    largest singular value is then within 4 eps of r. Elsewhere it is within what a decomposition
    may be off by, at most :math:`2 (8 + (mn)^{1/4})` eps for a matrix of m by n, with "polar" at
    most 64 times as much; of matrices that were moved it was within 4 eps too, with "svd". With u
    the rounding of the dtype that computes and k singular values, the result is at most
    :math:`16 u \sigma_1/r`, relative to r, from the nearest matrix with "svd", :math:`u k (4 +
    (\sigma_1/r)^2)` with "gram" and :math:`64 u \sigma_1/r` with "polar"
    (``make bench-spectral``, and tests/test_spectral_methods.py).

    Gradient: divided differences of the capped singular values, by a decomposition whatever the
    method, finite and right where values are equal or 0 (`HasVJP`); without an adapter the library
    differentiates its own decomposition, which gives NaN there. Matrices with NaN or infinity come
    back as they are.

    The violation is :math:`\sigma_1 - r`. The linear minimiser is :math:`-r U V^H`, the step of
    Muon; the dual norm is the sum of the singular values.

    References
    ----------
    T. Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018. A. S.
    Lewis, "The convex analysis of unitarily invariant matrix functions", J. Convex Analysis 2
    (1995). T. Pethick et al., "Training deep learning models with norm-constrained LMOs", ICML
    2025. N. Amsel et al., "The Polar Express: optimal matrix sign methods and their application to
    the Muon algorithm", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> SpectralBall(2.0)(np.array([[3.0, 0.0], [0.0, 1.0]]))
    array([[2., 0.],
           [0., 1.]])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis = (-2, -1)
    method: str = "svd"

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_two_axes(self, self.axis),
            method=check_method(self, self.method),
        )

    def _spectra(self, w: Array) -> SingularSpectra:
        return SingularSpectra(w, self.axis, "SpectralBall")

    @property
    def roundings(self) -> int:
        """Products alone round more."""
        return ROUNDINGS if self.method == "polar" else 1

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_spectral_ball(w, self.radius, axis=self.axis, method=self.method)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = spectra(w, self.axis, "SpectralBall", self.method)
        return s.violation(lambda y: _capped(s, y, self.radius))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        return s.pulled_back(lambda y: _capped(s, y, self.radius), g, convex=True)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = self._spectra(g)
        return s.with_values(lambda y: -s.number(self.radius, "radius") * xp.ones_like(y))

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        s = self._spectra(g)
        return s.norm(lambda y: s.vectors(y).sum(y))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        with _array.quiet(xp):
            part = below_bound(s, s.number(self.radius, "radius"), g)
            groups = Groups(g, self.axis, "SpectralBall", allow_complex=True)
            return groups.put_back(part, s.groups.finite & groups.finite)


def slow_projection(group: Group, radius: Decimal, shape: tuple[int, int]) -> Group:
    """The singular value decomposition by rotations of Jacobi, with the values capped."""
    if singular_values(group, shape)[0] <= radius:
        return group
    return with_singular_values(group, shape, lambda s: [min(x, radius) for x in s])


def slow_violation(group: Group, radius: Decimal, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    return positive(singular_values(group, shape)[0] - radius)


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (
    SpectralBall(1.0),
    SpectralBall(0.3, axis=(0, 1)),
    SpectralBall(1.0, method="gram"),
    SpectralBall(1.0, method="polar"),
)
