"""Min-max norm: the Euclidean norm of every group lies between two bounds."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._norms import (
    Decision,
    Norms,
    along_sphere,
    downhill,
    length_violation,
    project_length,
)
from normconstraints._oracle import Group, length, positive, scaled
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number, check_order
from normconstraints.constraint import (
    Gradual,
    HasLMO,
    HasTangent,
    InPlace,
    Summed,
    ZeroStays,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_min_max_norm(
    w: Array,
    min_value: Number,
    max_value: Number,
    *,
    rate: Number = 1.0,
    axis: Axis,
    out: Array | None = None,
) -> Array:
    """`w` moved by `rate` towards norms from `min_value` to `max_value`; see `MinMaxNorm`."""
    bounds = {"min_value": min_value, "max_value": max_value}
    return project_length(
        w, axis, _goal, bounds, owner="MinMaxNorm", rate=rate, out=out, often_inside=True
    )


def _goal(norms: Norms, min_value: Any, max_value: Any) -> Decision:
    xp = norms.xp
    long, short = norms.above(max_value), norms.below(min_value)
    ones = xp.ones_like(norms.scaled)
    high, low = ones * norms.within(max_value), ones * min_value
    # Where the bounds nearly meet, rounding must not carry a short group past the upper one.
    return xp.where(long | (low > high), high, low), long | short


def _leaves(norms: Norms, uphill: Array, min_value: Any, max_value: Any) -> Array:
    return (norms.touches(max_value) & uphill) | (norms.rests_on(min_value) & ~uphill & ~norms.zero)


def _excess(norms: Norms, min_value: Any, max_value: Any) -> Decision:
    long = norms.above(max_value)
    short = norms.below(min_value) | (norms.zero & (norms.scaled < min_value))
    excess = norms.xp.where(long, norms.length - max_value, min_value - norms.length)
    return excess, long | short


@register
@final
@dataclass(frozen=True, eq=False)
class MinMaxNorm(Summed, Gradual, ZeroStays, InPlace, HasLMO, HasTangent):
    r"""The Euclidean norm of every group lies between `min_value` and `max_value`.

    .. math:: \{ w : a \le \|w_G\|_2 \le b \text{ for every group } G \}

    Parameters
    ----------
    min_value, max_value : float or array
        The bounds 0 <= a <= b with b > 0, in the units of the weights: numbers, or arrays (or
        nested tuples) that broadcast against the groups.
    rate : float, default 1.0
        In (0, 1]. The norm n becomes :math:`(1 - rate)\, n + rate\, \mathrm{clip}(n, a, b)`, as in
        Keras. Below 1 a call moves only that part of the way: the result is *not yet* in the set,
        `violation` says how far it still is, and distances are `rate` times the true ones.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. For the incoming weights of each unit that is 1 for a weight of shape (out, in) and 0
        for (in, out). This is the opposite of ``torch.renorm``'s `dim`. None is the whole array.
        "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or a parameter is no number.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The set is not convex unless a = 0; the projection is unique except at zero. A group of zeros
    has no direction and stays at zero, with a violation of `min_value`.

    Gradient: the identity inside, :math:`\frac{r}{n}(I - w w^T / n^2)` outside with r the bound
    that is passed, mixed by `rate`. Groups with NaN or infinity come back as they are.

    References
    ----------
    Keras, `keras.constraints.MinMaxNorm`, for the rate.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[6.0, 0.3], [8.0, 0.4]])
    >>> MinMaxNorm(1.0, 5.0, axis=0)(w).round(6)
    array([[3. , 0.6],
           [4. , 0.8]])
    >>> MinMaxNorm(1.0, 5.0, rate=0.5, axis=0)(w).round(6)
    array([[4.5 , 0.45],
           [6.  , 0.6 ]])
    """

    min_value: Number
    max_value: Number
    _: KW_ONLY
    rate: Number = 1.0
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            min_value=check_number(self, "min_value", self.min_value, above=0, strict=False),
            max_value=check_number(self, "max_value", self.max_value, above=0, strict=True),
            rate=check_number(self, "rate", self.rate, above=0, strict=True, upto=1),
            axis=check_axis(self, self.axis),
        )
        check_order(self, "min_value", "max_value")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_min_max_norm(
            w, self.min_value, self.max_value, rate=self.rate, axis=self.axis
        )

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_min_max_norm(
            w, self.min_value, self.max_value, rate=self.rate, axis=self.axis, out=out
        )

    def _violation(self, w: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"min_value": self.min_value, "max_value": self.max_value}
        return length_violation(w, self.axis, _excess, bounds, owner="MinMaxNorm")

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        return downhill(
            g, self.axis, self.max_value, owner="MinMaxNorm", name="max_value", inward=True
        )

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        bounds = {"min_value": self.min_value, "max_value": self.max_value}
        return along_sphere(w, g, self.axis, _leaves, bounds, owner="MinMaxNorm")


def slow_projection(group: Group, min_value: Decimal, max_value: Decimal, rate: Decimal) -> Group:
    """Keras' formula without its epsilon, in as many digits as the decimal context has."""
    norm = length(group)
    if not norm:
        return group
    return scaled(group, (1 - rate) + rate * min(max(norm, min_value), max_value) / norm)


def slow_violation(group: Group, min_value: Decimal, max_value: Decimal, rate: Decimal) -> Decimal:
    """By definition."""
    return positive(max(min_value - length(group), length(group) - max_value))


EXAMPLES = (
    MinMaxNorm(0.5, 1.0, axis=0),
    MinMaxNorm(1.0, 1.0, axis=1),
    MinMaxNorm(0.5, 1.0, rate=0.25, axis=0),
    MinMaxNorm(0.0, (0.1, 1.0, 2.5, 0.3, 3.0, 1e3, 0.7, 1.5), axis=1),
)
