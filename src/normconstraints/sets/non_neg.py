"""Non-negative: every entry is >= 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from normconstraints import _array, _host
from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, positive
from normconstraints.constraint import Convex, Entrywise, HasTangent, InPlace, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_non_neg(w: Array) -> Array:
    """The nearest array with entries >= 0; see `NonNeg`."""
    xp = _array.namespace(w, "NonNeg")
    _array.precision(w, xp, "NonNeg", allow_complex=False)
    # A mask and not clip: it keeps NaN and the sign of zero in every library.
    return xp.where(w < 0, 0.0, w)


@register
@final
@dataclass(frozen=True, eq=False)
class NonNeg(Entrywise, Convex, InPlace, HasTangent):
    r"""Every entry is >= 0.

    .. math:: \{ w : w_i \ge 0 \text{ for every entry } i \}

    Raises
    ------
    TypeError
        At the call, if the weight is complex.

    Notes
    -----
    Clipping: the projection is unique, exact and selects, so that all libraries agree bit for bit.
    NaN stays NaN, an infinity of the wrong sign becomes 0, a zero keeps its sign. The violation
    has the shape of the weight.

    Gradient: 1 inside and at zero, 0 outside.

    References
    ----------
    S. Boyd, L. Vandenberghe, "Convex optimization", 2004, section 8.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> NonNeg()(np.array([-2.0, 0.25]))
    array([0.  , 0.25])
    """

    allows_complex: ClassVar[bool] = False

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_non_neg(w)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        if out is not w or not _host.clip_(w, 0.0, None, _array.host_library(w)):
            _array.write(out, self._project(w, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return xp.where(w == w, xp.where(w < 0, abs(w), 0.0), w)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return xp.where((w <= 0) & (g > 0), xp.zeros_like(g), g)


def slow_projection(group: Group) -> Group:
    """By definition, for a group of one entry."""
    ((x,),) = group
    return [(positive(x),)]


def slow_violation(group: Group) -> Decimal:
    """By definition."""
    return positive(-group[0][0])


EXAMPLES = (NonNeg(),)
