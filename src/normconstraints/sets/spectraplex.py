"""Spectraplex: positive semidefinite matrices of a given trace."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import asymmetry, eigenvalues, with_eigenvalues
from normconstraints._oracle import Group, nearest_on_simplex, total_excess
from normconstraints._parameters import Axis, Number, assign, check_number, check_two_axes
from normconstraints._spectral import Change, EigenSpectra
from normconstraints._threshold import onto_simplex
from normconstraints.constraint import Convex, Decomposed, HasLMO, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_spectraplex(w: Array, total: Number = 1.0, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array of positive semidefinite matrices of trace `total`; see `Spectraplex`."""
    s = EigenSpectra(w, axis, "Spectraplex")
    return s.nearest(lambda y: _on_simplex(s, y, total))


def _on_simplex(s: EigenSpectra, y: Array, total: Number) -> Change:
    t = s.number(total, "total")
    values = onto_simplex(s.vectors(y), y, t)
    below = s.vectors(y).max(-y)
    off = abs(s.vectors(y).sum(y) - t) / max(s.size, 1) ** 0.5
    return Change(values, s.xp.where(below > off, below, off), values > 0, shared=True)


@register
@final
@dataclass(frozen=True, eq=False)
class Spectraplex(Decomposed, Convex, HasLMO, HasVJP):
    r"""Every matrix is positive semidefinite and has the trace `total`.

    .. math:: \{ W : W = W^H, W \succeq 0, \mathrm{tr} W = s \}

    With s = 1 the density matrices of quantum mechanics, and what a simplex is for vectors.

    Parameters
    ----------
    total : float or array, default 1.0
        The trace s >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the matrices.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns, equally long; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or `total` is no number.
    ValueError
        If `axis` has not two entries, `total` is out of its range, or at the call if the matrices
        are not square.

    Notes
    -----
    The projection is unique: the eigenvalues of the symmetric part are projected onto `Simplex`.
    The result is symmetric exactly. Cost and accuracy: those of `PositiveSemidefinite`.

    Gradient: divided differences with the Jacobian of the simplex for the eigenvalues, finite and
    right where eigenvalues are equal (`HasVJP`); without an adapter the library differentiates its
    own decomposition, which gives NaN there. Matrices with NaN or infinity come back as they are.

    The violation is the largest of :math:`-\lambda_{\min}`, the distance of the eigenvalues from
    the plane of the right sum, and the distance from the symmetric matrices. The linear minimiser
    is :math:`s v v^H` with the eigenvector v of the smallest eigenvalue of the symmetric part.

    References
    ----------
    E. Hazan, "Sparse approximate solutions to semidefinite programs", LATIN 2008. K. Tsuda, G.
    Raetsch, M. Warmuth, "Matrix exponentiated gradient updates for on-line learning and Bregman
    projection", JMLR 6 (2005).

    Examples
    --------
    >>> import numpy as np
    >>> Spectraplex()(np.array([[1.0, 0.0], [0.0, 0.5]]))
    array([[0.75, 0.  ],
           [0.  , 0.25]])
    """

    total: Number = 1.0
    _: KW_ONLY
    axis: Axis = (-2, -1)
    needs: ClassVar[tuple[str, ...]] = ("eigh",)

    def __post_init__(self) -> None:
        assign(
            self,
            total=check_number(self, "total", self.total, above=0, strict=False),
            axis=check_two_axes(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_spectraplex(w, self.total, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = EigenSpectra(w, self.axis, "Spectraplex")
        return s.violation(lambda y: _on_simplex(s, y, self.total))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = EigenSpectra(w, self.axis, "Spectraplex")
        return s.pulled_back(lambda y: _on_simplex(s, y, self.total), g, convex=True)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        s = EigenSpectra(g, self.axis, "Spectraplex")

        def first(y: Array) -> Array:
            return xp.where(s.first(y, 1), s.number(self.total, "total"), xp.zeros_like(y))

        return s.with_values(first)


def slow_projection(group: Group, total: Decimal, shape: tuple[int, int]) -> Group:
    """The eigenvalues of the symmetric part by rotations of Jacobi, on the simplex by sorting."""
    if slow_violation(group, total, shape) == 0:
        return group

    def on_simplex(values: list[Decimal]) -> list[Decimal]:
        return [x for (x,) in nearest_on_simplex([(v,) for v in values], total)]

    return with_eigenvalues(group, shape, on_simplex)


def slow_violation(group: Group, total: Decimal, shape: tuple[int, int]) -> Decimal:
    """By definition."""
    values: Group = [(x,) for x in eigenvalues(group, shape)]
    return max(asymmetry(group, shape), total_excess(values, total))


SHAPE = (4, 4)
"""That of most inputs of the suite: a square one."""

EXAMPLES: tuple[Any, ...] = (Spectraplex(), Spectraplex(3.0, axis=(0, 1)))
