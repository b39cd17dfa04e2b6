"""Checks of parameters: numbers, bounds and axes, and the errors that name class and remedy."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from normconstraints import _array
from normconstraints._array import Array

Axis: TypeAlias = int | tuple[int, ...] | str | None
"""The axes that a group spans: as in NumPy's ``sum(axis=)``, or a word that a layout resolves."""

PER = ("unit", "filter", "input", "row", "kernel", "tensor")
"""The words that a layout resolves; "unit" and "filter" mean the same."""

Number: TypeAlias = float | tuple[Any, ...] | Array
"""A parameter: a number, nested tuples of numbers, or an array that broadcasts over the groups."""


ENTRY, WHOLE = "entry", "set"
PER_ENTRY = {"per": ENTRY}
"""Metadata of a field whose parameter broadcasts against the weight, not against the groups."""
PER_SET = {"per": WHOLE}
"""Metadata of a field whose parameter is one for all groups, whatever its shape: a matrix."""
PLACES = {"per": WHOLE, "places": True}
"""The same of one that says where and not how much: no schedule changes it."""


def check_number(
    owner: object, name: str, value: Any, *, above: float, strict: bool, upto: float = math.inf
) -> Number:
    """A finite number in (`above`, `upto`], or [`above`, `upto`] unless `strict`, or an array."""
    sign = ">" if strict else ">="
    rule = f"{type(owner).__name__}: {name} must be a finite number {sign} {above:g}"
    if upto < math.inf:
        rule += f" and <= {upto:g}"

    def good(x: float) -> bool:
        return math.isfinite(x) and x <= upto and (x > above if strict else x >= above)

    return _check(value, good, rule)


def check_bound(owner: object, name: str, value: Any, *, missing: float) -> Number | None:
    """A number or an array of numbers; None and the infinity `missing` stand for no bound."""
    rule = f"{type(owner).__name__}: {name} must be a finite number, an array of numbers or None"
    if value is None:
        return None
    checked = _check(value, lambda x: math.isfinite(x) or x == missing, rule)
    return None if isinstance(checked, float) and math.isinf(checked) else checked


def check_order(owner: object, low: str, high: str) -> None:
    """``low <= high`` in every entry of two parameters that broadcast against each other."""
    lower, upper = getattr(owner, low), getattr(owner, high)
    if lower is None or upper is None or _array.is_traced(lower) or _array.is_traced(upper):
        return
    if not _ordered(as_numbers(lower), as_numbers(upper)):
        raise ValueError(
            f"{type(owner).__name__}: {low} must be <= {high}, got {low}={lower!r} and "
            f"{high}={upper!r}"
        )


def _ordered(lower: Any, upper: Any) -> bool:
    """Every pair in order, broadcasting from the right as arrays do."""
    depth = max(_depth(lower), _depth(upper))
    if depth == 0:
        return bool(lower <= upper)
    lows = lower if _depth(lower) == depth else (lower,)
    highs = upper if _depth(upper) == depth else (upper,)
    count = max(len(lows), len(highs))
    return all(
        _ordered(lows[i if len(lows) > 1 else 0], highs[i if len(highs) > 1 else 0])
        for i in range(count)
    )


def _depth(value: Any) -> int:
    return 1 + (_depth(value[0]) if value else 0) if isinstance(value, tuple) else 0


def _check(value: Any, good: Callable[[float], bool], rule: str) -> Number:
    if isinstance(value, bool):
        raise TypeError(f"{rule}, got {value!r}")
    if isinstance(value, numbers.Real):
        if not good(float(value)):
            raise ValueError(f"{rule}, got {value!r}")
        return float(value)
    if isinstance(value, list | tuple):
        checked = tuple(_check(v, good, rule) for v in value)
        if not all(isinstance(v, float | tuple) for v in checked):
            raise TypeError(f"{rule}, got arrays inside a {type(value).__name__}")
        if len({len(v) if isinstance(v, tuple) else -1 for v in checked}) > 1:
            raise ValueError(f"{rule}, got rows of different lengths: {value!r}")
        return checked
    if not is_array(value) or not _array.is_real_number(value):
        raise TypeError(f"{rule}, got {value!r}")
    if not _array.is_traced(value) and not all(good(x) for x in flatten(as_numbers(value))):
        raise ValueError(f"{rule} in every entry, got {value!r}")
    return value


