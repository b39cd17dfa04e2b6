"""Correlation matrices: symmetric, positive semidefinite, with ones on the diagonal."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints._array import Array, Namespace
from normconstraints._correlation import CorrelationMatrices, nearest_in_decimals
from normconstraints._matrix_oracle import asymmetry, eigenvalues
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, assign, check_two_axes
from normconstraints.constraint import Convex, Decomposed, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_correlation(w: Array, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array of correlation matrices; see `Correlation`."""
    return CorrelationMatrices(w, axis, "Correlation").nearest()


@register
@final
@dataclass(frozen=True, eq=False)
class Correlation(Decomposed, Convex, HasVJP):
    r"""Every matrix is a correlation matrix: positive semidefinite with ones on the diagonal.

    .. math:: \{ W : W = W^H, \; \lambda_i(W) \ge 0, \; W_{ii} = 1 \text{ for every } i \}

    The inner products of unit vectors. Complex matrices are Hermitian.

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
    The projection is unique. It depends on neither the diagonal nor the skew-symmetric part of the
    weight. It is found by Newton's method on the multipliers of the diagonal, each step of which
    decomposes the matrix into eigenvalues: some 6 steps where entries are near 1, 10 where they are
    some 16. Larger weights, of which the result is in the end that of a linear function, are
    approached through a proximal point algorithm: 15 steps for entries of 100, 50 for 1e8, 65 for
    any size, of the 112 that there are at most. A matrix that needs more becomes a member, but
    maybe not the nearest: less than one in a hundred did of random, Gram, nearly rank-one and
    integer matrices with entries of 1e3 to 1e300. Arrays in host memory stop as soon as nothing is
    left to do, and so does code that JAX compiled unless `vmap` is in between; what PyTorch
    compiles, and arrays on GPUs of other libraries, take all steps. ``torch.compile`` has each of
    them in its trace, which takes it a minute or more.

    Up to 64 rows the linear system of a step is solved as a whole, in time that grows with the
    fourth power of the rows and memory that grows with the third. Beyond that it is by 24 rounds of
    conjugate gradients, enough for entries of moderate size.

    The result is symmetric exactly, with a diagonal of 1 exactly. Accuracy: half precision and
    float32 are computed in float64, where the library has it; the smallest eigenvalue is then
    within 4 eps times the largest one, elsewhere within :math:`2 (8 + \sqrt{n})` of those. Entries
    are off by what the decompositions of matrices with entries of some 16 round; where nothing
    wider computes, and entries of the weight are 1e3 and more, a few matrices of ten rows were off
    by up to 600 eps. A matrix that is as near to positive semidefinite as half of the bound of the
    smallest eigenvalue comes back bit for bit, if it is symmetric and its diagonal is 1.

    Gradient: that of the equations that the multipliers fulfil, by divided differences, finite and
    right where eigenvalues are equal (`HasVJP`); without an adapter the library differentiates
    the algorithm, which gives NaN there. Matrices with NaN or infinity come back as they are.

    The violation is the largest of :math:`-\lambda_{\min}`, the distance from the symmetric
    matrices and the distances of the diagonal from 1.

    References
    ----------
    N. Higham, "Computing the nearest correlation matrix: a problem from finance", IMA J. Numer.
    Anal. 22 (2002), whose example is below. H. Qi, D. Sun, "A quadratically convergent Newton
    method for computing the nearest correlation matrix", SIAM J. Matrix Anal. Appl. 28 (2006). X.
    Zhao, D. Sun, K.-C. Toh, "A Newton-CG augmented Lagrangian method for semidefinite programming",
    SIAM J. Optim. 20 (2010).

    Examples
    --------
    >>> import numpy as np
    >>> Correlation()(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])).round(4)
    array([[1.    , 0.7607, 0.1573],
           [0.7607, 1.    , 0.7607],
           [0.1573, 0.7607, 1.    ]])
    """

    _: KW_ONLY
    axis: Axis = (-2, -1)
    needs: ClassVar[tuple[str, ...]] = ("eigh", "solve")

    def __post_init__(self) -> None:
        assign(self, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_correlation(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return CorrelationMatrices(w, self.axis, "Correlation").violation()

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        return CorrelationMatrices(w, self.axis, "Correlation").pulled_back(result, g)


def slow_projection(group: Group, shape: tuple[int, int]) -> Group:
    """Newton's method on the dual in decimal arithmetic, from small weights to the given ones."""
    if slow_violation(group, shape) == 0:
        return group
    return nearest_in_decimals(group, shape)


def slow_violation(group: Group, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    n = shape[0]
    off = max(abs(group[i * (n + 1)][0] - 1) for i in range(n))
    return max(asymmetry(group, shape), off, -eigenvalues(group, shape)[-1])


SHAPE = (3, 3)
"""That of most inputs of the suite: small, for decimal arithmetic takes long."""

EXAMPLES: tuple[Any, ...] = (Correlation(), Correlation(axis=(0, 1)))
