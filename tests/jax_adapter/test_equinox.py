"""Models of Equinox in training steps: their functions, shared layers, and optimizers around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("equinox")
pytest.importorskip("optax")

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import normconstraints as nc
import normconstraints_jax
from normconstraints.schedules import Linear
from normconstraints_jax import violation
from normconstraints_jax.equinox import project
from normconstraints_jax.optax import constrained

RULES = nc.Rules({eqx.nn.Linear: nc.MaxNorm(0.3, axis="unit"), "*.bias": nc.NonNeg()})
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)


def mlp() -> Any:
    return eqx.nn.MLP(4, 3, 8, 2, activation=jnp.tanh, key=jax.random.key(0))


def loss(model: Any) -> Any:
    return -(jax.vmap(model)(X) ** 2).mean()


def largest(model: Any) -> float:
    """The largest norm of a unit, by hand."""
    return max(
        float(np.linalg.norm(np.asarray(x.weight, np.float64), axis=1).max()) for x in model.layers
    )


NEARLY = 0.3 * (1 + 4 * 2.0**-23)


def test_a_step_with_functions_among_the_leaves() -> None:
    model, tx = mlp(), optax.adam(0.1)
    assert any(callable(leaf) for leaf in jax.tree.leaves(model))
    state = tx.init(eqx.filter(model, eqx.is_array))
    traced = []

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        traced.append(1)
        updates, state = tx.update(eqx.filter_grad(loss)(model), state)
        return project(eqx.apply_updates(model, updates), RULES), state

    assert largest(model) > 0.5
    for _ in range(4):
        before, (model, state) = model, step(model, state)
        assert largest(model) <= NEARLY
        assert all(not v.any() for v in violation(model, RULES).values())
    assert len(traced) == 1
    assert jax.tree.structure(model) == jax.tree.structure(before)
    assert jax.vmap(model)(X).shape == (16, 3)


def test_it_is_pure_and_what_has_no_rule_is_the_same() -> None:
    model = mlp()
    before = largest(model)
    done = project(model, {"layers.*.weight": nc.MaxNorm(0.3, axis="unit")})
    assert largest(model) == before > largest(done)
    assert done.layers[0].bias is model.layers[0].bias
    assert done.activation is model.activation
    parts = eqx.partition(model, eqx.is_inexact_array)
    again = eqx.combine(project(parts[0], RULES), parts[1])
    assert eqx.tree_equal(again, project(model, RULES))
    plain = normconstraints_jax.project(model, RULES)
    assert eqx.tree_equal(again, plain)


def test_one_layer_by_tree_at() -> None:
    """As one writes in Equinox what is about a part of a model."""
    model = mlp()
    rules = {"weight": nc.MaxNorm(0.3, axis="unit")}
    done = eqx.tree_at(lambda m: m.layers[1], model, replace_fn=lambda part: project(part, rules))
    norms = [np.linalg.norm(layer.weight, axis=1).max() for layer in done.layers]
    assert norms[1] <= NEARLY
    assert min(norms[0], norms[2]) > NEARLY


def test_a_schedule_gets_the_step() -> None:
    radius = {"max_value": Linear(0.3, 0.1, steps=2)}
    rules = {eqx.nn.Linear: nc.Scheduled(nc.MaxNorm(1.0, axis="unit"), radius)}
    done = eqx.filter_jit(lambda m, i: project(m, rules, step=i))(mlp(), jnp.asarray(1))
    assert largest(done) == pytest.approx(0.2, rel=1e-6)


class Tied(eqx.Module):
    """A language model whose last layer has the weights of its embedding."""

    shared: eqx.nn.Shared
    function: Callable[[Any], Any]

    def __init__(self) -> None:
        one, two = jax.random.split(jax.random.key(0))
        layers = (eqx.nn.Embedding(5, 3, key=one), eqx.nn.Linear(3, 5, use_bias=False, key=two))
        self.shared = eqx.nn.Shared(layers, lambda p: p[1].weight, lambda p: p[0].weight)
        self.function = jax.nn.relu

    def __call__(self, token: Any) -> Any:
        embedding, head = self.shared()
        return head(self.function(embedding(token)))


def test_shared_weights_are_projected_once_and_stay_tied() -> None:
    model = Tied()
    assert [w.name for w in normconstraints_jax.weights(model)] == ["shared.pytree.0.weight"]
    rules = {eqx.nn.Embedding: nc.UnitNorm(axis="row")}
    done = eqx.filter_jit(lambda m: project(m, rules))(model)
    embedding, head = done.shared()
    np.testing.assert_allclose(np.linalg.norm(embedding.weight, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(head.weight, embedding.weight)
    with pytest.raises(ValueError, match=r"Linear must match a weight"):
        project(model, {eqx.nn.Linear: nc.UnitNorm(axis="unit")})


@pytest.mark.parametrize("given", ["arrays", "the model"])
@pytest.mark.parametrize("inner", [optax.adam, optax.adamw], ids=["adam", "adamw"])
def test_an_optimizer_around_takes_arrays_and_whole_models(inner: Any, given: str) -> None:
    model, tx = mlp(), constrained(inner(0.1), RULES)
    state = tx.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        params = eqx.filter(model, eqx.is_array) if given == "arrays" else model
        updates, state = tx.update(eqx.filter_grad(loss)(model), state, params)
        return eqx.apply_updates(model, updates), state

    for _ in range(4):
        model, state = step(model, state)
        assert largest(model) <= 0.3 * (1 + 1e-6)
    assert model.activation is mlp().activation
