"""Top-k: every group has at most k entries that are not 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, length, square
from normconstraints._order import both_finite, crowded, keep_free, keep_largest, report_remainder
from normconstraints._parameters import PER_SET, Axis, assign, check_axis, check_count
from normconstraints.constraint import Grouped, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_top_k(w: Array, k: int, *, axis: Axis) -> Array:
    """A nearest array with at most `k` entries that are not 0 in each group; see `TopK`."""
    groups = Groups(w, axis, "TopK", allow_complex=True)
    with _array.quiet(groups.xp):
        return groups.put_back(keep_largest(groups, k), crowded(groups, k))


@register
@final
@dataclass(frozen=True, eq=False)
class TopK(Grouped, HasTangent):
    r"""At most `k` entries of every group are not 0.

    .. math:: \{ w : \|w_G\|_0 \le k \text{ for every group } G \}

    Parameters
    ----------
    k : int
        How many entries may be other than 0, at least 1. A group with no more entries than that is
        in the set whatever it holds.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or `k` is no integer.
    ValueError
        If `k` is below 1.

    Notes
    -----
    The `k` largest moduli stay as they are, bit for bit, the others become 0: hard thresholding.
    The set is no convex one. The projection is unique unless the k-th and the next modulus are
    equal; then the entries with the lowest indices stay, in every library. Cost: one sort of each
    group. What was pruned has no larger modulus than what stays, so that an entry comes back only
    if the step of an optimizer makes it large enough.

    Gradient: 1 where an entry stays, 0 elsewhere. Groups with NaN or infinity come back as they
    are.

    The violation is the distance from the set: the norm of all entries but the `k` largest.

    References
    ----------
    T. Blumensath, M. Davies, "Iterative hard thresholding for compressed sensing", Applied and
    Computational Harmonic Analysis 27 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> TopK(2, axis=0)(np.array([3.0, -5.0, 1.0, 3.0]))
    array([ 3., -5.,  0.,  0.])
    >>> float(TopK(1, axis=0).violation(np.array([3.0, -5.0, 4.0])))
    5.0
    """

    k: int = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(self, k=check_count(self, "k", self.k), axis=check_axis(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_top_k(w, self.k, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "TopK", allow_complex=True)
        with _array.quiet(xp):
            return report_remainder(groups, self.k)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "TopK", allow_complex=True)
        finite = both_finite(groups, w)
        return groups.put_back(keep_free(groups, w, self.k), finite, finite)


def slow_projection(group: Group, k: int) -> Group:
    """By definition: the entries in the order of their moduli."""
    order = sorted(range(len(group)), key=lambda i: (-square([group[i]]), i))
    stay = set(order[:k])
    if sum(1 for entry in group if any(entry)) <= k:
        return group
    return [e if i in stay else tuple(x * 0 for x in e) for i, e in enumerate(group)]


def slow_violation(group: Group, k: int) -> Decimal:
    """The norm of the smallest entries."""
    rest = sorted(group, key=lambda entry: square([entry]))[: max(len(group) - k, 0)]
    return length([*rest, tuple(x * 0 for x in group[0])])


EXAMPLES: tuple[Any, ...] = (TopK(3, axis=0), TopK(1, axis=-1), TopK(12, axis=None))
