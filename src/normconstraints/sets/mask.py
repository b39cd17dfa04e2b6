"""Mask: entries outside a fixed support are 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._norms import measure
from normconstraints._oracle import Group, length
from normconstraints._order import check_choice, nonzero, spread
from normconstraints._parameters import PER_ENTRY, Number, assign
from normconstraints.constraint import Convex, Entrywise, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_mask(w: Array, mask: Number) -> Array:
    """The nearest array that is 0 where `mask` is false; see `Mask`."""
    xp = _array.namespace(w, "Mask")
    return xp.where(_outside(w, mask, xp), xp.zeros_like(w), w)


def _outside(w: Array, mask: Number, xp: Namespace) -> Array:
    """Entries other than 0 where none may be; not NaN, and of complex ones not infinity."""
    precision = _array.precision(w, xp, "Mask")
    found = ~spread(mask, w, xp, _array.boolean(xp), "Mask: mask") & nonzero(w, xp, precision)
    return found & xp.isfinite(w) if precision.is_complex else found


@register
@final
@dataclass(frozen=True, eq=False)
class Mask(Entrywise, Convex, HasTangent, HasVJP):
    r"""Entries are 0 where `mask` is false.

    .. math:: \{ w : w_i = 0 \text{ for every entry } i \text{ with } m_i = 0 \}

    Parameters
    ----------
    mask : bool, nested tuples of bools, or array
        The fixed support, which broadcasts against the weight: False or 0 where an entry must be 0,
        True or 1 where it is free. An array is one of booleans, or of numbers 0 and 1, of the
        library of the weight; nested tuples fit every library.

    Raises
    ------
    TypeError
        If `mask` holds something that is neither boolean nor a number.
    ValueError
        If `mask` holds a number other than 0 and 1, or at the call if it does not fit the weight.

    Notes
    -----
    A linear subspace: the projection is unique, exact and selects, so that all libraries agree bit
    for bit. For pruning whose mask was found elsewhere, local receptive fields, autoregressive
    masks. NaN stays NaN; where the mask is false a real infinity becomes 0, a complex one stays,
    and a zero keeps its sign. The violation has the shape of the weight: the modulus of each entry
    that must be 0.

    Gradient: 1 where the mask is true, 0 elsewhere.

    References
    ----------
    M. Germain, K. Gregor, I. Murray, H. Larochelle, "MADE: Masked autoencoder for distribution
    estimation", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> Mask((True, False))(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 0.],
           [3., 0.]])
    """

    mask: Number = field(metadata=PER_ENTRY)

    def __post_init__(self) -> None:
        assign(self, mask=check_choice(self, "mask", self.mask, (0, 1), bool))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_mask(w, self.mask)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        outside = _outside(w, self.mask, xp)
        precision = self._precision(w, xp)
        if precision.is_complex:
            norms = measure(w, (), xp, precision)
            with _array.quiet(xp):
                return norms.report(norms.length, outside, ())
        return xp.where(outside, xp.abs(w), xp.where(w == w, xp.zeros_like(w), w))

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        known = xp.isfinite(w) & xp.isfinite(g)
        free = spread(self.mask, w, xp, _array.boolean(xp), "Mask: mask")
        return xp.where(free | ~known, g, xp.zeros_like(g))

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        # Of zeros too, which come back as they are, with their sign.
        stays = ~xp.isfinite(w) if self._precision(w, xp).is_complex else w != w
        free = spread(self.mask, w, xp, _array.boolean(xp), "Mask: mask")
        return xp.where(free | stays, g, xp.zeros_like(g))


def slow_projection(group: Group, mask: list[Decimal]) -> Group:
    """By definition."""
    return [
        e if free or not any(e) else tuple(x * 0 for x in e)
        for e, free in zip(group, mask, strict=True)
    ]


def slow_violation(group: Group, mask: list[Decimal]) -> Decimal:
    """By definition, for a group of one entry."""
    return length(group) * (1 - mask[0])


EXAMPLES: tuple[Any, ...] = (
    Mask((True, False, True, True, False, False)),
    Mask(((1,), (0,), (1,), (1,), (0,), (0,), (1,), (1,))),
    Mask(False),
)
