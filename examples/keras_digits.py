"""Max-norm with dropout in Keras, on scikit-learn's digits: three lines more than without.

Run: KERAS_BACKEND=torch python examples/keras_digits.py
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

import normconstraints as nc  # 1
from normconstraints_keras import KernelConstraint, violation  # 2

layers = keras.layers
max_norm = KernelConstraint(nc.MaxNorm(0.75, axis="unit"))  # 3, in place of maxnorm(0.75)


def main() -> None:
    keras.utils.set_random_seed(0)
    images, classes = load_digits(return_X_y=True)
    x = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, (3, 3), activation="relu", kernel_constraint=max_norm),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(64, activation="relu", kernel_constraint=max_norm),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:1500], classes[:1500], batch_size=64, epochs=3, verbose=0)

    _, accuracy = model.evaluate(x[1500:], classes[1500:], verbose=0)
    print(f"{accuracy:.1%} of the test images are right")
    for name, outside in violation(model).items():
        print(f"{name}: largest violation {largest(outside):g}, of {len(outside)} units")


def largest(tensor: Any) -> float:
    """The largest entry of a tensor of any backend."""
    return float(np.max(keras.ops.convert_to_numpy(tensor)))


if __name__ == "__main__":
    main()
