"""Max-norm in a plain loop of JAX and optax, on scikit-learn's digits.

Run: python examples/jax_optax.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_jax import project, violation
from normconstraints_jax.optax import apply_updates


def logits(params: Any, x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    found: jax.Array = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return found


def loss(params: Any, x: jax.Array, y: jax.Array) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(classes)
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "hidden": {"kernel": jax.random.normal(first, (64, 64)) / 8, "bias": jnp.zeros(64)},
        "head": {"kernel": jax.random.normal(second, (64, 10)) / 8, "bias": jnp.zeros(10)},
    }
    tx = optax.sgd(0.2, momentum=0.9)

    # Which weights, which sets. A kernel is (in, out): a unit has its weights along axis 0.
    rules = nc.Rules({"*.kernel": nc.MaxNorm(1.5, axis=0), "*.bias": nc.Box(-0.5, 0.5)})
    params, state = project(params, rules), tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        # In place of optax.apply_updates, and that is all.
        return apply_updates(params, updates, rules), state

    for _ in range(10):
        for begin in range(0, 1472, 64):  # whole batches, for one compilation
            batch = slice(begin, begin + 64)
            params, state = step(params, state, x[batch], y[batch])

    right = (logits(params, x[1500:]).argmax(1) == y[1500:]).mean()
    print(f"{right:.1%} of the test images are right")
    for name, value in violation(params, rules).items():
        print(f"{name}: largest violation {value.max():g}")


if __name__ == "__main__":
    main()
