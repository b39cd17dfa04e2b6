"""L1 sphere: the moduli of every group sum to a value."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, moduli, nearest_on_simplex, with_moduli
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints._threshold import (
    extreme,
    of_dirichlet,
    off_l1,
    onto_l1_sphere,
    random_signs,
    tangent_to_l1,
)
from normconstraints.constraint import Grouped, HasLMO, HasSample, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_l1_sphere(w: Array, radius: Number, *, axis: Axis) -> Array:
    """The nearest array whose moduli sum to `radius`; see `L1Sphere`."""
    groups = Groups(w, axis, "L1Sphere", allow_complex=True)
    with _array.quiet(groups.xp):
        r = groups.number(radius, "radius")
        _, outside = off_l1(groups, r)
        return groups.put_back(onto_l1_sphere(groups, r), outside)


@register
@final
@dataclass(frozen=True, eq=False)
class L1Sphere(Grouped, HasLMO, HasTangent, HasSample):
    r"""The moduli of every group sum to `radius`.

    .. math:: \{ w : \|w_G\|_1 = \textstyle\sum_{i \in G} |w_i| = r \text{ for every group } G \}

    Parameters
    ----------
    radius : float or array
        The sum r >= 0, in the units of the weights: one number, or an array (or nested tuples)
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
    The moduli are projected onto `Simplex`, entries keep their signs or phases. From outside that
    is the projection onto `L1Ball`; from inside every entry grows, also those that are 0, which
    become positive: the nearest group has mass there too. The set is not convex, but the projection
    is unique except for the sign or phase that zeros get. Cost: that of `Simplex`.

    Gradient: that of `Simplex` with the signs of the entries. Groups with NaN or infinity come back
    as they are.

    The violation is the distance from the nearest face,
    :math:`| \|w_G\|_1 - r | / \sqrt{n}`, a lower bound of the distance from the sphere.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions",
    ICML 2008. L. Condat, "Fast projection onto the simplex and the L1 ball", Math. Programming 158
    (2016).

    Examples
    --------
    >>> import numpy as np
    >>> L1Sphere(1.0, axis=0)(np.array([0.0, 0.1])).round(6)
    array([0.45, 0.55])
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
        return Groups(w, self.axis, "L1Sphere", allow_complex=True)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_l1_sphere(w, self.radius, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = self._groups(w)
        with _array.quiet(xp):
            return groups.report(*off_l1(groups, groups.number(self.radius, "radius")))

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = self._groups(g)
        return extreme(groups, groups.number(self.radius, "radius"))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "L1Sphere")
        return tangent_to_l1(groups, w, groups.number(self.radius, "radius"), ball=False)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        groups = self._groups(like)
        sizes = of_dirichlet(groups, draw, groups.number(self.radius, "radius"))
        return random_signs(groups, draw, sizes)


def slow_projection(group: Group, radius: Decimal) -> Group:
    """The moduli on the simplex by sorting, with their signs or phases."""
    sizes = moduli(group)
    return with_moduli(group, [x for (x,) in nearest_on_simplex([(s,) for s in sizes], radius)])


def slow_violation(group: Group, radius: Decimal) -> Decimal:
    """By definition."""
    return abs(sum(moduli(group), -radius)) / (radius * 0 + len(group)).sqrt()


EXAMPLES: tuple[Any, ...] = (
    L1Sphere(1.0, axis=0),
    L1Sphere(0.3, axis=None),
    L1Sphere((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
