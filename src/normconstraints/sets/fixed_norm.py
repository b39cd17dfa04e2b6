"""Fixed norm: every group has a given Euclidean norm."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints._array import Array, Namespace
from normconstraints._norms import (
    Decision,
    Norms,
    along_sphere,
    downhill,
    everywhere,
    length_violation,
    project_length,
)
from normconstraints._oracle import Group, length, scaled
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints.constraint import (
    HasLMO,
    HasSample,
    HasTangent,
    InPlace,
    Summed,
    ZeroStays,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_fixed_norm(w: Array, value: Number, *, axis: Axis, out: Array | None = None) -> Array:
    """The nearest array whose groups have the norm `value`; see `FixedNorm`."""
    return project_length(w, axis, _goal, {"value": value}, owner="FixedNorm", out=out)


def _goal(norms: Norms, value: Any) -> Decision:
    return value, norms.off(value)


def _excess(norms: Norms, value: Any) -> Decision:
    return abs(norms.length - value), norms.off(value) | norms.zero


@register
@final
@dataclass(frozen=True, eq=False)
class FixedNorm(Summed, ZeroStays, InPlace, HasLMO, HasTangent, HasSample):
    r"""The Euclidean norm of every group is `value`.

    .. math:: \{ w : \|w_G\|_2 = r \text{ for every group } G \}

    Parameters
    ----------
    value : float or array
        The norm r > 0, in the units of the weights: one number, or an array (or nested tuples) that
        broadcasts against the groups.
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
    The projection scales each group; it is unique except at zero. A group of zeros has no direction
    and stays at zero, with a violation of `value`. A group whose norm is right within the rounding
    of its dtype comes back bit for bit.

    Gradient: :math:`\frac{r}{n}(I - w w^T / n^2)`, and the identity at zero. Groups with NaN or
    infinity come back as they are.

    References
    ----------
    A. Beck, "First-order methods in optimization", SIAM 2017, chapter 6, for the sphere.

    Examples
    --------
    >>> import numpy as np
    >>> FixedNorm(2.0, axis=0)(np.array([[3.0, 0.0], [4.0, 0.0]])).round(6)
    array([[1.2, 0. ],
           [1.6, 0. ]])
    """

    value: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            value=check_number(self, "value", self.value, above=0, strict=True),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_fixed_norm(w, self.value, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_fixed_norm(w, self.value, axis=self.axis, out=out)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"value": self.value}
        return length_violation(w, self.axis, _excess, bounds, owner="FixedNorm")

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        return downhill(g, self.axis, self.value, owner="FixedNorm", name="value")

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_sphere(w, g, self.axis, everywhere, {}, owner="FixedNorm")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return draw.direction()


def slow_projection(group: Group, value: Decimal) -> Group:
    """By definition, in as many digits as the decimal context has."""
    norm = length(group)
    return scaled(group, value / norm) if norm else group


def slow_violation(group: Group, value: Decimal) -> Decimal:
    """By definition."""
    return abs(length(group) - value)


EXAMPLES = (FixedNorm(2.0, axis=0), FixedNorm((0.1, 1.0, 2.5, 7.0, 3.0, 1e3, 0.7, 1.5), axis=1))
