"""Max-norm in Equinox, on scikit-learn's digits.

Run: python examples/jax_equinox.py
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_jax import violation
from normconstraints_jax.equinox import project


def loss(model: eqx.nn.MLP, x: jax.Array, y: jax.Array) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(classes)
    model = eqx.nn.MLP(64, 10, 64, 1, key=jax.random.key(0))
    tx = optax.sgd(0.2, momentum=0.9)
    state = tx.init(eqx.filter(model, eqx.is_array))

    # By the class of the layer; "*.weight" would do as well.
    rules = nc.Rules(
        {eqx.nn.Linear: nc.MaxNorm(1.5, axis="unit"), "layers.*.bias": nc.Box(-0.5, 0.5)}
    )
    print(rules.plan(model))

    @eqx.filter_jit
    def step(model: eqx.nn.MLP, state: Any, x: jax.Array, y: jax.Array) -> Any:
        gradients = eqx.filter_grad(loss)(model, x, y)  # type: ignore[no-untyped-call]
        updates, state = tx.update(gradients, state)
        return project(eqx.apply_updates(model, updates), rules), state

    for _ in range(10):
        for begin in range(0, 1472, 64):  # whole batches, for one compilation
            batch = slice(begin, begin + 64)
            model, state = step(model, state, x[batch], y[batch])

    right = (jax.vmap(model)(x[1500:]).argmax(1) == y[1500:]).mean()
    print(f"{right:.1%} of the test images are right")
    for name, value in violation(model, rules).items():
        print(f"{name}: largest violation {value.max():g}")


if __name__ == "__main__":
    main()
