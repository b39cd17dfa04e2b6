"""Constraints with optax: exact updates, the wrapper, and its own projections under their names."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from thin import thin

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
from optax import projections as theirs  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_jax import penalty, project, projections, violation  # noqa: E402
from normconstraints_jax.optax import apply_updates, constrained  # noqa: E402

RULES = {"w": nc.MaxNorm(1.0, axis=0), "k": nc.Box(-0.1, 0.1)}


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "b": (3,), "k": (50,)}
    return {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}


def gradients(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(100 + step)
    return {
        k: jnp.asarray(rng.standard_normal(x.shape), jnp.float32) for k, x in parameters().items()
    }


OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.5, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "several steps": lambda: optax.MultiSteps(optax.sgd(0.5), 2),
    "if finite": lambda: optax.apply_if_finite(optax.sgd(0.5), 3),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.adamw(0.1)),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_exact_updates_leave_nothing_outside(make: Any) -> None:
    tx = make()

    @jax.jit
    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return apply_updates(params, updates, RULES), state

    params, state = project(parameters(), RULES), tx.init(parameters())
    for i in range(8):
        params, state = step(params, state, gradients(i))
        assert all(not v.any() for v in violation(params, RULES).values())


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_wrapper_keeps_the_state_and_ends_an_ulp_away_at_most(make: Any) -> None:
    tx, plain = constrained(make(), RULES), make()
    params = project(parameters(), RULES)
    state = plain.init(params)  # of a checkpoint from before
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(state)

    @jax.jit
    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    moved = False
    for i in range(8):
        unconstrained, _ = plain.update(gradients(i), state, params)
        moved |= bool(optax.apply_updates(params, unconstrained)["k"].max() > 0.11)
        params, state = step(params, state, gradients(i))
        found = violation(params, RULES)
        assert float(found["w"].max()) < 1e-6
        assert float(found["k"].max()) < 1e-7
    assert moved  # or the test above says nothing
    assert float(abs(params["b"]).max()) > 0.5


def test_the_wrapper_is_inexact_where_the_updates_are_not() -> None:
    """What the documentation says of p + (q - p), from a start far away."""
    params = {"w": 1e4 * parameters()["w"]}
    rules = {"w": nc.MaxNorm(1.0, axis=0)}
    zero = jax.tree.map(jnp.zeros_like, params)
    tx = constrained(optax.sgd(1.0), rules)
    updates, _ = tx.update(zero, tx.init(params), params)
    wrapped = jnp.linalg.norm(optax.apply_updates(params, updates)["w"], axis=0)
    exact = jnp.linalg.norm(apply_updates(params, zero, rules)["w"], axis=0)
    assert float(abs(exact - 1).max()) < 3e-7
    assert 1e-5 < float(abs(wrapped - 1).max()) < 1e-2


def test_what_was_inside_is_not_touched_by_steps_that_do_nothing() -> None:
    params = project(parameters(), RULES)
    waits = optax.MultiSteps(optax.sgd(0.5), 2)
    skips = optax.apply_if_finite(optax.sgd(0.5), 3)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    for tx, g in ((waits, gradients(0)), (skips, nan)):
        updates, _ = tx.update(g, tx.init(params), params)
        wrapped, _ = constrained(tx, RULES).update(g, tx.init(params), params)
        for after in (apply_updates(params, updates, RULES), optax.apply_updates(params, wrapped)):
            for name, x in params.items():
                np.testing.assert_array_equal(after[name], x)


def test_the_wrapper_inside_of_masked_and_partition() -> None:
    params, rules = parameters(), {"w": RULES["w"]}
    labels = {"w": "in", "b": "free", "k": "free"}
    masked = optax.masked(
        constrained(optax.sgd(0.5), rules), {k: v == "in" for k, v in labels.items()}
    )
    parted = optax.partition(
        {"in": constrained(optax.sgd(0.5), rules), "free": optax.sgd(0.5)}, labels
    )
    for tx in (masked, parted):
        updates, _ = tx.update(gradients(0), tx.init(params), params)
        after = optax.apply_updates(params, updates)
        assert float(violation(after, rules)["w"].max()) < 1e-6
        assert float(violation(params, rules)["w"].max()) > 0.1


def test_schedules_get_the_step() -> None:
    rules = {"w": nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": Linear(1.0, 0.5, steps=2)})}
    params = {"w": parameters()["w"]}
    tx = constrained(optax.sgd(0.1), rules)
    state, step = tx.init(params), jax.jit(tx.update)
    for i, radius in enumerate((1.0, 0.75, 0.5)):
        updates, state = step({"w": gradients(i)["w"]}, state, params, step=jnp.asarray(i))
        params = optax.apply_updates(params, updates)
        assert float(jnp.linalg.norm(params["w"], axis=0).max()) <= radius + 1e-6
    with pytest.raises(ValueError, match="step must be given"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="constrained: params must be given, got None"):
        tx.update(params, state)


def test_the_penalty_is_half_the_squared_distance() -> None:
    params = parameters()
    value, slope = jax.value_and_grad(penalty)(params, RULES)
    nearest = project(params, RULES)
    squares = [float(jnp.sum((params[k] - nearest[k]) ** 2)) for k in RULES]
    assert float(value) == pytest.approx(sum(squares) / 2, rel=1e-5)
    for name in params:
        np.testing.assert_allclose(slope[name], params[name] - nearest[name], atol=1e-6)
    assert float(jax.jit(lambda p: penalty(p, RULES))(nearest)) < 1e-12


# --------------------------------------------------------------------------- optax.projections

TREE = {"a": parameters()["w"], "b": [parameters()["k"]]}
NORMAL = jax.tree.map(jnp.cos, TREE)
ARGUMENTS: dict[str, list[tuple[Any, ...]]] = {
    "projection_box": [
        (
            jax.tree.map(lambda x: jnp.full_like(x, -0.3), TREE),
            jax.tree.map(lambda x: jnp.full_like(x, 0.4), TREE),
        )
    ],
    "projection_halfspace": [(NORMAL, -1.5), (NORMAL, 1e3)],
    "projection_hyperplane": [(NORMAL, 0.5)],
    "projection_vector": [(NORMAL,)],
    "projection_non_negative": [()],
}


def test_every_projection_of_optax_is_there_with_its_arguments() -> None:
    names = {name for name in dir(theirs) if name.startswith("projection_")}
    assert set(projections.__all__) == names
    for name in names:
        signatures = [inspect.signature(getattr(m, name)).parameters for m in (theirs, projections)]
        assert list(signatures[0]) == list(signatures[1]), name


@pytest.mark.parametrize("name", thin(projections.__all__, 2))
def test_a_projection_is_that_of_optax(name: str) -> None:
    ours, peer = getattr(projections, name), getattr(theirs, name)
    tree = TREE["a"] if name == "projection_hypercube" else TREE  # optax' takes an array there
    for arguments in ARGUMENTS.get(name, [(), (1.7,), (100.0,)]):
        expected = peer(tree, *arguments)
        for found in (ours(tree, *arguments), jax.jit(ours)(tree, *arguments)):
            assert jax.tree.structure(found) == jax.tree.structure(tree)
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)
