"""Singular values: those of every matrix are within bounds."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints._oracle import Group, positive
from normconstraints._parameters import (
    Axis,
    Number,
    assign,
    check_bound,
    check_number,
    check_order,
    check_two_axes,
)
from normconstraints._spectral import Change, SingularSpectra
from normconstraints.constraint import Decomposed, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_singular_values(
    w: Array, lower: Number = 0.0, upper: Number | None = None, *, axis: Axis = (-2, -1)
) -> Array:
    """The nearest array with singular values within bounds; see `SingularValues`."""
    s = SingularSpectra(w, axis, "SingularValues")
    return s.nearest(lambda y: _clipped(s, y, lower, upper))


def _clipped(s: SingularSpectra, y: Array, lower: Number, upper: Number | None) -> Change:
    xp, low = s.xp, s.number(lower, "lower")
    inside = y >= low
    values = xp.where(inside, y, low)
    amount = low + s.vectors(y).max(-y)
    if upper is not None:
        high = s.number(upper, "upper")
        above = s.vectors(y).max(y) - high
        amount = xp.where(above > amount, above, amount)
        values = xp.where(values <= high, values, high)
        inside = inside & (y <= high)
    return Change(values, amount, inside)


@register
@final
@dataclass(frozen=True, eq=False)
class SingularValues(Decomposed, HasVJP):
    r"""All singular values of every matrix are from `lower` to `upper`.

    .. math:: \{ W : l \le \sigma_i(W) \le u \text{ for every } i \}

    Parameters
    ----------
    lower : float or array, default 0.0
        The bound l >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the matrices.
    upper : float, array or None, default None
        The bound u >= l likewise; None is no bound.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers or a bound is no number.
    ValueError
        If `axis` has not two entries, a bound is out of its range, or ``lower > upper``.

    Notes
    -----
    Each singular value is clipped, which bounds the condition number by u / l. With l > 0 the set
    is no convex one; the projection is unique unless a singular value is 0. With l = 0 it is
    `SpectralBall`, which says that it is convex. Cost and accuracy: those of `SpectralBall`.

    Gradient: divided differences, finite and right where values are equal (`HasVJP`); without an
    adapter the library differentiates its own decomposition, which gives NaN there. It grows
    without bound as a singular value that is raised goes to 0, and is 0 there. Matrices with NaN or
    infinity come back as they are.

    The violation is how far the singular value that is farthest outside is from its bound.

    References
    ----------
    A. S. Lewis, J. Malick, "Alternating projections on manifolds", Math. Operations Research 33
    (2008). K. Jia et al., "Improving training of deep neural networks via singular value bounding",
    CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> SingularValues(0.5, 2.0)(np.array([[3.0, 0.0], [0.0, 0.1]]))
    array([[2. , 0. ],
           [0. , 0.5]])
    """

    lower: Number = 0.0
    upper: Number | None = None
    _: KW_ONLY
    axis: Axis = (-2, -1)

    def __post_init__(self) -> None:
        upper = check_bound(self, "upper", self.upper, missing=float("inf"))
        assign(
            self,
            lower=check_number(self, "lower", self.lower, above=0, strict=False),
            upper=upper,
            axis=check_two_axes(self, self.axis),
        )
        check_order(self, "lower", "upper")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_singular_values(w, self.lower, self.upper, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "SingularValues")
        return s.violation(lambda y: _clipped(s, y, self.lower, self.upper))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        s = SingularSpectra(w, self.axis, "SingularValues")
        return s.pulled_back(lambda y: _clipped(s, y, self.lower, self.upper), g, convex=False)


def slow_projection(
    group: Group, lower: Decimal, upper: Decimal | None, shape: tuple[int, int]
) -> Group:
    """The singular value decomposition by rotations of Jacobi, with the values clipped."""

    def clipped(values: list[Decimal]) -> list[Decimal]:
        return [max(lower, x if upper is None else min(x, upper)) for x in values]

    values = singular_values(group, shape)
    return group if clipped(values) == values else with_singular_values(group, shape, clipped)


def slow_violation(
    group: Group, lower: Decimal, upper: Decimal | None, shape: tuple[int, int]
) -> Decimal:
    """By definition."""
    values = singular_values(group, shape)
    above = lower * 0 if upper is None else positive(values[0] - upper)
    return max(above, positive(lower - values[-1]))


SHAPE = (5, 3)
"""That of most inputs of the suite: small ones, for exact decompositions take long."""

EXAMPLES: tuple[Any, ...] = (
    SingularValues(0.5, 2.0),
    SingularValues(1.5, axis=(0, 1)),
    SingularValues(0.0, 1.0, axis=(1, 0)),
)
