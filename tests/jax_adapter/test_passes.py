"""How often compiled code reads a weight: each time is a pass over memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from compiled import readings

import normconstraints as nc
from normconstraints_jax import project


def passes(function: Any, w: Any) -> int:
    """The operations of the compiled program that take the weight itself."""
    return readings(jax.jit(function, donate_argnums=0).lower(w).compile())[0]


def by_keras(w: Any) -> Any:
    norms = jnp.sqrt(jnp.sum(jnp.square(w), axis=0, keepdims=True))
    return w * (jnp.clip(norms, 0, 3.0) / (1e-7 + norms))


W = jax.ShapeDtypeStruct((256, 512), jnp.float32)


def test_the_count() -> None:
    assert passes(lambda w: w + 1, W) == 1
    assert passes(by_keras, W) == 2


@pytest.mark.parametrize(
    "constraint",
    [
        nc.MaxNorm(3.0, axis=0),
        nc.UnitNorm(axis=0),
        nc.FixedNorm(2.0, axis=0),
        nc.MinNorm(2.0, axis=0),
        nc.MinMaxNorm(1.0, 2.0, axis=0),
        nc.UnitRMS(axis=0),
    ],
    ids=lambda c: type(c).__name__,
)
def test_norms_read_the_weight_once_more_than_the_formula_of_keras(constraint: Any) -> None:
    # The largest entry is that pass, without which squares overflow. float64 needs none.
    rules = {"w": constraint}
    assert passes(lambda w: project({"w": w}, rules)["w"], W) == 3
    with jax.enable_x64(True):
        assert passes(lambda w: project({"w": w}, rules)["w"], W) == 2


def test_boxes_read_it_once() -> None:
    assert passes(lambda w: project({"w": w}, {"w": nc.Box(-1.0, 1.0)})["w"], W) == 1
