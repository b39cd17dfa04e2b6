"""Triangular: entries on one side of the diagonal are 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, differences, length
from normconstraints._order import nonzero
from normconstraints._parameters import PER_SET, Axis, assign, check_switch, check_two_axes
from normconstraints._structure import MatrixGroups, below_diagonal
from normconstraints.constraint import Convex, Grouped, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_triangular(w: Array, lower: bool = True, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array whose matrices are triangular; see `Triangular`."""
    m = MatrixGroups(w, axis, "Triangular")
    return m.nearest(lambda x: _kept(x, m, lower), _is_triangular(m, lower))


def _kept(x: Array, m: MatrixGroups, lower: bool) -> Array:
    return m.xp.where(_side(x, m, lower), x, m.xp.zeros_like(x))


def _side(x: Array, m: MatrixGroups, lower: bool) -> Array:
    """The places that are free."""
    return (
        below_diagonal(x, m)
        if lower
        else m.xp.matrix_transpose(below_diagonal(m.xp.matrix_transpose(x), m))
    )


def _is_triangular(m: MatrixGroups, lower: bool) -> Array:
    if 0 in m.groups.w.shape:  # which dask does not reshape
        return m.groups.every(m.groups.w == m.groups.w)
    w = m.of(m.groups.w)
    return m.each(_side(w, m, lower) | ~nonzero(w, m.xp, m.groups.precision))


@register
@final
@dataclass(frozen=True, eq=False)
class Triangular(Grouped, Convex, HasTangent, HasVJP):
    r"""Every matrix is 0 above its diagonal, or below it.

    .. math:: \{ W : w_{ij} = 0 \text{ for } j > i \}

    Parameters
    ----------
    lower : bool, default True
        Whether the lower triangle is free, or the upper one. The diagonal is free in both.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `lower` is no bool, or `axis` no tuple of integers.
    ValueError
        If `axis` has not two entries.

    Notes
    -----
    A linear subspace: the projection is unique and selects. Matrices need not be square. For causal
    mixing along a sequence, autoregressive layers, and factors of Cholesky.

    Gradient: 1 where entries are free, 0 elsewhere. Matrices with NaN or infinity come back as they
    are. The violation is the distance from the set, the norm of the entries that must be 0.

    References
    ----------
    M. Germain, K. Gregor, I. Murray, H. Larochelle, "MADE: Masked autoencoder for distribution
    estimation", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> Triangular()(np.array([[1.0, 3.0], [1.0, 2.0]]))
    array([[1., 0.],
           [1., 2.]])
    """

    lower: bool = field(default=True, metadata=PER_SET)
    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        assign(
            self,
            lower=check_switch(self, "lower", self.lower),
            axis=check_two_axes(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_triangular(w, self.lower, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Triangular")
        return m.distance(lambda x: x - _kept(x, m, self.lower), _is_triangular(m, self.lower))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(g, self.axis, "Triangular")
        return m.along(lambda x: _kept(x, m, self.lower), w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        m = MatrixGroups(w, self.axis, "Triangular")
        return m.pulled_back(lambda x: _kept(x, m, self.lower), g)


def slow_projection(group: Group, lower: bool, shape: tuple[int, int]) -> Group:
    """By definition."""
    cols = shape[1]
    return [
        e
        if (i % cols <= i // cols if lower else i % cols >= i // cols) or not any(e)
        else tuple(x * 0 for x in e)
        for i, e in enumerate(group)
    ]


def slow_violation(group: Group, lower: bool, shape: tuple[int, int]) -> Decimal:
    """The distance from the projection."""
    return length(differences(group, slow_projection(group, lower, shape)))


EXAMPLES: tuple[Any, ...] = (Triangular(), Triangular(lower=False))
