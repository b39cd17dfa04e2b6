"""Sparse simplex: at most k positive entries in every group, and they sum to a total."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, nearest_on_simplex, positive, total_excess
from normconstraints._parameters import (
    PER_SET,
    Axis,
    Number,
    assign,
    check_axis,
    check_count,
    check_number,
)
from normconstraints._random import Draw
from normconstraints._threshold import of_dirichlet, off_simplex, onto_simplex, vertex
from normconstraints.constraint import DropsMinusInfinity, HasLMO, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_sparse_simplex(w: Array, k: int, total: Number = 1.0, *, axis: Axis) -> Array:
    """The nearest array with `k` entries > 0 that sum to `total`; see `SparseSimplex`."""
    groups = Groups(w, axis, "SparseSimplex")
    with _array.quiet(groups.xp):
        s = groups.number(total, "total")
        _, outside = _excess(groups, k, s)
        chosen = groups.largest(groups.wide, k)
        kept = groups.xp.where(chosen, groups.wide, -math.inf)
        return groups.put_back(onto_simplex(groups, kept, s), outside, groups.bounded)


def _excess(groups: Groups, k: int, total: Any) -> tuple[Array, Array]:
    xp = groups.xp
    amount, off = off_simplex(groups, total)
    rest = xp.where(groups.largest(groups.wide, k), xp.zeros_like(groups.wide), abs(groups.wide))
    most = groups.max(rest)
    return xp.where(most > amount, most, amount), off | (most > 0)


@register
@final
@dataclass(frozen=True, eq=False)
class SparseSimplex(DropsMinusInfinity, HasLMO, HasSample):
    r"""At most `k` entries of every group are positive, the others 0, and they sum to `total`.

    .. math:: \{ w : w_i \ge 0, \textstyle\sum_{i \in G} w_i = s,
        \#\{i \in G : w_i \ne 0\} \le k \text{ for every group } G \}

    Parameters
    ----------
    k : int
        The largest number >= 1 of positive entries; all of a smaller group may be.
    total : float or array, default 1.0
        The sum s >= 0, in the units of the weights: one number, or an array (or nested tuples) that
        broadcasts against the groups.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, `k` is no integer, `total` no number, or at the call if the weight is
        complex.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The `k` largest entries are projected onto `Simplex`, of ties those with the lowest index; that
    is a nearest point of the set, which is not convex. Cost: a sort of each group for its k-th
    largest entry, and that of `Simplex`.

    Gradient: that of `Simplex` on the entries that were chosen, 0 on the others. Groups with NaN or
    plus infinity come back as they are; an entry of minus infinity becomes 0.

    The violation is the largest of that of `Simplex` and the moduli beyond the k largest entries.

    References
    ----------
    A. Kyrillidis, S. Becker, V. Cevher, C. Koch, "Sparse projections onto the simplex", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> SparseSimplex(2, axis=0)(np.array([0.5, 1.0, 0.25, 0.75]))
    array([0.   , 0.625, 0.   , 0.375])
    """

    k: int = field(metadata=PER_SET)
    total: Number = 1.0
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            k=check_count(self, "k", self.k),
            total=check_number(self, "total", self.total, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_sparse_simplex(w, self.k, self.total, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "SparseSimplex")
        with _array.quiet(xp):
            amount, outside = _excess(groups, self.k, groups.number(self.total, "total"))
            return groups.report(amount, outside, groups.bounded)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "SparseSimplex")
        return vertex(groups, groups.number(self.total, "total"))

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = Groups(like, self.axis, "SparseSimplex")
        return of_dirichlet(groups, draw, groups.number(self.total, "total"))


def slow_projection(group: Group, k: int, total: Decimal) -> Group:
    """The largest entries on the simplex, taken one after the other."""
    order = sorted(range(len(group)), key=lambda i: (-group[i][0], i))[:k]
    found: Group = [(total * 0,) for _ in group]
    chosen = nearest_on_simplex([group[i] for i in order], total)
    for i, entry in zip(order, chosen, strict=True):
        found[i] = entry
    return found


def slow_violation(group: Group, k: int, total: Decimal) -> Decimal:
    """By definition."""
    rest = sorted((x for (x,) in group), reverse=True)[k:]
    return max([total_excess(group, total), *(max(positive(x), positive(-x)) for x in rest)])


EXAMPLES: tuple[Any, ...] = (
    SparseSimplex(2, axis=0),
    SparseSimplex(5, 0.3, axis=None),
    SparseSimplex(1, (0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
