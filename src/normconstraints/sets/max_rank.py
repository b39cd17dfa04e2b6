"""Rank: every matrix has at most so many singular values that are not 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group
from normconstraints._parameters import PER_SET, Axis, assign, check_count, check_two_axes
from normconstraints._spectral import Change, SingularSpectra
from normconstraints.constraint import Decomposed, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_max_rank(w: Array, rank: int, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices have at most that rank; see `MaxRank`."""
    s = SingularSpectra(w, axis, "MaxRank")
    return s.nearest(lambda y: _cut(s, y, rank))


def _cut(s: SingularSpectra, y: Array, rank: int) -> Change:
    kept = s.first(y, rank)
    values = s.xp.where(kept, y, s.xp.zeros_like(y))
    return Change(values, s.vectors(y).max(y - values), kept)


@register
@final
@dataclass(frozen=True, eq=False)
class MaxRank(Decomposed, HasVJP):
    r"""Every matrix has at most that rank.

    .. math:: \{ W : \mathrm{rank}(W) \le k \}

    Parameters
    ----------
    rank : int
        The rank k >= 1. One of at least the smaller side of the matrices changes nothing.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or `rank` is no integer.
    ValueError
        If `axis` has not two entries or ``rank < 1``.

    Notes
    -----
    The set is no convex one. The `rank` largest singular values stay, the others become 0: the
    theorem of Eckart and Young. The projection is unique unless the last value that stays and the
    next are equal. A matrix counts as of rank k if the next singular value is below 2 eps times the
    first one, for rounding alone makes nearly every matrix one of full rank. Cost and accuracy:
    those of `SpectralBall`.

    Gradient: divided differences (`HasVJP`), finite where values are equal; it grows as the gap
    behind the last value that stays closes, where the projection jumps. Without an adapter the
    library differentiates its own decomposition, which gives NaN for equal values. Matrices with
    NaN or infinity come back as they are.

    The violation is the first singular value that is to be 0.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", Psychometrika 1
    (1936).

    Examples
    --------
    >>> import numpy as np
    >>> MaxRank(1)(np.array([[3.0, 0.0], [0.0, 1.0]]))
    array([[3., 0.],
           [0., 0.]])
    """

    rank: int = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(
            self,
            rank=check_count(self, "rank", self.rank),
            axis=check_two_axes(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_max_rank(w, self.rank, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "MaxRank")
        return s.violation(lambda y: _cut(s, y, self.rank))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "MaxRank")
        return s.pulled_back(lambda y: _cut(s, y, self.rank), g, convex=False)


def slow_projection(group: Group, rank: int, shape: tuple[int, int]) -> Group:
    """The singular value decomposition by rotations of Jacobi, without the small values."""
    if not any(singular_values(group, shape)[rank:]):
        return group
    return with_singular_values(
        group, shape, lambda s: [x if i < rank else x * 0 for i, x in enumerate(s)]
    )


def slow_violation(group: Group, rank: int, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    values = singular_values(group, shape)
    return [*values, values[0] * 0][min(rank, len(values))]


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (MaxRank(2), MaxRank(1, axis=(0, 1)))
