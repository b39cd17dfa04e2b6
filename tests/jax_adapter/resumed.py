"""A training that saves by orbax in the middle; run as a program by a test.

``resumed.py FOLDER FROM TO`` goes on from the checkpoints of step FROM in FOLDER/exact and
FOLDER/constrained, which are two ways to have constraints, to step TO, and saves there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

import normconstraints as nc
from normconstraints.schedules import Linear
from normconstraints_jax.optax import apply_updates, constrained

# At each step another radius: to go on from a wrong step is to end somewhere else.
RULES = nc.Rules(
    {
        "dense.kernel": nc.Scheduled(
            nc.MaxNorm(1.0, axis=0), {"max_value": Linear(1.0, 0.2, steps=60)}
        ),
        "head.kernel": nc.Scheduled(nc.UnitNorm(axis=0), every=3),
        "head.bias": nc.Box(-0.01, 0.01),
    }
)


def beginning() -> dict[str, Any]:
    """The parameters before the first step."""
    rng = np.random.default_rng(0)
    sizes = {"dense": (6, 16), "head": (16, 3)}
    return {
        name: {
            "kernel": jnp.asarray(rng.normal(size=size), jnp.float32),
            "bias": jnp.zeros(size[1]),
        }
        for name, size in sizes.items()
    }


def optimizer(how: str) -> Any:
    """Adam, with the constraints inside or not."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))
    return constrained(tx, RULES) if how == "constrained" else tx


def loss(params: Any, x: Any) -> Any:
    """Of a network that says which of the first three numbers is the largest."""
    hidden = jax.nn.relu(x @ params["dense"]["kernel"] + params["dense"]["bias"])
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, x[:, :3].argmax(1)).mean()


def train(
    how: str, params: Any, state: Any, steps: range, save_in: Path | None = None, at: int = -1
) -> tuple[Any, Any]:
    """Parameters and state of the optimizer after some steps, saved before the step `at` too."""
    tx = optimizer(how)

    @jax.jit
    def step(params: Any, state: Any, count: Any) -> tuple[Any, Any]:
        x = jax.random.normal(jax.random.fold_in(jax.random.key(1), count), (32, 6))
        grads = jax.grad(loss)(params, x)
        options = {"step": count} if how == "constrained" else {}
        updates, state = tx.update(grads, state, params, **options)
        if how == "exact":
            return apply_updates(params, updates, RULES, step=count), state
        return optax.apply_updates(params, updates), state

    for count in steps:
        if count == at and save_in is not None:
            save(save_in, at, params, state)
        params, state = step(params, state, count)
    return params, state


def save(folder: Path, step: int, params: Any, state: Any) -> None:
    """A checkpoint of that step."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / str(step), {"params": params, "state": state})


def load(folder: Path, step: int, how: str) -> tuple[Any, Any]:
    """What was saved, into the form that an optimizer expects."""
    params = beginning()
    like = {"params": params, "state": optimizer(how).init(params)}
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(folder / str(step), like)
    return found["params"], found["state"]


def main(folder: Path, begin: int, end: int) -> None:
    """Go on in each way, and save."""
    for how in ("exact", "constrained"):
        params, state = load(folder / how, begin, how)
        save(folder / how, end, *train(how, params, state, range(begin, end)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
