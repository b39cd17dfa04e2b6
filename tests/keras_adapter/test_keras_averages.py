"""Optimizers with averages: what Keras leaves outside, and `ConstrainedEMA` does not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, L, dense, fit, largest, norms, numpy_of, sgd

import normconstraints as nc
from normconstraints_keras import ConstrainedEMA, KernelConstraint, MaxNorm, UnitNorm, violation


def averaging(**more: Any) -> Any:
    return sgd(use_ema=True, ema_momentum=0.9, **more)


def moving(optimizer: Any) -> Any:
    return optimizer._model_variables_moving_average[0]


@pytest.mark.parametrize("constraint", [MaxNorm(0.5), keras.constraints.MaxNorm(0.5)], ids=type)
def test_without_it_keras_ends_outside(constraint: Any) -> None:
    """If this fails, Keras has been mended, and ConstrainedEMA is of use for sets like spheres."""
    model = dense(constraint)
    fit(model, averaging(), epochs=3)
    assert norms(model.layers[0].kernel).max() > 0.51


@pytest.mark.parametrize(
    "constraint",
    [MaxNorm(0.5), UnitNorm(axis="unit"), KernelConstraint(nc.TopK(2, axis="unit"))],
    ids=repr,
)
@pytest.mark.parametrize("frequency", [None, 3])
def test_with_it_the_model_ends_inside(constraint: Any, frequency: Any) -> None:
    model = dense(constraint)
    optimizer = averaging(ema_overwrite_frequency=frequency)
    fit(model, optimizer, epochs=3, callbacks=[ConstrainedEMA()])
    assert largest(violation(model)) == 0
    # The averages themselves, too, from which a later training goes on.
    w = model.layers[0].kernel
    w.assign(moving(optimizer))
    assert largest(violation(model)) == 0


def test_the_end_is_the_projected_average() -> None:
    model, plain = dense(MaxNorm(0.5)), dense(MaxNorm(0.5))
    plain.set_weights(model.get_weights())
    fit(model, averaging(), callbacks=[ConstrainedEMA()])
    fit(plain, averaging())
    expected = MaxNorm(0.5)(plain.layers[0].kernel)
    np.testing.assert_allclose(
        numpy_of(model.layers[0].kernel), numpy_of(expected), rtol=1e-6, atol=1e-7
    )
    # What has no constraint is Keras' average as it is.
    np.testing.assert_array_equal(numpy_of(model.layers[0].bias), numpy_of(plain.layers[0].bias))


class Seen(keras.callbacks.Callback):
    """The largest violation when a validation begins."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self.found.append(largest(violation(self.model)))

    on_predict_begin = on_test_begin


@pytest.mark.parametrize("swap", [{"swap_on_epoch": True}, {}], ids=str)
def test_with_keras_own_swap(swap: dict[str, bool]) -> None:
    model = dense(MaxNorm(0.5), units=64)  # so many that roundings would be seen
    seen = Seen()
    callbacks = [ConstrainedEMA(), keras.callbacks.SwapEMAWeights(**swap), seen]
    data = np.ones((8, 4), "float32"), np.ones((8, 64), "float32")
    fit(model, averaging(), epochs=3, callbacks=callbacks, validation_data=data)
    assert largest(violation(model)) == 0
    assert len(seen.found) == 3
    # On TensorFlow Keras swaps by adding and subtracting, which rounds.
    assert max(seen.found) <= (4e-7 if BACKEND == "tensorflow" else 0)


def test_a_loss_scale_around_it() -> None:
    model = dense(MaxNorm(0.5), dtype="mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(averaging(), initial_scale=8.0)
    fit(model, optimizer, epochs=2, callbacks=[ConstrainedEMA()])
    assert largest(violation(model)) == 0
    model.layers[0].kernel.assign(moving(optimizer.inner_optimizer))
    assert largest(violation(model)) == 0


def test_a_training_that_has_no_epoch_left() -> None:
    """As one is that goes on from its last checkpoint."""
    model = dense(MaxNorm(0.5))
    fit(model, averaging(), epochs=2)
    assert largest(violation(model)) > 0
    fit(model, epochs=2, initial_epoch=2, callbacks=[ConstrainedEMA()])
    assert largest(violation(model)) == 0


def test_evaluation_alone() -> None:
    model = dense(MaxNorm(0.5))
    data = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
    model.compile(averaging(), "mse")
    model.evaluate(*data, verbose=0, callbacks=[ConstrainedEMA()])  # no step was taken
    fit(model)
    callbacks = [ConstrainedEMA(), keras.callbacks.SwapEMAWeights(), seen := Seen()]
    model.evaluate(*data, verbose=0, callbacks=callbacks)
    model.predict(data[0], verbose=0, callbacks=callbacks)
    assert max(seen.found) <= (4e-7 if BACKEND == "tensorflow" else 0)


def test_without_averages_it_does_nothing() -> None:
    model, plain = dense(MaxNorm(0.5)), dense(MaxNorm(0.5))
    plain.set_weights(model.get_weights())
    fit(model, sgd(), callbacks=[ConstrainedEMA()])
    fit(plain, sgd())
    np.testing.assert_array_equal(
        numpy_of(model.layers[0].kernel), numpy_of(plain.layers[0].kernel)
    )


def test_several_optimizers() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(4, name="first", kernel_constraint=MaxNorm(0.5)),
            L.Dense(3, name="second", kernel_constraint=UnitNorm()),
        ]
    )
    average = averaging()
    optimizers = keras.optimizers.OptimizerMap(sgd(), {".*first/.*": average})
    model.compile(keras.optimizers.MultiOptimizer(optimizers), "mse")
    fit(model, epochs=2, callbacks=[ConstrainedEMA()])
    assert largest(violation(model)) == 0
    model.layers[0].kernel.assign(moving(average))
    assert largest(violation(model)) == 0
