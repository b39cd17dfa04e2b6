"""Affine: every group solves a system of linear equations."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Basis, Normals, check_equations, factored, of_normal
from normconstraints._oracle import Group, square
from normconstraints._parameters import PER_SET, Axis, Number, assign, check_axis
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_affine(w: Array, matrix: Number, offset: Number, *, axis: Axis) -> Array:
    """The nearest array whose groups solve the equations; see `Affine`, which factors them once."""
    return Affine(matrix, offset, axis=axis).project(w)


@register
@final
@dataclass(frozen=True, eq=False)
class Affine(Grouped, Convex, HasTangent, HasSample, HasVJP):
    r"""Every group solves the equations ``matrix @ group = offset``.

    .. math:: \{ w : A w_G = b \text{ for every group } G \}

    Parameters
    ----------
    matrix : array or nested tuples, of shape (m, n)
        The matrix A: a row for each equation, a column for each entry of a group, in the order of
        the weight (C order) over the axes of the group. Not all 0. Kept as nested tuples.
    offset : float, array or tuple, of shape (m,)
        The right-hand side b; one number counts for every equation.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, a parameter is no number or is traced by a compiler, or at the call
        if the weight is complex.
    ValueError
        If a parameter is not finite or has the wrong shape, the matrix is all 0 or the equations
        have no solution; at the call if a group has not n entries.

    Notes
    -----
    The projection is unique: :math:`w - A^+ (A w - b)` with the pseudo-inverse :math:`A^+`. The
    rows are made orthonormal once, at construction, in decimal arithmetic: about :math:`m^2 n`
    steps in Python, a second for 50 equations of 1000 entries. A row of which less is left beside
    the others than rounding of its entries explains, :math:`2^{-52} \max(m, n)` of its length,
    depends on them: it is left out if its offset fits as closely, else the equations have no
    solution. At the call one plane after the other is met, and all once more, so that the result is
    right to a few units of the last place. Cost: for each equation that of two hyperplanes.

    Gradient: :math:`I - A^+ A`, of members too. Groups with NaN or infinity come back as they are.

    The violation is the distance from the set, :math:`\|A^+ (A w - b)\|`.

    References
    ----------
    N. Parikh, S. Boyd, "Proximal algorithms", 2014, section 6.2.1.

    Examples
    --------
    >>> import numpy as np
    >>> c = Affine(((1.0, 1.0, 1.0), (1.0, 0.0, -1.0)), (3.0, 0.0), axis=0)
    >>> c(np.array([5.0, 0.0, 1.0])).round(6)
    array([ 2., -1.,  2.])
    """

    matrix: Number = field(metadata=PER_SET)
    offset: Number = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False
    _basis: ClassVar[Basis]  # of each object, but no parameter

    def __post_init__(self) -> None:
        matrix, offset = check_equations(self, self.matrix, self.offset)
        assign(
            self,
            matrix=matrix,
            offset=offset,
            axis=check_axis(self, self.axis),
            _basis=factored(self, matrix, offset),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Affine")
        with _array.quiet(xp):
            normals = Normals(groups, self._basis)
            return groups.put_back(normals.onto(), normals.off()[1])

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Affine")
        with _array.quiet(xp):
            return groups.report(*Normals(groups, self._basis).off())

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "Affine")
        moved = Groups(w, self.axis, "Affine").finite
        return groups.put_back(Normals(groups, self._basis).across(), moved)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Affine")
        return Normals(groups, self._basis).pulled_back(g)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(
    group: Group, matrix: tuple[tuple[Decimal, ...], ...], offset: tuple[Decimal, ...]
) -> Group:
    """By multipliers: less A'y, where AA'y = Aw - b."""
    steps = _steps(group, matrix, offset)
    return [(x - s,) for (x,), s in zip(group, steps, strict=True)]


def slow_violation(
    group: Group, matrix: tuple[tuple[Decimal, ...], ...], offset: tuple[Decimal, ...]
) -> Decimal:
    """The length of A'y, where AA'y = Aw - b."""
    return square([(s,) for s in _steps(group, matrix, offset)]).sqrt()


def _steps(
    group: Group, matrix: tuple[tuple[Decimal, ...], ...], offset: tuple[Decimal, ...]
) -> list[Decimal]:
    zero = offset[0] * 0
    off = [
        sum((a * x for a, (x,) in zip(row, group, strict=True)), -b)
        for row, b in zip(matrix, offset, strict=True)
    ]
    gram = [
        [sum((a * b for a, b in zip(row, other, strict=True)), zero) for other in matrix]
        for row in matrix
    ]
    y = _solved(gram, off)
    return [
        sum((row[j] * t for row, t in zip(matrix, y, strict=True)), zero)
        for j in range(len(matrix[0]))
    ]


def _solved(gram: list[list[Decimal]], right: list[Decimal]) -> list[Decimal]:
    """A solution of consistent equations by Gauss and Jordan, 0 for what they leave free."""
    rows = [[*row, b] for row, b in zip(gram, right, strict=True)]
    size = len(rows)
    least = max(rows[i][i] for i in range(size)).scaleb(-40)
    free = set(range(size))
    while free:
        # The Gram matrix is semidefinite: its largest pivot is on the diagonal.
        k = max(free, key=lambda i: rows[i][i])
        if rows[k][k] <= least:
            break
        free.remove(k)
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(size):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [rows[i][size] * (0 if i in free else 1) for i in range(size)]


EXAMPLES: tuple[Any, ...] = (
    Affine(((1.0, -0.5, 0.0, 2.5, 0.125, -1.75), (0.5, 1.0, 1.0, -0.25, 3.0, 1.0)), 0.0, axis=1),
    Affine(  # the third row is the sum of the others
        (
            (1.0, 2.0, -1.0, 0.5, 0.0, 0.25, 3.0, 1.5),
            (-0.5, 1.0, 1.0, 2.5, -3.0, 0.0, 0.75, 1.0),
            (0.5, 3.0, 0.0, 3.0, -3.0, 0.25, 3.75, 2.5),
        ),
        (0.5, -2.0, -1.5),
        axis=0,
    ),
    Affine(
        (tuple(0.25 * (i % 7) - 0.5 for i in range(48)), tuple(0.5 * (i % 5) for i in range(48))),
        (10.0, -3.0),
        axis=None,
    ),
)
