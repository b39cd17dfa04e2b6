"""Group top-k: every group has at most k inner groups that are not 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, length, square
from normconstraints._order import (
    both_finite,
    check_group_axis,
    crowded,
    inner_axes,
    keep_free,
    keep_largest,
    report_remainder,
)
from normconstraints._parameters import PER_SET, Axis, assign, check_axis, check_count
from normconstraints.constraint import Grouped, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_group_top_k(
    w: Array, k: int, *, axis: Axis, group_axis: int | tuple[int, ...]
) -> Array:
    """A nearest array with at most `k` inner groups that are not 0; see `GroupTopK`."""
    groups = Groups(w, axis, "GroupTopK", allow_complex=True)
    inner = inner_axes(groups, group_axis)
    with _array.quiet(groups.xp):
        return groups.put_back(keep_largest(groups, k, inner), crowded(groups, k, inner))


@register
@final
@dataclass(frozen=True, eq=False)
class GroupTopK(Grouped, HasTangent):
    r"""At most `k` inner groups of every group are not 0.

    .. math:: \{ w : |\{ H : w_H \ne 0 \}| \le k \text{ for the inner groups } H \text{ of every
        group } G \}

    Parameters
    ----------
    k : int
        How many inner groups may be other than 0, at least 1. A group with no more inner groups
        than that is in the set whatever it holds.
    axis : int, tuple of int, None or "unit"
        All axes that one group spans, by keyword; all other axes are batch. None is the whole
        array. "unit" is resolved by an adapter from the layer.
    group_axis : int or tuple of int
        Those among them that one inner group spans, by keyword. To keep `k` units of a weight of
        shape (out, in) write ``axis=(0, 1), group_axis=1``.

    Raises
    ------
    TypeError
        If `axis` or `group_axis` is left out, or `k` is no integer.
    ValueError
        If `k` is below 1, or at the call if `group_axis` is not among the axes of the set.

    Notes
    -----
    The `k` inner groups of the largest Euclidean norm stay as they are, bit for bit, the others
    become 0: structured pruning. The set is no convex one. The projection is unique unless the
    k-th and the next norm are equal, to the rounding of norms; then the inner groups with the
    lowest indices stay, in every library. Norms are taken of scaled numbers, so that nothing
    overflows or underflows. Cost: two passes over the array and a sort of the norms.

    Gradient: 1 in inner groups that stay, 0 elsewhere. Groups with NaN or infinity come back as
    they are, inner groups and all.

    The violation is the distance from the set: the norm of all inner groups but the `k` longest.

    References
    ----------
    R. Baraniuk, V. Cevher, M. Duarte, C. Hegde, "Model-based compressive sensing", IEEE
    Transactions on Information Theory 56 (2010), on block sparsity.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[3.0, 4.0], [1.0, 1.0], [0.0, 2.0]])
    >>> GroupTopK(2, axis=(0, 1), group_axis=1)(w)
    array([[3., 4.],
           [0., 0.],
           [0., 2.]])
    """

    k: int = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis
    group_axis: int | tuple[int, ...] = field(metadata=PER_SET)

    def __post_init__(self) -> None:
        assign(
            self,
            k=check_count(self, "k", self.k),
            axis=check_axis(self, self.axis),
            group_axis=check_group_axis(self, self.group_axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_group_top_k(w, self.k, axis=self.axis, group_axis=self.group_axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "GroupTopK", allow_complex=True)
        with _array.quiet(xp):
            return report_remainder(groups, self.k, inner_axes(groups, self.group_axis))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "GroupTopK", allow_complex=True)
        finite = both_finite(groups, w)
        inner = inner_axes(groups, self.group_axis)
        return groups.put_back(keep_free(groups, w, self.k, inner), finite, finite)


def slow_projection(group: Group, k: int, parts: list[list[int]]) -> Group:
    """By definition: the inner groups in the order of their norms."""
    squares = [square([group[i] for i in part]) for part in parts]
    if sum(1 for s in squares if s) <= k:
        return group
    order = sorted(range(len(parts)), key=lambda h: (-squares[h], h))
    stay = {i for h in order[:k] for i in parts[h]}
    return [e if i in stay else tuple(x * 0 for x in e) for i, e in enumerate(group)]


def slow_violation(group: Group, k: int, parts: list[list[int]]) -> Decimal:
    """The norm of the shortest inner groups."""
    rows = [[group[i] for i in part] for part in parts]
    rest = sorted(rows, key=square)[: max(len(rows) - k, 0)]
    return length([*[entry for row in rest for entry in row], tuple(x * 0 for x in group[0])])


EXAMPLES: tuple[Any, ...] = (
    GroupTopK(3, axis=(0, 1), group_axis=1),
    GroupTopK(2, axis=None, group_axis=0),
    GroupTopK(2, axis=(-2, -1), group_axis=(-1,)),
)
