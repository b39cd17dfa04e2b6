"""Zero mean: the entries of every group sum to 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Plane, Planes, in_plane, of_normal
from normconstraints._oracle import Entry, Group, length
from normconstraints._parameters import Axis, assign, check_axis
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_zero_mean(w: Array, *, axis: Axis) -> Array:
    """The nearest array whose groups have a mean of 0; see `ZeroMean`."""
    groups = Groups(w, axis, "ZeroMean", allow_complex=True)
    with _array.quiet(groups.xp):
        planes = Planes(groups)
        return planes.put_back(planes.across(), abs(planes.dot) > planes.slack)


@register
@final
@dataclass(frozen=True, eq=False)
class ZeroMean(Grouped, Convex, HasTangent, HasSample, HasVJP):
    r"""The entries of every group have a mean of 0.

    .. math:: \{ w : \textstyle\sum_{i \in G} w_i = 0 \text{ for every group } G \}

    Parameters
    ----------
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. For the incoming weights of each unit that is 1 for a weight of shape (out, in) and 0
        for (in, out). None is the whole array. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or is no axis.

    Notes
    -----
    The projection is unique: every group less its mean. The mean is taken away twice, since the
    first was rounded in proportion to the entries, the second only in proportion to what is left of
    them. Cost: four passes over the array.

    Gradient: :math:`I - 1 1^T / n` for groups of n entries. Groups with NaN or infinity come back
    as they are.

    The violation is the distance from the set, :math:`|\sum_i w_i| / \sqrt{n}`, which is the
    modulus of the mean times :math:`\sqrt{n}`.

    References
    ----------
    L. Huang et al., "Centered weight normalization in accelerating training of deep neural
    networks", ICCV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> ZeroMean(axis=1)(np.array([[1.0, 3.0], [0.5, -0.5]]))
    array([[-1. ,  1. ],
           [ 0.5, -0.5]])
    """

    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(self, axis=check_axis(self, self.axis))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_zero_mean(w, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "ZeroMean", allow_complex=True)
        with _array.quiet(xp):
            planes = Planes(groups)
            return planes.report(planes.dot, abs(planes.dot) > planes.slack)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return in_plane(Groups(g, self.axis, "ZeroMean", allow_complex=True), 1.0, w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "ZeroMean", allow_complex=True)
        return Plane(groups).pulled_back(g)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group) -> Group:
    """By definition: less the mean."""
    mean = _mean(group)
    return [tuple(x - m for x, m in zip(entry, mean, strict=True)) for entry in group]


def slow_violation(group: Group) -> Decimal:
    """The distance from the group less its mean."""
    return length([_mean(group)] * len(group))


def _mean(group: Group) -> Entry:
    means: list[Any] = [sum(part[1:], part[0]) / len(part) for part in zip(*group, strict=True)]
    return tuple(means)


EXAMPLES: tuple[Any, ...] = (
    ZeroMean(axis=0),
    ZeroMean(axis=None),
    ZeroMean(axis=(0, 1)),
    ZeroMean(axis=-1),
)
