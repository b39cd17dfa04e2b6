"""Circulant: every row of a matrix is the one above it, turned by one place."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, differences, length, mean
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints._structure import MatrixGroups, constant_diagonals, wrapped_diagonal_means
from normconstraints.constraint import Convex, Grouped, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_circulant(w: Array, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices are circulant; see `Circulant`."""
    m = MatrixGroups(w, axis, "Circulant", square=True, sums=True)
    return m.nearest(
        lambda x: wrapped_diagonal_means(x, m), constant_diagonals(m, round_the_corner=True)
    )


@register
@final
@dataclass(frozen=True, eq=False)
class Circulant(Grouped, Convex, HasTangent, HasVJP):
    r"""Every row of every matrix is the one above it, turned to the right by one place.

    .. math:: \{ W : w_{i,j} = w_{i+1,j+1} \text{ for all } i, j \text{ modulo } n \}

    Parameters
    ----------
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns, equally long; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers.
    ValueError
        If `axis` has not two entries, or at the call if the matrices are not square.

    Notes
    -----
    A linear subspace: the projection is unique and takes the mean of every diagonal that goes on
    round the corner. So is a periodic convolution; the eigenvectors are those of Fourier's
    transform. Matrices of this form come back bit for bit.

    Gradient: the projection itself, which is linear. Matrices with NaN or infinity come back as
    they are. The violation is the distance from the set.

    References
    ----------
    T. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci. Stat. Comput.
    9 (1988), for the nearest circulant matrix.

    Examples
    --------
    >>> import numpy as np
    >>> Circulant()(np.array([[1.0, 3.0], [1.0, 2.0]]))
    array([[1.5, 2. ],
           [2. , 1.5]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(self, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_circulant(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Circulant", square=True, sums=True)
        return m.distance(
            lambda x: x - wrapped_diagonal_means(x, m), constant_diagonals(m, round_the_corner=True)
        )

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(g, self.axis, "Circulant", square=True, sums=True)
        return m.along(lambda x: wrapped_diagonal_means(x, m), w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Circulant", square=True)
        return m.pulled_back(lambda x: wrapped_diagonal_means(x, m), g)


def slow_projection(group: Group) -> Group:
    """By definition: every diagonal that goes on round the corner has its mean."""
    n = math.isqrt(len(group))
    means = [mean([group[i * n + (i + k) % n] for i in range(n)]) for k in range(n)]
    return [means[(j - i) % n] for i in range(n) for j in range(n)]


def slow_violation(group: Group) -> Decimal:
    """The distance from the projection."""
    return length(differences(group, slow_projection(group)))


SHAPE = (6, 6)
"""That of most inputs of the suite: a square one."""

EXAMPLES: tuple[Any, ...] = (Circulant(), Circulant(axis=(1, 0)))
