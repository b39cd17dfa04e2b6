"""Fixed sum: the entries of every group sum to a total."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._linear import Plane, Planes, in_plane, of_normal
from normconstraints._oracle import Group
from normconstraints._parameters import Axis, Number, assign, check_axis, check_finite
from normconstraints._random import Draw
from normconstraints.constraint import Convex, Grouped, HasSample, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_fixed_sum(w: Array, total: Number, *, axis: Axis) -> Array:
    """The nearest array with sums of `total`; see `FixedSum`."""
    groups = Groups(w, axis, "FixedSum", allow_complex=True)
    with _array.quiet(groups.xp):
        planes = Planes(groups)
        s = planes.offset(total, "total")
        return planes.put_back(planes.onto(s), abs(planes.off(s)) > planes.slack)


@register
@final
@dataclass(frozen=True, eq=False)
class FixedSum(Grouped, Convex, HasTangent, HasSample, HasVJP):
    r"""The entries of every group sum to `total`.

    .. math:: \{ w : \textstyle\sum_{i \in G} w_i = s \text{ for every group } G \}

    Parameters
    ----------
    total : float or array
        The sum s, a real number in the units of the weights: one number, or an array (or nested
        tuples) that broadcasts against the groups.
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
    The projection is unique: every entry is moved by the same number. The mean is taken away twice,
    since the first was rounded in proportion to the entries, the second only in proportion to what
    is left of them. Cost: four passes over the array. Complex weights have a sum without an
    imaginary part.

    Gradient: :math:`I - 1 1^T / n` for groups of n entries, and :math:`1 / n` in the total. Groups
    with NaN or infinity come back as they are.

    The violation is the distance from the plane, :math:`|\sum_i w_i - s| / \sqrt{n}`.

    References
    ----------
    N. Parikh, S. Boyd, "Proximal algorithms", 2014, section 6.2.1.

    Examples
    --------
    >>> import numpy as np
    >>> FixedSum(1.0, axis=0)(np.array([0.5, 1.5, -4.0]))
    array([ 1.5,  2.5, -3. ])
    """

    total: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            total=check_finite(self, "total", self.total),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_fixed_sum(w, self.total, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        with _array.quiet(xp):
            planes = Planes(Groups(w, self.axis, "FixedSum", allow_complex=True))
            off = planes.off(planes.offset(self.total, "total"))
            return planes.report(off, abs(off) > planes.slack)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return in_plane(Groups(g, self.axis, "FixedSum", allow_complex=True), 1.0, w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "FixedSum", allow_complex=True)
        return Plane(groups).pulled_back(g)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return of_normal(draw, like, xp)


def slow_projection(group: Group, total: Decimal) -> Group:
    """The sum that is lacking, shared out."""
    share = [x / len(group) for x in _lacking(group, total)]
    return [tuple(x + y for x, y in zip(entry, share, strict=True)) for entry in group]


def slow_violation(group: Group, total: Decimal) -> Decimal:
    """By definition."""
    squares = [x * x for x in _lacking(group, total)]
    return sum(squares, total * 0).sqrt() / (total * 0 + len(group)).sqrt()


def _lacking(group: Group, total: Decimal) -> list[Decimal]:
    return [
        (total if i == 0 else total * 0) - sum(part)
        for i, part in enumerate(zip(*group, strict=True))
    ]


EXAMPLES: tuple[Any, ...] = (
    FixedSum(1.0, axis=0),
    FixedSum(-0.3, axis=None),
    FixedSum((0.1, 1.0, -2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
