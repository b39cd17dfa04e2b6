"""Arithmetic for the slow, obviously right second algorithm that each set keeps in its file.

A group is a list of entries, an entry a tuple of one decimal number, or of two for a complex entry.
Decimal numbers neither overflow nor underflow here and have as many digits as the context says.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # the suite imports decimal; who only projects should not wait for it
    from decimal import Decimal

Entry: TypeAlias = "tuple[Decimal, ...]"
Group: TypeAlias = "list[Entry]"


def every_digit() -> AbstractContextManager[Any]:
    """A context with so many digits that no sum of numbers of float64 loses one."""
    import decimal

    context = decimal.getcontext().copy()
    context.prec = 700
    return decimal.localcontext(context)


def square(group: Group) -> Decimal:
    """The square of the Euclidean norm."""
    squares = [x * x for entry in group for x in entry]
    return sum(squares[1:], squares[0])


def length(group: Group) -> Decimal:
    """The Euclidean norm."""
    return square(group).sqrt()


def positive(x: Decimal) -> Decimal:
    """`x` if that is positive, else 0."""
    return max(x, x * 0)


def scaled(group: Group, factor: Decimal) -> Group:
    """The group times a real number."""
    return [tuple(x * factor for x in entry) for entry in group]


def nearest_on_simplex(group: Group, total: Decimal) -> Group:
    """The nearest entries >= 0 that sum to `total`, by the threshold of the sorted entries."""
    # Shifted, for a threshold near the largest entry would lose digits that the total has.
    top = max(x for (x,) in group)
    shifted = [x - top for (x,) in group]
    threshold = sum_ = total * 0
    for count, x in enumerate(sorted(shifted, reverse=True), start=1):
        sum_ += x
        if x - (sum_ - total) / count <= 0:
            break
        threshold = (sum_ - total) / count
    return [(positive(x - threshold) if total else total,) for x in shifted]


def plane_distance(group: Group, total: Decimal) -> Decimal:
    """The Euclidean distance from the entries that sum to `total`."""
    off = sum((x for (x,) in group), -total)
    return abs(off) / (total * 0 + len(group)).sqrt()


def total_excess(group: Group, total: Decimal) -> Decimal:
    """How far entries are below 0, or their sum is from `total` as a distance of the plane."""
    below = max(positive(-x) for (x,) in group)
    return max(below, plane_distance(group, total))


def moduli(group: Group) -> list[Decimal]:
    """The modulus of every entry."""
    return [abs(e[0]) if len(e) == 1 else length([e]) for e in group]


def with_moduli(group: Group, sizes: list[Decimal]) -> Group:
    """The entries with other moduli; zeros become positive."""
    found: Group = []
    for entry, old, new in zip(group, moduli(group), sizes, strict=True):
        if old:
            found.append(tuple(x * (new / old) for x in entry))
        else:
            found.append((new, *entry[1:]))
    return found


def mean(entries: list[Entry]) -> Entry:
    """The mean of entries."""
    count = entries[0][0] * 0 + len(entries)
    return tuple(sum(part[1:], part[0]) / count for part in zip(*entries, strict=True))


def differences(group: Group, other: Group) -> Group:
    """One group less the other."""
    return [
        tuple(s - t for s, t in zip(x, y, strict=True)) for x, y in zip(group, other, strict=True)
    ]
