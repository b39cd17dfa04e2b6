"""Constraints as plain JSON data and back, by registered names, never by code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from normconstraints._parameters import as_numbers
from normconstraints.constraint import (
    Parametrised,
    is_registered,
    parameters,
    registered,
    registered_names,
)


def to_config(constraint: Parametrised) -> dict[str, Any]:
    """A constraint as data that `json.dumps` writes.

    Parameters
    ----------
    constraint : Constraint
        Of a registered class. Parameters that are arrays become nested lists, those that are
        constraints, or tuples of them, what this function makes of them.

    Returns
    -------
    dict
        ``{"constraint": name of the class, "parameters": {...}}``

    Raises
    ------
    TypeError
        If the class, or that of a constraint inside it, is not registered.

    Examples
    --------
    >>> import normconstraints as nc
    >>> nc.to_config(nc.MaxNorm(3.0, axis=0))
    {'constraint': 'MaxNorm', 'parameters': {'max_value': 3.0, 'axis': 0}}
    """
    name = type(constraint).__name__
    if not is_registered(type(constraint)):
        raise TypeError(
            f"to_config: constraint must be of a registered class, got {constraint!r}; decorate "
            "the class with normconstraints.register"
        )
    values = parameters(constraint)
    return {"constraint": name, "parameters": {k: _encode(v) for k, v in values.items()}}


def from_config(config: Mapping[str, Any]) -> Any:
    """The constraint that `to_config` wrote down.

    Parameters
    ----------
    config : mapping
        What `to_config` returned, perhaps through a JSON file. Nested lists become nested tuples of
        numbers, which fit arrays of every library; mappings become constraints.

    Raises
    ------
    TypeError
        If `config` holds something that is no JSON.
    ValueError
        If the name is not registered, or the parameters do not fit the class.

    Examples
    --------
    >>> import normconstraints as nc
    >>> nc.from_config({"constraint": "MaxNorm", "parameters": {"max_value": 3.0, "axis": 0}})
    MaxNorm(max_value=3.0, axis=0)
    """
    if not isinstance(config, Mapping) or set(config) != {"constraint", "parameters"}:
        raise ValueError(
            "from_config: config must be a mapping with the keys 'constraint' and 'parameters', "
            f"got {config!r}"
        )
    name, given = config["constraint"], config["parameters"]
    cls = registered(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(
            f"from_config: constraint must be one of {', '.join(registered_names())}, got "
            f"{name!r}; a class of your own is known after its module is imported and if it is "
            "decorated with normconstraints.register"
        )
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ValueError(f"from_config: parameters of {name} must be a mapping, got {given!r}")
    fields = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise ValueError(
            f"from_config: parameters of {name} must be among {', '.join(fields) or 'none'}, got "
            f"{', '.join(unknown)}"
        )
    return cls(**{key: _decode(value, f"{name}: {key}") for key, value in given.items()})


def _encode(value: Any) -> Any:
    """Tuples and arrays as lists; infinities, which JSON has not, as strings."""
    if isinstance(value, Parametrised):
        return to_config(value)
    value = as_numbers(value)
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _decode(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_decode(v, name) for v in value)
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, Mapping):
        return from_config(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"from_config: {name} must be JSON data, got {value!r}")
