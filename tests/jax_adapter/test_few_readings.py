"""Large weights on a CPU: read for their squares and the result, for the largest if need be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import readings
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import normconstraints as nc
from normconstraints import _array
from normconstraints.functional import project_max_norm
from normconstraints.parts import exchanging
from normconstraints.testing import check_constraint, examples

SETS = (nc.MaxNorm, nc.UnitNorm, nc.FixedNorm, nc.MinNorm, nc.MinMaxNorm, nc.UnitRMS)
LARGE = jax.ShapeDtypeStruct((512, 1024), jnp.float32)


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every weight counts as large."""
    jax.clear_caches()  # what was traced before counts as small
    monkeypatch.setattr(_array, "_LARGE", 1)
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize(
    "backend",
    [
        "jax jit",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in ("jax jit x64", "jax grad", "jax grad x64", "jax vmap", "jax sharded")
        ),
    ],
)
@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
def test_the_contract(kind: type[nc.Constraint], backend: str, record_property: Any) -> None:
    found: list[Any] = []
    for constraint in examples():
        if type(constraint) is kind:
            found += check_constraint(constraint, backends=[backend], brief=True)
    failed = [r for r in found if r.status == "failed"]
    record_property("checks", len(found))
    assert found
    assert not failed, failed[:3]


ORDINARY = np.linspace(-1.0, 1.0, 16)
GROUPS = {
    "ordinary": ORDINARY,
    "huge": 3e38 * ORDINARY,
    "overflowing": 1e20 * ORDINARY,
    "tiny": 1e-30 * ORDINARY,
    "least": np.full(16, 1.2e-38),
    "half lost": np.where(np.arange(16) == 3, 2.0**-62, 2.0**-63.3),
    "subnormal": np.full(16, 1e-40),
    "zero": 0 * ORDINARY,
    "wide": np.where(np.arange(16) % 2, 1e30, 1e-30) * ORDINARY,
    "NaN": np.where(np.arange(16) == 3, np.nan, ORDINARY),
    "infinite": np.where(np.arange(16) == 3, np.inf, ORDINARY),
}
CONSTRAINTS = (
    nc.MaxNorm(0.5, axis=1),
    nc.MaxNorm(1e-31, axis=1),
    nc.MaxNorm(2e38, axis=1),
    nc.UnitNorm(axis=1),
    nc.FixedNorm(2.0**-32, axis=1),
    nc.MinNorm(1e-33, axis=1),
    nc.MinMaxNorm(1e-33, 1e25, rate=0.25, axis=1),
    nc.UnitRMS(axis=1),
)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=str)
def test_no_group_changes_the_bits_of_another(
    constraint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*GROUPS.values()]
    mixed = [np.stack(rows), *(np.stack([row, ORDINARY, row]) for row in rows)]
    weights = [jnp.asarray(w, dtype=jnp.float32) for w in mixed]
    found = []
    for least in (2**40, 1):  # three readings, then two
        jax.clear_caches()
        monkeypatch.setattr(_array, "_LARGE", least)
        found.append([np.asarray(jax.jit(constraint.project)(w)) for w in weights])
    jax.clear_caches()
    for three, two in zip(*found, strict=True):
        np.testing.assert_array_equal(two, three)


TOO_SHORT_TO_MATTER = {"tiny", "least", "half lost", "subnormal", "zero"}


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize(
    ("constraint", "overlooked"),
    [
        pytest.param(nc.MaxNorm(0.5, axis=1), {"ordinary"} | TOO_SHORT_TO_MATTER, id="MaxNorm"),
        pytest.param(nc.UnitNorm(axis=1), {"ordinary"}, id="UnitNorm"),
    ],
)
def test_the_largest_entries_are_looked_for_where_it_matters(
    constraint: Any, overlooked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, seen = _array.loop, []

    def noting(condition: Any, turn: Any, state: Any) -> Any:
        jax.debug.callback(lambda lost: seen.append(bool(lost)), condition(state))
        return loop(condition, turn, state)

    monkeypatch.setattr(_array, "loop", noting)
    project = jax.jit(constraint.project)
    for row in GROUPS.values():
        project(jnp.asarray(np.stack([ORDINARY, row]), dtype=jnp.float32)).block_until_ready()
        jax.effects_barrier()
    assert {name for name, found in zip(GROUPS, seen, strict=True) if not found} == overlooked


@pytest.mark.usefixtures("all_large")
def test_derivatives_of_compiled_code_are_those_of_the_ordinary() -> None:
    w = jnp.asarray(np.stack([*GROUPS.values()][:6]), dtype=jnp.float32)
    radii = jnp.linspace(0.1, 1.0, len(w))

    def loss(project: Any, w: Any, radii: Any) -> Any:
        return jnp.sum(project(w, radii) * jnp.arange(16.0))

    def ordinary(w: Any, radii: Any) -> Any:
        return project_max_norm(w, radii, axis=1)

    expected = jax.grad(partial(loss, ordinary), argnums=(0, 1))(w, radii)
    compiled = jax.jit(ordinary)
    for found in (
        jax.grad(partial(loss, compiled), argnums=(0, 1))(w, radii),
        jax.vjp(partial(loss, compiled), w, radii)[1](1.0),
    ):
        for ours, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, other, rtol=2e-6)
            assert np.any(np.asarray(ours))
    tangent = jax.jvp(partial(loss, compiled), (w, radii), (w, radii))[1]
    expected_tangent = jax.jvp(partial(loss, ordinary), (w, radii), (w, radii))[1]
    np.testing.assert_allclose(tangent, expected_tangent, rtol=2e-6)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("constraint", CONSTRAINTS[:4], ids=str)
