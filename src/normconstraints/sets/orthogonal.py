"""Orthogonal: the columns of every matrix are orthonormal, or its rows if these are fewer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints._random import Draw
from normconstraints._spectral import Change, SingularSpectra, along_orthogonal
from normconstraints._spectral_methods import ROUNDINGS, SignSpectra, check_method
from normconstraints.constraint import (
    Decomposed,
    HasLMO,
    HasSample,
    HasTangent,
    HasVJP,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_orthogonal(w: Array, *, axis: Axis = (-2, -1), method: str = "svd") -> Array:
    """The nearest array with orthonormal columns, or rows if these are fewer; see `Orthogonal`."""
    s = _spectra(w, axis, method)
    return s.nearest(lambda y: _ones(s, y))


def _spectra(w: Array, axis: Axis, method: str) -> SingularSpectra:
    return (SingularSpectra if method == "svd" else SignSpectra)(w, axis, "Orthogonal")


def _ones(s: SingularSpectra, y: Array) -> Change:
    off = s.vectors(y).max(abs(y - s.number(1.0, "radius")))
    return Change(s.number(1.0, "radius") * s.xp.ones_like(y), off, y < 0)


@register
@final
@dataclass(frozen=True, eq=False)
class Orthogonal(Decomposed, HasLMO, HasTangent, HasSample, HasVJP):
    r"""The columns of every matrix are orthonormal, or its rows if these are fewer.

    .. math:: \{ W : W^H W = I \}, \quad \text{or } W W^H = I \text{ if } W \text{ is wide}

    All singular values are 1. The manifold of Stiefel; unitary matrices if complex and square.

    Parameters
    ----------
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.
    method : "svd" or "polar", default "svd"
        A singular value decomposition, or products of matrices alone, for accelerators.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or `method` is no string.
    ValueError
        If `axis` has not two entries or `method` is unknown.

    Notes
    -----
    The set is no convex one. The projection is the polar factor :math:`U V^H`, unique unless a
    singular value is 0; to orthonormalise by QR gives another matrix, which is further away. Cost
    and accuracy: those of `SpectralBall`. How far rounding of the weight moves the result is that
    times the largest singular value over the smallest.

    Gradient: that of the polar factor (`HasVJP`), finite and right for equal singular values, and 0
    along pairs of which both are 0, where there is none; without an adapter the library
    differentiates its own decomposition, which gives NaN for equal values. Matrices with NaN or
    infinity come back as they are.

    The violation is :math:`\max_i |\sigma_i - 1|`. The linear minimiser is :math:`-U V^H`. The
    tangent part of a gradient g is :math:`g - W (W^H g + g^H W) / 2` for a tall W; a step along it
    that is projected is a retraction of second order. A sample is uniform, after Haar.

    References
    ----------
    N. Higham, "Computing the polar decomposition, with applications", SIAM J. Sci. Stat. Comput. 7
    (1986). N. Amsel et al., "The Polar Express: optimal matrix sign methods and their application
    to the Muon algorithm", 2025. P.-A. Absil, J. Malick, "Projection-like retractions on matrix
    manifolds", SIAM J. Optimization 22 (2012).

    Examples
    --------
    >>> import numpy as np
    >>> Orthogonal()(np.array([[3.0, 0.0], [0.0, 0.5], [0.0, 0.0]]))
    array([[1., 0.],
           [0., 1.],
           [0., 0.]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)
    method: str = "svd"

    def __post_init__(self) -> None:
        assign(
            self,
            axis=check_two_axes(self, self.axis),
            method=check_method(self, self.method, ("svd", "polar")),
        )

    @property
    def roundings(self) -> int:
        """Products alone round more."""
        return ROUNDINGS if self.method == "polar" else 1

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_orthogonal(w, axis=self.axis, method=self.method)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = _spectra(w, self.axis, self.method)
        return s.violation(lambda y: _ones(s, y))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "Orthogonal")
        return s.pulled_back(lambda y: _ones(s, y), g, convex=False)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = SingularSpectra(g, self.axis, "Orthogonal")
        return s.with_values(lambda y: -_ones(s, y).values)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_orthogonal(w, g, self.axis, "Orthogonal")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return draw.direction()


def slow_projection(group: Group, shape: tuple[int, int]) -> Group:
    """The singular value decomposition by rotations of Jacobi, with ones as values."""
    if all(x == 1 for x in singular_values(group, shape)):
        return group
    return with_singular_values(group, shape, lambda s: [x * 0 + 1 for x in s])


def slow_violation(group: Group, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    return max(abs(x - 1) for x in singular_values(group, shape))


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (
    Orthogonal(),
    Orthogonal(axis=(1, 0)),
    Orthogonal(method="polar"),
)
