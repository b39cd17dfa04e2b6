"""Projection in place of the arrays in nested dicts and lists."""

from __future__ import annotations

from collections.abc import Mapping
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
        self._rules = Rules.of(rules)

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
        bound = self._rules.bind(weights)
        for b in bound:
            b.check()
            _check_writable(b.name, b.weight.array)
        for b in bound:
            b.at(0).project_(b.weight.array)
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
        return {b.name: b.check() for b in self._rules.bind(weights)}


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
