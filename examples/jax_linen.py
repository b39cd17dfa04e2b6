"""Max-norm in Flax Linen with a TrainState, on scikit-learn's digits.

Run: python examples/jax_linen.py
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_jax import project, violation
from normconstraints_jax.linen import layouts


class Net(nn.Module):
    """A convolution and a linear layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits of flat images."""
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x.reshape(-1, 8, 8, 1)))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(classes)
    params = Net().init(jax.random.key(0), x[:1])["params"]
    tx = optax.sgd(0.1, momentum=0.9)
    state = TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=Net().apply, params=params, tx=tx
    )

    # Parameters are plain dicts: which axes belong to a unit is found by looking at the module.
    rules = nc.Rules(
        {"*.kernel": nc.MaxNorm(1.5, axis="unit"), "*.bias": nc.Box(-0.5, 0.5)},
        layouts=layouts(Net(), x[:1]),
    )
    print(rules.plan(params))

    @jax.jit
    def step(state: TrainState, x: jax.Array, y: jax.Array) -> TrainState:
        def loss(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        gradients = jax.grad(loss)(state.params)
        state = state.apply_gradients(grads=gradients)  # type: ignore[no-untyped-call]
        return state.replace(params=project(state.params, rules))

    for _ in range(10):
        for begin in range(0, 1472, 64):  # whole batches, for one compilation
            batch = slice(begin, begin + 64)
            state = step(state, x[batch], y[batch])

    right = (state.apply_fn({"params": state.params}, x[1500:]).argmax(1) == y[1500:]).mean()
    print(f"{right:.1%} of the test images are right")
    for name, value in violation(state.params, rules).items():
        print(f"{name}: largest violation {value.max():g}")


if __name__ == "__main__":
    main()
