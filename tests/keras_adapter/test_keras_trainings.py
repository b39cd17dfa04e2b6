"""A network with dropout and max-norm on its filters, on scikit-learn's digits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_models import L, largest, norms
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_keras import KernelConstraint, apply_constraints, violation


def network(bound: float) -> keras.Model:
    """The network of a much-read question, with filters where its `maxnorm(3)` has columns."""
    constraint = KernelConstraint(nc.MaxNorm(bound, axis="unit"))
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(32, (3, 3), padding="same", activation="relu", kernel_constraint=constraint),
            L.Dropout(0.2),
            L.Conv2D(32, (3, 3), padding="same", activation="relu", kernel_constraint=constraint),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(64, activation="relu", kernel_constraint=constraint),
            L.Dropout(0.5),
            L.Dense(10, activation="softmax"),
        ]
    )


class Watch(keras.callbacks.Callback):
    """The largest violation after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.found.append(largest(violation(self.model)))


@pytest.mark.parametrize("bound", [3.0, 0.75])
def test_the_network_of_the_question(bound: float) -> None:
    images, classes = load_digits(return_X_y=True)
    x = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    model = network(bound)
    apply_constraints(model)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    watch = Watch()
    model.fit(x[:1000], classes[:1000], batch_size=64, epochs=3, verbose=0, callbacks=[watch])
    assert watch.found == [0.0] * 3
    _, accuracy = model.evaluate(x[1500:], classes[1500:], verbose=0)
    assert accuracy > 0.75
    first = np.sort(norms(model.layers[0].kernel, (0, 1, 2)))
    if bound == 3.0:
        # A bound that no norm reaches does nothing, and this is what it looks like.
        assert first[-1] < 3
    else:
        assert first[-1] == pytest.approx(bound, rel=1e-6)
