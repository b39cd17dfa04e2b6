"""L-infinity ball: the largest modulus of every group is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array, _host
from normconstraints._array import Array, Namespace, Precision
from normconstraints._groups import Groups, moduli
from normconstraints._norms import Norms, along_sphere, lengthen, measure, rescale, within_ball
from normconstraints._oracle import Group, length, positive, scaled
from normconstraints._parameters import Axis, Number, assign, check_axis, check_number
from normconstraints._random import Draw
from normconstraints.constraint import (
    Ball,
    Entrywise,
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


def project_linf_ball(w: Array, radius: Number, *, axis: Axis) -> Array:
    """The nearest array with moduli of at most `radius`; see `LInfBall`."""
    xp = _array.namespace(w, "LInfBall")
    precision = _array.precision(w, xp, "LInfBall")
    axes = _array.normalise_axis(axis, w.ndim, "LInfBall")
    if precision.is_complex:
        wide = _radius(w, radius, axes, xp, precision.accumulator)

        norms = measure(w, (), xp, precision)
        return rescale(w, norms, norms.within(wide), norms.above(wide), None)
    bound = _inward(w, radius, axes, xp)
    # A mask and not clip: it keeps NaN and the sign of zero in every library.
    w = xp.where(w > bound, bound, w)
    # A radius of 0 has no negative: XLA makes a negative zero of it, others do not.
    low = -bound if isinstance(bound, float) else xp.where(bound > 0, -bound, bound)
    return xp.where(w < low, low, w)


def _radius(w: Array, radius: Number, axes: tuple[int, ...], xp: Namespace, dtype: Any) -> Any:
    return _array.groupwise(radius, w, axes, xp, dtype, "LInfBall: radius")


def _inward(w: Array, radius: Number, axes: tuple[int, ...], xp: Namespace) -> Any:
    """The radius in the dtype of real `w`, rounded so that the ball is never left."""
    precision = _array.precision(w, xp, "LInfBall")
    if isinstance(radius, float | tuple):
        radius = _rounded(radius, precision)
        return _radius(w, radius, axes, xp, precision.dtype)
    exact = _radius(w, radius, axes, xp, precision.accumulator)
    near = xp.astype(exact, precision.dtype)
    below = xp.astype(exact * (1 - precision.eps), precision.dtype)
    return xp.where(xp.astype(near, precision.accumulator) > exact, below, near)


def _rounded(radius: Any, precision: Precision) -> Any:
    if isinstance(radius, tuple):
        return tuple(_rounded(r, precision) for r in radius)
    return _array.representable(radius, precision, inward=True)


@register
@final
@dataclass(frozen=True, eq=False)
class LInfBall(Summed, Entrywise, InPlace, Ball, HasDualNorm, HasLMO, HasTangent, HasSample):
    r"""The largest modulus in every group is at most `radius`.

    .. math:: \{ w : \max_{i \in G} |w_i| \le r \text{ for every group } G \}

    Parameters
    ----------
    radius : float or array
        The bound r >= 0, in the units of the weights: one number, or an array (or nested tuples)
        that broadcasts against the groups. It is rounded towards 0 in the dtype of the weight.
    axis : int, tuple of int, None or "unit"
        The axes that one group spans, as in ``numpy.sum(axis=)``, by keyword; all other axes are
        batch. It decides what an array of radii and the violation refer to; for one number the
        projection is the same for each axis. "unit" is resolved by an adapter from the layer.

    Raises
    ------
    TypeError
        If `axis` is left out, or a parameter is no number.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Real entries are clipped, complex ones get a smaller modulus and keep their phase. NaN stays
    NaN, a real infinity is clipped, a complex one stays. The projection is unique. The violation of
    a group is NaN if it holds NaN.

    Gradient: 1 inside and on the bounds, 0 outside; for complex entries that of `MaxNorm` on each.

    References
    ----------
    N. Parikh, S. Boyd, "Proximal algorithms", 2014, section 6.2.

    Examples
    --------
    >>> import numpy as np
    >>> LInfBall(1.0, axis=0)(np.array([-2.0, 0.5]))
    array([-1. ,  0.5])
    >>> LInfBall(1.0, axis=0)(np.array([3.0 + 4.0j])).round(6)
    array([0.6+0.8j])
    """

    radius: Number
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            axis=check_axis(self, self.axis),
        )

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_linf_ball(w, self.radius, axis=self.axis)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        precision = self._precision(w, xp)
        axes = _array.normalise_axis(self.axis, w.ndim, "LInfBall")
        if out is w and not precision.is_complex:
            bound = _inward(w, self.radius, axes, xp)
            if type(bound) is float and _host.clip_(w, -bound, bound, _array.host_library(w)):
                return
        _array.write(out, self._project(w, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        axes = _array.normalise_axis(self.axis, w.ndim, "LInfBall")
        if precision.is_complex:
            bound = _radius(w, self.radius, axes, xp, precision.accumulator)
            norms = measure(w, (), xp, precision)
            excess = norms.report(norms.length - bound, norms.above(bound), ())
        else:
            bound = _inward(w, self.radius, axes, xp)
            size = abs(w)
            excess = xp.where(size > bound, size - bound, 0.0)
            excess = xp.where(w == w, excess, w)
        if _array.group_size(w, axes) == 0:
            return xp.sum(excess, axis=axes)
        return xp.max(excess, axis=axes) if axes else excess

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "LInfBall", allow_complex=True)
        if groups.precision.is_complex:
            bound = _radius(g, self.radius, groups.axes, xp, groups.precision.accumulator)
            norms = measure(g, (), xp, groups.precision)
            moved = norms.finite & ~norms.zero
            corners = lengthen(g, norms, -norms.within(bound), moved, groups.precision)
        else:
            bound = _inward(g, self.radius, groups.axes, xp)
            corners = xp.where(g > 0, -bound * xp.ones_like(g), bound)
        return xp.where(groups.finite, corners, g)

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "LInfBall", allow_complex=True)
        y, scale = groups.shrunk()
        sums = groups.sum(moduli(y, groups)) / scale
        return groups.report(sums, groups.finite)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        axes = _array.normalise_axis(self.axis, w.ndim, "LInfBall")
        if precision.is_complex:
            bound = _radius(w, self.radius, axes, xp, precision.accumulator)

            def leaves_disc(norms: Norms, uphill: Array) -> Array:
                return norms.touches(bound) & (uphill | norms.zero)

            return along_sphere(w, g, (), leaves_disc, {}, owner="LInfBall")
        bound = _inward(w, self.radius, axes, xp)
        leaves = ((w >= bound) & (g < 0)) | ((w <= -bound) & (g > 0))
        return xp.where(leaves, xp.zeros_like(g), g)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        axes = _array.normalise_axis(self.axis, like.ndim, "LInfBall")
        radius = _radius(like, self.radius, axes, xp, draw.precision.accumulator)
        return radius * within_ball(draw, (), "LInfBall", like)


def slow_projection(group: Group, radius: Decimal) -> Group:
    """By definition, entry by entry."""
    found: Group = []
    for entry in group:
        modulus = length([entry])
        found += [entry] if modulus <= radius else scaled([entry], radius / modulus)
    return found


def slow_violation(group: Group, radius: Decimal) -> Decimal:
    """By definition."""
    return max(positive(length([entry]) - radius) for entry in group)


EXAMPLES = (
    LInfBall(0.5, axis=0),
    LInfBall(0.1, axis=None),
    LInfBall((0.1, 1.0, 2.5, 0.0, 3.0, 1e3, 0.7, 1.5), axis=1),
)
