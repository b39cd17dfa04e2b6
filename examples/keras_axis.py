"""What the axis of a constraint of Keras does to its layers, asked of Keras itself.

Run as ``KERAS_BACKEND=torch python examples/keras_axis.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import normconstraints as nc
import normconstraints_keras  # noqa: F401 - the layouts of the layers of Keras

BOUND = 3.0


def numpy_of(tensor: Any) -> np.ndarray:
    """A tensor of the backend as an array in double precision."""
    return np.array(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor, float)


def in_one_norm(constraint: Callable[[Any], Any], shape: tuple[int, ...]) -> int:
    """How many entries share a norm: those that move when one of them does."""
    outside = np.full(shape, 10.0, np.float32)
    moved = outside.copy()
    moved.flat[0] *= 1000
    before, after = (numpy_of(constraint(keras.ops.convert_to_tensor(w))) for w in (outside, moved))
    return int(np.count_nonzero(abs(after - before) > 1e-3))


def largest_left(constraint: Callable[[Any], Any], shape: tuple[int, ...]) -> float:
    """The norm that a filter keeps whose entries all are large: the last axis counts filters."""
    left = numpy_of(constraint(keras.ops.convert_to_tensor(np.full(shape, 10.0, np.float32))))
    return float(np.sqrt((left.reshape(-1, shape[-1]) ** 2).sum(axis=0)).max())


def table() -> list[tuple[str, str, int, int, float]]:
    """Layer, constraint, number of norms, entries of each, the largest norm of a unit left."""
    layers: list[tuple[str, Any, tuple[int | None, ...]]] = [
        ("Dense(128) on 784", keras.layers.Dense(128), (None, 784)),
        ("Conv2D(32, (3, 3)) on RGB", keras.layers.Conv2D(32, (3, 3)), (None, 32, 32, 3)),
    ]
    rows = []
    for name, layer, inputs in layers:
        layer.build(inputs)
        ours = nc.Rules({"kernel": nc.MaxNorm(BOUND, axis="unit")}).match(layer)["kernel"]
        constraints: dict[str, Callable[[Any], Any]] = {
            "keras MaxNorm(3)": keras.constraints.MaxNorm(BOUND)
        }
        if len(inputs) == 4:
            axes = [0, 1, 2]
            constraints[f"keras MaxNorm(3, {axes})"] = keras.constraints.MaxNorm(BOUND, axis=axes)
        assert isinstance(ours, nc.Constraint)
        constraints['nc.MaxNorm(3, "unit")'] = ours
        shape = tuple(layer.kernel.shape)
        for title, constraint in constraints.items():
            entries = in_one_norm(constraint, shape)
            left = largest_left(constraint, shape)
            rows.append((name, title, int(np.prod(shape)) // entries, entries, left))
    return rows


if __name__ == "__main__":
    print(f"{'layer':<27}{'constraint':<28}{'norms':>6}{'of':>5}{'largest filter norm left':>26}")
    for name, title, norms, entries, left in table():
        print(f"{name:<27}{title:<28}{norms:>6}{entries:>5}{left:>26.3f}")
