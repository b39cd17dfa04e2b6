"""Tensors of Keras' backend as arrays for the core, and back."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from normconstraints import Constraint
from normconstraints_keras._array import Array

_NATIVE = ("torch", "jax", "numpy")
"""Backends whose tensors follow the array API standard."""


def is_native() -> bool:
    """Whether the tensors of the backend are arrays as they are."""
    return keras.backend.backend() in _NATIVE


def project(constraint: Constraint, w: Any) -> Any:
    """The projection of a variable or tensor, as a tensor."""
    tensor = ops.convert_to_tensor(w)
    if is_native():
        return constraint.project(tensor)
    return constraint.project(Array(tensor)).tensor


def violation(constraint: Constraint, w: Any) -> Any:
    """The violation of a variable or tensor, as a tensor that nothing is derived through."""
    tensor = ops.stop_gradient(ops.convert_to_tensor(w))
    if is_native():
        return constraint.violation(tensor)
    return constraint.violation(Array(tensor)).tensor
