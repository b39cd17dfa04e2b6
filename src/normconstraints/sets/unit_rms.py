"""Unit RMS: the root mean square of every group has a given value."""

from __future__ import annotations

import math
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
from normconstraints._oracle import Group, scaled, square
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


def project_unit_rms(
    w: Array, value: Number = 1.0, *, axis: Axis, out: Array | None = None
) -> Array:
    """The nearest array whose groups have the root mean square `value`; see `UnitRMS`."""
    return project_length(w, axis, _goal, {"value": value}, owner="UnitRMS", out=out)


def _goal(norms: Norms, value: Any) -> Decision:
    norm = value * math.sqrt(norms.size)
    return norm, norms.off(norm)


def _excess(norms: Norms, value: Any) -> Decision:
    root = math.sqrt(max(norms.size, 1))
    outside = norms.off(value * root) | norms.zero
    return abs(norms.length / root - value), outside


@register
@final
@dataclass(frozen=True, eq=False)
class UnitRMS(Summed, ZeroStays, InPlace, HasLMO, HasTangent, HasSample):
    r"""The root mean square of every group is `value`.

    .. math:: \{ w : \|w_G\|_2 = r \sqrt{n} \text{ for every group } G \text{ of } n
        \text{ entries} \}

    Parameters
    ----------
    value : float or array, default 1.0
        The root mean square r > 0, in the units of the weights: one number, or an array (or nested
        tuples) that broadcasts against the groups.
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
    `FixedNorm` with a norm that grows with the group, so that entries keep their size when a layer
    is widened. The violation is that of the root mean square. A group of zeros stays at zero, with
    a violation of `value`.

    Gradient: as for `FixedNorm`. Groups with NaN or infinity come back as they are.

    References
    ----------
    T. Karras et al., "Analyzing and improving the training dynamics of diffusion models", CVPR 2024
    (EDM2: forced weight normalization).
    I. Loshchilov et al., "nGPT: normalized transformer", ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> UnitRMS(axis=0)(np.array([[3.0, 2.0], [3.0, -2.0]]))
    array([[ 1.,  1.],
           [ 1., -1.]])
    """

    value: Number = 1.0
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            value=check_number(self, "value", self.value, above=0, strict=True),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_unit_rms(w, self.value, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_unit_rms(w, self.value, axis=self.axis, out=out)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"value": self.value}
        return length_violation(w, self.axis, _excess, bounds, owner="UnitRMS")

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        return downhill(g, self.axis, self.value, owner="UnitRMS", name="value", rms=True)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_sphere(w, g, self.axis, everywhere, {}, owner="UnitRMS")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return draw.direction()


def slow_projection(group: Group, value: Decimal) -> Group:
    """By definition, in as many digits as the decimal context has."""
    mean = square(group) / len(group)
    return scaled(group, value / mean.sqrt()) if mean else group


def slow_violation(group: Group, value: Decimal) -> Decimal:
    """By definition."""
    return abs((square(group) / len(group)).sqrt() - value)


EXAMPLES = (UnitRMS(axis=0), UnitRMS(0.02, axis=None))
