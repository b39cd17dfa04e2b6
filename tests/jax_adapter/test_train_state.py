"""Linen's TrainState and a step of Haiku, exactly and with an optimizer that ends inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")
pytest.importorskip("optax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import normconstraints as nc
import normconstraints_jax.linen
from normconstraints.schedules import Linear
from normconstraints_jax import project, violation
from normconstraints_jax.optax import constrained

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)
KINDS = {"Dense_*.kernel": nc.MaxNorm(0.3, axis="unit"), "*.bias": nc.NonNeg()}


class Net(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(3)(jnp.tanh(nn.Dense(8)(x)))


def made(tx: Any, *, prefix: str = "") -> TrainState:
    variables = Net().init(jax.random.key(0), X)
    params = variables if prefix else variables["params"]
    return TrainState.create(apply_fn=Net().apply, params=params, tx=tx)


def rules(prefix: str = "", kinds: Any = KINDS) -> nc.Rules:
    layouts = normconstraints_jax.linen.layouts(Net(), X, prefix=prefix)
    return nc.Rules({prefix + name: c for name, c in kinds.items()}, layouts=layouts)


def gradients(state: TrainState, prefix: str = "") -> Any:
    def loss(params: Any) -> Any:
        return -(state.apply_fn(params if prefix else {"params": params}, X) ** 2).mean()

    return jax.grad(loss)(state.params)


def largest(params: Any) -> float:
    """The largest norm of a unit, by hand."""
    kernels = [np.asarray(layer["kernel"], np.float64) for layer in params.values()]
    return float(max(np.linalg.norm(kernel, axis=0).max() for kernel in kernels))


def test_the_exact_way_replaces_the_parameters() -> None:
    state, kept = made(optax.adam(0.1)), rules()
    assert largest(state.params) > 0.5

    @jax.jit
    def step(state: TrainState) -> TrainState:
        state = state.apply_gradients(grads=gradients(state))
        return state.replace(params=project(state.params, kept))

    for i in range(1, 5):
        state = step(state)
        assert largest(state.params) <= 0.3 * (1 + 4 * 2.0**-23)
        assert all(not v.any() for v in violation(state.params, kept).values())
        assert int(state.step) == i


@pytest.mark.parametrize("prefix", ["", "params."])
def test_an_optimizer_that_ends_inside(prefix: str) -> None:
    kept = rules(prefix)
    state = made(constrained(optax.adam(0.1), kept), prefix=prefix)
    plain = made(optax.adam(0.1), prefix=prefix)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(plain.opt_state)

    @jax.jit
    def step(state: TrainState) -> TrainState:
        return state.apply_gradients(grads=gradients(state, prefix))

    for _ in range(4):
        state = step(state)
        params = state.params["params"] if prefix else state.params
        assert largest(params) <= 0.3 * (1 + 1e-6)
        assert {n: bool(v.max() < 1e-6) for n, v in violation(state.params, kept).items()} == {
            f"{prefix}Dense_{i}.{w}": True for i in (0, 1) for w in ("bias", "kernel")
        }


def test_its_step_serves_schedules_in_the_exact_way_alone() -> None:
    radius = {"max_value": Linear(0.3, 0.1, steps=4)}
    kept = rules(kinds={"Dense_*.kernel": nc.Scheduled(nc.MaxNorm(0.3, axis="unit"), radius)})

    @jax.jit
    def step(state: TrainState) -> TrainState:
        state = state.apply_gradients(grads=gradients(state))
        return state.replace(params=project(state.params, kept, step=state.step))

    state = made(optax.adam(0.1))
    for i in range(1, 5):
        state = step(state)
        assert largest(state.params) == pytest.approx(0.3 - 0.05 * i, rel=1e-6)
    state = made(constrained(optax.adam(0.1), kept))
    with pytest.raises(ValueError, match="step must be given where a constraint is scheduled"):
        state.apply_gradients(grads=gradients(state))


def test_a_step_of_haiku() -> None:
    hk = pytest.importorskip("haiku")
    import normconstraints_jax.haiku

    def forward(x: Any) -> Any:
        return hk.nets.MLP([8, 3])(x)

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), X)
    kept = nc.Rules(
        {"mlp/~/linear_?.w": nc.MaxNorm(0.3, axis="unit"), "*.b": nc.Box(-0.1, 0.1)},
        layouts=normconstraints_jax.haiku.layouts(net, X),
    )
    tx = optax.adam(0.1)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        grads = jax.grad(lambda p: -(net.apply(p, X) ** 2).mean())(params)
        updates, state = tx.update(grads, state, params)
        return project(optax.apply_updates(params, updates), kept), state

    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state)
        for layer in params.values():
            norms = np.linalg.norm(np.asarray(layer["w"], np.float64), axis=0)
            assert norms.max() <= 0.3 * (1 + 4 * 2.0**-23)
            assert abs(layer["b"]).max() <= 0.1
        assert all(not v.any() for v in violation(params, kept).values())
    assert norms.max() > 0.299  # or the test says nothing