def check_count(owner: object, name: str, value: Any, *, least: int = 1) -> int:
    """A Python integer of at least `least`."""
    rule = f"{type(owner).__name__}: {name} must be an integer >= {least}"
    if isinstance(value, bool):
        raise TypeError(f"{rule}, got {value!r}")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{rule}, got {value!r}") from None
    if count < least:
        raise ValueError(f"{rule}, got {value!r}")
    return count


def check_finite(owner: object, name: str, value: Any) -> Number:
    """A finite number of either sign, or an array of such."""
    rule = f"{type(owner).__name__}: {name} must be a finite number"
    return _check(value, math.isfinite, rule)


def check_axis(owner: object, value: Any) -> Axis:
    """An int, a tuple of ints, None or a word of `PER`."""
    rule = f"{type(owner).__name__}: axis must be an int, a tuple of ints, None or 'unit'"
    if value is None or (isinstance(value, str) and value in PER):
        return value
    if isinstance(value, str):
        raise TypeError(f"{rule} (or another word of {', '.join(PER)}), got {value!r}")
    if isinstance(value, bool):
        raise TypeError(f"{rule}, got {value!r}")
    several = isinstance(value, list | tuple)
    try:
        axes = tuple(operator.index(a) for a in (value if several else (value,)))
    except TypeError:
        raise TypeError(f"{rule}, got {value!r}") from None
    if not axes:
        raise ValueError(f"{rule}, got an empty tuple; a group spans one axis at least")
    return axes if several else axes[0]


def check_two_axes(owner: object, value: Any) -> tuple[int, int]:
    """The axis of the rows and that of the columns."""
    name = type(owner).__name__
    rule = f"{name}: axis must be two integers, that of the rows and that of the columns"
    axis = check_axis(owner, value)
    if not isinstance(axis, tuple):
        raise TypeError(f"{rule}, got {value!r}")
    if len(axis) != 2 or axis[0] == axis[1]:
        raise ValueError(f"{rule}, got {value!r}")
    return axis


def check_switch(owner: object, name: str, value: Any) -> bool:
    """True or False, and nothing that is like them."""
    if not isinstance(value, bool):
        raise TypeError(f"{type(owner).__name__}: {name} must be True or False, got {value!r}")
    return value


def check_group_axis(owner: object, value: Any) -> int | tuple[int, ...]:
    """An int or a tuple of ints: the axes of an inner group."""
    rule = f"{type(owner).__name__}: group_axis must be an int or a tuple of ints among axis"
    several = isinstance(value, list | tuple)
    try:
        axes = tuple(operator.index(a) for a in (value if several else (value,)))
    except TypeError:
        raise TypeError(f"{rule}, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{rule}, got {value!r}")
    if not axes:
        raise ValueError(f"{rule}, got an empty tuple; an inner group spans one axis at least")
    return axes if several else axes[0]


def assign(owner: object, **values: Any) -> None:
    """Set checked parameters in `__post_init__` of a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def is_array(value: Any) -> bool:
    """Whether a parameter is an array, of whatever library."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def as_numbers(value: Any) -> Any:
    """Numbers and nested tuples in place of arrays."""
    if is_array(value):
        value = _array.to_list(value)
    return tuple(as_numbers(v) for v in value) if isinstance(value, list | tuple) else value


def extent(value: Number) -> tuple[float, float]:
    """The smallest and the largest entry of a positive parameter; guessed if it is traced."""
    if isinstance(value, float):
        return value, value
    if _array.is_traced(value):
        return 2.0**-10, 2.0**10
    entries = flatten(as_numbers(value))
    return min(entries), max(entries)


def flatten(value: Any) -> list[float]:
    """The numbers in nested tuples."""
    return [x for v in value for x in flatten(v)] if isinstance(value, tuple) else [value]
