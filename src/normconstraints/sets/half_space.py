"""Half-space: the inner product of every group with a normal is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Planes, check_normal, of_normal
from normconstraints._oracle import Group, positive
from normconstraints._parameters import (
    PER_ENTRY,
    Axis,
    Number,
    assign,
    check_axis,
    check_finite,
)
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_half_space(w: Array, normal: Number, offset: Number, *, axis: Axis) -> Array:
    """The nearest array whose groups have an inner product with `normal` of at most `offset`."""
    groups = Groups(w, axis, "HalfSpace")
    with _array.quiet(groups.xp):
        planes = Planes(groups, normal)
        b = planes.offset(offset, "offset")
        return planes.put_back(planes.onto(b), planes.off(b) > planes.slack)


@register
@final
@dataclass(frozen=True, eq=False)
class HalfSpace(Grouped, Convex, HasTangent, HasSample):
    r"""The inner product of every group with `normal` is at most `offset`.

    .. math:: \{ w : a_G^T w_G \le b \text{ for every group } G \}

    Parameters
    ----------
    normal : float or array
        The normal a: one number for all entries, or an array (or nested tuples) that broadcasts
        against the weight. Not all 0.
    offset : float or array
        The bound b: one number, or an array (or nested tuples) that broadcasts against the groups.
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
    The projection is unique: :math:`w - a \max(a^T w - b, 0) / \|a\|^2`, taken twice as that of
    `Hyperplane`. Cost: five passes over the array, about ten in double.

    Gradient: the identity inside, :math:`I - a a^T / \|a\|^2` outside; on the bound one of the two.
    Groups with NaN or infinity come back as they are. So does a group whose own part of the normal
    is all 0 while others' is not: it has no plane, and its violation is NaN.

    The violation is the distance from the half-space, :math:`\max(a^T w - b, 0) / \|a\|`.

    References
    ----------
    A. Beck, "First-order methods in optimization", 2017, lemma 6.26.

    Examples
    --------
    >>> import numpy as np
    >>> c = HalfSpace((3.0, 4.0), 5.0, axis=1)
    >>> c(np.array([[3.0, 4.0], [0.3, 0.4]])).round(6)
    array([[0.6, 0.8],
           [0.3, 0.4]])
    >>> c.violation(np.array([[3.0, 4.0], [0.3, 0.4]]))
    array([4., 0.])
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
        return project_half_space(w, self.normal, self.offset, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "HalfSpace")
        with _array.quiet(xp):
            planes = Planes(groups, self.normal)
            off = planes.off(planes.offset(self.offset, "offset"))
            return planes.report(off, off > planes.slack)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        at = Planes(Groups(w, self.axis, "HalfSpace"), self.normal)
        step = Planes(Groups(g, self.axis, "HalfSpace"), self.normal)
        # The step is against the gradient: it leaves where the gradient points inward.
        leaves = (at.off(at.offset(self.offset, "offset")) >= -at.slack) & (step.dot < 0)
        return step.put_back(step.across(), leaves)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group, normal: list[Decimal], offset: Decimal) -> Group:
    """By the formula, where the bound is exceeded."""
    step = positive(_product(group, normal) - offset) / sum(a * a for a in normal)
    return [(x - step * a,) for (x,), a in zip(group, normal, strict=True)] if step else group


def slow_violation(group: Group, normal: list[Decimal], offset: Decimal) -> Decimal:
    """By definition."""
    square = offset * 0 + sum(a * a for a in normal)
    return positive(_product(group, normal) - offset) / square.sqrt()


def _product(group: Group, normal: list[Decimal]) -> Decimal:
    return sum((x * a for (x,), a in zip(group, normal, strict=True)), normal[0] * 0)


EXAMPLES: tuple[Any, ...] = (
    HalfSpace(-2.0, 0.75, axis=None),
    HalfSpace((1.0, -0.5, 0.0, 2.5, 1e-3, -1.75), 0.0, axis=1),
    HalfSpace(
        tuple(
            (x, 1.0, -x, 3.0, x * x, 1e3) for x in (0.5, 1.25, -2.0, 3.0, 0.125, 1.5, -0.75, 2.0)
        ),
        (0.5, 1.0, -2.0, 0.0, -1e3, 0.25),
        axis=0,
    ),
)
