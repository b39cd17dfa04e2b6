"""Weights in parts that do not know it: what an adapter has to gather or to exchange.

A torch DTensor says that it is one part of several. An array inside ``jax.shard_map`` looks like a
whole one, and what the adapter knows of it is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from normconstraints import _array
from normconstraints._array import Array
from normconstraints.constraint import Constraint, Entrywise, Summed

__all__ = ["Needs", "exchanging", "needs", "whole_axes"]


@dataclass(frozen=True)
class Needs:
    """What has to happen to a part before and while a constraint is applied to it."""

    gather: tuple[int, ...]
    """Axes along which the parts must be put together before."""
    exchange: tuple[int, ...]
    """Axes over which the parts must exchange what they reduce, by `exchanging`."""


def needs(constraint: Constraint, ndim: int, cut: Collection[int]) -> Needs:
    """What it takes to apply a constraint to one part of an array as to the whole.

    Parameters
    ----------
    constraint : Constraint
        Its parameters are those of the whole array.
    ndim : int
        The dimensions of the array.
    cut : collection of int
        The axes along which it is cut, into parts of equal size.

    Returns
    -------
    Needs
        Nothing where the groups are whole in each part. Sums for sets of norms, whose parts stay
        where they are. The gathered groups for all others, and the gathered array where a parameter
        belongs to a place in it.

    Raises
    ------
    ValueError
        If the constraint has an axis that does not exist.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from normconstraints.parts import needs
    >>> needs(nc.MaxNorm(1.0, axis=0), 2, cut=[1])
    Needs(gather=(), exchange=())
    >>> needs(nc.MaxNorm(1.0, axis=0), 2, cut=[0])
    Needs(gather=(), exchange=(0,))
    >>> needs(nc.Simplex(1.0, axis=0), 2, cut=[0])
    Needs(gather=(0,), exchange=())
    """
    across = tuple(sorted(set(constraint._span(ndim)) & set(cut)))
    if not constraint._fits_parts():
        return Needs(tuple(sorted(cut)), ())
    if isinstance(constraint, Entrywise):
        return Needs((), ())
    # Sets made of norm sets reduce in ways of their own.
    return Needs((), across) if isinstance(constraint, Summed) else Needs(across, ())


def whole_axes(constraint: Constraint, ndim: int) -> tuple[int, ...]:
    """The axes along which an array must be whole, if its library adds over parts by itself.

    Parameters
    ----------
    constraint : Constraint
        The set.
    ndim : int
        The dimensions of the array.

    Returns
    -------
    tuple of int
        None for sets that only add over their groups, else the axes of the groups.

    Raises
    ------
    ValueError
        If the constraint has an axis that does not exist.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from normconstraints.parts import whole_axes
    >>> whole_axes(nc.MaxNorm(1.0, axis=0), 2), whole_axes(nc.TopK(3, axis=0), 2)
    ((), (0,))
    """
    return constraint._whole(ndim)


def exchanging(
    count: int, *, total: Callable[[Array], Array], largest: Callable[[Array], Array]
) -> AbstractContextManager[None]:
    """A context in which a constraint takes an array for one part of each of its groups.

    Parameters
    ----------
    count : int
        Of parts of each group, equal in size.
    total, largest : callable
        From what the part has, to the sum and to the maximum over all parts.

    Returns
    -------
    context manager
        Around ``constraint.project(part)`` or ``constraint.violation(part)`` of a constraint for
        which `needs` asks for an exchange, and of no other. It holds in its own thread.

    Examples
    --------
    One of two parts that are alike:

    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints.parts import exchanging
    >>> part = np.array([[3.0], [4.0]])
    >>> with exchanging(2, total=lambda x: 2 * x, largest=lambda x: x):
    ...     nc.MaxNorm(1.0, axis=0).violation(part).round(3)
    array([6.071])
    """
    context: AbstractContextManager[None] = _array.exchanging(
        _array.Parts(count, total=total, largest=largest)
    )
    return context
