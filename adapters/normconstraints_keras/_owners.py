"""Which layers a variable belongs to, for constraints whose axes depend on the layer.

Keras calls a constraint with the variable alone. Variables do not know their layers, and one
constraint can serve several: an attention layer hands its own to the queries and to the output.
"""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import keras

from normconstraints import Constraint, Rules
from normconstraints.layout import LayoutError
from normconstraints.weights import Place, Weight

_Owners = tuple["weakref.ref[Any]", list[tuple["weakref.ref[Any]", str]]]
_known: dict[int, _Owners] = {}
"""The layers of variables by the identity of these, with the name that each has there."""


def resolve(constraint: Constraint, variable: Any) -> Constraint:
    """The constraint with the axes that its word means for a variable.

    Raises
    ------
    LayoutError
        If no layer has the variable, or the axes of its layers are not known or differ.
    """
    places = _places(variable)
    if not places:
        raise LayoutError(
            f"{constraint!r} depends on the layer of {variable.path!r}, and no layer has this "
            "variable; give the axes as numbers, or call gc.unfreeze() if gc.freeze() hides the "
            "layers"
        )
    weight = Weight(variable, places[0], tuple(places[1:]))
    return Rules({"*": constraint}).bind([weight])[0].at(0)


def _places(variable: Any) -> list[Place]:
    if not _is_known(variable):
        _look_around()
    if not _is_known(variable):
        return []
    layers = [(layer(), attribute) for layer, attribute in _known[id(variable)][1]]
    return [
        # Two layers may have one name, and two places of a weight may not.
        Place(f"{layer.path or layer.name}.{attribute} ({i})", layer, attribute)
        for i, (layer, attribute) in enumerate(layers, 1)
        if layer is not None
    ]


def _is_known(variable: Any) -> bool:
    # An identity may be that of a variable which is gone.
    entry = _known.get(id(variable))
    return entry is not None and entry[0]() is variable


def _look_around() -> None:
    """Take down the variables of all layers that there are."""
    # The interpreter knows all layers. Keras has no list of them, and a hook in its base class
    # would be there for everybody, and only for layers that are built after it.
    _known.clear()
    for thing in gc.get_objects():
        if not issubclass(type(thing), keras.Layer):
            continue
        for variable in getattr(thing, "_trainable_variables", ()):
            _, owners = _known.setdefault(id(variable), (weakref.ref(variable), []))
            owners.append((weakref.ref(thing), name_in(thing, variable)))


def name_in(layer: Any, variable: Any) -> str:
    """The name that the layer gave, else that of the attribute which holds the variable."""
    if re.fullmatch(r"variable(_\d+)?", variable.name):  # made up by Keras, another each time
        for name, value in vars(layer).items():
            if value is variable:
                return str(name)
    return str(variable.name)
