"""Inside shard_map: weights in parts, which look like whole ones."""

from __future__ import annotations

import concurrent.futures
import os
import re
from collections.abc import Callable
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
from normconstraints import _array, parts  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints.testing import examples  # noqa: E402
from normconstraints_jax import penalty, project, violation  # noqa: E402
from normconstraints_jax.optax import apply_updates, constrained  # noqa: E402

W = jnp.asarray(3 * np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)
NORMS = (
    nc.MaxNorm(1.0, axis=0),
    nc.UnitNorm(axis=0),
    nc.FixedNorm(2.0, axis=0),
    nc.MinNorm(90.0, axis=0),
    nc.MinMaxNorm(0.5, 1.0, rate=0.5, axis=0),
    nc.UnitRMS(0.1, axis=0),
)
# Compiled in a minute, and gathered as any other.
LONG = (nc.Birkhoff, nc.Transport)
SETS = [*{type(c): c for c in reversed(examples()) if not isinstance(c, LONG)}.values()]
if not os.environ.get("WHOLE"):
    # One of each kind, for the others take long to compile and differ in what is no concern here.
    KINDS = (nc.CappedSimplex, nc.GroupTopK, nc.HalfSpace, nc.Mask, nc.Masked)
    KINDS += (nc.Monotone, nc.NOfM, nc.Relaxed, nc.SecondOrderCone, nc.Translated, nc.UnitRMS)
    SETS = [c for c in SETS if isinstance(c, KINDS)]


def mesh(**axes: int) -> Any:
    sizes = tuple(axes.values())
    return jax.make_mesh(
        sizes, tuple(axes), (AxisType.Auto,) * len(sizes), devices=jax.devices()[: np.prod(sizes)]
    )


def collectives(compiled: Any) -> dict[str, int]:
    text = compiled.as_text()
    names = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in names}
    return {name: count for name, count in counts.items() if count}


def mapped(f: Callable[[Any], Any], over: Any, spec: Any, out: Any = None, **options: Any) -> Any:
    return jax.jit(
        jax.shard_map(
            f, mesh=over, in_specs=spec, out_specs=spec if out is None else out, **options
        )
    )


