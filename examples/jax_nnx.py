"""Max-norm in Flax NNX, where the layers say it themselves, on scikit-learn's digits.

Run: python examples/jax_nnx.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_jax import violation
from normconstraints_jax.nnx import project_


class Net(nnx.Module):
    """Two layers, with constraints as Keras has them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        said: dict[str, Any] = {
            "kernel_metadata": {"constraint": nc.MaxNorm(1.5, axis="unit")},
            "bias_metadata": {"constraint": nc.Box(-0.5, 0.5)},
        }
        self.hidden = nnx.Linear(64, 64, rngs=rngs, **said)
        self.head = nnx.Linear(64, 10, rngs=rngs, **said)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits of flat images."""
        return self.head(jax.nn.relu(self.hidden(x)))


def loss(model: Net, x: jax.Array, y: jax.Array) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit
def step(model: Net, optimizer: nnx.Optimizer[Net], x: jax.Array, y: jax.Array) -> None:
    optimizer.update(model, nnx.grad(loss)(model, x, y))
    # With rules, too: project_(model, {"head.*": nc.NonNeg()}), and None in one exempts a weight.
    project_(model)


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(classes)
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.2, momentum=0.9), wrt=nnx.Param)
    project_(model)

    for _ in range(10):
        for begin in range(0, 1472, 64):  # whole batches, for one compilation
            batch = slice(begin, begin + 64)
            step(model, optimizer, x[batch], y[batch])

    right = (model(x[1500:]).argmax(1) == y[1500:]).mean()
    print(f"{right:.1%} of the test images are right")
    for name, value in violation(model, {}).items():
        print(f"{name}: largest violation {value.max():g}")


if __name__ == "__main__":
    main()
