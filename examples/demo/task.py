"""What is computed, the same for every framework: data, first weights, batches, dropout masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]

SIZES = (64, 128, 128, 10)
BATCH = 50
EPOCHS = 40
MOMENTUM = 0.9
DROPOUT = 0.3
LEARNING_RATE = 0.3
"""Large on purpose, falling to 0: max-norm is what lets one begin with large steps (Srivastava et
al. 2014, section 5.1). The demo also prints what is left of the difference at half of it."""
BOUND = 1.5


class Layer(NamedTuple):
    """Weights (in, out) and biases of a fully connected layer."""

    kernel: FloatArray
    bias: FloatArray


class Batch(NamedTuple):
    """What one step is made of."""

    x: FloatArray
    labels: IntArray
    masks: tuple[FloatArray, ...]
    """For each hidden layer the factors of its outputs: 0, or what makes up for the zeros."""
    learning_rate: float


AfterStep: TypeAlias = Callable[[FloatArray, float], None]
"""Called after each step with the first weights (in, out) and the largest violation."""

Cases: TypeAlias = dict[str, tuple[FloatArray, float]]
"""By name: weights (in, out) and a bound."""


class Loop(Protocol):
    """The module of one framework."""

    def train(
        self, task: Task, seed: int, bound: float | None, after_step: AfterStep
    ) -> list[Layer]:
        """Train the network, under max-norm unless `bound` is None."""

    def project(self, cases: Cases) -> dict[str, FloatArray]:
        """The nearest weights whose units have norms of at most the bound."""


@dataclass(frozen=True)
class Task:
    """scikit-learn's digits, 600 to train on, and a schedule."""

    x: FloatArray
    labels: IntArray
    test_x: FloatArray
    test_labels: IntArray
    learning_rate: float = LEARNING_RATE

    @property
    def steps(self) -> int:
        """Steps of one training."""
        return EPOCHS * (len(self.x) // BATCH)

    def start(self, seed: int) -> list[Layer]:
        """He's initial weights."""
        rng = np.random.default_rng((seed, 0))
        return [
            Layer(
                (rng.normal(size=(fan_in, out)) * (2 / fan_in) ** 0.5).astype(np.float32),
                np.zeros(out, np.float32),
            )
            for fan_in, out in pairwise(SIZES)
        ]

    def batches(self, seed: int) -> Iterator[Batch]:
        """All batches of a training, in the order in which they come."""
        rng = np.random.default_rng((seed, 1))
        for epoch in range(EPOCHS):
            order = rng.permutation(len(self.x))
            for rows in order.reshape(-1, BATCH):
                masks = tuple(
                    (rng.random((BATCH, size)) >= DROPOUT).astype(np.float32) / (1 - DROPOUT)
                    for size in SIZES[1:-1]
                )
                rate = self.learning_rate * (1 - epoch / EPOCHS)
                yield Batch(self.x[rows], self.labels[rows], masks, rate)

    def accuracy(self, layers: list[Layer]) -> float:
        """The part of the test images that is classified rightly."""
        x = self.test_x
        for layer in layers[:-1]:
            x = np.maximum(x @ layer.kernel + layer.bias, 0)
        scores = x @ layers[-1].kernel + layers[-1].bias
        return float((scores.argmax(1) == self.test_labels).mean())


def load(learning_rate: float = LEARNING_RATE) -> Task:
    """The task, always with the same split."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_labels, test_labels = train_test_split(
        (images / 16).astype(np.float32), labels, train_size=600, stratify=labels, random_state=0
    )
    return Task(train_x, train_labels, test_x, test_labels, learning_rate)


def norms(kernel: FloatArray) -> npt.NDArray[np.float64]:
    """The norm of the incoming weights of each unit, in float64."""
    return np.asarray(np.linalg.norm(kernel.astype(np.float64), axis=0))


def at_the_bound(layers: list[Layer]) -> float:
    """The part of the units whose norm is the bound, or nearly."""
    every = np.concatenate([norms(layer.kernel) for layer in layers])
    return float((every >= 0.999 * BOUND).mean())


def cases() -> Cases:
    """Weights of many scales, most units outside and some inside."""
    rng = np.random.default_rng(0)
    length = rng.uniform(0.02, 0.5, size=64)
    found: Cases = {}
    for exponent in (-30, -12, 0, 12, 30):
        w = rng.normal(size=(256, 64)) * length * 10.0**exponent
        found[f"1e{exponent}"] = w.astype(np.float32), 1.5 * 10.0**exponent
    return found


def ulps(found: dict[str, FloatArray], reference: dict[str, FloatArray]) -> float:
    """The largest difference, in units of the last place of the largest entry of its unit."""
    worst = 0.0
    for name, expected in reference.items():
        unit = np.spacing(np.abs(expected).max(axis=0)).astype(np.float64)
        off = np.abs(found[name].astype(np.float64) - expected.astype(np.float64))
        worst = max(worst, float((off / unit).max()))
    return worst
