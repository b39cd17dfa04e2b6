"""What the tests of Keras models share; on every backend of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

BACKEND = keras.backend.backend()
L = keras.layers


def only_on(*backends: str) -> pytest.MarkDecorator:
    """A test of what one backend alone has."""
    reason = f"about Keras on {' and '.join(backends)}, and this process has it on {BACKEND}"
    return pytest.mark.skipif(BACKEND not in backends, reason=reason)


def numpy_of(tensor: Any) -> np.ndarray:
    """A copy in double precision."""
    tensor = ops.cast(ops.convert_to_tensor(tensor), "float32")
    return np.array(tensor.detach() if hasattr(tensor, "detach") else tensor).astype(np.float64)


def norms(w: Any, axis: Any = 0) -> np.ndarray:
    """Of the groups that span these axes."""
    return np.sqrt((numpy_of(w) ** 2).sum(axis=axis))


def fill(variable: Any, value: float) -> None:
    """All entries the same. Keras' ones_like refuses its own variables on JAX 0.10."""
    variable.assign(np.full(variable.shape, value, "float32"))


def largest(violations: dict[str, Any]) -> float:
    """The largest of the violations of a model."""
    return max(float(numpy_of(v).max()) for v in violations.values())


def dense(constraint: Any = None, units: int = 3, **more: Any) -> keras.Model:
    """One layer named "dense", whose weights a training soon makes large."""
    layer = L.Dense(units, kernel_constraint=constraint, name="dense", **more)
    return keras.Sequential([keras.Input((4,)), layer])


def fit(model: Any, optimizer: Any = None, *, epochs: int = 1, **more: Any) -> Any:
    """A few large steps towards large weights."""
    if optimizer is not None:
        model.compile(optimizer, "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    y = 9 + rng.normal(size=(32, *model.output_shape[1:])).astype("float32")
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, shuffle=False, **more)


def sgd(**more: Any) -> Any:
    """Large steps."""
    return keras.optimizers.SGD(0.1, **more)
