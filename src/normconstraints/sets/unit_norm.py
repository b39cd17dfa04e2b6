"""Unit norm: every group has a Euclidean norm of 1."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, final

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
from normconstraints._parameters import Axis, assign, check_axis
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


def project_unit_norm(w: Array, *, axis: Axis, out: Array | None = None) -> Array:
    """The nearest array whose groups have a norm of 1; see `UnitNorm`."""
    return project_length(w, axis, _goal, {}, owner="UnitNorm", out=out)


def _goal(norms: Norms) -> Decision:
    return 1.0, norms.off(1.0)


def _excess(norms: Norms) -> Decision:
    return abs(norms.length - 1.0), norms.off(1.0) | norms.zero


@register
@final
@dataclass(frozen=True, eq=False)
class UnitNorm(Summed, ZeroStays, InPlace, HasLMO, HasTangent, HasSample):
    r"""The Euclidean norm of every group is 1.

    .. math:: \{ w : \|w_G\|_2 = 1 \text{ for every group } G \}

    Parameters
    ----------
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
    and stays at zero, with a violation of 1: padding rows and pruned filters stay what they are. A
    group whose norm is 1 within the rounding of its dtype comes back bit for bit.

    Gradient: :math:`(I - w w^T / n^2) / n`, and the identity at zero. Groups with NaN or infinity
    come back as they are.

    Keras' `unit_norm` adds 1e-7 to the norm, so that a column of norm 1e-7 ends far below 1 there.

    References
    ----------
    T. Salimans, D. Kingma, "Weight normalization", NeurIPS 2016, for the reparametrised form, which
    is another training method.

    Examples
    --------
    >>> import numpy as np
    >>> UnitNorm(axis=0)(np.array([[3.0, 0.0], [4.0, 0.0]])).round(6)
    array([[0.6, 0. ],
           [0.8, 0. ]])
    """

    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_unit_norm(w, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_unit_norm(w, axis=self.axis, out=out)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return length_violation(w, self.axis, _excess, {}, owner="UnitNorm")

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        return downhill(g, self.axis, 1.0, owner="UnitNorm", name="value")

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        return along_sphere(w, g, self.axis, everywhere, {}, owner="UnitNorm")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        return draw.direction()


def slow_projection(group: Group) -> Group:
    """By definition, in as many digits as the decimal context has."""
    norm = length(group)
    return scaled(group, 1 / norm) if norm else group


def slow_violation(group: Group) -> Decimal:
    """By definition."""
    return abs(length(group) - 1)


EXAMPLES = (UnitNorm(axis=0), UnitNorm(axis=1), UnitNorm(axis=None))
