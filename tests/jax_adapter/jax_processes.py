"""What two processes with two devices each check together; test_jax_processes.py starts them.

``jax_processes.py PORT RANK COUNT FILE``: every function whose name begins with ``check_`` runs in
all of them. Each process writes what became of them to its file.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import normconstraints as nc
from normconstraints_jax import penalty, project, violation
from normconstraints_jax.optax import apply_updates

W = 3 * np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
SPECS = (P(None, "d"), P("d", None))
SETS = (nc.MaxNorm(1.0, axis=0), nc.TopK(3, axis=0))


def mesh(kind: AxisType = AxisType.Auto) -> Any:
    return jax.make_mesh((len(jax.devices()),), ("d",), (kind,))


def placed(w: Any, over: Any, spec: Any) -> Any:
    """An array of which each process has its part only."""
    w = np.asarray(w)
    return jax.make_array_from_callback(w.shape, NamedSharding(over, spec), lambda part: w[part])


def whole(x: Any) -> Any:
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def same(found: Any, expected: Any, what: object, ulps: int = 2) -> None:
    found, expected = whole(found), np.asarray(expected)
    distance = np.abs(found - expected).max() / np.spacing(np.abs(expected).max())
    assert distance <= ulps, (what, distance)


def check_there_are_several_processes() -> None:
    assert jax.process_count() == 2
    assert len(jax.devices()) == 2 * len(jax.local_devices()) == 4
    assert not placed(W, mesh(), SPECS[0]).is_fully_addressable


def expected(c: nc.Constraint) -> Any:
    return jax.jit(c.project)(jnp.asarray(W))


def check_projections_are_those_of_one_process() -> None:
    for kind, c, spec in (
        (AxisType.Auto, SETS[0], SPECS[0]),
        (AxisType.Auto, SETS[0], SPECS[1]),
        (AxisType.Auto, SETS[1], SPECS[1]),
        (AxisType.Explicit, SETS[0], SPECS[1]),
        (AxisType.Explicit, SETS[1], SPECS[1]),
    ):
        x = placed(W, mesh(kind), spec)
        compiled = jax.jit(lambda w, c=c: project({"w": w}, {"w": c})["w"]).lower(x).compile()
        found = compiled(x)
        assert found.sharding.is_equivalent_to(x.sharding, 2)
        units = spec == SPECS[0]
        # Units are whole in a process, and the numbers those of one to the last bit.
        same(found, expected(c), (kind, spec, c), 0 if units else 2)
        assert units != bool(re.search(r" all-|collective-permute", compiled.as_text())), c


def check_the_violation_and_the_penalty() -> None:
    rules: Any = {"w": SETS[0]}
    x = placed(W, mesh(), SPECS[1])
    far, total = jax.jit(lambda w: (violation({"w": w}, rules)["w"], penalty({"w": w}, rules)))(x)
    same(far, jax.jit(SETS[0].violation)(jnp.asarray(W)), "violation")
    same(total, jax.jit(lambda w: nc.penalty(SETS[0], w))(jnp.asarray(W)), "penalty")


def check_parts_inside_shard_map() -> None:
    over, spec = mesh(), SPECS[1]
    x = placed(W, over, spec)
    for c in SETS:

        def body(w: Any, c: Any = c) -> Any:
            return project({"w": w}, {"w": c}, specs=spec)["w"]

        part = jax.shard_map(body, mesh=over, in_specs=spec, out_specs=spec)
        same(jax.jit(part)(x), expected(c), c)


def check_a_training_is_that_of_one_process() -> None:
    tx, rules = optax.adam(0.05), {"w": nc.MaxNorm(0.5, axis=0), "b": nc.Box(-0.01, 0.01)}
    data = np.random.default_rng(1).normal(size=(6, 16, 8)).astype(np.float32)

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        def loss(p: Any) -> Any:
            return -jnp.mean(jnp.tanh(x @ p["w"] + p["b"]) ** 2)

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return apply_updates(params, updates, rules), state

    def train(params: Any, batches: Any) -> Any:
        state = jax.jit(tx.init)(params)
        for x in batches:
            params, state = step(params, state, x)
        return params

    params = {"w": W, "b": W[0]}
    alone = train(jax.tree.map(jnp.asarray, params), [jnp.asarray(x) for x in data])
    over = mesh()
    for spec in SPECS:
        together = {"w": placed(W, over, spec), "b": placed(W[0], over, P())}
        found = train(together, [placed(x, over, P("d")) for x in data])
        for name in params:
            np.testing.assert_allclose(whole(found[name]), alone[name], rtol=1e-4, atol=1e-6)
        assert np.linalg.norm(whole(found["w"]), axis=0).max() <= 0.5 * (1 + 1e-6)


def outcomes() -> dict[str, str]:
    found = {}
    for name, check in list(globals().items()):
        if not name.startswith("check_"):
            continue
        try:
            check()
            found[name] = ""
        except Exception:  # reported by the test that started this
            found[name] = traceback.format_exc()
            break  # the processes may be out of step from here on
    return found


if __name__ == "__main__":
    port, rank, count, path = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(rank))
    results = outcomes()
    Path(path).write_text(json.dumps(results))
    if any(results.values()):
        os._exit(1)  # the other process may wait for this one
    jax.distributed.shutdown()
