"""Simplex: the entries of every group are non-negative and sum to a total."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._host_support import few_stay
from normconstraints._oracle import Group, nearest_on_simplex, total_excess
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints._threshold import (
    of_dirichlet,
    off_simplex,
    onto_simplex,
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


def project_simplex(w: Array, total: Number = 1.0, *, axis: Axis) -> Array:
    """The nearest array with entries >= 0 and sums of `total`; see `Simplex`."""
    groups = Groups(w, axis, "Simplex")
    with _array.quiet(groups.xp):
        s = groups.number(total, "total")
        if (found := few_stay(w, groups.axes, s, groups.precision)) is not None:
            return found
        _, outside = off_simplex(groups, s)
        nearest = onto_simplex(groups, groups.wide, s)
        return groups.put_back(nearest, outside, groups.bounded)


@register
@final
@dataclass(frozen=True, eq=False)
class Simplex(DropsMinusInfinity, Convex, HasLMO, HasTangent, HasSample):
    r"""The entries of every group are non-negative and sum to `total`.

    .. math:: \{ w : w_i \ge 0, \textstyle\sum_{i \in G} w_i = s \text{ for every group } G \}

    Parameters
    ----------
    total : float or array, default 1.0
        The sum s >= 0, in the units of the weights: one number, or an array (or nested tuples) that
        broadcasts against the groups.
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
    The projection is unique: :math:`\max(w - \theta, 0)`, with the threshold found by Newton's
    method on shifted numbers, in at most log2(n) + 12 steps for float32 and log2(n) + 26 for
    float64, and never more than there are entries; no sorting. Cost: two passes over the array for
    each step.

    Gradient: :math:`\mathrm{diag}(m) - m m^T / k` with the mask m of the k positive entries, and
    :math:`m / k` in the total. Groups with NaN or plus infinity come back as they are; an entry of
    minus infinity becomes 0, as behind a softmax.

    The violation is the largest of the negative entries and the distance from the plane of the
    right sums.

    References
    ----------
    M. Held, P. Wolfe, H. Crowder, "Validation of subgradient optimization", Math. Programming 6
    (1974). L. Condat, "Fast projection onto the simplex and the L1 ball", Math. Programming 158
    (2016).

    Examples
    --------
    >>> import numpy as np
    >>> Simplex(axis=0)(np.array([0.5, 1.0, -1.0]))
    array([0.25, 0.75, 0.  ])
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
        return project_simplex(w, self.total, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Simplex")
        with _array.quiet(xp):
            amount, outside = off_simplex(groups, groups.number(self.total, "total"))
            return groups.report(amount, outside, groups.bounded)

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "Simplex")
        return vertex(groups, groups.number(self.total, "total"))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return tangent_to_simplex(Groups(g, self.axis, "Simplex"), w)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = Groups(like, self.axis, "Simplex")
        return of_dirichlet(groups, draw, groups.number(self.total, "total"))


def slow_projection(group: Group, total: Decimal) -> Group:
    """The threshold of the largest entries in order, taken from sorted numbers."""
    return nearest_on_simplex(group, total)


def slow_violation(group: Group, total: Decimal) -> Decimal:
    """By definition."""
    return total_excess(group, total)


EXAMPLES: tuple[Any, ...] = (
    Simplex(axis=0),
    Simplex(0.3, axis=None),
    Simplex((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
