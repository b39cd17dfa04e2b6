"""Box: every entry lies between two bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array, _host
from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, positive
from normconstraints._parameters import Number, assign, check_bound, check_order
from normconstraints._random import Draw
from normconstraints.constraint import (
    Convex,
    Entrywise,
    HasLMO,
    HasSample,
    HasTangent,
    InPlace,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_box(w: Array, lower: Number | None, upper: Number | None) -> Array:
    """The nearest array with entries from `lower` to `upper`; see `Box`."""
    xp = _array.namespace(w, "Box")
    # A mask and not clip: it keeps NaN and the sign of zero in every library.
    low, high = _bounds(w, lower, upper, xp)
    if low is not None:
        w = xp.where(w < low, low, w)
    if high is not None:
        w = xp.where(w > high, high, w)
    return w


def _bounds(w: Array, lower: Number | None, upper: Number | None, xp: Namespace) -> tuple[Any, Any]:
    """The bounds as numbers that the dtype of `w` holds, or arrays of its shape."""
    precision = _array.precision(w, xp, "Box", allow_complex=False)
    found = []
    for name, value in (("lower", lower), ("upper", upper)):
        if isinstance(value, float):
            value = _array.representable(value, precision)
        elif value is not None:
            value = _array.entrywise(value, w, xp, precision.dtype, f"Box: {name}")
        found.append(value)
    return found[0], found[1]


@register
@final
@dataclass(frozen=True, eq=False)
class Box(Entrywise, Convex, InPlace, HasLMO, HasTangent, HasSample):
    r"""Every entry lies between `lower` and `upper`.

    .. math:: \{ w : l_i \le w_i \le u_i \text{ for every entry } i \}

    Parameters
    ----------
    lower, upper : float, array or None, default None
        The bounds l <= u, in the units of the weights: numbers, arrays (or nested tuples) that
        broadcast against the weight, or None for no bound on that side. One must be given. They are
        rounded to the dtype of the weight.

    Raises
    ------
    TypeError
        If a bound is no number, or at the call if the weight is complex.
    ValueError
        If neither bound is given, a bound is NaN, or lower > upper.

    Notes
    -----
    Clipping: the projection is unique, exact and selects, so that all libraries agree bit for bit.
    NaN stays NaN, an infinity is clipped to its bound. The violation has the shape of the weight.

    Gradient: 1 inside and on the bounds, 0 outside.

    ``Box(-c, c)`` is what Mathematica's NetTrain calls "WeightClipping".

    References
    ----------
    S. Boyd, L. Vandenberghe, "Convex optimization", 2004, section 8.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> Box(-0.5, 0.5)(np.array([-2.0, 0.25, 2.0]))
    array([-0.5 ,  0.25,  0.5 ])
    >>> Box(lower=0.0).violation(np.array([-2.0, 0.25]))
    array([2., 0.])
    """

    lower: Number | None = None
    upper: Number | None = None
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            lower=check_bound(self, "lower", self.lower, missing=-math.inf),
            upper=check_bound(self, "upper", self.upper, missing=math.inf),
        )
        if self.lower is None and self.upper is None:
            raise ValueError("Box: lower or upper must be given, got None for both")
        check_order(self, "lower", "upper")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_box(w, self.lower, self.upper)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        low, high = _bounds(w, self.lower, self.upper, xp)
        if out is not w or not _host.clip_(w, low, high, _array.host_library(w)):
            _array.write(out, self._project(w, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        low, high = _bounds(w, self.lower, self.upper, xp)
        found = xp.where(w == w, xp.zeros_like(w), w)
        if low is not None:
            found = xp.where(w < low, low - w, found)
        if high is not None:
            found = xp.where(w > high, w - high, found)
        return found

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        self._check_bounded("a linear minimiser")
        low, high = _bounds(g, self.lower, self.upper, xp)
        corners = xp.where(g > 0, low * xp.ones_like(g), high)
        return xp.where(xp.isfinite(g), corners, g)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        low, high = _bounds(w, self.lower, self.upper, xp)
        if low is not None:
            g = xp.where((w <= low) & (g > 0), xp.zeros_like(g), g)
        if high is not None:
            g = xp.where((w >= high) & (g < 0), xp.zeros_like(g), g)
        return g

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        self._check_bounded("random members")
        low, high = _bounds(like, self.lower, self.upper, xp)
        return low + (high - low) * draw.uniform()

    def _check_bounded(self, what: str) -> None:
        if self.lower is None or self.upper is None:
            raise ValueError(f"Box: lower and upper must be given for {what}, got {self!r}")


def slow_projection(group: Group, lower: Decimal | None, upper: Decimal | None) -> Group:
    """By definition, for a group of one entry."""
    ((x,),) = group
    x = x if lower is None else max(x, lower)
    return [(x if upper is None else min(x, upper),)]


def slow_violation(group: Group, lower: Decimal | None, upper: Decimal | None) -> Decimal:
    """By definition."""
    ((x,),) = group
    below = x - x if lower is None else positive(lower - x)
    return below if upper is None else max(below, positive(x - upper))


EXAMPLES = (
    Box(-0.5, 0.25),
    Box(lower=0.1),
    Box(upper=(-1.0, 0.0, 0.5, 1.0, 2.0, 3.0)),
    Box(0.3, 0.3),
)
