"""Sharded weights under jit: what XLA sends between devices, and that nothing else changes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fitting import fitting
from thin import thin

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints import parts  # noqa: E402
from normconstraints.testing import examples  # noqa: E402
from normconstraints_jax import penalty, project, violation  # noqa: E402

OPERATIONS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
BOTH = [AxisType.Auto, AxisType.Explicit]
KERNEL = jnp.asarray(3 * np.random.default_rng(0).normal(size=(16, 24)), jnp.float32)
SMALL = KERNEL[:8, :8]
NORMS = (
    nc.MaxNorm(1.0, axis=0),
    nc.UnitNorm(axis=0),
    nc.FixedNorm(2.0, axis=0),
    nc.MinNorm(90.0, axis=0),
    nc.MinMaxNorm(0.5, 1.0, rate=0.5, axis=0),
    nc.UnitRMS(0.1, axis=0),
)


def placed(w: Any, spec: Any, kind: AxisType, count: int = 8) -> Any:
    mesh = jax.make_mesh((count,), ("d",), (kind,), devices=jax.devices()[:count])
    return jax.device_put(w, NamedSharding(mesh, spec))


def collectives(compiled: Any) -> dict[str, int]:
    """How often each kind of exchange stands in a compiled program."""
    text = compiled.as_text()
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in OPERATIONS}
    return {name: count for name, count in counts.items() if count}


def ulps(found: Any, expected: Any) -> float:
    """The largest difference, in units of the last place of the largest entry of the weight."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / np.spacing(np.abs(expected).max()))


def one(w: Any, c: nc.Constraint) -> Any:
    return project({"kernel": w}, {"kernel": c})["kernel"]


def test_the_count_sees_exchanges() -> None:
    x = placed(KERNEL, P("d", None), AxisType.Auto)
    assert collectives(jax.jit(lambda w: w.sum()).lower(x).compile()) == {"all-reduce": 1}
    whole = NamedSharding(x.sharding.mesh, P())
    compiled = jax.jit(lambda w: w + 1, out_shardings=whole).lower(x).compile()
    assert collectives(compiled) == {"all-gather": 1}


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
@pytest.mark.parametrize("c", thin(NORMS, 2), ids=lambda c: type(c).__name__)
def test_units_exchange_nothing_and_inputs_two_numbers(c: nc.Constraint, kind: AxisType) -> None:
    expected = jax.jit(c.project)(KERNEL)
    # The largest entry of each unit, by which it is scaled, and then the sum of squares.
    for spec, wanted, distance in ((P(None, "d"), {}, 0), (P("d", None), {"all-reduce": 2}, 2)):
        x = placed(KERNEL, spec, kind)
        compiled = jax.jit(lambda w: one(w, c)).lower(x).compile()
        found = compiled(x)
        assert ulps(found, expected) <= distance
        assert found.sharding.is_equivalent_to(x.sharding, 2)
        assert collectives(compiled) == wanted, spec


@pytest.mark.parametrize("axis", [0, 1])
def test_large_kernels_are_those_of_one_device_up_to_the_order_of_sums(axis: int) -> None:
    kernel = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    c = nc.MaxNorm(3.0, axis=axis)
    expected = np.asarray(jax.jit(c.project)(kernel))
    place = np.spacing(np.abs(expected).max(axis=axis, keepdims=True))
    for spec in (P(None, "d"), P("d", None)):
        found = np.asarray(jax.jit(c.project)(placed(kernel, spec, AxisType.Auto)))
        assert (np.abs(found - expected) / place).max() <= 4
        assert not np.asarray(c.violation(jnp.asarray(found))).any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_wider_dtype_measures_by_one_sum(dtype: str) -> None:
    with jax.enable_x64(dtype == "float32"):
        x = placed(KERNEL.astype(dtype), P("d", None), AxisType.Auto)
        compiled = jax.jit(lambda w: one(w, nc.MaxNorm(1.0, axis=0))).lower(x).compile()
        assert collectives(compiled) == {"all-reduce": 1}


