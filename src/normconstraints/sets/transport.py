"""Transport polytope: the entries of a matrix are non-negative, its sums are given."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group
from normconstraints._parameters import PER_SET, Axis, Number, assign, check_two_axes
from normconstraints._random import Draw
from normconstraints._transport import (
    Matrices,
    check_sums,
    drawn,
    excess_of_sums,
    nearest_of_sums,
)
from normconstraints.constraint import Convex, Grouped, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_transport(w: Array, rows: Number, cols: Number, *, axis: Axis = (-2, -1)) -> Array:
    """The nearest array of entries >= 0 with sums of `rows` and `cols`; see `Transport`."""
    groups = Groups(w, axis, "Transport")
    with _array.quiet(groups.xp):
        matrices = _matrices(groups, rows, cols, axis)
        _, outside = matrices.off()
        return groups.put_back(matrices.nearest(), outside)


def _matrices(groups: Groups, rows: Any, cols: Any, axis: Any) -> Matrices:
    shape = groups.w.shape
    if tuple(shape[a] for a in axis) != (len(rows), len(cols)):
        raise ValueError(
            f"Transport: w must have as many rows and columns as there are sums, {len(rows)} and "
            f"{len(cols)}, in axis {axis}, got {tuple(shape)}"
        )
    return Matrices(groups, axis, rows, cols)


@register
@final
@dataclass(frozen=True, eq=False)
class Transport(Grouped, Convex, HasSample):
    r"""Transport plans: entries are non-negative, rows sum to `rows` and columns to `cols`.

    .. math:: \{ W : W_{ij} \ge 0, \textstyle\sum_j W_{ij} = r_i, \textstyle\sum_i W_{ij} = c_j \}

    Parameters
    ----------
    rows : array or tuple, of shape (m,)
        The sum r of each row, >= 0, in the units of the weights. Kept as a tuple of numbers.
    cols : array or tuple, of shape (n,)
        The sum c of each column, >= 0. In total as much as `rows`, up to rounding, and more than 0.
    axis : tuple of two int, default (-2, -1)
        The axes of the rows and of the columns; all other axes are batch.

    Raises
    ------
    TypeError
        If `axis` is no tuple of integers, a parameter is no number or is traced by a compiler, or
        at the call if the weight is complex.
    ValueError
        If a parameter is out of its range or the totals differ, `axis` has not two entries, or at
        the call if the weight has another number of rows or columns.

    Notes
    -----
    The projection is unique. Algorithm, cost and limits are those of `Birkhoff`, with 12 + m + n
    steps where neither m nor n exceeds 8.

    Gradient: the projection onto the matrices with sums of 0 whose entries are 0 where the result
    is 0; none in the sums. Matrices with NaN or infinity come back as they are.

    The violation is the largest of the negative entries and the distances from the planes on which
    one row or one column has the right sum. Sums within the tolerance of the largest one count as
    right.

    A sample is a matrix of exponential numbers after Sinkhorn's balancing; not uniform.

    References
    ----------
    G. Peyre, M. Cuturi, "Computational optimal transport", Found. Trends Mach. Learn. 11 (2019).
    M. Blondel, V. Seguy, A. Rolet, "Smooth and sparse optimal transport", AISTATS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> Transport((1.0, 2.0), (2.0, 0.5, 0.5))(np.zeros((2, 3))).round(6)
    array([[0.833333, 0.083333, 0.083333],
           [1.166667, 0.416667, 0.416667]])
    """

    rows: Number = field(metadata=PER_SET)
    cols: Number = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis = (-2, -1)
    needs: ClassVar[tuple[str, ...]] = ("solve",)
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        rows, cols = check_sums(self, self.rows, self.cols)
        assign(self, rows=rows, cols=cols, axis=check_two_axes(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_transport(w, self.rows, self.cols, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Transport")
        with _array.quiet(xp):
            return groups.report(*_matrices(groups, self.rows, self.cols, self.axis).off())

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = Groups(like, self.axis, "Transport")
        return drawn(_matrices(groups, self.rows, self.cols, self.axis), draw)


def slow_projection(group: Group, rows: tuple[Decimal, ...], cols: tuple[Decimal, ...]) -> Group:
    """An active set that changes by one entry at a time, in 1500 digits; rows before columns."""
    return nearest_of_sums(group, rows, cols)


def slow_violation(group: Group, rows: tuple[Decimal, ...], cols: tuple[Decimal, ...]) -> Decimal:
    """By definition."""
    return excess_of_sums(group, rows, cols)


EXAMPLES: tuple[Any, ...] = (
    Transport((0.5, 1.25, 1.0, 0.75, 2.0, 0.25, 1.5, 0.75), (1.0, 0.5, 2.0, 1.5, 2.25, 0.75)),
    Transport(
        (3.0, 0.0, 1.0, 5.0, 2.0, 8.0, 4.0, 7.0), (6.0, 4.0, 9.0, 0.0, 10.0, 1.0), axis=(0, 1)
    ),
)
