"""Steps of training: donated memory, scans, and one compilation for many steps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Cosine, Linear  # noqa: E402
from normconstraints_jax import project  # noqa: E402
from normconstraints_jax.optax import apply_updates, constrained  # noqa: E402

WIDTH = 256
KIB = 1024


def weights(width: int = WIDTH) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.normal(size=(width, width)), jnp.float32) / width**0.5
        for name in ("a", "b")
    }


def rules() -> nc.Rules:
    """At each step another radius, and one rule that acts now and then."""
    shrinking = nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": Linear(1.5, 0.5, steps=40)})
    seldom = nc.Scheduled(nc.UnitNorm(axis=0), every=3, start=2)
    return nc.Rules({"a": shrinking, "b": seldom})


def loss(params: Any, x: Any) -> Any:
    return -jnp.mean((jnp.tanh(x @ params["a"]) @ params["b"]) ** 2)


def batch(step: Any, width: int) -> Any:
    return jax.random.normal(jax.random.fold_in(jax.random.key(1), step), (4, width))


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# ------------------------------------------------------------------------------------ donation

STATIC = {"a": nc.MaxNorm(1.0, axis=0), "b": nc.UnitNorm(axis=1)}
SIZE = 2 * WIDTH * WIDTH * 4
PROJECTIONS = {
    "project": lambda p: project(p, STATIC),
    "scheduled": lambda p: project(p, rules(), step=jnp.int32(5)),
    "an update": lambda p: project(jax.tree.map(lambda w: 0.9 * w + 0.1, p), STATIC),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_the_projected_weights_take_the_memory_of_the_donated_ones(name: str) -> None:
    given = weights()
    compiled = jax.jit(PROJECTIONS[name], donate_argnums=0).lower(given).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == SIZE == memory.argument_size_in_bytes
    # No second array: norms, scales and masks of the groups, which are a row each. What an update
    # computes is read twice, for the norms and for the result, and XLA keeps it in between.
    most = 64 * KIB + (SIZE if name == "an update" else 0)
    assert memory.temp_size_in_bytes <= most, memory.temp_size_in_bytes / KIB
    expected = jax.jit(PROJECTIONS[name])(given)
    before = {key: w.unsafe_buffer_pointer() for key, w in given.items()}
    done = compiled(given)
    assert {key: w.unsafe_buffer_pointer() for key, w in done.items()} == before
    assert all(w.is_deleted() for w in given.values())
    assert bits(done) == bits(expected)


def test_nothing_takes_that_memory_unless_it_is_donated() -> None:
    given = weights()
    memory = jax.jit(PROJECTIONS["project"]).lower(given).compile().memory_analysis()
    assert memory.alias_size_in_bytes == 0
    done = jax.jit(PROJECTIONS["project"])(given)
    assert done["a"].unsafe_buffer_pointer() != given["a"].unsafe_buffer_pointer()


def test_a_step_with_an_optimizer_gives_back_all_that_it_was_given() -> None:
    tx = optax.adam(0.01)

    def step(params: Any, state: Any, count: Any, projecting: bool) -> Any:
        grads = jax.grad(loss)(params, batch(count, WIDTH))
        updates, state = tx.update(grads, state, params)
        if projecting:
            return apply_updates(params, updates, rules(), step=count), state
        return optax.apply_updates(params, updates), state

    params = weights()
    state = tx.init(params)
    found = {}
    for projecting in (True, False):
        f = jax.jit(step, static_argnums=3, donate_argnums=(0, 1))
        found[projecting] = f.lower(params, state, 0, projecting).compile().memory_analysis()
    assert found[True].alias_size_in_bytes == found[False].alias_size_in_bytes >= 3 * SIZE
    extra = found[True].temp_size_in_bytes - found[False].temp_size_in_bytes
    assert extra <= SIZE // 2  # at most one weight more is alive at a time


# ------------------------------------------------------------------------------------- scanning


def trained(how: str, steps: int, width: int = 16) -> tuple[Any, int]:
    """Parameters and state after so many steps, and how often the step was traced."""
    tx, traces = optax.adam(0.05), 0
    wrapped = constrained(tx, rules())

    def step(carry: Any, count: Any) -> tuple[Any, None]:
        nonlocal traces
        traces += 1
        params, state = carry
        grads = jax.grad(loss)(params, batch(count, width))
        if "constrained" in how:
            updates, state = wrapped.update(grads, state, params, step=count)
            params = optax.apply_updates(params, updates)
        else:
            updates, state = tx.update(grads, state, params)
            params = apply_updates(params, updates, rules(), step=count)
        return (params, state), None

    carry = (weights(width), tx.init(weights(width)))
    if "scan" in how:
        many = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[0])
        return many(carry), traces
    one = jax.jit(step)
    for count in range(steps):
        carry, _ = one(carry, count)
    assert one._cache_size() == 1
    return carry, traces


@pytest.mark.parametrize("how", ["apply_updates", "constrained"])
def test_a_scan_over_steps_is_the_loop_bit_for_bit(how: str) -> None:
    looped, _ = trained(f"loop, {how}", 30)
    scanned, _ = trained(f"scan, {how}", 30)
    assert bits(looped) == bits(scanned)
    norms = np.linalg.norm(looped[0]["a"], axis=0)
    radius = 1.5 - 29 / 40  # of the last step
    assert norms.max() == pytest.approx(radius, rel=1e-5)


def test_a_hundred_steps_with_a_radius_that_changes_are_compiled_once() -> None:
    _, traces = trained("loop", 100)
    assert traces == 1
    compiled = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(w: Any, count: Any) -> Any:
        compiled.append(count)
        radius = Cosine(2.0, 0.5, steps=100)
        rule = nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": radius}, every=2)
        return project({"w": 1.1 * w}, {"w": rule}, step=count)["w"]

    w = weights(16)["a"]
    for count in range(100):
        w = step(w, count)
    assert len(compiled) == step._cache_size() == 1
    last = 0.5 + 1.5 * (1 + np.cos(np.pi * 98 / 100)) / 2
    assert float(jnp.linalg.norm(w, axis=0).max()) == pytest.approx(1.1 * last, rel=1e-5)
