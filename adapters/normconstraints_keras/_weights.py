"""The weights of a Keras model, with the layers that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from normconstraints.weights import Place, Weight, register_walker, tie
from normconstraints_keras import _tensors
from normconstraints_keras._constraints import KernelConstraint
from normconstraints_keras._owners import name_in


def walk(model: Any) -> list[Weight]:
    """Weights that are made to be trained, also those of layers that are frozen now.

    Not moving averages, seeds, quantised kernels and other state, which Keras does not constrain
    either. A shared layer gives one weight, whose other places are ties. The arrays are the tensors
    of the backend; on TensorFlow, whose tensors follow no standard, copies as NumPy arrays.
    """
    return [replace(weight, array=_array(weight.array)) for weight in bare(model)]


def bare(model: Any) -> list[Weight]:
    """The same with variables for arrays: only their shapes are read."""
    if not model.built:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} must be built, and has no weights before; run "
            "a batch through it, call build(input_shape), or let it begin with keras.Input(shape)"
        )
    pairs = []
    named: dict[str, int] = {}
    for weight, place in _places(model, ()):
        if named.setdefault(place.name, id(weight)) != id(weight):
            raise ValueError(
                f"every weight must have its own name, and two are {place.name!r}; give one of the "
                "layers, or one of its weights, another name"
            )
        pairs.append((weight, place))
    return [replace(weight, constraint=_own(weight.array)) for weight in tie(pairs)]


def _own(variable: Any) -> Any:
    """The constraint that the layer was built with, if it is one of ours."""
    own = getattr(variable, "constraint", None)
    return own.constraint if isinstance(own, KernelConstraint) else None


def _places(layer: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Place]]:
    if isinstance(layer, keras.layers.TorchModuleWrapper):
        # The layouts of its modules are those of PyTorch, if that adapter is imported.
        for name, parameter in layer.module.named_parameters():
            owner, _, attribute = name.rpartition(".")
            module = layer.module.get_submodule(owner)
            yield parameter, Place(".".join((*path, name)), module, attribute)
        return
    for variable in layer._trainable_variables:
        # Such a variable is no weight but holds statistics, in place of its gradient.
        if not getattr(variable, "overwrite_with_gradient", False):
            name = name_in(layer, variable)
            yield variable, Place(".".join((*path, name)), layer, name)
    for child in layer._layers:
        yield from _places(child, (*path, child.name))


def _array(weight: Any) -> Any:
    if not isinstance(weight, keras.Variable):
        return weight
    return weight.value if _tensors.is_native() else ops.convert_to_numpy(weight.value)


register_walker(keras.Layer, walk)
