"""The network in NumPy, with the gradients worked out by hand."""

from __future__ import annotations

import numpy as np

import normconstraints as nc
from normconstraints_numpy import Projector

from .task import MOMENTUM, AfterStep, Batch, Cases, FloatArray, Layer, Task


def train(task: Task, seed: int, bound: float | None, after_step: AfterStep) -> list[Layer]:
    """Train the network, under max-norm unless `bound` is None."""
    weights = {f"layer{i}": layer._asdict() for i, layer in enumerate(task.start(seed))}
    speed = {n: {k: np.zeros_like(w) for k, w in part.items()} for n, part in weights.items()}
    # The whole of max-norm is in these two lines and the call after the update.
    rules = {} if bound is None else {"*.kernel": nc.MaxNorm(bound, axis=0)}
    projector = Projector(rules)
    projector(weights)
    for batch in task.batches(seed):
        layers = [Layer(**part) for part in weights.values()]
        for (name, part), gradient in zip(weights.items(), gradients(layers, batch), strict=True):
            for key, slope in gradient._asdict().items():
                speed[name][key] *= MOMENTUM
                speed[name][key] += slope
                part[key] -= batch.learning_rate * speed[name][key]
        projector(weights)
        violation = projector.violation(weights).values()
        after_step(weights["layer0"]["kernel"], max((float(v.max()) for v in violation), default=0))
    return [Layer(**part) for part in weights.values()]


def gradients(layers: list[Layer], batch: Batch) -> list[Layer]:
    """The gradient of the mean cross-entropy by every layer."""
    inputs = [batch.x]
    for layer, mask in zip(layers, batch.masks, strict=False):
        inputs.append(np.maximum(inputs[-1] @ layer.kernel + layer.bias, 0) * mask)
    scores = inputs[-1] @ layers[-1].kernel + layers[-1].bias
    scores -= scores.max(axis=1, keepdims=True)
    slope = np.exp(scores)
    slope /= slope.sum(axis=1, keepdims=True)
    slope[np.arange(len(slope)), batch.labels] -= 1
    slope /= len(slope)
    found = []
    for i in reversed(range(len(layers))):
        found.append(Layer(inputs[i].T @ slope, slope.sum(axis=0)))
        if i:
            # Where the output was cut to 0, by the ReLU or by the mask, nothing goes back.
            slope = (slope @ layers[i].kernel.T) * (inputs[i] > 0) * batch.masks[i - 1]
    return found[::-1]


def project(cases: Cases) -> dict[str, FloatArray]:
    """The nearest weights whose units have norms of at most the bound."""
    projector = Projector({name: nc.MaxNorm(bound, axis=0) for name, (_, bound) in cases.items()})
    return projector({name: kernel.copy() for name, (kernel, _) in cases.items()})
