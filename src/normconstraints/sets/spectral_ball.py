"""Spectral ball: the largest singular value of every matrix is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group, positive
from normconstraints._parameters import Axis, Number, assign, check_number, check_two_axes
from normconstraints._spectral import Change, SingularSpectra
from normconstraints.constraint import Convex, Decomposed, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_spectral_ball(w: Array, radius: Number, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array with no singular value above `radius`; see `SpectralBall`."""
    s = SingularSpectra(w, axis, "SpectralBall")
    return s.nearest(lambda y: _capped(s, y, radius))


def _capped(s: SingularSpectra, y: Array, radius: Number) -> Change:
    r = s.number(radius, "radius")
    inside = y <= r
    largest = s.vectors(y).max(y)
    return Change(s.xp.where(inside, y, r), largest - r, inside)


@register
@final
@dataclass(frozen=True, eq=False)
class SpectralBall(Decomposed, Convex, HasVJP):
    r"""The largest singular value of every matrix is at most `radius`."""

    radius: Number
    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_two_axes(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_spectral_ball(w, self.radius, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "SpectralBall")
        return s.violation(lambda y: _capped(s, y, self.radius))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "SpectralBall")
        return s.pulled_back(lambda y: _capped(s, y, self.radius), g, convex=True)


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
)
