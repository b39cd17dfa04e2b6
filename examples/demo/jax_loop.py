"""The network in JAX: one compiled step, whose old weights are given up to the new ones."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import normconstraints as nc
from normconstraints_jax import project as project_tree
from normconstraints_jax import violation

from .task import MOMENTUM, AfterStep, Batch, Cases, FloatArray, Layer, Task


def loss(params: list[Layer], batch: Batch) -> jax.Array:
    """The mean cross-entropy."""
    x: Any = batch.x
    for layer, mask in zip(params, batch.masks, strict=False):
        x = jax.nn.relu(x @ layer.kernel + layer.bias) * mask
    logits = jax.nn.log_softmax(x @ params[-1].kernel + params[-1].bias)
    return -jnp.take_along_axis(logits, batch.labels[:, None], axis=1).mean()


@functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=3)
def step(
    params: list[Layer], speed: list[Layer], batch: Batch, rules: nc.Rules
) -> tuple[list[Layer], list[Layer], dict[str, jax.Array]]:
    """New weights and their speed, and the violations."""
    slope = jax.grad(loss)(params, batch)
    speed = jax.tree.map(lambda v, g: MOMENTUM * v + g, speed, slope)
    params = jax.tree.map(lambda p, v: p - batch.learning_rate * v, params, speed)
    params = project_tree(params, rules)
    return params, speed, violation(params, rules)


def train(task: Task, seed: int, bound: float | None, after_step: AfterStep) -> list[Layer]:
    """Train the network, under max-norm unless `bound` is None."""
    # The whole of max-norm is in this line and the calls of project_tree.
    rules = nc.Rules({} if bound is None else {"*.kernel": nc.MaxNorm(bound, axis=0)})
    params = project_tree(jax.tree.map(jnp.asarray, task.start(seed)), rules)
    speed = jax.tree.map(jnp.zeros_like, params)
    for batch in task.batches(seed):
        params, speed, found = step(params, speed, batch, rules)
        worst = max((float(v.max()) for v in jax.device_get(found).values()), default=0)
        # A copy: the next step takes over the memory.
        after_step(np.array(params[0].kernel), worst)
    return [Layer(np.asarray(layer.kernel), np.asarray(layer.bias)) for layer in params]


def project(cases: Cases) -> dict[str, FloatArray]:
    """The nearest weights whose units have norms of at most the bound."""
    rules = nc.Rules({name: nc.MaxNorm(bound, axis=0) for name, (_, bound) in cases.items()})
    weights = {name: jnp.asarray(kernel) for name, (kernel, _) in cases.items()}
    done = jax.jit(lambda w: project_tree(w, rules))(weights)
    return {name: np.asarray(w) for name, w in done.items()}
