"""Symmetric: every matrix is its own transpose."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._oracle import Entry, Group, differences, length
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints._structure import MatrixGroups, half, symmetric
from normconstraints.constraint import Convex, Grouped, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_symmetric(w: Array, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices are symmetric; see `Symmetric`."""
    m = MatrixGroups(w, axis, "Symmetric", square=True, sums=True)
    return m.nearest(lambda x: half(x, m, 1.0), symmetric(m, 1.0))


@register
@final
@dataclass(frozen=True, eq=False)
class Symmetric(Grouped, Convex, HasTangent, HasVJP):
    r"""Every matrix is symmetric; if complex, Hermitian.

    .. math:: \{ W : W = W^H \}

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
    A linear subspace: the projection is unique, :math:`(W + W^H) / 2`. Symmetric matrices come back
    bit for bit.

    Gradient: the projection itself, which is linear. Matrices with NaN or infinity come back as
    they are. The violation is the distance from the set.

    References
    ----------
    N. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl.
    103 (1988), for the nearest symmetric and skew-symmetric parts.

    Examples
    --------
    >>> import numpy as np
    >>> Symmetric()(np.array([[1.0, 3.0], [1.0, 2.0]]))
    array([[1., 2.],
           [2., 2.]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(self, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_symmetric(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Symmetric", square=True, sums=True)
        return m.distance(lambda x: half(x, m, -1.0), symmetric(m, 1.0))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(g, self.axis, "Symmetric", square=True, sums=True)
        return m.along(lambda x: half(x, m, 1.0), w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Symmetric", square=True)
        return m.pulled_back(lambda x: half(x, m, 1.0), g)


def slow_projection(group: Group) -> Group:
    """By definition: half of the matrix and of its mirror image."""
    n = math.isqrt(len(group))
    return [_part(group[i * n + j], group[j * n + i]) for i in range(n) for j in range(n)]


def _part(entry: Entry, mirror: Entry) -> Entry:
    if len(entry) == 1:
        return ((entry[0] + mirror[0]) / 2,)
    return ((entry[0] + mirror[0]) / 2, (entry[1] - mirror[1]) / 2)


def slow_violation(group: Group) -> Decimal:
    """The distance from the projection."""
    return length(differences(group, slow_projection(group)))


SHAPE = (6, 6)
"""That of most inputs of the suite: a square one."""

EXAMPLES: tuple[Any, ...] = (Symmetric(), Symmetric(axis=(1, 0)))
