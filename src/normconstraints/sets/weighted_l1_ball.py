"""Weighted L1 ball: the moduli of every group, each times a weight, sum to at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, Polar, moduli
from normconstraints._oracle import Group, positive, with_moduli
from normconstraints._oracle import moduli as exact_moduli
from normconstraints._parameters import (
    PER_ENTRY,
    Axis,
    Number,
    assign,
    check_axis,
    check_number,
    extent,
)
from normconstraints._random import Draw
from normconstraints._threshold import of_dirichlet, onto_weighted_simplex
from normconstraints.constraint import Ball, Grouped, HasDualNorm, HasLMO, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_weighted_l1_ball(w: Array, radius: Number, weights: Number, *, axis: Axis) -> Array:
    """The nearest array whose weighted moduli sum to at most `radius`; see `WeightedL1Ball`."""
    groups = Groups(w, axis, "WeightedL1Ball", allow_complex=True)
    with _array.quiet(groups.xp):
        r, c = groups.number(radius, "radius"), groups.entries(weights, "weights")
        _, outside = _excess(groups, r, c)
        y = Polar(groups)
        least, most = extent(weights)
        ratio = most / least
        sizes = onto_weighted_simplex(groups, y, r * y.unit, c, smallest=least, ratio=ratio)
        return groups.put_back(y.with_sizes(sizes) / y.unit, outside)


def _excess(groups: Groups, radius: Any, weights: Any) -> tuple[Array, Array]:
    y, scale = groups.shrunk()
    sums = groups.sum(moduli(y, groups) * weights)
    bound = radius * scale
    squares = groups.sum(weights * weights * groups.xp.ones_like(abs(y)))
    amount = (sums - bound) / groups.xp.sqrt(squares) / scale
    return amount, sums > bound * (1 + groups.ball_slack)


@register
@final
@dataclass(frozen=True, eq=False)
class WeightedL1Ball(Grouped, Ball, HasDualNorm, HasLMO, HasSample):
    r"""The moduli of every group, each times a weight, sum to at most `radius`.

    .. math:: \{ w : \textstyle\sum_{i \in G} c_i |w_i| \le r \text{ for every group } G \}

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups.
    weights : float or array
        The factors c > 0, without unit: a number, or an array (or nested tuples) that broadcasts
        against the weight.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or a parameter is no number.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The projection is unique: :math:`\max(|w_i| - \theta c_i, 0)` with the signs or phases of the
    entries, and the threshold by Newton's method as for `Simplex`, in log2 of the ratio of the
    largest factor to the smallest more steps. Where a wider dtype measures, the ball is never left.

    Gradient: the identity inside; outside the projection of the entries that are left onto the
    plane across the factors with their signs. Groups with NaN or infinity come back as they are.

    The violation is the distance from the nearest face, the excess divided by the Euclidean norm of
    the factors, a lower bound of the distance from the ball.

    References
    ----------
    A. Perez, S. Ament, C. Gomes, M. Barlaud, "Efficient projection algorithms onto the weighted l1
    ball", Artificial Intelligence 306 (2022).

    Examples
    --------
    >>> import numpy as np
    >>> WeightedL1Ball(2.0, (1.0, 2.0), axis=0)(np.array([1.0, -1.0])).round(6)
    array([ 0.8, -0.6])
    """

    radius: Number
    weights: Number = field(metadata=PER_ENTRY)
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            weights=check_number(self, "weights", self.weights, above=0, strict=True),
            axis=check_axis(self, self.axis),
        )

    def _groups(self, w: Array) -> Groups:
        return Groups(w, self.axis, "WeightedL1Ball", allow_complex=True)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_weighted_l1_ball(w, self.radius, self.weights, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = self._groups(w)
        r, c = groups.number(self.radius, "radius"), groups.entries(self.weights, "weights")
        with _array.quiet(xp):
            return groups.report(*_excess(groups, r, c))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = self._groups(g)
        r, c = groups.number(self.radius, "radius"), groups.entries(self.weights, "weights")
        y = Polar(groups)
        gain = y.sizes / c
        chosen = groups.top(gain)
        length = -r * (1 - 4 * groups.precision.unit) / c * xp.ones_like(gain)
        return groups.put_back(y.with_sizes(xp.where(chosen, length, 0.0)), xp.ones_like(chosen))

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        groups = self._groups(g)
        y = Polar(groups)
        largest = groups.max(y.sizes / groups.entries(self.weights, "weights")) / y.unit
        return groups.report(largest, _array.trues_like(largest, xp))

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = self._groups(like)
        r, c = groups.number(self.radius, "radius"), groups.entries(self.weights, "weights")
        sizes = of_dirichlet(groups, draw, r, solid=True) / c
        d = draw.direction()
        return d * (sizes / abs(d))


def slow_projection(group: Group, radius: Decimal, weights: list[Decimal]) -> Group:
    """The threshold among those at which an entry becomes 0, tried in order."""
    sizes = exact_moduli(group)
    if sum(c * s for c, s in zip(weights, sizes, strict=True)) <= radius:
        return group
    order = sorted(range(len(sizes)), key=lambda i: sizes[i] / weights[i], reverse=True)
    size, weight = sizes[order[0]], weights[order[0]]
    # From the largest ratio down: entries join while the threshold is below their ratio. Relative
    # to that ratio, for its digits are not to be those that the radius needs.
    shifted = [(s * weight - size * c) / weight for s, c in zip(sizes, weights, strict=True)]
    above, slope, threshold = radius * 0, radius * 0, radius * 0
    for i in order:
        if slope and shifted[i] / weights[i] <= (above - radius) / slope:
            break
        above += weights[i] * shifted[i]
        slope += weights[i] * weights[i]
        threshold = (above - radius) / slope
    kept = [positive(s - threshold * c) for s, c in zip(shifted, weights, strict=True)]
    return with_moduli(group, kept)


def slow_violation(group: Group, radius: Decimal, weights: list[Decimal]) -> Decimal:
    """By definition."""
    excess = sum((c * s for c, s in zip(weights, exact_moduli(group), strict=True)), -radius)
    return positive(excess) / sum((c * c for c in weights), radius * 0).sqrt()


EXAMPLES: tuple[Any, ...] = (
    WeightedL1Ball(1.0, 2.0, axis=0),
    WeightedL1Ball(0.3, ((0.5, 1.0, 2.0, 4.0, 1.0, 3.0),), axis=None),
    WeightedL1Ball(
        (0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), (0.5, 1.0, 2.0, 100.0, 1.0, 3.0), axis=-1
    ),
)
