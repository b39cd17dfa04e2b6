"""Toeplitz: every diagonal of a matrix is constant."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, differences, length, mean
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints._structure import MatrixGroups, constant_diagonals, diagonal_means
from normconstraints.constraint import Convex, Grouped, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_toeplitz(w: Array, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices are Toeplitz; see `Toeplitz`."""
    m = MatrixGroups(w, axis, "Toeplitz", sums=True)
    return m.nearest(lambda x: diagonal_means(x, m), constant_diagonals(m))


@register
@final
@dataclass(frozen=True, eq=False)
class Toeplitz(Grouped, Convex, HasTangent, HasVJP):
    r"""Every diagonal of every matrix is constant.

    .. math:: \{ W : w_{i,j} = w_{i+1,j+1} \text{ for all } i, j \}

    Parameters
    ----------
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers.
    ValueError
        If `axis` has not two entries.

    Notes
    -----
    A linear subspace: the projection is unique and takes the mean of every diagonal. So is a
    convolution over a finite signal. Matrices of this form come back bit for bit.

    Gradient: the projection itself, which is linear. Matrices with NaN or infinity come back as
    they are. The violation is the distance from the set.

    References
    ----------
    M. Chu, R. Funderlic, R. Plemmons, "Structured low rank approximation", Linear Algebra Appl. 366
    (2003), for the means of the diagonals.

    Examples
    --------
    >>> import numpy as np
    >>> Toeplitz()(np.array([[1.0, 3.0], [1.0, 2.0]]))
    array([[1.5, 3. ],
           [1. , 1.5]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(self, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_toeplitz(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Toeplitz", sums=True)
        return m.distance(lambda x: x - diagonal_means(x, m), constant_diagonals(m))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(g, self.axis, "Toeplitz", sums=True)
        return m.along(lambda x: diagonal_means(x, m), w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Toeplitz")
        return m.pulled_back(lambda x: diagonal_means(x, m), g)


def slow_projection(group: Group, shape: tuple[int, int]) -> Group:
    """By definition: every diagonal has its mean."""
    rows, cols = shape
    places = [(i, j) for i in range(rows) for j in range(cols)]
    means = {
        d: mean([group[i * cols + j] for i, j in places if j - i == d])
        for d in range(1 - rows, cols)
    }
    return [means[j - i] for i, j in places]


def slow_violation(group: Group, shape: tuple[int, int]) -> Decimal:
    """The distance from the projection."""
    return length(differences(group, slow_projection(group, shape)))


EXAMPLES: tuple[Any, ...] = (Toeplitz(), Toeplitz(axis=(1, 0)))
