"""Group L1 ball: the Euclidean norms of the inner groups of every group sum to at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups, Inner
from normconstraints._linear import square_error, sum_of_squares
from normconstraints._oracle import Group, length, nearest_on_simplex, positive, scaled
from normconstraints._parameters import (
    PER_SET,
    Axis,
    Number,
    assign,
    check_axis,
    check_group_axis,
    check_number,
)
from normconstraints._random import Draw
from normconstraints._threshold import of_dirichlet, onto_simplex
from normconstraints.constraint import Ball, Grouped, HasDualNorm, HasLMO, HasSample, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_group_l1_ball(w: Array, radius: Number, *, axis: Axis, group_axis: Axis) -> Array:
    """The nearest array whose inner norms sum to at most `radius`; see `GroupL1Ball`."""
    inner = Inner(w, axis, group_axis, "GroupL1Ball")
    groups, xp = inner.groups, inner.xp
    with _array.quiet(xp):
        r = groups.number(radius, "radius")
        norms = inner.norms
        _, outside = _excess(inner, r)
        # Rounding makes a norm larger by as much as it does each of its entries.
        factor, quantum = groups.inward
        room = (factor, quantum * norms.size**0.5 * inner.unit)
        low = _rounded_away(inner)
        lengths = onto_simplex(inner.outer, inner.lengths, r * inner.unit, inward=room, low=low)
        zero = norms.scaled == 0
        change = lengths / inner.unit / xp.where(zero, 1.0, norms.scaled)
        return groups.put_back(inner.measured * xp.where(zero, 0.0, change), outside)


def _rounded_away(inner: Inner) -> Array | None:
    """What the norms lack where nothing wider takes them: a small ball leaves their differences."""
    xp, precision, norms = inner.xp, inner.groups.precision, inner.norms
    if precision.wide is not None:
        return None
    y = inner.measured
    parts = [xp.real(y), xp.imag(y)] if precision.is_complex else [y]
    within = [Groups(x, inner.axes, "GroupL1Ball", precision=precision) for x in parts]
    squares = [sum_of_squares(g.wide, g) for g in within]
    total, error = squares[0]
    for more, rest in squares[1:]:
        both = total + more
        back = both - total
        error = (error + rest) + ((total - (both - back)) + (more - back))
        total = both
    square = norms.scaled * norms.scaled
    error = error - square_error(norms.scaled, square, within[0])
    low = ((total - square) + error) / (2 * xp.where(norms.scaled > 0, norms.scaled, 1.0))
    return low * (inner.unit / norms.scale)


def _excess(inner: Inner, radius: Any) -> tuple[Array, Array]:
    bound = radius * inner.unit
    sums = inner.outer.sum(inner.lengths)
    amount = (sums - bound) / inner.unit / max(inner.outer.size, 1) ** 0.5
    return amount, sums > bound * (1 + inner.groups.ball_slack)


@register
@final
@dataclass(frozen=True, eq=False)
class GroupL1Ball(Grouped, Ball, HasDualNorm, HasLMO, HasSample):
    r"""The Euclidean norms of the inner groups of every group sum to at most `radius`.

    .. math:: \{ w : \|w_G\|_{1,2} = \textstyle\sum_{J \subset G} \|w_J\|_2 \le r
        \text{ for every group } G \}

    The ball of the group lasso: projecting onto it makes whole inner groups 0.

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups.
    axis : int, tuple of int, None or "unit"
        All axes of a group, as in ``numpy.sum(axis=)``, by keyword; all other axes are batch. None
        is the whole array. "unit" is resolved by an adapter from the layer.
    group_axis : int or tuple of int
        Those among `axis` that one inner group J spans.

    Raises
    ------
    TypeError
        If `axis` or `group_axis` is left out, or a parameter is no number.
    ValueError
        If a parameter is out of its range, or at the call if `group_axis` is not among `axis`.

    Notes
    -----
    The projection is unique: the norms are projected onto `Simplex`, and each inner group is scaled
    to its new norm. Cost: two passes over the array, and the cost of `Simplex` for the norms.
    Complex weights have a meaning. Where a wider dtype measures, the ball is never left.

    Gradient: exact by the chain of the norms, their projection and the scaling; an inner group of
    zeros has the derivative 0 outside the ball. Groups with NaN or infinity come back as they are.

    The violation is the distance from the nearest face, the excess divided by the root of the
    number of inner groups, a lower bound of the distance from the ball.

    References
    ----------
    E. van den Berg, M. Schmidt, M. Friedlander, K. Murphy, "Group sparsity via linear-time
    projection", 2008.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    >>> GroupL1Ball(4.0, axis=None, group_axis=1)(w).round(6)
    array([[2.1, 2.8],
           [0. , 0.5],
           [0. , 0. ]])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis
    group_axis: Axis = field(metadata=PER_SET)

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_axis(self, self.axis),
            group_axis=check_group_axis(self, self.group_axis),
        )

    def _inner(self, w: Array) -> Inner:
        return Inner(w, self.axis, self.group_axis, "GroupL1Ball")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_group_l1_ball(w, self.radius, axis=self.axis, group_axis=self.group_axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        inner = self._inner(w)
        with _array.quiet(xp):
            radius = inner.groups.number(self.radius, "radius")
            return inner.groups.report(*_excess(inner, radius))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        inner = self._inner(g)
        groups, norms = inner.groups, inner.norms
        radius = groups.number(self.radius, "radius") * (1 - 4 * groups.precision.unit)
        chosen = inner.outer.top(inner.lengths)
        zero = norms.scaled == 0
        direction = inner.measured * (-radius / xp.where(zero, 1.0, norms.scaled))
        ends = xp.where(chosen & ~zero, direction, xp.zeros_like(direction))
        return groups.put_back(ends, _array.trues_like(ends, xp))

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        inner = self._inner(g)
        largest = inner.outer.max(inner.lengths) / inner.unit
        return inner.groups.report(largest, _array.trues_like(largest, xp))

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        inner = self._inner(like)
        radius = inner.groups.number(self.radius, "radius")
        sizes = of_dirichlet(inner.outer, draw, radius, solid=True)
        directions = draw.direction()
        modulus = abs(directions)
        norms = xp.sqrt(xp.sum(modulus * modulus, axis=inner.axes, keepdims=True))
        return directions * (sizes / norms)


def slow_projection(group: Group, radius: Decimal, parts: list[list[int]]) -> Group:
    """The norms on the simplex by sorting, and each inner group scaled."""
    norms = [length([group[i] for i in part]) for part in parts]
    if sum(norms) <= radius:
        return group
    found: Group = [tuple(x * 0 for x in entry) for entry in group]
    lengths = nearest_on_simplex([(n,) for n in norms], radius)
    for part, old, (new,) in zip(parts, norms, lengths, strict=True):
        for i in part if old else ():
            (found[i],) = scaled([group[i]], new / old)
    return found


def slow_violation(group: Group, radius: Decimal, parts: list[list[int]]) -> Decimal:
    """By definition."""
    excess = sum((length([group[i] for i in part]) for part in parts), -radius)
    return positive(excess) / (radius * 0 + len(parts)).sqrt()


EXAMPLES: tuple[Any, ...] = (
    GroupL1Ball(1.0, axis=None, group_axis=0),
    GroupL1Ball(2.0, axis=(0, 1), group_axis=1),
    GroupL1Ball((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=(1,), group_axis=(1,)),
)
