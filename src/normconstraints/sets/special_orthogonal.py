"""Special orthogonal: every matrix is a rotation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import (
    determinant_sign,
    singular_values,
    with_singular_values,
)
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints._random import Draw
from normconstraints._spectral import Change, SignedSpectra, along_orthogonal
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


def project_special_orthogonal(w: Array, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices are rotations; see `SpecialOrthogonal`."""
    s = SignedSpectra(w, axis, "SpecialOrthogonal")
    return s.nearest(lambda y: _ones(s, y))


def _ones(s: SignedSpectra, y: Array) -> Change:
    one = s.number(1.0, "radius") * s.xp.ones_like(y)
    return Change(one, s.vectors(y).max(abs(y - one)), y != y)


@register
@final
@dataclass(frozen=True, eq=False)
class SpecialOrthogonal(Decomposed, HasLMO, HasTangent, HasSample, HasVJP):
    r"""Every matrix is a rotation: orthogonal with determinant 1.

    .. math:: \{ W : W^T W = I, \det W = 1 \}

    Parameters
    ----------
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns, equally long; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers, or at the call if the weight is complex.
    ValueError
        If `axis` has not two entries, or at the call if the matrices are not square.

    Notes
    -----
    The set is no convex one. The projection is :math:`U \mathrm{diag}(1, \dots, 1, d) V^T` with d
    = 1 or -1 such that the determinant is 1: the rotation of Kabsch and of the orthogonal
    Procrustes problem. It is unique unless the two smallest singular values are equal and the
    determinant is negative, or one of them is 0 twice. Cost and accuracy: those of `Orthogonal`,
    and a determinant of each matrix.

    Gradient: as for `Orthogonal`, with the smallest singular value negative where the determinant
    is (`HasVJP`). Matrices with NaN or infinity come back as they are.

    The violation is :math:`\max_i |\sigma_i - 1|`, where the smallest singular value counts as
    negative if the determinant is. Linear minimiser, tangent and sample: those of `Orthogonal`.

    References
    ----------
    W. Kabsch, "A solution for the best rotation to relate two sets of vectors", Acta
    Crystallographica A 32 (1976). P. Schoenemann, "A generalized solution of the orthogonal
    Procrustes problem", Psychometrika 31 (1966).

    Examples
    --------
    >>> import numpy as np
    >>> SpecialOrthogonal()(np.array([[2.0, 0.0], [0.0, -1.0]]))
    array([[1., 0.],
           [0., 1.]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)
    allows_complex: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("svd", "slogdet")

    def __post_init__(self) -> None:
        assign(self, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_special_orthogonal(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = SignedSpectra(w, self.axis, "SpecialOrthogonal")
        return s.violation(lambda y: _ones(s, y))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = SignedSpectra(w, self.axis, "SpecialOrthogonal")
        return s.pulled_back(lambda y: _ones(s, y), g, convex=False)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = SignedSpectra(g, self.axis, "SpecialOrthogonal")

        def opposite(y: Array) -> Array:
            # All of them, but an odd number of signs would not leave a rotation.
            one = _ones(s, y).values
            return xp.where(s.first(y, s.size - s.size % 2), -one, one)

        return s.with_values(opposite)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_orthogonal(w, g, self.axis, "SpecialOrthogonal")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return draw.direction()


def slow_projection(group: Group, shape: tuple[int, int]) -> Group:
    """The singular value decomposition by rotations of Jacobi, with ones and a sign as values."""
    sign = determinant_sign(group, shape)
    if sign > 0 and all(x == 1 for x in singular_values(group, shape)):
        return group
    return with_singular_values(
        group, shape, lambda s: [*[x * 0 + 1 for x in s[1:]], s[0] * 0 + sign]
    )


def slow_violation(group: Group, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    values = singular_values(group, shape)
    values[-1] *= determinant_sign(group, shape)
    return max(abs(x - 1) for x in values)


SHAPE = (4, 4)
"""That of most inputs of the suite: a square one."""

EXAMPLES: tuple[Any, ...] = (SpecialOrthogonal(), SpecialOrthogonal(axis=(0, 1)))
