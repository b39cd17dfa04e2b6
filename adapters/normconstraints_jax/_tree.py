"""A tree of JAX as a list of weights, with the layer of each where its path tells it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
from jax.sharding import PartitionSpec

from normconstraints.layout import Layout, LayoutError
from normconstraints.weights import Place, Weight

Flat: TypeAlias = tuple[list[Weight], Callable[[Sequence[Any]], Any]]

_LIBRARIES = {
    "equinox": "normconstraints_jax.equinox",
    "flax.linen": "normconstraints_jax.linen",
    "flax.nnx": "normconstraints_jax.nnx",
    "haiku": "normconstraints_jax.haiku",
}

# Filled by the modules of the libraries, so that none is loaded for a user of another.
models: dict[type, Callable[[Any], Flat]] = {}
"""How models are flattened that are more than a tree."""
boxes: list[type] = []
"""Nodes around one array that are no part of its name."""
hidden: list[Callable[[Any], bool]] = []
"""Which nodes hold no weights: counters, keys and statistics."""


def load() -> None:
    """Declare the layers of those libraries that the program has loaded itself."""
    for library, module in _LIBRARIES.items():
        if library in sys.modules and module not in sys.modules:
            importlib.import_module(module)


@dataclass(frozen=True, eq=False)
class LayerPlace(Place):
    """A place in a layer that may be one of many in a stack."""

    ndim: int = 0
    """The dimensions of the weight, for a stack has more than the layer speaks of."""

    def layout(self) -> Layout:
        """The roles of the axes.

        Raises
        ------
        LayoutError
            If they are not known, or the weight has other dimensions than its layer gives it.
        """
        found = super().layout()
        if set(found.roles) <= {"o"}:  # no incoming weights, whatever the dimensions
            return found
        try:
            found.fit(self.ndim)
        except LayoutError as error:
            more = self.ndim - len(found.roles)
            stacked = "l" * max(more, 1) + found.roles
            raise LayoutError(
                f"{self.name!r} must have the axes {found.roles!r} of a "
                f"{type(self.layer).__name__}, got {self.ndim} dimensions; if layers are stacked, "
                "as by vmap or scan, say which axis counts them, as Rules(..., "
                f"layouts={{{self.name!r}: {stacked!r}}}), with l for the layers"
            ) from error
        return found


def flatten(params: Any) -> Flat:
    """The weights of a tree or model, and how it is made again of as many arrays."""
    load()
    for base in type(params).__mro__:
        if base in models:
            return models[base](params)
    tree: Any
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    found = [(i, place) for i, (path, x) in enumerate(paths) if (place := _place(params, path, x))]

    def rebuild(arrays: Sequence[Any]) -> Any:
        done = list(leaves)
        for (i, _), array in zip(found, arrays, strict=True):
            done[i] = array
        return tree.unflatten(done)

    return [Weight(leaves[i], place) for i, place in found], rebuild


def specs_of(params: Any, specs: Any) -> list[Any] | None:
    """How each weight of `flatten` is cut, from a tree that may end above the leaves."""
    if specs is None:
        return None
    found, rebuild = flatten(params)
    if isinstance(specs, PartitionSpec):
        return [specs] * len(found)
    if any(base in models for base in type(params).__mro__):
        raise TypeError(
            f"project: specs must be one PartitionSpec for a {type(params).__name__}, whose "
            f"weights are no tree, got {specs!r}; split the model, and project its state"
        )
    # Marks in place of the weights show which leaves they are.
    marks = [object() for _ in found]
    marked = jax.tree.leaves(rebuild(marks))
    try:
        each = jax.tree.leaves(
            jax.tree.broadcast(specs, params, is_leaf=lambda x: isinstance(x, PartitionSpec)),
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )
    except ValueError as error:
        raise ValueError(
            f"project: specs must be a tree as that of the params, or end above its leaves: {error}"
        ) from error
    by_leaf = {id(leaf): spec for leaf, spec in zip(marked, each, strict=True)}
    return [by_leaf[id(mark)] for mark in marks]


def _place(root: Any, path: tuple[Any, ...], leaf: Any) -> Place | None:
    """Where a leaf is, None if it is no weight."""
    if not hasattr(leaf, "shape"):  # functions and switches are leaves of models of equinox
        return None
    node, layer, attribute, keys = root, None, "", []
    for key in path:
        if any(hides(node) for hides in hidden):
            return None
        if isinstance(node, tuple(boxes)):
            continue
        keys.append(key)
        # Only the owner of the array itself is its layer, not one that holds a list of arrays.
        named = isinstance(key, jax.tree_util.GetAttrKey)
        layer, attribute = (node, key.name) if named else (None, "")
        node = _child(node, key)
    name = jax.tree_util.keystr(tuple(keys), simple=True, separator=".")
    return LayerPlace(name, layer, attribute, ndim=len(leaf.shape))


def _child(node: Any, key: Any) -> Any:
    """The child of a node, None if the node does not name its children."""
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name, None)
    if isinstance(key, jax.tree_util.SequenceKey):
        return node[key.idx]
    if isinstance(key, jax.tree_util.DictKey):
        return node[key.key]
    return None
