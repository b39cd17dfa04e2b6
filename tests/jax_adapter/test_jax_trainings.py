"""Whole trainings on real images: a network of each library, under sets of each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from thin import thin

pytest.importorskip("optax")
pytest.importorskip("flax")
pytest.importorskip("equinox")
pytest.importorskip("sklearn")

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import normconstraints as nc
import normconstraints_jax.equinox
import normconstraints_jax.linen
from normconstraints_jax import project, violation, weights
from normconstraints_jax.nnx import project_

STEPS = 150
TRAIN = 1500


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """The images of scikit-learn's digits, 8 by 8, and their classes, in a fixed order."""
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    x = np.asarray(images[order], np.float32).reshape(-1, 8, 8) / 16
    return jnp.asarray(x), jnp.asarray(classes[order])


def batches(data: tuple[Any, Any]) -> tuple[Any, Any]:
    """As many as steps, on top of each other."""
    rows = (np.arange(STEPS * 64) % TRAIN).reshape(STEPS, 64)
    return data[0][rows], data[1][rows]


def cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def accuracy(logits: Any, data: tuple[Any, Any]) -> float:
    return float((logits.argmax(1) == data[1][TRAIN:]).mean())


def largest(params: Any, rules: Any) -> dict[str, Any]:
    """The largest violation of each weight."""
    return {name: v.max() for name, v in violation(params, rules).items()}


# ------------------------------------------------------------------------------ the networks


class Transformer(nnx.Module):
    """A layer of a transformer on the rows of an image, averaged by learned weights."""

    def __init__(self, said: bool) -> None:
        rngs = nnx.Rngs(0)
        own = {"kernel_metadata": {"constraint": nc.MaxNorm(0.9, axis="unit")}} if said else {}
        self.embed = nnx.Linear(8, 16, rngs=rngs, **own)
        self.place = nnx.Param(0.1 * jax.random.normal(rngs.params(), (8, 16)))
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.up = nnx.Linear(16, 32, rngs=rngs)
        self.down = nnx.Linear(32, 16, rngs=rngs)
        self.average = nnx.Param(jnp.zeros(8))
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.embed(x) + self.place
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(jax.nn.relu(self.up(self.norms[1](x))))
        return self.head(jnp.einsum("bte,t->be", x, self.average[...]))


TRANSFORMER = nc.Rules(
    {
        "place": nc.GroupL1Ball(4.0, axis=None, group_axis=1),
        "attention.query.kernel": nc.MaxNorm(0.5, axis="unit"),
        "attention.value.kernel": nc.Box(-0.2, 0.2),
        "attention.out.kernel": nc.ZeroMean(axis="unit"),
        "up.kernel": nc.UnitNorm(axis="unit"),
        "down.kernel": nc.L1Ball(2.0, axis="unit"),
        "norms.*.scale": nc.Box(0.8, 1.2),
        "average": nc.Simplex(1.0, axis=0),
        "head.kernel": nc.MinMaxNorm(0.5, 1.5, axis="unit"),
        "head.bias": nc.NonNeg(),
    }
)


class Convolutions(nn.Module):
    """Two convolutions, the second in groups, and a linear head."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.GroupNorm(2, name="norm")(nn.Conv(8, (3, 3), name="first")(x[..., None])))
        x = nn.Conv(16, (3, 3), strides=2, feature_group_count=2, name="second")(x)
        return nn.Dense(10, name="head")(nn.relu(x).reshape(x.shape[0], -1))


def convolutions() -> nc.Rules:
    return nc.Rules(
        {
            "first.kernel": nc.MaxNorm(0.8, axis="unit"),
            "second.kernel": nc.UnitNorm(axis="unit"),
            "norm.scale": nc.Box(0.5, 1.0),
            "norm.bias": nc.NonNeg(),
            "head.kernel": nc.L1Ball(3.0, axis="unit"),
            "head.bias": nc.ZeroMean(axis=0),
        },
        layouts=normconstraints_jax.linen.layouts(Convolutions(), jnp.ones((1, 8, 8))),
    )


MLP = nc.Rules(
    {
        "layers.0.weight": nc.MaxNorm(0.8, axis="unit"),
        "layers.1.weight": nc.TopK(8, axis="unit"),
        "layers.2.weight": nc.LInfBall(0.3, axis="unit"),
        "layers.0.bias": nc.NonNeg(),
        "layers.1.bias": nc.L1Ball(0.3, axis=0),
        "layers.2.bias": nc.Simplex(1.0, axis=0),
    }
)

# ----------------------------------------------------------------------------- the trainings


def transformer(data: Any, constrain: bool) -> tuple[Any, Any, float]:
    """By NNX' own optimizer, with metadata and rules, in place; what is measured at each step."""
    model = Transformer(said=constrain)
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        optimizer.update(model, nnx.grad(lambda m: cross_entropy(m(x), y))(model))
        if not constrain:
            return {}
        project_(model, TRANSFORMER)
        return largest(model, TRANSFORMER)

    found = [step(model, optimizer, *batch) for batch in zip(*batches(data), strict=True)]
    arrays = {w.name: w.array for w in weights(model)}
    return arrays, found, accuracy(nnx.jit(lambda m, x: m(x))(model, data[0][TRAIN:]), data)


