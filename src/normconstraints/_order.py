"""Sets that select: some entries or inner groups stay as they are, the others become 0.

Inner groups are norms along some axes of a group; an entry is an inner group along no axis.
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

from normconstraints import _array
from normconstraints._array import Array, Namespace, Precision
from normconstraints._groups import Groups
from normconstraints._norms import measure
from normconstraints._parameters import (
    Axis,
    Number,
    as_numbers,
    check_axis,
    flatten,
    is_array,
)

# -------------------------------------------------------------------------------- parameters


def check_single_axis(owner: object, value: Any) -> Axis:
    """One axis, or a word that a layout resolves to one."""
    axis = check_axis(owner, value)
    if axis is None or isinstance(axis, tuple):
        raise TypeError(
            f"{type(owner).__name__}: axis must be one axis, for the order of the entries counts, "
            f"got {value!r}; give an int, or reshape the weight first"
        )
    return axis


def check_group_axis(owner: object, value: Any) -> int | tuple[int, ...]:
    """An int or a tuple of ints."""
    rule = f"{type(owner).__name__}: group_axis must be an int or a tuple of ints"
    if isinstance(value, bool | str):
        raise TypeError(f"{rule}, got {value!r}")
    several = isinstance(value, list | tuple)
    try:
        axes = tuple(operator.index(a) for a in (value if several else (value,)))
    except TypeError:
        raise TypeError(f"{rule}, got {value!r}") from None
    if not axes:
        raise ValueError(f"{rule}, got an empty tuple; an inner group spans one axis at least")
    return axes if several else axes[0]


def inner_axes(groups: Groups, group_axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the inner groups, sorted and not negative, all of them axes of the groups."""
    given = (group_axis,) if isinstance(group_axis, int) else group_axis
    ndim = groups.w.ndim
    found = sorted(a % ndim for a in given if -ndim <= a < ndim)
    if len(found) < len(given) or len(set(found)) < len(found) or set(found) - set(groups.axes):
        raise ValueError(
            f"{groups.owner}: group_axis must name axes of the set, each once, got "
            f"group_axis={group_axis!r} and axes {groups.axes}; `axis` names all axes of the set, "
            "`group_axis` those among them that one inner norm spans"
        )
    return tuple(found)


def check_choice(
    owner: object, name: str, value: Any, choices: tuple[int, ...], kind: type[bool | float]
) -> Number:
    """One of a few numbers, nested tuples or an array of them; numbers come back as `kind`."""
    words = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
    rule = f"{type(owner).__name__}: {name} must be {words}"
    if kind is bool:
        rule += " (False or True)"
    rule += ", nested tuples or an array of such"
    return _choice(value, choices, kind, rule)


def _choice(value: Any, choices: tuple[int, ...], kind: type[bool | float], rule: str) -> Number:
    if is_array(value) and tuple(value.shape) == () and not _array.is_traced(value):
        value = as_numbers(value)
    if isinstance(value, list | tuple):
        checked = tuple(_choice(v, choices, kind, rule) for v in value)
        if not all(isinstance(v, kind | tuple) for v in checked):
            raise TypeError(f"{rule}, got arrays inside a {type(value).__name__}")
        if len({len(v) if isinstance(v, tuple) else -1 for v in checked}) > 1:
            raise ValueError(f"{rule}, got rows of different lengths: {value!r}")
        return checked
    if isinstance(value, numbers.Real) and (kind is bool or not isinstance(value, bool)):
        if value not in choices:
            raise ValueError(f"{rule}, got {value!r}")
        return kind(value)
    if not is_array(value) or not _may_hold(value, kind):
        raise TypeError(f"{rule}, got {value!r}")
    if not _array.is_traced(value) and any(x not in choices for x in flatten(as_numbers(value))):
        raise ValueError(f"{rule} in every entry, got {value!r}")
    return value


def _may_hold(value: Array, kind: type[bool | float]) -> bool:
    if _array.is_real_number(value):
        return True
    return kind is bool and bool(_array.namespace(value, "parameter").isdtype(value.dtype, "bool"))


def spread(value: Number, w: Array, xp: Namespace, dtype: Any, name: str) -> Array:
    """A parameter of the entries of `w` as an array of its shape."""
    if isinstance(value, bool | float):
        return xp.full_like(w, value, dtype=dtype)
    return _array.entrywise(value, w, xp, dtype, name)