def ulps(found: Any, expected: Any) -> float:
    """The largest difference, in units of the last place of the largest entry of the weight."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / np.spacing(np.abs(expected).max()))


def across(c: nc.Constraint, ndim: int) -> Any:
    """A spec that cuts the groups of a set, or its entries if it has no groups."""
    axis = min(parts.whole_axes(c, ndim) or parts.needs(c, ndim, range(ndim)).exchange or (0,))
    return P(*[None] * axis, "d")


def one(w: Any, c: nc.Constraint, spec: Any) -> Any:
    return project({"w": w}, {"w": c}, specs={"w": spec})["w"]


@pytest.mark.parametrize("c", thin(SETS, 3), ids=lambda c: type(c).__name__)
def test_every_set_is_right_where_its_groups_are_cut(c: nc.Constraint) -> None:
    w = fitting(c, W)
    spec = across(c, w.ndim)
    found = mapped(lambda w: one(w, c, spec), mesh(d=2), spec)(w)
    assert ulps(found, jax.jit(c.project)(w)) <= 4
    assert found.sharding.spec == spec


FEW = (
    nc.MaxNorm(1.0, axis=0),
    nc.MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1000.0, 0.5, 0.75), axis=1),
    nc.TopK(12, axis=None),
    nc.Box(((-1.0,) * 8,) * 8, 0.5),
    nc.LInfBall(1.0, axis=0),
    nc.Masked(nc.MaxNorm(0.3, axis=0), np.s_[1:4]),
    nc.NonNeg() & nc.MaxNorm(0.5, axis=0),
)


@pytest.mark.parametrize(
    ("c", "check"),
    thin([(c, True) for c in FEW] + [(c, False) for c in FEW[:2]], 3),
    ids=lambda x: str(x)[:30],
)
def test_projection_and_violation_however_it_is_cut(c: nc.Constraint, check: bool) -> None:
    over = mesh(d=2, m=2)
    expected = jax.jit(c.project)(W), jax.jit(c.violation)(W)

    @jax.jit
    def every(w: Any) -> Any:
        found = []
        for spec in (P("m", "d"), P(("m", "d")), P(None, ("d", "m"))):

            def both(w: Any, spec: Any = spec) -> Any:
                far = violation({"w": w}, {"w": c}, specs=spec)["w"]
                return one(w, c, spec), far

            options = {"check_vma": check}
            out = (spec, P())
            found.append(jax.shard_map(both, mesh=over, in_specs=spec, out_specs=out, **options)(w))
        return found

    for done, far in every(W):
        assert ulps(done, expected[0]) <= 4
        np.testing.assert_allclose(far, expected[1], rtol=1e-6, atol=1e-6)


def test_what_is_exchanged() -> None:
    over = mesh(d=4)

    def compiled(c: nc.Constraint, spec: Any) -> dict[str, int]:
        return collectives(mapped(lambda w: one(w, c, spec), over, spec).lower(W).compile())

    for c in NORMS:
        assert compiled(c, P(None, "d")) == {}, c
        assert compiled(c, P("d")) == {"all-reduce": 2}, c  # the largest entry, and the sum
    for c in (nc.Simplex(1.0, axis=0), nc.TopK(2, axis=0), nc.Monotone(axis=0)):
        assert compiled(c, P(None, "d")) == {}, c
        assert compiled(c, P("d")) == {"all-gather": 1}, c
    assert compiled(nc.Box(-1.0, 1.0), P("d")) == {}


HARD = {
    "huge": W * 1e37,
    "tiny": W * 1e-38,
    "one huge part": W.at[:2].mul(1e37),
    "zeros in a part": W.at[:4].set(0.0),
    "a group of zeros": W.at[:, 3].set(0.0),
    "a group with NaN": W.at[2, 3].set(jnp.nan),
    "a group with infinity": W.at[6, 3].set(jnp.inf),
}


@pytest.mark.parametrize("c", [nc.MaxNorm(1.0, axis=0), nc.MinNorm(90.0, axis=0)], ids=repr)
def test_norms_of_hard_numbers_across_the_cut(c: nc.Constraint) -> None:
    spec = P("d")
    part = mapped(lambda w: one(w, c, spec), mesh(d=4), spec)
    for name, w in HARD.items():
        found, expected = np.asarray(part(w)), np.asarray(jax.jit(c.project)(w))
        size = np.abs(expected).max(axis=0)
        scale = np.spacing(np.where(np.isfinite(size), size, 1.0))
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            assert (same | (np.abs(found - expected) <= 4 * scale)).all(), name
        np.testing.assert_array_equal(np.asarray(part(found)), found)  # it counts as inside


@pytest.mark.parametrize("dtype", ["complex64", "float64", "bfloat16"])
def test_other_dtypes_across_the_cut(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        w = jnp.asarray(np.asarray(W, np.float64), dtype) * (1 + 2j if dtype == "complex64" else 1)
        for c in (nc.MaxNorm(1.0, axis=0), nc.UnitRMS(0.1, axis=0)):
            found = mapped(lambda w, c=c: one(w, c, P("d")), mesh(d=2), P("d"))(w)
            assert found.dtype == dtype
            wide = np.complex128 if dtype == "complex64" else np.float64
            expected = np.asarray(jax.jit(c.project)(w)).astype(wide)
            eps = float(jnp.finfo(dtype).eps)
            assert np.abs(np.asarray(found).astype(wide) - expected).max() <= 4 * eps


def test_what_is_exchanged_within_the_context_only() -> None:
    def sums(kind: str) -> Any:
        return _array.accurate_sum(jnp.ones((40, 3), kind), (0,), jnp)

    for kind in ("float32", "complex64"):  # complex numbers are summed in a way of their own
        with parts.exchanging(3, total=lambda x: 3 * x, largest=lambda x: x):
            found = sums(kind)
            assert _array.group_size(W, (0,)) == 24
        np.testing.assert_array_equal(found, [[120.0] * 3])
        np.testing.assert_array_equal(sums(kind), [[40.0] * 3])
    assert _array.group_size(W, (0,)) == 8


def test_another_thread_has_whole_weights() -> None:
    def size() -> int:
        return _array.group_size(W, (0,))

    with (
        parts.exchanging(3, total=lambda x: x, largest=lambda x: x),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        assert pool.submit(size).result() == 8
        assert size() == 24


# -------------------------------------------------------------------------------- without specs


@pytest.mark.parametrize("apply", [project, violation, penalty])
@pytest.mark.parametrize("check", [True, False])
def test_a_part_without_specs_is_refused(apply: Any, check: bool) -> None:
    def body(w: Any) -> Any:
        apply({"a": {"kernel": w}}, {"*kernel": nc.MaxNorm(1.0, axis=0)})
        return w

    words = (
        r"MaxNorm: specs must say how the weight 'a\.kernel' .* mesh axes 'd', got None; .*specs="
    )
    with pytest.raises(ValueError, match=words):
        mapped(body, mesh(d=2), P("d"), check_vma=check)(W)


def test_what_is_no_part_needs_no_specs() -> None:
    rules: Any = {"w": nc.MaxNorm(1.0, axis=0)}

    def body(w: Any) -> Any:
        return project({"w": w}, rules)["w"]

    expected = np.asarray(jax.jit(nc.MaxNorm(1.0, axis=0))(W))
    # Whole on each device, by its type.
    np.testing.assert_array_equal(mapped(body, mesh(d=2), P())(W), expected)
    # Bounds on each entry are right on any part.
    boxed = mapped(lambda w: project({"w": w}, {"w": nc.Box(-1, 1)})["w"], mesh(d=2), P("d"))(W)
    np.testing.assert_array_equal(boxed, np.clip(W, -1, 1))
    # Under vmap and pmap each has its own whole weights, whatever the name of the axis.
    many = jnp.stack([W, 2 * W])
    for found in (
        jax.vmap(body, axis_name="d")(many),
        jax.pmap(body, axis_name="d", devices=jax.devices()[:2])(many),
        jax.pmap(jax.jit(body), devices=jax.devices()[:2])(many),
    ):
        assert ulps(found[0], expected) <= 1
    # And so it is told where types do not.
    said = mapped(lambda w: one(w, rules["w"], P()), mesh(d=2), P(), check_vma=False)
    np.testing.assert_array_equal(said(W), expected)


def test_a_constraint_by_itself_cannot_know() -> None:
    """The trap of the documentation: if this fails, it may say something better."""
    c = nc.UnitNorm(axis=0)
    found = mapped(c, mesh(d=2), P("d"))(W)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 2**0.5, rtol=1e-5)


def test_specs_that_do_not_fit_are_refused() -> None:
    rules: Any = {"w": nc.MaxNorm(1.0, axis=0)}

    def run(specs: Any) -> Any:
        return mapped(lambda w: project({"w": w}, rules, specs=specs)["w"], mesh(d=2), P("d"))(W)

    with pytest.raises(ValueError, match=r"must name axes .* got 'x' in .*'w', where they are 'd'"):
        run(P("x"))
    with pytest.raises(ValueError, match=r"must fit the weights, got .* for 'w' of 2 dimensions"):
        run(P(None, None, "d"))
    with pytest.raises(ValueError, match=r"specs must be a tree as that of the params"):
        run({"v": P("d")})
    with pytest.raises(ValueError, match=r"got 'd' in .* outside of it; .* no specs outside"):
        project({"w": W}, rules, specs=P("d"))


# ------------------------------------------------------------------------------------- trees


def test_specs_are_a_tree_that_may_end_early() -> None:
    params = {"a": [{"kernel": W, "bias": W[0]}, {"kernel": W}], "b": (W, 3)}
    rules = {"*kernel": nc.MaxNorm(1.0, axis=0), "b.0": nc.MaxNorm(1.0, axis=1)}
    specs = {"a": [{"kernel": P("d"), "bias": P()}, P(None, "d")], "b": (P("d", None), P())}
    inputs = {"a": specs["a"], "b": (P("d", None), P())}
    found = mapped(lambda p: project(p, rules, specs=specs), mesh(d=2), (inputs,), inputs)(params)
    expected = jax.jit(lambda p: project(p, rules))(params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one_of, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ulps(one_of, other) <= 2


def test_models_of_equinox_and_nnx() -> None:
    equinox = pytest.importorskip("equinox")
    layer = equinox.nn.Linear(8, 8, key=jax.random.key(0))
    rules = {equinox.nn.Linear: nc.MaxNorm(0.1, axis="unit")}
    spec = P(None, "d")

    def body(weight: Any) -> Any:
        part = equinox.tree_at(lambda m: m.weight, layer, weight)
        specs = equinox.tree_at(lambda m: (m.weight, m.bias), layer, (spec, P()))
        return project(part, rules, specs=specs).weight

    found = mapped(body, mesh(d=2), spec)(layer.weight)
    assert ulps(found, nc.MaxNorm(0.1, axis=1)(layer.weight)) <= 2

    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(8, 8, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)

    def nnx_body(state: Any) -> Any:
        whole = nnx.merge(graph, state)
        done = project(whole, {"kernel": nc.MaxNorm(0.1, axis=0)}, specs=P())
        with pytest.raises(TypeError, match=r"specs must be one PartitionSpec for a Linear"):
            project(whole, {"kernel": nc.MaxNorm(0.1, axis=0)}, specs={"kernel": P()})
        return nnx.state(done)

    jax.shard_map(nnx_body, mesh=mesh(d=2), in_specs=P(), out_specs=P())(state)
    by_leaf = {"kernel": P("d"), "bias": P()}
    done = mapped(
        lambda p: project(p, {"kernel": nc.MaxNorm(0.1, axis=0)}, specs=by_leaf),
        mesh(d=2),
        (by_leaf,),
        by_leaf,
    )(nnx.to_pure_dict(state))
    kernel = nnx.to_pure_dict(state)["kernel"]
    assert ulps(done["kernel"], nc.MaxNorm(0.1, axis=0)(kernel)) <= 2


def test_some_axes_of_a_mesh() -> None:
    over = mesh(d=2, m=2)
    c, spec = nc.MaxNorm(1.0, axis=0), P("d")
    placed = jax.device_put(W, NamedSharding(over, P("d", "m")))
    found = mapped(lambda w: one(w, c, spec), over, spec, axis_names={"d"})(placed)
    assert ulps(found, jax.jit(c)(W)) <= 2


# ---------------------------------------------------------------------- schedules and gradients


def test_a_radius_that_changes_is_no_reason_to_gather() -> None:
    radius = Linear(2.0, 0.5, steps=16)
    for every in (1, 3):
        c = nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": radius}, every=every)

        def body(w: Any, step: Any, c: Any = c) -> Any:
            return project({"w": w}, {"w": c}, step=step, specs=P("d"))["w"]

        f = jax.jit(jax.shard_map(body, mesh=mesh(d=2), in_specs=(P("d"), P()), out_specs=P("d")))
        for step in (0, 6, 7):
            expected = project({"w": W}, {"w": c}, step=step)["w"]
            assert ulps(f(W, step), expected) <= 2
        assert f._cache_size() == 1
        assert "all-gather" not in collectives(f.lower(W, 0).compile())


@pytest.mark.parametrize(
    "c", [nc.MaxNorm(1.0, axis=0), nc.Simplex(1.0, axis=0), nc.Monotone(axis=0)], ids=repr
)
def test_the_derivative_passes_through(c: nc.Constraint) -> None:
    part = jax.shard_map(
        lambda w: one(w, c, P("d")), mesh=mesh(d=2), in_specs=P("d"), out_specs=P("d")
    )
    found = jax.jit(jax.grad(lambda w: (part(w) * jnp.cos(W)).sum()))(W)
    expected = jax.jit(jax.grad(lambda w: (c(w) * jnp.cos(W)).sum()))(W)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("c", [nc.MaxNorm(1.0, axis=0), nc.Hyperplane(2.0, 0.75, axis=0)], ids=repr)
def test_the_penalty_is_of_the_whole_weight(c: nc.Constraint) -> None:
    params, rules = {"w": W, "b": W}, {"w": c, "b": nc.MaxNorm(9.0, axis=1)}
    expected = jax.jit(jax.value_and_grad(lambda p: penalty(p, rules)))(params)
    specs = {"w": P("d"), "b": P()}

    def inside(p: Any) -> Any:
        return jax.value_and_grad(lambda p: penalty(p, rules, specs=specs))(p)

    outside = jax.shard_map(
        lambda p: penalty(p, rules, specs=specs), mesh=mesh(d=2), in_specs=(specs,), out_specs=P()
    )
    for value, slope in (
        mapped(inside, mesh(d=2), (specs,), (P(), specs))(params),
        jax.jit(jax.value_and_grad(outside))(params),
    ):
        assert float(value) == pytest.approx(float(expected[0]), rel=1e-6)
        for name in params:
            np.testing.assert_allclose(slope[name], expected[1][name], rtol=1e-5, atol=1e-5)


def test_a_training_step_of_optax_in_parts() -> None:
    optax = pytest.importorskip("optax")
    rules, spec = {"w": nc.MaxNorm(1.0, axis=0)}, P("d")
    tx = optax.sgd(0.1)
    wrapped = constrained(tx, rules, specs=spec)

    def body(w: Any) -> Any:
        params = {"w": w}
        updates, _ = tx.update(params, tx.init(params), params)
        done = apply_updates(params, updates, rules, specs=spec)["w"]
        moved, _ = wrapped.update(params, wrapped.init(params), params)
        return done, optax.apply_updates(params, moved)["w"]

    done, nearly = mapped(body, mesh(d=2), spec, (spec, spec))(W)
    expected = jax.jit(nc.MaxNorm(1.0, axis=0))(0.9 * W)
    assert ulps(done, expected) <= 2
    np.testing.assert_allclose(nearly, expected, atol=1e-6)
