"""Min-norm: every group has a Euclidean norm of at least a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._norms import Decision, Norms, along_sphere, length_violation, project_length
from normconstraints._oracle import Group, length, positive, scaled
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints.constraint import HasTangent, InPlace, Summed, ZeroStays, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_min_norm(w: Array, value: Number, *, axis: Axis, out: Array | None = None) -> Array:
    """The nearest array whose groups have a norm of at least `value`; see `MinNorm`."""
    bounds = {"value": value}
    return project_length(w, axis, _goal, bounds, owner="MinNorm", out=out, often_inside=True)


def _goal(norms: Norms, value: Any) -> Decision:
    return value, norms.below(value)


def _leaves(norms: Norms, uphill: Array, value: Any) -> Array:
    return norms.rests_on(value) & ~uphill & ~norms.zero


def _excess(norms: Norms, value: Any) -> Decision:
    return value - norms.length, norms.below(value) | (norms.zero & (norms.scaled < value))


@register
@final
@dataclass(frozen=True, eq=False)
class MinNorm(Summed, ZeroStays, InPlace, HasTangent):
    r"""The Euclidean norm of every group is at least `value`.

    .. math:: \{ w : \|w_G\|_2 \ge r \text{ for every group } G \}

    Parameters
    ----------
    value : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups.
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
    The set is not convex; the projection scales short groups up and is unique except at zero. A
    group of zeros has no direction and stays at zero, with a violation of `value`. A group that is
    long enough within the rounding of its dtype comes back bit for bit.

    Gradient: the identity inside, :math:`\frac{r}{n}(I - w w^T / n^2)` outside, the identity at
    zero. Groups with NaN or infinity come back as they are.

    References
    ----------
    A. Beck, "First-order methods in optimization", SIAM 2017, chapter 6, for the sphere.

    Examples
    --------
    >>> import numpy as np
    >>> MinNorm(1.0, axis=1)(np.array([[3.0, 4.0], [0.3, 0.4]])).round(6)
    array([[3. , 4. ],
           [0.6, 0.8]])
    """

    value: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            value=check_number(self, "value", self.value, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_min_norm(w, self.value, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_min_norm(w, self.value, axis=self.axis, out=out)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"value": self.value}
        return length_violation(w, self.axis, _excess, bounds, owner="MinNorm")

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_sphere(w, g, self.axis, _leaves, {"value": self.value}, owner="MinNorm")


def slow_projection(group: Group, value: Decimal) -> Group:
    """By definition, in as many digits as the decimal context has."""
    norm = length(group)
    return group if norm >= value or not norm else scaled(group, value / norm)


def slow_violation(group: Group, value: Decimal) -> Decimal:
    """By definition."""
    return positive(value - length(group))


EXAMPLES = (MinNorm(1.0, axis=0), MinNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=1))
