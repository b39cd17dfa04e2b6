"""Hyperplane: the inner product of every group with a normal is a number."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Plane, Planes, check_normal, in_plane, of_normal
from normconstraints._oracle import Group
from normconstraints._parameters import (
    PER_ENTRY,
    Axis,
    Number,
    assign,
    check_axis,
    check_finite,
)
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_hyperplane(w: Array, normal: Number, offset: Number, *, axis: Axis) -> Array:
    """The nearest array whose groups have the inner product `offset` with `normal`."""
    groups = Groups(w, axis, "Hyperplane")
    with _array.quiet(groups.xp):
        planes = Planes(groups, normal)
        b = planes.offset(offset, "offset")
        return planes.put_back(planes.onto(b), abs(planes.off(b)) > planes.slack)


@register
@final
@dataclass(frozen=True, eq=False)
class Hyperplane(Grouped, Convex, HasTangent, HasSample, HasVJP):
    r"""The inner product of every group with `normal` is `offset`.

    .. math:: \{ w : a_G^T w_G = b \text{ for every group } G \}

    Parameters
    ----------
    normal : float or array
        The normal a: one number for all entries, or an array (or nested tuples) that broadcasts
        against the weight. Not all 0.
    offset : float or array
        The inner product b: one number, or an array (or nested tuples) that broadcasts against the
        groups.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, a parameter is no number, or at the call if the weight is complex.
    ValueError
        If a parameter is not finite, or the normal is all 0.

    Notes
    -----
    The projection is unique: :math:`w - a (a^T w - b) / \|a\|^2`. It is taken twice, and in double
    with the rounding errors of the first product, so that it is right to a few units of the last
    place also where hardly anything is left of the group. Cost: five passes over the array, about
    ten in double.

    Gradient: :math:`I - a a^T / \|a\|^2`, and :math:`a / \|a\|^2` in the offset. Groups with NaN or
    infinity come back as they are. So does a group whose own part of the normal is all 0 while
    others' is not: it has no plane, and its violation is NaN.

    The violation is the distance from the plane, :math:`|a^T w - b| / \|a\|`.

    References
    ----------
    A. Beck, "First-order methods in optimization", 2017, lemma 6.26.

    Examples
    --------
    >>> import numpy as np
    >>> c = Hyperplane((3.0, 4.0), 5.0, axis=0)
    >>> c(np.array([3.0, 4.0])).round(6)
    array([0.6, 0.8])
    >>> float(c.violation(np.array([3.0, 4.0])))
    4.0
    """

    normal: Number = field(metadata=PER_ENTRY)
    offset: Number
    _: KW_ONLY
    axis: Axis
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            normal=check_normal(self, "normal", self.normal),
            offset=check_finite(self, "offset", self.offset),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_hyperplane(w, self.normal, self.offset, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Hyperplane")
        with _array.quiet(xp):
            planes = Planes(groups, self.normal)
            off = planes.off(planes.offset(self.offset, "offset"))
            return planes.report(off, abs(off) > planes.slack)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return in_plane(Groups(g, self.axis, "Hyperplane"), self.normal, w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "Hyperplane")
        return Plane(groups, self.normal).pulled_back(g)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group, normal: list[Decimal], offset: Decimal) -> Group:
    """By the formula."""
    step = (_product(group, normal) - offset) / sum(a * a for a in normal)
    return [(x - step * a,) for (x,), a in zip(group, normal, strict=True)]


def slow_violation(group: Group, normal: list[Decimal], offset: Decimal) -> Decimal:
    """By definition."""
    return abs(_product(group, normal) - offset) / (offset * 0 + sum(a * a for a in normal)).sqrt()


def _product(group: Group, normal: list[Decimal]) -> Decimal:
    return sum((x * a for (x,), a in zip(group, normal, strict=True)), normal[0] * 0)


EXAMPLES: tuple[Any, ...] = (
    Hyperplane(-2.0, 0.75, axis=None),
    Hyperplane((1.0, -0.5, 0.0, 2.5, 1e-3, -1.75), 0.0, axis=1),
    Hyperplane(
        tuple(
            (x, 1.0, -x, 3.0, x * x, 1e3) for x in (0.5, 1.25, -2.0, 3.0, 0.125, 1.5, -0.75, 2.0)
        ),
        (0.5, 1.0, -2.0, 0.0, 1e3, 0.25),
        axis=0,
    ),
)
