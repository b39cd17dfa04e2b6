"""Constraints as trees of JAX: what is a number is a leaf, axes and counts are part of the tree.

So a constraint goes through ``jit`` with a radius that changes, and is compiled once; through
``vmap`` over radii; and a derivative is taken with respect to its numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import normconstraints
from normconstraints import Constraint

_STATIC = ("axis", "group_axis", "part", "view", "rounds", "method")
"""What says where, how and how often, and not how much."""


def _leaves(cls: type) -> tuple[str, ...]:
    """The fields of a class that are numbers, arrays of them, or constraints."""
    return tuple(
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in _STATIC and field.metadata.get("per") != "set"
    )


def register(cls: type[Constraint]) -> None:
    """Make a class of constraints, a dataclass, a node of JAX' trees; twice does no harm.

    Parameters
    ----------
    cls : type
        Its fields are leaves but for `axis` and those of one value for all groups (``PER_SET``).
        What it computed from those when it was made is part of the tree.
    """
    if cls in _registered:
        return
    names = _leaves(cls)

    def flatten_with_keys(c: Constraint) -> tuple[Any, Any]:
        rest = {name: value for name, value in vars(c).items() if name not in names}
        children = [(jax.tree_util.GetAttrKey(name), getattr(c, name)) for name in names]
        return children, _Static(rest)

    def flatten(c: Constraint) -> tuple[Any, Any]:
        children, static = flatten_with_keys(c)
        return [value for _, value in children], static

    def unflatten(static: _Static, children: Any) -> Constraint:
        # Not by the constructor: what JAX puts in place of a leaf may be anything.
        made = object.__new__(cls)
        numbers = zip(names, map(_joined, children), strict=True)
        for name, value in (*static.values.items(), *numbers):
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    _registered.add(cls)


def _joined(value: Any) -> Any:
    """Nested tuples of what are arrays by now as one array, which is what the sets compute with."""
    if not isinstance(value, tuple) or not _numbers(value):
        return value
    arrays = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
    return jnp.asarray(value) if arrays else value


def _numbers(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_numbers, value))
    return isinstance(value, jax.Array | float | int)


_registered: set[type] = set()


class _Static:
    """What is not a leaf, compared and hashed as a whole."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.values == other.values

    def __hash__(self) -> int:
        return hash(tuple(sorted((name, repr(value)) for name, value in self.values.items())))

    def __repr__(self) -> str:
        return repr(self.values)


def _classes() -> Iterator[type[Constraint]]:
    for name in normconstraints.__all__:
        cls = getattr(normconstraints, name)
        if isinstance(cls, type) and issubclass(cls, Constraint) and dataclasses.is_dataclass(cls):
            yield cls
    yield normconstraints.layout.InView


for _cls in _classes():
    register(_cls)