def convolutional(data: Any, constrain: bool) -> tuple[Any, Any, float]:
    """By Linen's TrainState, all steps in one scan."""
    rules, net = convolutions(), Convolutions()
    params = net.init(jax.random.key(0), jnp.ones((1, 8, 8)))["params"]
    state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.adam(0.01))

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        def loss(params: Any) -> Any:
            return cross_entropy(state.apply_fn({"params": params}, batch[0]), batch[1])

        state = state.apply_gradients(grads=jax.grad(loss)(state.params))
        if not constrain:
            return state, {}
        state = state.replace(params=project(state.params, rules))
        return state, largest(state.params, rules)

    state, found = jax.jit(lambda s, b: jax.lax.scan(step, s, b))(state, batches(data))
    arrays = {w.name: w.array for w in weights(state.params)}
    logits = jax.jit(net.apply)({"params": state.params}, data[0][TRAIN:])
    return (
        arrays,
        [{k: v[i] for k, v in found.items()} for i in range(STEPS)],
        accuracy(logits, data),
    )


def perceptron(data: Any, constrain: bool) -> tuple[Any, Any, float]:
    """By Equinox, a model with functions among its leaves."""
    model: Any = eqx.nn.MLP(64, 10, 32, 2, key=jax.random.key(0))
    tx = optax.adam(0.01)
    state = tx.init(eqx.filter(model, eqx.is_array))

    def logits(model: Any, x: Any) -> Any:
        return jax.vmap(model)(x.reshape(len(x), -1))

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Any, y: Any) -> Any:
        grads = eqx.filter_grad(lambda m: cross_entropy(logits(m, x), y))(model)
        updates, state = tx.update(grads, state)
        model = eqx.apply_updates(model, updates)
        if not constrain:
            return model, state, {}
        model = normconstraints_jax.equinox.project(model, MLP)
        return model, state, largest(model, MLP)

    found = []
    for batch in zip(*batches(data), strict=True):
        model, state, one = step(model, state, *batch)
        found.append(one)
    arrays = {w.name: w.array for w in weights(model)}
    return arrays, found, accuracy(logits(model, data[0][TRAIN:]), data)


TRAININGS = [convolutional, transformer, perceptron]


def excess(training: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """How far some weights are outside, relative to the bound, without the library's help."""
    w = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    l1 = {name: abs(x).sum(axis=0) for name, x in w.items()}
    l2 = {name: np.linalg.norm(x.reshape(-1, x.shape[-1]), axis=0) for name, x in w.items()}
    if training is transformer:
        query, out = w["attention.query.kernel"], w["attention.out.kernel"]
        return {
            "embed.kernel": l2["embed.kernel"] / 0.9 - 1,
            "place": np.linalg.norm(w["place"], axis=1).sum() / 4 - 1,
            "attention.query.kernel": np.linalg.norm(query, axis=0) / 0.5 - 1,
            "attention.value.kernel": abs(w["attention.value.kernel"]) / 0.2 - 1,
            "attention.out.kernel": abs(out.sum(axis=(0, 1))) / abs(out).max() / 16,
            "up.kernel": abs(l2["up.kernel"] - 1),
            "down.kernel": l1["down.kernel"] / 2 - 1,
            "norms.0.scale": np.maximum(0.8 - w["norms.0.scale"], w["norms.0.scale"] - 1.2),
            "average": np.maximum(abs(w["average"].sum() - 1), -w["average"].min()),
            "head.kernel": np.maximum(1 - l2["head.kernel"] / 0.5, l2["head.kernel"] / 1.5 - 1),
            "head.bias": -w["head.bias"],
        }
    if training is convolutional:
        return {
            "first.kernel": l2["first.kernel"] / 0.8 - 1,
            "second.kernel": abs(l2["second.kernel"] - 1),
            "norm.scale": np.maximum(0.5 - w["norm.scale"], w["norm.scale"] - 1),
            "norm.bias": -w["norm.bias"],
            "head.kernel": l1["head.kernel"] / 3 - 1,
            "head.bias": abs(w["head.bias"].sum()) / abs(w["head.bias"]).max() / 10,
        }
    return {
        "layers.0.weight": np.linalg.norm(w["layers.0.weight"], axis=1) / 0.8 - 1,
        "layers.1.weight": (w["layers.1.weight"] != 0).sum(axis=1) - 8,
        "layers.2.weight": abs(w["layers.2.weight"]) / 0.3 - 1,
        "layers.0.bias": -w["layers.0.bias"],
        "layers.1.bias": l1["layers.1.bias"] / 0.3 - 1,
        "layers.2.bias": np.maximum(abs(w["layers.2.bias"].sum() - 1), -w["layers.2.bias"].min()),
    }


@pytest.mark.parametrize("training", thin(TRAININGS, 3))
def test_nothing_is_outside_after_any_step(training: Any, digits: Any) -> None:
    arrays, found, right = training(digits, constrain=True)
    assert len(found) == STEPS
    for step in jax.device_get(found):
        assert step == dict.fromkeys(step, 0.0)
        assert step.keys() >= excess(training, arrays).keys()
    for name, outside in excess(training, arrays).items():
        assert np.max(outside) <= nc.tolerance(arrays[name], arrays[name].size), name
    assert right > 0.8  # it learns; a guess is right once in ten times


@pytest.mark.thorough
@pytest.mark.parametrize("training", TRAININGS)
def test_a_free_training_leaves_the_sets(training: Any, digits: Any) -> None:
    arrays, _, right = training(digits, constrain=False)
    outside = {n for n, value in excess(training, arrays).items() if np.max(value) > 0.01}
    assert len(outside) >= 5, outside  # or the test above says nothing
    assert right > 0.8
