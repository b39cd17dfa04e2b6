"""L1 ball: the moduli of every group sum to at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._host_support import few_stay
from normconstraints._oracle import Group, moduli, nearest_on_simplex, positive, with_moduli
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints._threshold import (
    extreme,
    largest_modulus,
    of_dirichlet,
    onto_l1_sphere,
    over_l1,
    random_signs,
    tangent_to_l1,
)
from normconstraints.constraint import (
    Ball,
    Grouped,
    HasDualNorm,
    HasLMO,
    HasSample,
    HasTangent,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_l1_ball(w: Array, radius: Number, *, axis: Axis) -> Array:
    """The nearest array whose moduli sum to at most `radius`; see `L1Ball`."""
    groups = Groups(w, axis, "L1Ball", allow_complex=True)
    with _array.quiet(groups.xp):
        r = groups.number(radius, "radius")
        found = few_stay(w, groups.axes, r, groups.precision, inward=groups.inward, moduli=True)
        if found is not None:
            return found
        _, outside = over_l1(groups, r)
        return groups.put_back(onto_l1_sphere(groups, r, inward=groups.inward), outside)


@register
@final
@dataclass(frozen=True, eq=False)
class L1Ball(Grouped, Ball, HasDualNorm, HasLMO, HasTangent, HasSample):
    r"""The moduli of every group sum to at most `radius`.

    .. math:: \{ w : \|w_G\|_1 = \textstyle\sum_{i \in G} |w_i| \le r \text{ for every group } G \}

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups.
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
    The projection is unique: soft thresholding with the threshold of the moduli on `Simplex`, so
    that small entries become 0. Complex entries keep their phase. Cost: that of `Simplex`. Where a
    wider dtype measures, the ball is never left.

    Gradient: the identity inside; outside that of `Simplex` with the signs of the entries, and
    sign / k in the radius for each of the k entries that are left. Groups with NaN or infinity come
    back as they are.

    The violation is the distance from the nearest face,
    :math:`(\|w_G\|_1 - r) / \sqrt{n}`, a lower bound of the distance from the ball.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions",
    ICML 2008. L. Condat, "Fast projection onto the simplex and the L1 ball", Math. Programming 158
    (2016).

    Examples
    --------
    >>> import numpy as np
    >>> L1Ball(1.0, axis=0)(np.array([1.0, -0.5, 0.1]))
    array([ 0.75, -0.25,  0.  ])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _groups(self, w: Array) -> Groups:
        return Groups(w, self.axis, "L1Ball", allow_complex=True)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_l1_ball(w, self.radius, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = self._groups(w)
        with _array.quiet(xp):
            return groups.report(*over_l1(groups, groups.number(self.radius, "radius")))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = self._groups(g)
        return extreme(groups, groups.number(self.radius, "radius") * groups.inward[0])

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        return largest_modulus(self._groups(g))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "L1Ball")
        return tangent_to_l1(groups, w, groups.number(self.radius, "radius"), ball=True)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = self._groups(like)
        sizes = of_dirichlet(groups, draw, groups.number(self.radius, "radius"), solid=True)
        return random_signs(groups, draw, sizes)


def slow_projection(group: Group, radius: Decimal) -> Group:
    """The moduli on the simplex by sorting, with their signs or phases."""
    sizes = moduli(group)
    if sum(sizes) <= radius:
        return group
    return with_moduli(group, [x for (x,) in nearest_on_simplex([(s,) for s in sizes], radius)])


def slow_violation(group: Group, radius: Decimal) -> Decimal:
    """By definition."""
    return positive(sum(moduli(group), -radius)) / (radius * 0 + len(group)).sqrt()


EXAMPLES: tuple[Any, ...] = (
    L1Ball(1.0, axis=0),
    L1Ball(0.3, axis=None),
    L1Ball((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
