"""Averages of weights that stay in the sets of the weights."""

from __future__ import annotations

from typing import Any

import keras

from normconstraints_keras._apply import apply_constraints, projected_value


class ConstrainedEMA(keras.callbacks.Callback):  # type: ignore[misc]  # untyped
    """Keeps a model trained with ``use_ema=True`` in the sets of its constraints.

    Keras averages the weights of each step before it constrains them, and writes the averages over
    the weights when `fit` ends, so that the model that is left fulfils no constraint. With this
    callback the averages are projected at the end of each epoch and before they are evaluated, and
    the weights when `fit` ends.

    Notes
    -----
    Give it before `keras.callbacks.SwapEMAWeights` in the list, which then swaps in averages that
    are projected already. The average of a set that is not convex (a sphere, k entries that are
    not 0) is far from it and the projection a real change; of a convex set it undoes the one step
    by which the average is outside.

    Examples
    --------
    >>> import keras
    >>> from normconstraints_keras import ConstrainedEMA, MaxNorm, violation
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, kernel_constraint=MaxNorm(0.5))]
    ... )
    >>> model.compile(keras.optimizers.SGD(1.0, use_ema=True), "mse")
    >>> x, y = keras.ops.ones((32, 4)), 9 * keras.ops.ones((32, 3))
    >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[ConstrainedEMA()])
    >>> [float(v.max()) for v in violation(model).values()]
    [0.0]
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Project the averages."""
        self._project()

    def on_test_begin(self, logs: Any = None) -> None:
        """Project the averages. The validation of an epoch comes before its end."""
        self._project()

    def on_predict_begin(self, logs: Any = None) -> None:
        """Project the averages."""
        self._project()

    def _project(self) -> None:
        model: Any = self.model
        for optimizer in _optimizers(model.optimizer):
            # There are none before the first step.
            averages = getattr(optimizer, "_model_variables_moving_average", ())
            for variable, average in zip(optimizer._trainable_variables, averages, strict=False):
                if average is not None and variable.constraint is not None:
                    average.assign(projected_value(variable, average))

    def on_train_end(self, logs: Any = None) -> None:
        """Project the weights, which are the averages by now."""
        model: Any = self.model
        apply_constraints(model)


def _optimizers(optimizer: Any) -> list[Any]:
    """Those that average: inside a loss scale, and of a `keras.optimizers.MultiOptimizer` each."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))
