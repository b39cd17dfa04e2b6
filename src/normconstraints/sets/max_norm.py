"""Max-norm: the Euclidean norm of every group is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._norms import (
    Decision,
    Norms,
    along_sphere,
    downhill,
    euclidean_norm,
    length_violation,
    project_length,
    within_ball,
)
from normconstraints._oracle import Group, length, positive, scaled
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints.constraint import (
    Ball,
    HasDualNorm,
    HasLMO,
    HasSample,
    HasTangent,
    InPlace,
    Summed,
    register,
)

if TYPE_CHECKING:
    from decimal import Decimal


def project_max_norm(w: Array, max_value: Number, *, axis: Axis, out: Array | None = None) -> Array:
    """The nearest array whose groups have a norm of at most `max_value`; see `MaxNorm`."""
    bounds = {"max_value": max_value}
    return project_length(w, axis, _goal, bounds, owner="MaxNorm", out=out, often_inside=True)


def _goal(norms: Norms, max_value: Any) -> Decision:
    return norms.within(max_value), norms.above(max_value)


def _leaves(norms: Norms, uphill: Array, max_value: Any) -> Array:
    return norms.touches(max_value) & (uphill | norms.zero)


def _excess(norms: Norms, max_value: Any) -> Decision:
    return norms.length - max_value, norms.above(max_value)


@register
@final
@dataclass(frozen=True, eq=False)
class MaxNorm(Summed, InPlace, Ball, HasDualNorm, HasLMO, HasTangent, HasSample):
    r"""The Euclidean norm of every group is at most `max_value`.

    .. math:: \{ w : \|w_G\|_2 \le r \text{ for every group } G \}

    A group that is too long is scaled down, the others stay as they are, bit for bit.

    Parameters
    ----------
    max_value : float or array
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
    The projection is unique. Norms are taken in twice the precision, or of groups scaled by a power
    of two, so that nothing overflows or underflows; a projected group never exceeds the bound where
    the library has a wider dtype. Cost: two passes over the array.

    Gradient: the identity inside, :math:`\frac{r}{n}(I - w w^T / n^2)` outside; on the bound one of
    the two. Groups with NaN or infinity come back as they are.

    Called `max_norm` in Keras, whose formula differs: it shrinks every group by
    a factor :math:`n / (n + 10^{-7})`, and its default is ``axis=0``.

    References
    ----------
    N. Srebro, J. Rennie, T. Jaakkola, "Maximum-margin matrix factorization", NIPS 2004.
    N. Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> MaxNorm(1.0, axis=1)(w).round(6)
    array([[0.6, 0.8],
           [0.3, 0.4]])
    >>> MaxNorm(1.0, axis=1).violation(w)
    array([4., 0.])
    """

    max_value: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            max_value=check_number(self, "max_value", self.max_value, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_max_norm(w, self.max_value, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        project_max_norm(w, self.max_value, axis=self.axis, out=out)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"max_value": self.max_value}
        return length_violation(w, self.axis, _excess, bounds, owner="MaxNorm")

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        return downhill(g, self.axis, self.max_value, owner="MaxNorm", name="max_value", ball=True)

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        return euclidean_norm(g, self.axis, owner="MaxNorm")

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        bounds: dict[str, Number] = {"max_value": self.max_value}
        return along_sphere(w, g, self.axis, _leaves, bounds, owner="MaxNorm")

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        axes = _array.normalise_axis(self.axis, like.ndim, "MaxNorm")
        dtype = draw.precision.accumulator
        radius = _array.groupwise(self.max_value, like, axes, xp, dtype, "MaxNorm: max_value")
        return radius * within_ball(draw, self.axis, "MaxNorm", like)


def slow_projection(group: Group, max_value: Decimal) -> Group:
    """By definition, in as many digits as the decimal context has."""
    norm = length(group)
    return group if norm <= max_value else scaled(group, max_value / norm)


def slow_violation(group: Group, max_value: Decimal) -> Decimal:
    """By definition."""
    return positive(length(group) - max_value)


EXAMPLES = (
    MaxNorm(1.0, axis=0),
    MaxNorm(0.3, axis=None),
    MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=-1),
)
