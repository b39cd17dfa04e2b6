"""What it costs that an optimizer of optax gives a step and not the weights: p + (q - p) is not q.

Run: python examples/jax_inexact.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

import normconstraints as nc
from normconstraints_jax import project, violation
from normconstraints_jax.optax import apply_updates, constrained

SETS = {"Box(-0.1, 0.1)": nc.Box(-0.1, 0.1), "MaxNorm(1)": nc.MaxNorm(1.0, axis=0)}
STEPS = 20


def outside(rules: nc.Rules, weight: jax.Array, *, exact: bool) -> tuple[str, str]:
    """How much is outside, and by how much, after the first step and after the last."""
    tx = optax.sgd(0.3) if exact else constrained(optax.sgd(0.3), rules)

    @jax.jit
    def step(params: Any, state: Any, key: Any) -> Any:
        gradients = {"w": jax.random.normal(key, weight.shape)}
        updates, state = tx.update(gradients, state, params)
        if exact:
            return apply_updates(params, updates, rules), state
        return optax.apply_updates(params, updates), state

    params: Any = {"w": weight}
    state = tx.init(params)
    found = []
    for key in jax.random.split(jax.random.key(1), STEPS):
        params, state = step(params, state, key)
        far = violation(params, rules)["w"]
        found.append(f"{(far > 0).mean():6.1%} by {far.max():7.1e}")
    return found[0], found[-1]


def main() -> None:
    normal = jax.random.normal(jax.random.key(0), (256, 256))
    print(f"{'set':14}  {'start':9}  {'way':13}  {'after one step':17}  after {STEPS}")
    for name, constraint in SETS.items():
        rules = nc.Rules({"w": constraint})
        starts = {
            "inside": project({"w": normal}, rules)["w"],
            "normal": normal,
            "10^4 away": 1e4 * normal,
        }
        for start, weight in starts.items():
            for exact in (True, False):
                way = "apply_updates" if exact else "constrained"
                first, last = outside(rules, jnp.asarray(weight), exact=exact)
                print(f"{name:14}  {start:9}  {way:13}  {first:17}  {last}")


if __name__ == "__main__":
    main()
