"""Nuclear ball: the singular values of every matrix sum to at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group, nearest_on_simplex, positive
from normconstraints._parameters import Axis, Number, assign, check_number, check_two_axes
from normconstraints._spectral import Change, SingularSpectra, within_nuclear
from normconstraints._threshold import onto_simplex
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


def project_nuclear_ball(w: Array, radius: Number, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array with singular values that sum to at most `radius`; see `NuclearBall`."""
    s = SingularSpectra(w, axis, "NuclearBall")
    return s.nearest(lambda y: _thresholded(s, y, radius))


def _thresholded(s: SingularSpectra, y: Array, radius: Number) -> Change:
    r = s.number(radius, "radius")
    values = onto_simplex(s.vectors(y), y, r)
    over = s.vectors(y).sum(y) - r
    return Change(values, over / max(s.size, 1) ** 0.5, values > 0, shared=True)


@register
@final
@dataclass(frozen=True, eq=False)
class NuclearBall(Decomposed, HasDualNorm, HasLMO, HasTangent, HasVJP):
    r"""The singular values of every matrix sum to at most `radius`.

    .. math:: \{ W : \|W\|_* = \textstyle\sum_i \sigma_i(W) \le r \}

    The smallest convex set that holds the matrices of rank 1 and norm r: it favours low rank as an
    L1 ball favours zeros.

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
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
    The projection is unique: the singular values are projected onto the simplex of their sum,
    `Simplex`, so that small ones become 0. Cost and accuracy: those of `SpectralBall`.

    Gradient: divided differences with the Jacobian of the simplex for the singular values, finite
    and right where values are equal or 0 (`HasVJP`); without an adapter the library differentiates
    its own decomposition, which gives NaN there. Matrices with NaN or infinity come back as they
    are.

    The violation is the distance of the singular values from the face,
    :math:`(\|W\|_* - r) / \sqrt{k}` for k of them, a lower bound of the distance from the ball.
    The linear minimiser is :math:`-r u_1 v_1^H`; the dual norm is the largest singular value.

    References
    ----------
    B. Recht, M. Fazel, P. Parrilo, "Guaranteed minimum-rank solutions of linear matrix equations
    via nuclear norm minimization", SIAM Review 52 (2010). M. Jaggi, M. Sulovsky, "A simple
    algorithm for nuclear norm regularized problems", ICML 2010.

    Examples
    --------
    >>> import numpy as np
    >>> NuclearBall(2.0)(np.array([[3.0, 0.0], [0.0, 0.5]]))
    array([[2., 0.],
           [0., 0.]])
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
        return SingularSpectra(w, self.axis, "NuclearBall")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_nuclear_ball(w, self.radius, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        return s.violation(lambda y: _thresholded(s, y, self.radius))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        return s.pulled_back(lambda y: _thresholded(s, y, self.radius), g, convex=True)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = self._spectra(g)

        def first(y: Array) -> Array:
            return xp.where(s.first(y, 1), -s.number(self.radius, "radius"), xp.zeros_like(y))

        return s.with_values(first)

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        s = self._spectra(g)
        return s.norm(lambda y: s.vectors(y).max(y))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        s = self._spectra(w)
        with _array.quiet(xp):
            part = within_nuclear(s, s.number(self.radius, "radius"), g)
            groups = Groups(g, self.axis, "NuclearBall", allow_complex=True)
            return groups.put_back(part, s.groups.finite & groups.finite)


def slow_projection(group: Group, radius: Decimal, shape: tuple[int, int]) -> Group:
    """The singular values by rotations of Jacobi, on the simplex by sorting."""
    if sum(singular_values(group, shape)) <= radius:
        return group

    def lighter(values: list[Decimal]) -> list[Decimal]:
        return [x for (x,) in nearest_on_simplex([(v,) for v in values], radius)]

    return with_singular_values(group, shape, lighter)


def slow_violation(group: Group, radius: Decimal, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    values = singular_values(group, shape)
    return positive(sum(values, -radius)) / (radius * 0 + len(values)).sqrt()


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (NuclearBall(1.0), NuclearBall(4.0, axis=(0, 1)))
