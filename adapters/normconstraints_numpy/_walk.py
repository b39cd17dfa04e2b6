"""The arrays in dicts and lists, and in the attributes of objects that hold them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

from normconstraints.weights import Place, Weight, tie, weights_of

_NO_HOLDERS = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
Found: TypeAlias = Iterator[tuple[Any, Place]]


def walk(weights: Any) -> list[Weight]:
    """The arrays of a structure, each with its name and the object that holds it.

    Raises
    ------
    TypeError
        If it is no dict, list or tuple, no model of a framework whose adapter is imported, and has
        no arrays in its attributes.
    """
    if isinstance(weights, list) and weights and all(isinstance(w, Weight) for w in weights):
        return weights_of(weights)
    found = tie(_leaves(weights, "", None, "", ()))
    if isinstance(weights, Mapping | list | tuple):
        return found
    if not found or found[0].array is weights:
        kind = type(weights)
        raise TypeError(
            "Projector: weights must be a dict or list of arrays, an object with arrays in its "
            "public attributes, or a model whose adapter is imported, got a "
            f"{kind.__module__}.{kind.__qualname__} without; pass the arrays by names, in a dict"
        )
    return found


def _leaves(node: Any, name: str, owner: Any, attribute: str, above: tuple[int, ...]) -> Found:
    if id(node) in above:  # a child that knows its parent
        return
    above = (*above, id(node))
    if isinstance(node, Mapping | list | tuple):
        if owner is not None and isinstance(node, list | tuple) and node and _is_plain(node[0]):
            return  # a history of losses, too long to be looked through at each step
        for key, child in _items(node):
            yield from _leaves(child, _join(name, key), owner, _join(attribute, key), above)
    elif hasattr(type(node), "shape") and hasattr(type(node), "dtype"):
        # A scalar of NumPy in an attribute is a number, as 1.0 is.
        if owner is None or hasattr(type(node), "__setitem__"):
            yield node, Place(name, owner, "" if owner is None else attribute)
    elif isinstance(node, _NO_HOLDERS) or not (hasattr(node, "__dict__") or _slots(node)):
        # In a dict of weights everything is meant to be one, and refused where a rule says so. An
        # object has numbers and words besides.
        if owner is None:
            yield node, Place(name)
    elif (known := _known(node)) is not None:
        for weight in known:
            for p in weight.places:
                yield weight.array, Place(_join(name, p.name), p.layer, p.attribute, p.roles)
    else:
        for key, child in _attributes(node):
            yield from _leaves(child, _join(name, key), node, key, above)


def _known(node: Any) -> list[Weight] | None:
    """The weights of a model of a framework, by its adapter."""
    # Who has an estimator has imported scikit-learn; nobody else should wait for it.
    base = sys.modules.get("sklearn.base")
    if base is not None and isinstance(node, base.BaseEstimator):
        importlib.import_module("normconstraints_numpy.sklearn")
    try:
        return weights_of(node)
    except TypeError:
        return None


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        pairs: Any = node.items()
    elif isinstance(node, tuple) and hasattr(node, "_fields"):  # named, by their names
        pairs = zip(getattr(node, "_fields"), node, strict=True)  # noqa: B009 - for pyright
    else:
        pairs = enumerate(node)
    return ((str(key), child) for key, child in pairs)


def _attributes(node: Any) -> Iterator[tuple[str, Any]]:
    """What an object keeps under public names."""
    found = {name: getattr(node, name) for name in _slots(node) if hasattr(node, name)}
    found |= getattr(node, "__dict__", {})
    return ((name, child) for name, child in found.items() if not name.startswith("_"))


def _slots(node: Any) -> list[str]:
    given = [vars(cls).get("__slots__", ()) for cls in type(node).__mro__]
    return [s for slots in given for s in ((slots,) if isinstance(slots, str) else slots)]


def _is_plain(node: Any) -> bool:
    return isinstance(node, int | float | complex | str)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