def test_batches_of_compiled_code(constraint: Any) -> None:
    stack = np.stack([np.stack([row, ORDINARY, row]) for row in GROUPS.values()])
    w = jnp.asarray(stack, dtype=jnp.float32)
    project = jax.jit(constraint.project)
    expected = np.stack([np.asarray(project(part)) for part in w])
    np.testing.assert_array_equal(np.asarray(jax.vmap(project)(w)), expected)


def test_a_large_weight_is_read_twice() -> None:
    compiled = jax.jit(nc.MaxNorm(3.0, axis=0).project, donate_argnums=0).lower(LARGE).compile()
    assert readings(compiled) == (2, True)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_memory_of_the_weight_is_enough(axis: int) -> None:
    constraint = nc.MaxNorm(3.0, axis=axis)
    for step in (constraint.project, lambda w, g: constraint.project(w - 0.1 * g)):
        given = [LARGE] * (1 if step == constraint.project else 2)
        memory = jax.jit(step, donate_argnums=0).lower(*given).compile().memory_analysis()
        assert memory is not None
        assert memory.alias_size_in_bytes == 4 * 512 * 1024
        assert memory.temp_size_in_bytes < 4 * 512 * 1024 / 8


def test_a_small_weight_has_no_loop() -> None:
    small = jax.ShapeDtypeStruct((128, 256), jnp.float32)
    compiled = jax.jit(nc.MaxNorm(3.0, axis=0).project).lower(small).compile()
    assert readings(compiled) == (3, False)


def test_a_stack_under_vmap_has_no_loop() -> None:
    stack = jax.ShapeDtypeStruct((4, 512, 1024), jnp.float32)
    compiled = jax.jit(jax.vmap(nc.MaxNorm(3.0, axis=0).project)).lower(stack).compile()
    assert readings(compiled) == (3, False)


def test_weights_on_a_mesh_have_no_loop() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    w = jax.device_put(jnp.ones(LARGE.shape), NamedSharding(mesh, PartitionSpec("x")))
    compiled = jax.jit(nc.MaxNorm(3.0, axis=1).project).lower(w).compile()
    assert readings(compiled) == (3, False)


@pytest.mark.usefixtures("all_large")
def test_any_number_of_groups_can_be_exported() -> None:
    constraint = nc.MaxNorm(1.0, axis=1)
    shape = jax.export.symbolic_shape("units, 64")
    exported = jax.export.export(jax.jit(constraint.project))(
        jax.ShapeDtypeStruct(shape, "float32")
    )
    for units in (3, 512):
        w = jnp.ones((units, 64))
        np.testing.assert_array_equal(exported.call(w), constraint.project(w))


def test_parts_of_groups_have_no_loop() -> None:
    # Each part would choose by itself, and some would wait for others that do not exchange.
    def project(w: Any) -> Any:
        with exchanging(2, total=lambda x: 2 * x, largest=lambda x: x):
            return nc.MaxNorm(3.0, axis=0).project(w)

    assert readings(jax.jit(project).lower(LARGE).compile()) == (3, False)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
def test_accelerators_do_not_wait_to_choose(platform: str, loops: int) -> None:
    traced = jax.jit(nc.MaxNorm(3.0, axis=0).project).trace(LARGE)
    assert traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while") == loops
