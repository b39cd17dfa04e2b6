"""Sign pattern: every entry has a given sign, or is 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._oracle import Group, positive
from normconstraints._order import check_choice, spread
from normconstraints._parameters import PER_ENTRY, Number, assign
from normconstraints.constraint import Convex, Entrywise, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_sign_pattern(w: Array, signs: Number) -> Array:
    """The nearest array with entries of the given `signs`; see `SignPattern`."""
    xp = _array.namespace(w, "SignPattern")
    # A mask and not clip: it keeps NaN and the sign of zero in every library.
    return xp.where(_against(w, _signs(w, signs, xp)), 0.0, w)


def _signs(w: Array, signs: Number, xp: Namespace) -> Array:
    precision = _array.precision(w, xp, "SignPattern", allow_complex=False)
    return spread(signs, w, xp, precision.dtype, "SignPattern: signs")


def _against(x: Array, signs: Array) -> Array:
    """Entries of the other sign; where any is free, none."""
    return ((signs > 0) & (x < 0)) | ((signs < 0) & (x > 0))


@register
@final
@dataclass(frozen=True, eq=False)
class SignPattern(Entrywise, Convex, HasTangent):
    r"""Every entry has the sign that is given for it, or is 0.

    .. math:: \{ w : s_i w_i \ge 0 \text{ for every entry } i \}

    Parameters
    ----------
    signs : float, nested tuples of numbers, or array
        The signs, which broadcast against the weight: 1 for entries >= 0, -1 for entries <= 0, and
        0 for entries that are free. (Entries that must be 0 are what `Mask` is for.) In a weight of
        shape (out, in) a tuple of one sign for each input is Dale's law: a neuron excites or
        inhibits all that it is connected to.

    Raises
    ------
    TypeError
        If `signs` holds something that is no number, or at the call if the weight is complex.
    ValueError
        If `signs` holds a number other than -1, 0 and 1, or at the call if it does not fit the
        weight.

    Notes
    -----
    Clipping: the projection is unique, exact and selects, so that all libraries agree bit for bit.
    NaN stays NaN, an infinity of the wrong sign becomes 0, a zero keeps its sign. The violation has
    the shape of the weight.

    Gradient: 1 inside and at zero, 0 outside.

    References
    ----------
    H. F. Song, G. R. Yang, X.-J. Wang, "Training excitatory-inhibitory recurrent neural networks
    for cognitive tasks", PLoS Computational Biology 12 (2016).

    Examples
    --------
    >>> import numpy as np
    >>> SignPattern((1, -1, 0))(np.array([[-2.0, -3.0, -4.0], [2.0, 3.0, 4.0]]))
    array([[ 0., -3., -4.],
           [ 2.,  0.,  4.]])
    """

    signs: Number = field(metadata=PER_ENTRY)
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(self, signs=check_choice(self, "signs", self.signs, (-1, 0, 1), float))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_sign_pattern(w, self.signs)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        found = xp.where(w == w, xp.zeros_like(w), w)
        return xp.where(_against(w, _signs(w, self.signs, xp)), xp.abs(w), found)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        # At 0 a step along -g must not begin on the wrong side.
        known = xp.isfinite(w) & xp.isfinite(g)
        stuck = ~(xp.abs(w) > 0) & _against(-g, _signs(w, self.signs, xp))
        return xp.where(stuck & known, 0.0, g)


def slow_projection(group: Group, signs: list[Decimal]) -> Group:
    """By definition, for a group of one entry."""
    ((x,),) = group
    return [(x if x * signs[0] >= 0 else x * 0,)]


def slow_violation(group: Group, signs: list[Decimal]) -> Decimal:
    """By definition."""
    return positive(-group[0][0] * signs[0])


EXAMPLES: tuple[Any, ...] = (
    SignPattern((1, -1, 0, 1, -1, -1)),
    SignPattern(((1,), (-1,), (0,), (1,), (-1,), (0,), (1,), (1,))),
    SignPattern(-1),
)