# --------------------------------------------------------------------------------- selection


def nonzero(w: Array, xp: Namespace, precision: Precision) -> Array:
    """Entries that are neither 0 nor NaN."""
    # Of bfloat16 XLA finds subnormal numbers different from 0, and not above it, as in all else.
    if precision.is_complex:
        return (xp.abs(xp.real(w)) > 0) | (xp.abs(xp.imag(w)) > 0)
    return xp.abs(w) > 0


def held(w: Array, inner: tuple[int, ...], xp: Namespace, precision: Precision) -> Array:
    """Inner groups that are not 0."""
    entries = nonzero(w, xp, precision)
    return xp.any(entries, axis=inner, keepdims=True) if inner else entries


def crowded(groups: Groups, k: int, inner: tuple[int, ...] = ()) -> Array:
    """Groups with more than `k` inner groups that are not 0."""
    found = held(groups.w, inner, groups.xp, groups.precision)
    return _array.tally(found, groups.axes, groups.xp) > k


def heights(w: Array, inner: tuple[int, ...], xp: Namespace, precision: Precision) -> Array:
    """Numbers in the order of the norms of the inner groups, which never overflow or underflow."""
    if not inner and not precision.is_complex:
        return xp.abs(w)
    norms = measure(w, inner, xp, precision)
    if isinstance(norms.scale, float):
        return norms.scaled
    # The norm itself may be above the largest number. Its root is in the same order, and that of
    # the scale is exact: all its exponents are even.
    return xp.sqrt(norms.scaled) / xp.sqrt(norms.scale)


def selected(groups: Groups, height: Array, k: int) -> Array:
    """The `k` highest inner groups of each group, of ties those with the lowest index."""
    return _beside(groups, height).largest(height, k)


def _beside(groups: Groups, reduced: Array) -> Groups:
    """The same groups of an array in which the axes of the inner groups have length 1."""
    return Groups(_array.as_array(reduced, groups.w, groups.xp), groups.axes, groups.owner)


def keep_largest(groups: Groups, k: int, inner: tuple[int, ...] = ()) -> Array:
    """The weight with all but the `k` longest inner groups of each group set to 0."""
    w, xp = groups.w, groups.xp
    kept = selected(groups, heights(w, inner, xp, groups.precision), k)
    return xp.where(kept, w, xp.zeros_like(w))


def remainder(
    groups: Groups, k: int, inner: tuple[int, ...] = (), over: tuple[int, ...] = ()
) -> Array:
    """The norm of all but the `k` longest inner groups, along the last axis of `groups.flat`.

    The norm is taken over the axes `over` of that array too. From sorted lengths: nothing is
    selected here.
    """
    xp = groups.xp
    lengths = _beside(groups, measure(groups.w, inner, xp, groups.precision).length)
    ordered = xp.sort(lengths.flat(lengths.w), axis=-1)
    rest = lengths.size - k
    # Not an empty array: a compiler that knows sizes by name only would not see that it is one.
    short = ordered[..., :rest] if rest > 0 else xp.zeros_like(ordered)
    precision = _array.precision(short, xp, groups.owner)
    return measure(short, (*over, short.ndim - 1), xp, precision).length


def report_remainder(groups: Groups, k: int, inner: tuple[int, ...] = ()) -> Array:
    """The violation of sets with at most `k` inner groups that are not 0."""
    amount = groups.xp.reshape(remainder(groups, k, inner), groups.reduced)
    return groups.report(amount, crowded(groups, k, inner))


def keep_free(groups: Groups, w: Array, k: int, inner: tuple[int, ...] = ()) -> Array:
    """The gradient in `groups` where `w` is not 0, and where as many more as may be are longest."""
    xp, g = groups.xp, groups.w
    height = heights(g, inner, xp, groups.precision)
    height = xp.where(held(w, inner, xp, groups.precision), math.inf, height)
    kept = selected(groups, height, k)
    return xp.where(kept, g, xp.zeros_like(g))


def both_finite(groups: Groups, w: Array) -> Array:
    """Groups in which neither the gradient in `groups` nor `w` holds NaN or infinity."""
    return groups.finite & groups.every(groups.xp.isfinite(w))
