"""Projection in place of the arrays in nested dicts and lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, final

from normconstraints import Constraint, Rules

Weights = TypeVar("Weights")


@final
class Projector:
    """Projects the arrays of a training loop in place, after each update.

    Parameters
    ----------
    rules : Rules or mapping of str to Constraint or None
        Names or globs of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints_numpy import Projector
    >>> projector = Projector({"hidden.*.kernel": nc.MaxNorm(2.5, axis=0)})
    >>> weights = {"hidden": [{"kernel": np.array([[3.0, 0.3], [4.0, 0.4]])}]}
    >>> projector(weights)["hidden"][0]["kernel"].round(3)
    array([[1.5, 0.3],
           [2. , 0.4]])
    >>> projector.violation(weights)
    {'hidden.0.kernel': array([0., 0.])}
    """

    def __init__(self, rules: Rules | Mapping[str, Constraint | None]) -> None:
        self._rules = rules if isinstance(rules, Rules) else Rules(rules)

    def __repr__(self) -> str:
        return f"Projector({self._rules!r})"

    def __call__(self, weights: Weights) -> Weights:
        """Project in place.

        Parameters
        ----------
        weights : dict or list of arrays
            Dicts, lists and tuples, nested as you like. The name of an array is the path to it,
            joined with dots: keys and indices.

        Returns
        -------
        dict or list of arrays
            `weights` itself.

        Raises
        ------
        TypeError, ValueError
            If a pattern matches no array, two arrays have one name, or an array is read-only or
            does not fit its constraint. Nothing is changed then.
        """
        pairs = self._pairs(weights)
        _violations(pairs)
        for name, (_, array) in pairs.items():
            _check_writable(name, array)
        for constraint, array in pairs.values():
            constraint.project_(array)
        return weights

    def violation(self, weights: object) -> dict[str, Any]:
        """How far each group of each constrained array is outside, by the names of the arrays.

        Parameters
        ----------
        weights : dict or list of arrays
            As for the call.

        Returns
        -------
        dict of str to array
            One number per group, in the units of the weights, 0 inside.

        Raises
        ------
        TypeError, ValueError
            As for the call, but arrays may be read-only.
        """
        return _violations(self._pairs(weights))

    def _pairs(self, weights: object) -> dict[str, tuple[Constraint, Any]]:
        arrays: dict[str, Any] = {}
        for name, array in _leaves(weights, ()):
            if name in arrays:
                raise ValueError(
                    f"Projector: every weight must have its own name, got {name!r} twice; a key "
                    "that holds a dot can be mistaken for a path"
                )
            arrays[name] = array
        return {name: (c, arrays[name]) for name, c in self._rules.match(arrays).items()}


def _leaves(node: object, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        items: Any = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        yield ".".join(path), node
        return
    for key, child in items:
        yield from _leaves(child, (*path, str(key)))


def _violations(pairs: Mapping[str, tuple[Constraint, Any]]) -> dict[str, Any]:
    found = {}
    for name, (constraint, array) in pairs.items():
        try:
            found[name] = constraint.violation(array)
        except (TypeError, ValueError) as error:
            error.add_note(f"This is about the weight {name!r}.")
            raise
    return found


def _check_writable(name: str, array: Any) -> None:
    # Libraries differ in whether and how they tell; all refuse to write, even no entries.
    part = array[:0] if array.ndim else array
    try:
        part[...] = part
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Projector: {name!r} must be an array that can be changed, got a read-only one; put "
            "a copy of it there"
        ) from error
