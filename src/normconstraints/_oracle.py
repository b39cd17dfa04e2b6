"""Arithmetic for the slow, obviously right second algorithm that each set keeps in its file.

A group is a list of entries, an entry a tuple of one decimal number, or of two for a complex entry.
Decimal numbers neither overflow nor underflow here and have as many digits as the context says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the suite imports decimal; who only projects should not wait for it
    from decimal import Decimal

Entry: TypeAlias = "tuple[Decimal, ...]"
Group: TypeAlias = "list[Entry]"


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
