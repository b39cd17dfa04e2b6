"""Solid simplex: the entries of every group are non-negative and sum to at most a total."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, nearest_on_simplex, positive
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints._threshold import (
    heavier,
    of_dirichlet,
    onto_solid_simplex,
    tangent_to_simplex,
    vertex,
)
from normconstraints.constraint import (
    Convex,
    DropsMinusInfinity,
    HasLMO,
    HasSample,
    HasTangent,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_solid_simplex(w: Array, total: Number = 1.0, *, axis: Axis) -> Array:
    """The nearest array with entries >= 0 and sums of at most `total`; see `SolidSimplex`."""
    groups = Groups(w, axis, "SolidSimplex")
    with _array.quiet(groups.xp):
        s = groups.number(total, "total")
        _, outside = _excess(groups, s)
        nearest = onto_solid_simplex(groups, groups.wide, s)
        return groups.put_back(nearest, outside, groups.bounded)


def _excess(groups: Groups, total: Any) -> tuple[Array, Array]:
    xp = groups.xp
    below = groups.max(-groups.wide)
    heavy, amount = heavier(groups, total)
    amount = xp.where(heavy, amount, xp.zeros_like(amount))
    return xp.where(below > amount, below, amount), heavy | (below > 0)


@register
@final
@dataclass(frozen=True, eq=False)
class SolidSimplex(DropsMinusInfinity, Convex, HasLMO, HasTangent, HasSample):
    r"""The entries of every group are non-negative and sum to at most `total`.

    .. math:: \{ w : w_i \ge 0, \textstyle\sum_{i \in G} w_i \le s \text{ for every group } G \}

    Parameters
    ----------
    total : float or array, default 1.0
        The largest sum s >= 0, in the units of the weights: one number, or an array (or nested
        tuples) that broadcasts against the groups.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, a parameter is no number, or at the call if the weight is complex.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The projection is unique: negative entries become 0, and if the rest is still too much it is
    projected onto `Simplex`. Cost: that of `Simplex`. It is the part of `L1Ball` with entries >= 0;
    where a wider dtype measures, the sum never exceeds the total.

    Gradient: that of clipping at 0 below the total, that of `Simplex` above. Groups with NaN or
    plus infinity come back as they are; an entry of minus infinity becomes 0.

    The violation is the largest of the negative entries and the distance of the positive part from
    the plane of the largest sums.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions",
    ICML 2008.

    Examples
    --------
    >>> import numpy as np
    >>> SolidSimplex(axis=0)(np.array([[0.5, 0.25], [1.0, -1.0]]))
    array([[0.25, 0.25],
           [0.75, 0.  ]])
    """

    total: Number = 1.0
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            total=check_number(self, "total", self.total, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_solid_simplex(w, self.total, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "SolidSimplex")
        with _array.quiet(xp):
            amount, outside = _excess(groups, groups.number(self.total, "total"))
            return groups.report(amount, outside, groups.bounded)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "SolidSimplex")
        total = groups.number(self.total, "total") * groups.inward[0]
        return vertex(groups, total, at_zero=False)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "SolidSimplex")
        bound = groups.number(self.total, "total") * (1 - 4 * groups.slack)
        return tangent_to_simplex(groups, w, bound)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = Groups(like, self.axis, "SolidSimplex")
        return of_dirichlet(groups, draw, groups.number(self.total, "total"), solid=True)


def slow_projection(group: Group, total: Decimal) -> Group:
    """The positive part, or the simplex if that is too heavy."""
    part: Group = [(positive(x),) for (x,) in group]
    return part if sum(x for (x,) in part) <= total else nearest_on_simplex(group, total)


def slow_violation(group: Group, total: Decimal) -> Decimal:
    """By definition."""
    below = max(positive(-x) for (x,) in group)
    over = sum((positive(x) for (x,) in group), -total)
    return max(below, over / (total * 0 + len(group)).sqrt())


EXAMPLES: tuple[Any, ...] = (
    SolidSimplex(axis=0),
    SolidSimplex(0.3, axis=None),
    SolidSimplex((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
