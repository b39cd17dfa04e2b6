"""n of m: in every m consecutive entries at most n are not 0."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._oracle import Group, length, square
from normconstraints._order import (
    both_finite,
    check_single_axis,
    crowded,
    keep_free,
    keep_largest,
    remainder,
)
from normconstraints._parameters import PER_SET, Axis, assign, check_count
from normconstraints.constraint import Grouped, HasTangent, register

if TYPE_CHECKING:
    from decimal import Decimal


def project_n_of_m(w: Array, n: int, m: int, *, axis: Axis) -> Array:
    """A nearest array with at most `n` of `m` consecutive entries not 0; see `NOfM`."""
    groups = Groups(w, axis, "NOfM", allow_complex=True)
    blocks = _blocks(groups, w, m)
    with _array.quiet(groups.xp):
        nearest = groups.xp.reshape(keep_largest(blocks, n), w.shape)
        return groups.put_back(nearest, _outside(groups, blocks, n))


def _blocks(groups: Groups, x: Array, m: int) -> Groups:
    """An array of the shape of the weight, its blocks of `m` entries as groups on a new axis."""
    (axis,) = groups.axes
    shape = tuple(x.shape)
    if shape[axis] % m:
        raise ValueError(
            f"NOfM: the length of axis {axis} must be a multiple of m={m}, got {shape[axis]} in "
            f"the shape {shape}; pad the weight, or choose another axis or m"
        )
    split = (*shape[:axis], shape[axis] // m, m, *shape[axis + 1 :])
    return Groups(groups.xp.reshape(x, split), axis + 1, "NOfM", allow_complex=True)


def _outside(groups: Groups, blocks: Groups, n: int) -> Array:
    """Slices along the axis with a block in which more than `n` entries are not 0."""
    (axis,) = groups.axes
    full = crowded(blocks, n)
    return groups.xp.reshape(groups.xp.any(full, axis=axis, keepdims=True), groups.reduced)


@register
@final
@dataclass(frozen=True, eq=False)
class NOfM(Grouped, HasTangent):
    r"""In every `m` consecutive entries along one axis at most `n` are not 0.

    .. math:: \{ w : \|(w_{jm}, \dots, w_{jm + m - 1})\|_0 \le n \text{ for every } j \}

    Parameters
    ----------
    n, m : int
        At most `n` entries of a block of `m` may be other than 0; 1 <= n <= m. Blocks begin at
        multiples of `m`, and do not overlap. ``NOfM(2, 4, axis=1)`` is 2:4 sparsity along the
        inputs of a weight of shape (out, in).
    axis : int or "unit"
        The axis along which entries are counted, by keyword; its length is a multiple of `m`. All
        other axes are batch. "unit" is resolved by an adapter from the layer, if a unit has its
        weights along one axis.

    Raises
    ------
    TypeError
        If `axis` is left out or no single axis, or `n` or `m` is no integer.
    ValueError
        If `n` or `m` is out of its range, or at the call if the length of the axis is no multiple
        of `m`.

    Notes
    -----
    In each block the `n` largest moduli stay as they are, bit for bit, the others become 0. The set
    is no convex one. The projection is unique unless two moduli of a block are equal; then the
    entries with the lowest indices stay, in every library. Cost: one sort of each block.

    Gradient: 1 where an entry stays, 0 elsewhere. A slice along the axis that holds NaN or infinity
    comes back as it is.

    The violation, one number for each slice along the axis, is the distance from the set: the norm
    of what is too much in the blocks.

    References
    ----------
    A. Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> NOfM(2, 4, axis=0)(np.array([1.0, -4.0, 2.0, 3.0, 5.0, 0.0, 0.0, 6.0]))
    array([ 0., -4.,  0.,  3.,  5.,  0.,  0.,  6.])
    """

    n: int = field(metadata=PER_SET)
    m: int = field(metadata=PER_SET)
    _: KW_ONLY
    axis: Axis

    def __post_init__(self) -> None:
        assign(
            self,
            n=check_count(self, "n", self.n),
            m=check_count(self, "m", self.m),
            axis=check_single_axis(self, self.axis),
        )
        if self.n > self.m:
            raise ValueError(f"NOfM: n must be <= m, got n={self.n} and m={self.m}")

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_n_of_m(w, self.n, self.m, axis=self.axis)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        groups = Groups(w, self.axis, "NOfM", allow_complex=True)
        blocks = _blocks(groups, w, self.m)
        with _array.quiet(xp):
            amount = remainder(blocks, self.n, over=groups.axes)
            return groups.report(
                xp.reshape(amount, groups.reduced), _outside(groups, blocks, self.n)
            )

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        groups = Groups(g, self.axis, "NOfM", allow_complex=True)
        finite = both_finite(groups, w)
        blocks, at = _blocks(groups, g, self.m), _blocks(groups, w, self.m)
        return groups.put_back(xp.reshape(keep_free(blocks, at.w, self.n), g.shape), finite, finite)


def slow_projection(group: Group, n: int, m: int) -> Group:
    """By definition, block by block: the entries in the order of their moduli."""
    found: Group = []
    for start in range(0, len(group), m):
        block = group[start : start + m]
        order = sorted((-square([entry]), i) for i, entry in enumerate(block))
        stay = {i for _, i in order[:n]}
        found += [e if i in stay else tuple(x * 0 for x in e) for i, e in enumerate(block)]
    return found


def slow_violation(group: Group, n: int, m: int) -> Decimal:
    """The norm of the smallest entries of all blocks."""
    rest = [tuple(x * 0 for x in group[0])]
    for start in range(0, len(group), m):
        rest += sorted(group[start : start + m], key=lambda entry: square([entry]))[: m - n]
    return length(rest)


EXAMPLES: tuple[Any, ...] = (NOfM(2, 4, axis=0), NOfM(1, 2, axis=-1), NOfM(1, 3, axis=1))
