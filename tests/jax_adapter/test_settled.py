"""What is chosen by comparing computed numbers with the largest of them is computed once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from thin import thin

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402

W = jnp.arange(24.0).reshape(4, 6) - 7

CHOICES: dict[str, Callable[[Any], Any]] = {
    "GroupTopK": nc.GroupTopK(2, axis=(0, 1), group_axis=1).project,
    "TopK": nc.TopK(2, axis=1).project,
    "GroupL1Ball": functools.partial(nc.lmo, nc.GroupL1Ball(1.0, axis=(0, 1), group_axis=1)),
    "L1InfBall": functools.partial(nc.lmo, nc.L1InfBall(1.0, axis=(0, 1), group_axis=1)),
    "L1Ball": functools.partial(nc.lmo, nc.L1Ball(1.0, axis=1)),
    "WeightedL1Ball": functools.partial(nc.lmo, nc.WeightedL1Ball(1.0, 2.0, axis=1)),
}


@pytest.mark.parametrize("name", thin(CHOICES, 3))
def test_the_compiler_is_kept_from_computing_them_twice(name: str) -> None:
    """On a GPU it did, and a norm that differed from itself left nothing to choose."""
    choose = CHOICES[name]
    assert "optimization_barrier" in jax.jit(choose).lower(W).as_text()
    want = choose(W)  # as it is without a compiler
    assert want.any()
    assert jnp.array_equal(jax.jit(choose)(W), want)
    assert jnp.array_equal(jax.vmap(choose)(W[None])[0], want)
    _, pull = jax.vjp(choose, W)
    assert jnp.isfinite(pull(jnp.ones_like(W))[0]).all()
    _, push = jax.jvp(choose, (W,), (jnp.ones_like(W),))
    assert jnp.isfinite(push).all()
