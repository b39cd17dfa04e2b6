"""Spectral sphere: the largest singular value of every matrix is a given number."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, Number, assign, check_number, check_two_axes
from normconstraints._spectral import Change, SingularSpectra
from normconstraints.constraint import Decomposed, HasLMO, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_spectral_sphere(w: Array, radius: Number, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose largest singular values are `radius`; see `SpectralSphere`."""
    s = SingularSpectra(w, axis, "SpectralSphere")
    return s.nearest(lambda y: _brought(s, y, radius))


def _brought(s: SingularSpectra, y: Array, radius: Number) -> Change:
    r = s.number(radius, "radius")
    free = (y < r) & s.xp.logical_not(s.first(y, 1))
    return Change(s.xp.where(free, y, r), abs(s.vectors(y).max(y) - r), free)


@register
@final
@dataclass(frozen=True, eq=False)
class SpectralSphere(Decomposed, HasLMO, HasVJP):
    r"""The largest singular value of every matrix is `radius`.

    .. math:: \{ W : \|W\|_2 = \sigma_1(W) = r \}

    Parameters
    ----------
    radius : float or array
        The norm r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the matrices.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or `radius` is no number.
    ValueError
        If `axis` has not two entries or `radius` is out of its range.

    Notes
    -----
    The set is no convex one. Singular values above r become r; if there is none, the largest one is
    raised to it and all others stay. The projection is unique unless the largest value is below r
    and there twice. A matrix of zeros becomes one of rank 1. Cost and accuracy: those of
    `SpectralBall`.

    Gradient: divided differences, finite and right where values are equal (`HasVJP`); without an
    adapter the library differentiates its own decomposition, which gives NaN there. Where the
    projection jumps there is no derivative, and what comes back is finite. Matrices with NaN or
    infinity come back as they are.

    The violation is :math:`|\sigma_1 - r|`. The linear minimiser is that of `SpectralBall`.

    References
    ----------
    T. Pethick et al., "Training deep learning models with norm-constrained LMOs", ICML 2025. A. S.
    Lewis, J. Malick, "Alternating projections on manifolds", Math. Operations Research 33 (2008),
    for sets of spectra that are not convex.

    Examples
    --------
    >>> import numpy as np
    >>> SpectralSphere(2.0)(np.array([[1.5, 0.0], [0.0, 1.0]]))
    array([[2., 0.],
           [0., 1.]])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_two_axes(self, self.axis),
        )

    def _spectra(self, w: Array) -> SingularSpectra:
        return SingularSpectra(w, self.axis, "SpectralSphere")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_spectral_sphere(w, self.radius, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        return s.violation(lambda y: _brought(s, y, self.radius))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        return s.pulled_back(lambda y: _brought(s, y, self.radius), g, convex=False)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = self._spectra(g)
        return s.with_values(lambda y: -s.number(self.radius, "radius") * xp.ones_like(y))


def slow_projection(group: Group, radius: Decimal, shape: tuple[int, int]) -> Group:
    """The singular value decomposition by rotations of Jacobi, with the values capped or raised."""
    if singular_values(group, shape)[0] == radius:
        return group
    return with_singular_values(group, shape, lambda s: [radius, *[min(x, radius) for x in s[1:]]])


def slow_violation(group: Group, radius: Decimal, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    return abs(singular_values(group, shape)[0] - radius)


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (SpectralSphere(1.0), SpectralSphere(3.0, axis=(0, 1)))
