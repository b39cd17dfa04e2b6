"""JAX on a GPU: trees of weights, donated memory, and the numbers of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.testing import BACKENDS  # noqa: E402
from normconstraints_jax import project, violation  # noqa: E402

_MISSING = BACKENDS["jax gpu"].missing()
if _MISSING is not None:
    pytest.skip(_MISSING, allow_module_level=True)

RULES = {
    "hidden.kernel": nc.MaxNorm(0.5, axis=0),
    "out.kernel": nc.L1Ball(1.0, axis=0),
    "*.bias": nc.Box(-0.1, 0.1),
}


def weights(device: Any) -> Any:
    rng = np.random.default_rng(0)
    shapes: dict[str, Any] = {"hidden": (16, 32), "out": (32, 4)}
    tree = {
        name: {"kernel": rng.standard_normal(shape), "bias": np.zeros(shape[1])}
        for name, shape in shapes.items()
    }
    return jax.tree.map(lambda x: jax.device_put(x.astype(np.float32), device), tree)


def loss(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return -jnp.mean((hidden @ params["out"]["kernel"] + params["out"]["bias"]) ** 2)


def step(params: Any, x: Any) -> Any:
    gradient = jax.grad(loss)(params, x)
    return project(jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient), RULES)


def test_training_goes_as_it_does_on_the_cpu() -> None:
    rng = np.random.default_rng(1)
    batches = rng.standard_normal((20, 64, 16)).astype(np.float32)
    ends = []
    for platform in ("cpu", "gpu"):
        device = jax.devices(platform)[0]
        params = weights(device)
        take = jax.jit(step, donate_argnums=0)
        # The GPU's products of float32 have the digits of tensor cores unless told otherwise.
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            for x in batches:
                params = take(params, jax.device_put(x, device))
        assert all(leaf.device == device for leaf in jax.tree.leaves(params))
        assert all(not v.any() for v in jax.tree.leaves(violation(params, RULES)))
        ends.append(jax.tree.map(np.asarray, params))
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_the_projected_weights_take_the_memory_of_the_donated_ones() -> None:
    w = jax.device_put(np.random.default_rng(0).standard_normal((512, 512), np.float32))
    c = nc.MaxNorm(1.0, axis=0)
    want = np.asarray(jax.jit(c.project)(w))
    before = w.unsafe_buffer_pointer()
    done = jax.jit(c.project, donate_argnums=0)(w)
    assert done.unsafe_buffer_pointer() == before
    assert w.is_deleted()
    np.testing.assert_array_equal(np.asarray(done), want)


def test_nothing_goes_through_the_host() -> None:
    w = jax.device_put(np.random.default_rng(0).standard_normal((64, 64), np.float32))
    for c in (nc.MaxNorm(1.0, axis=0), nc.Simplex(axis=1), nc.TopK(3, axis=0)):
        projected = jax.jit(c.project)
        projected(w)  # constants of the program are sent once
        with jax.transfer_guard("disallow"):
            again = projected(w)
        assert c.violation(again).max() == 0
