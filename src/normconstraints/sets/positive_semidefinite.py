"""Positive semidefinite: symmetric matrices with eigenvalues of at least a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._matrix_oracle import asymmetry, eigenvalues, with_eigenvalues
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, Number, assign, check_finite, check_two_axes
from normconstraints._spectral import Change, EigenSpectra, above_floor
from normconstraints.constraint import Convex, Decomposed, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_positive_semidefinite(
    w: Array, minimum: Number = 0.0, *, axis: Axis = (-2, -1)
) -> Array:
    """The nearest array of symmetric matrices with no eigenvalue below `minimum`.

    See `PositiveSemidefinite`.
    """
    s = EigenSpectra(w, axis, "PositiveSemidefinite")
    return s.nearest(lambda y: _raised(s, y, minimum))


def _raised(s: EigenSpectra, y: Array, minimum: Number) -> Change:
    low = s.number(minimum, "minimum")
    above = y >= low
    return Change(s.xp.where(above, y, low), low + s.vectors(y).max(-y), above)


@register
@final
@dataclass(frozen=True, eq=False)
class PositiveSemidefinite(Decomposed, Convex, HasTangent, HasVJP):
    r"""Every matrix is symmetric, or Hermitian, with eigenvalues of at least `minimum`.

    .. math:: \{ W : W = W^H, \lambda_i(W) \ge m \text{ for every } i \}

    Parameters
    ----------
    minimum : float or array, default 0.0
        The bound m, in the units of the weights: one number of either sign, or an array (or nested
        tuples) that broadcasts against the matrices. Above 0 the matrices are positive definite.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns, equally long; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or `minimum` is no number.
    ValueError
        If `axis` has not two entries, `minimum` is not finite, or at the call if the matrices are
        not square.

    Notes
    -----
    The projection is unique: of the symmetric part the eigenvalues below m become m. The result is
    symmetric exactly. Cost: a decomposition into eigenvalues. Accuracy: half precision and float32
    are decomposed in float64, where the library has it; the smallest eigenvalue is then within 4
    eps times the largest modulus of one, elsewhere within :math:`2 (8 + \sqrt{n})` of those.

    Gradient: divided differences, finite and right where eigenvalues are equal (`HasVJP`); without
    an adapter the library differentiates its own decomposition, which gives NaN there. Matrices
    with NaN or infinity come back as they are.

    The violation is the larger of :math:`m - \lambda_{\min}` and the distance from the symmetric
    matrices.

    References
    ----------
    N. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl.
    103 (1988).

    Examples
    --------
    >>> import numpy as np
    >>> PositiveSemidefinite()(np.array([[2.0, 0.0], [0.0, -1.0]]))
    array([[2., 0.],
           [0., 0.]])
    """

    minimum: Number = 0.0
    _: KW_ONLY
    axis: Axis = (-2, -1)
    needs: ClassVar[tuple[str, ...]] = ("eigh",)

    def __post_init__(self) -> None:
        assign(
            self,
            minimum=check_finite(self, "minimum", self.minimum),
            axis=check_two_axes(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_positive_semidefinite(w, self.minimum, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = EigenSpectra(w, self.axis, "PositiveSemidefinite")
        return s.violation(lambda y: _raised(s, y, self.minimum))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = EigenSpectra(w, self.axis, "PositiveSemidefinite")
        return s.pulled_back(lambda y: _raised(s, y, self.minimum), g, convex=True)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        s = EigenSpectra(w, self.axis, "PositiveSemidefinite")
        with _array.quiet(xp):
            part = above_floor(s, s.number(self.minimum, "minimum"), g)
            groups = Groups(g, self.axis, "PositiveSemidefinite", allow_complex=True)
            return groups.put_back(part, s.groups.finite & groups.finite)


def slow_projection(group: Group, minimum: Decimal, shape: tuple[int, int]) -> Group:
    """The eigenvalues of the symmetric part by rotations of Jacobi, raised."""
    if slow_violation(group, minimum, shape) == 0:
        return group
    return with_eigenvalues(group, shape, lambda y: [max(x, minimum) for x in y])


def slow_violation(group: Group, minimum: Decimal, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    return max(asymmetry(group, shape), minimum - eigenvalues(group, shape)[-1])


SHAPE = (4, 4)
"""That of most inputs of the suite: a square one."""

EXAMPLES: tuple[Any, ...] = (
    PositiveSemidefinite(),
    PositiveSemidefinite(0.5, axis=(0, 1)),
    PositiveSemidefinite(-1.0, axis=(1, 0)),
)