def test_meshes_of_two_axes() -> None:
    for kind in BOTH:
        mesh = jax.make_mesh((2, 2), ("d", "m"), (kind, kind), devices=jax.devices()[:4])
        specs = (P("d", "m"), P(("m", "d")), P(None, ("m", "d")))
        given = [jax.device_put(KERNEL, NamedSharding(mesh, spec)) for spec in specs]
        sets = [nc.MaxNorm(1.0, axis=0), nc.TopK(3, axis=0)]
        for c in sets if kind is AxisType.Explicit else sets[:1]:  # as slow as it is right
            each = jax.jit(lambda many, c=c: [one(w, c) for w in many])(given)
            for found, x in zip(each, given, strict=True):
                assert ulps(found, jax.jit(c.project)(KERNEL)) <= 2, (c, x.sharding)
                assert found.sharding.is_equivalent_to(x.sharding, 2), (c, x.sharding)


GATHERING = (
    nc.Simplex(1.0, axis=0),
    nc.TopK(3, axis=0),
    nc.SecondOrderCone(axis=0),
    nc.Masked(nc.MaxNorm(0.3, axis=0), np.s_[1:4]),
    nc.NonNeg() & nc.MaxNorm(0.5, axis=0),
)


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
@pytest.mark.parametrize("c", GATHERING, ids=lambda c: repr(c)[:20])
def test_sets_that_have_to_see_whole_groups(c: nc.Constraint, kind: AxisType) -> None:
    x = placed(SMALL, P("d", None), kind, 2)
    compiled = jax.jit(lambda w: one(w, c)).lower(x).compile()
    found = compiled(x)
    assert ulps(found, jax.jit(c.project)(SMALL)) <= 2
    assert found.sharding.is_equivalent_to(x.sharding, 2)
    # Where the types say how it is cut the groups are sent once, and not in each round.
    if kind is AxisType.Explicit and parts.whole_axes(c, 2):
        assert collectives(compiled) == {"all-gather": 1}


def test_a_shard_map_around_the_projection_gathers_once_on_auto_axes() -> None:
    x, spec = placed(SMALL, P("d", None), AxisType.Auto, 2), P("d")
    rules: Any = {"w": nc.TopK(3, axis=0)}

    def body(w: Any) -> Any:
        return project({"w": w}, rules, specs=spec)["w"]

    step = jax.jit(jax.shard_map(body, mesh=x.sharding.mesh, in_specs=spec, out_specs=spec))
    assert collectives(step.lower(x).compile()) == {"all-gather": 1}
    np.testing.assert_array_equal(step(x), jax.jit(rules["w"])(SMALL))


ALL = [c for c in examples() if not isinstance(c, nc.Birkhoff | nc.Transport)]


def test_explicit_axes_refuse_no_set() -> None:
    refused = []
    for axis, c in ((axis, c) for axis in (0, 1) for c in {type(c): c for c in ALL}.values()):
        w = fitting(c, KERNEL)
        spec = P(*["d" if a == axis else None for a in range(w.ndim)])
        x = placed(w, spec, AxisType.Explicit, 2)
        try:
            assert jax.eval_shape(lambda w, c=c: one(w, c), x).sharding.spec == spec
            jax.eval_shape(lambda w, c=c: violation({"w": w}, {"w": c}), x)
        except Exception as error:
            refused.append(f"{c}: {error}")
    assert not refused, "\n".join(refused)


def test_the_gradient_of_the_penalty_on_explicit_axes() -> None:
    x = placed(SMALL, P("d", None), AxisType.Explicit, 2)
    for c in (nc.MaxNorm(1.0, axis=0), nc.TopK(3, axis=0)):
        slope = jax.jit(jax.grad(lambda w, c=c: penalty({"w": w}, {"w": c})))(x)
        np.testing.assert_allclose(slope, SMALL - jax.jit(c)(SMALL), atol=1e-6)
        assert slope.sharding.is_equivalent_to(x.sharding, 2)


def test_outside_of_jit_too() -> None:
    for kind, c in (
        (AxisType.Auto, nc.MaxNorm(1.0, axis=0)),
        (AxisType.Explicit, nc.Masked(nc.Box(-1.0, 1.0), np.s_[1:4])),
    ):
        x = placed(SMALL, P("d", None), kind, 2)
        found = one(x, c)
        assert ulps(found, jax.jit(c)(SMALL)) <= 2
        assert found.sharding.is_equivalent_to(x.sharding, 2)
