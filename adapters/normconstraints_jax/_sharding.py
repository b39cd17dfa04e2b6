"""Weights that are cut over devices, and the constraints that need more than one part of them.

Under ``jit`` an array is whole to the program and XLA cuts the program, so that nothing is to be
done; but on a mesh with ``Explicit`` axes JAX refuses what it cannot do on parts. Inside
``shard_map`` an array is the part that one device has, and looks like a whole one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any, TypeAlias

import jax
from jax.sharding import NamedSharding, PartitionSpec

from normconstraints import Constraint, parts
from normconstraints import penalty as half_squared_distance

# Of Any: half of these functions of JAX have no types.
_lax: Any = jax.lax
_spec: Any = PartitionSpec
_reshard: Any = getattr(jax.sharding, "reshard", None)

Cut: TypeAlias = Mapping[int, tuple[str, ...]]
"""The axes of an array that are cut, with the axes of the mesh that cut them."""


def project(c: Constraint, w: Any, name: str, spec: Any) -> Any:
    """The nearest member of the set; of its part, if `w` is the part of a device."""
    cut = _cut(c, w, name, spec)
    if not cut:
        return _with_whole_groups(c, w, c.project)
    need = parts.needs(c, w.ndim, cut)
    with _exchanging(cut, need.exchange):
        done = c.project(_gathered(w, cut, need.gather))
    for axis in need.gather:
        size = w.shape[axis]
        start = _lax.axis_index(cut[axis]) * size
        done = _lax.dynamic_slice_in_dim(done, start, size, axis)
    return done


def violation(c: Constraint, w: Any, name: str, spec: Any) -> Any:
    """The violation of all groups of the weight, on each device."""
    cut = _cut(c, w, name, spec)
    if not cut:
        return _with_whole_groups(c, w, c.violation, back=False)
    found = c.violation(_gathered(w, cut, cut))
    # All devices have found the same. This says so to JAX, which else would not return it as one.
    return _lax.pmax(found, _names(cut, cut))


def penalty(c: Constraint, w: Any, name: str, spec: Any) -> Any:
    """Half the squared distance of the weight from the set, of all its parts together."""
    cut = _cut(c, w, name, spec)
    projecting: Any = _Projecting(lambda w: project(c, w, name, spec))
    term = half_squared_distance(projecting, w)
    return _lax.psum(term, _names(cut, cut)) if cut else term


class _Projecting:
    """What is asked of a constraint for its penalty."""

    def __init__(self, project: Callable[[Any], Any]) -> None:
        self.project = project


# ---------------------------------------------------------------------------- inside shard_map


def _cut(c: Constraint, w: Any, name: str, spec: Any) -> Cut:
    """How the part `w` was cut out of its weight; empty if it is the weight."""
    manual = _manual_axes()
    if spec is None:
        names = _unknown(w, manual)
        need = parts.needs(c, w.ndim, range(w.ndim)) if names else None
        if need is not None and (need.gather or need.exchange):
            axes = ", ".join(map(repr, names))
            raise ValueError(
                f"{type(c).__name__}: specs must say how the weight {name!r} is cut inside "
                f"jax.shard_map, where it may be a part over the mesh axes {axes}, got None; pass "
                "those of in_specs, as project(params, rules, specs=...), or PartitionSpec() if "
                "each device has it whole"
            )
        return {}
    cut = {axis: _as_tuple(entry) for axis, entry in enumerate(spec) if _as_tuple(entry)}
    for names in cut.values():
        for axis_name in names:
            if axis_name not in manual:
                raise ValueError(
                    f"{type(c).__name__}: specs must name axes over which jax.shard_map maps, got "
                    f"{axis_name!r} in {spec} for the weight {name!r}, "
                    + (
                        f"where they are {', '.join(map(repr, manual))}"
                        if manual
                        else "outside of it"
                    )
                    + "; pass what in_specs has for the weight, and no specs outside of shard_map"
                )
    if cut and max(cut) >= w.ndim:
        raise ValueError(
            f"{type(c).__name__}: specs must fit the weights, got {spec} for {name!r} of "
            f"{w.ndim} dimensions; pass what in_specs has for the weight"
        )
    return cut


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _manual_axes() -> tuple[str, ...]:
    """The axes of the mesh over which a ``shard_map`` around this maps."""
    of_mesh = getattr(jax.sharding, "get_abstract_mesh", None)
    return tuple(getattr(of_mesh(), "manual_axes", ())) if of_mesh is not None else ()


def _unknown(w: Any, manual: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of the mesh over which `w` may be cut."""
    # With check_vma=False no type says over what an array varies; that of an index does then not
    # either, which varies over its axis by what it is.
    if not manual or all(_varying(_lax.axis_index(name)) for name in manual):
        return tuple(name for name in manual if name in _varying(w))
    return () if _in_pmap() else manual


def _varying(x: Any) -> frozenset[str]:
    """The axes of the mesh over which an array varies, by its type."""
    kind = jax.typeof(x)
    found = getattr(kind, "manual_axis_type", None)  # before JAX 0.10 it was the set itself
    names: frozenset[str] = (
        found.varying if found is not None else getattr(kind, "vma", frozenset())
    )
    return names


def _in_pmap() -> bool:
    """Whether this is traced by ``pmap``, under which each device has its own whole weights."""
    # It is made of a shard_map that does not check, and nothing but its frames tells them apart.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "jax._src.pmap":
            return True
        frame = frame.f_back
    return False


def _names(cut: Cut, axes: Any) -> tuple[str, ...]:
    return tuple(name for axis in axes for name in cut[axis])


def _gathered(w: Any, cut: Cut, axes: Any) -> Any:
    for axis in axes:
        w = _lax.all_gather(w, cut[axis], axis=axis, tiled=True)
    return w


def _exchanging(cut: Cut, axes: tuple[int, ...]) -> AbstractContextManager[None]:
    names = _names(cut, axes)
    if not names:
        return nullcontext()
    return parts.exchanging(
        math.prod(_lax.axis_size(name) for name in names),
        total=lambda x: _lax.psum(x, names),
        # What is scaled by it is scaled back: its derivative, which JAX lacks, is not missed.
        largest=lambda x: _lax.pmax(_lax.stop_gradient(x), names),
    )


# ------------------------------------------------------------------------------ explicit axes


def _with_whole_groups(
    c: Constraint, w: Any, apply: Callable[[Any], Any], *, back: bool = True
) -> Any:
    """``apply(w)``, with the groups in one piece where a type says that they are not."""
    sharding = getattr(jax.typeof(w), "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return apply(w)
    entries = tuple(sharding.spec)
    whole = parts.whole_axes(c, w.ndim)
    if not any(axis < len(entries) and entries[axis] is not None for axis in whole):
        return apply(w)
    kept = _spec(*(None if axis in whole else entry for axis, entry in enumerate(entries)))
    found = apply(_reshard(w, NamedSharding(sharding.mesh, kept)))
    return _reshard(found, sharding) if back else found
