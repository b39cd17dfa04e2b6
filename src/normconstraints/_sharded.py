"""Arrays that several processes hold in parts: the DTensor of torch.

An array is projected in one of three ways, the first that is right:

1. Groups that are whole on each process: every process projects its own part, and nothing is
   exchanged.
2. A set that only adds over its groups: the ordinary code, on the array as it is. The sums are
   exchanged, once each (`_array.exchanged`), and the array never is.
3. Any other set: the parts are gathered along the axes of the groups. Each process projects whole
   groups and keeps its part of them.

Operations that depend on the order of the entries are not left to the array: with groups in parts
some of them were seen to give wrong numbers without an error.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol

from normconstraints import _array
from normconstraints._array import Array, Namespace


class _Set(Protocol):
    """What is asked of a constraint."""

    def project(self, w: Array) -> Array: ...

    def project_(self, w: Array) -> Array: ...

    def _project(self, w: Array, xp: Namespace) -> Array: ...

    def _violation(self, w: Array, xp: Namespace) -> Array: ...

    def _span(self, ndim: int) -> tuple[int, ...]:
        """The axes that a group spans."""
        ...

    def _whole(self, ndim: int) -> tuple[int, ...]:
        """Those of them along which a group must be whole."""
        ...

    def _fits_parts(self) -> bool:
        """Whether no parameter belongs to a place in the array."""
        ...


def project(constraint: _Set, w: Array, xp: Namespace) -> Array:
    """The nearest member, in parts as `w` is."""
    given = tuple(w.placements)
    w = _gathered(w, _axes_to_gather(constraint, w))
    if _by_parts(constraint, w):
        return _placed(_of_parts(constraint.project(w.to_local()), w), given)
    return _placed(constraint._project(w, xp), given)


def project_(constraint: _Set, w: Array, xp: Namespace) -> None:
    """The same in place."""
    if _by_parts(constraint, w):
        constraint.project_(w.to_local())
    else:
        _array.write(w, project(constraint, w, xp))


def violation(constraint: _Set, w: Array, xp: Namespace) -> Array:
    """The violation, computed on the array as it is once the groups are whole, if they must be."""
    return constraint._violation(_gathered(w, _axes_to_gather(constraint, w)), xp)


def _by_parts(constraint: _Set, w: Array) -> bool:
    """Whether each process can project its part by itself."""
    return constraint._fits_parts() and _is_whole(w, constraint._span(w.ndim))


def _axes_to_gather(constraint: _Set, w: Array) -> tuple[int, ...]:
    """The axes along which the groups must be whole."""
    # Of nothing there is no largest entry: where some process has none, sets that add gather too.
    for axis in set(_cut_axes(w)):
        sizes = zip(w.placements, w.device_mesh.shape, strict=True)
        count = math.prod([n for p, n in sizes if getattr(p, "dim", None) == axis])
        if -(-w.shape[axis] // count) * (count - 1) >= w.shape[axis]:
            return constraint._span(w.ndim)
    return constraint._whole(w.ndim)


def _cut_axes(w: Array) -> tuple[int, ...]:
    """The axes along which the array is cut."""
    return tuple(p.dim for p in w.placements if hasattr(p, "dim"))


def _is_whole(w: Array, axes: tuple[int, ...]) -> bool:
    """Whether no process needs another for its groups, which span `axes`."""
    return not any(p.is_partial() for p in w.placements) and not set(_cut_axes(w)) & set(axes)


def _gathered(w: Array, axes: tuple[int, ...]) -> Array:
    """`w` with groups that are whole on each process; sums that were put off are taken."""
    if _is_whole(w, axes):
        return w
    everywhere = sys.modules["torch.distributed.tensor"].Replicate()
    placements = list(w.placements)
    for i, p in enumerate(placements):
        if p.is_partial() or getattr(p, "dim", None) in axes:
            placements[i] = everywhere
    return w.redistribute(placements=placements)


def _of_parts(part: Array, like: Array) -> Any:
    """A new array of which each process has `part`, in parts as `like` is."""
    return type(like).from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def _placed(result: Array, placements: tuple[Any, ...]) -> Array:
    """The result in the parts that came in; where it is gathered that cuts, and sends nothing."""
    if any(p.is_partial() for p in placements) or tuple(result.placements) == placements:
        return result
    return result.redistribute(placements=placements)
