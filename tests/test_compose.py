"""Constraints made of constraints: exact orders by brute force, Dykstra by others' solvers."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import scipy.optimize
import torch

import normconstraints as nc
from normconstraints import Intersection, Masked, Relaxed, Sequence, Translated, layout
from normconstraints.testing import check_constraint

SIZE, COUNT = 5, 200
Project = Callable[[Any], Any]


def made(name: str, *args: Any, **kwargs: Any) -> Any:
    """A set by its name."""
    return getattr(nc, name)(*args, **kwargs)


def columns(seed: int = 0, scale: float = 2.0) -> Any:
    """Instances, one in each column."""
    return scale * np.random.default_rng(seed).standard_normal((SIZE, COUNT))


def dykstra(w: Any, parts: tuple[Project, ...], rounds: int) -> Any:
    """Boyle and Dykstra's algorithm as in the paper, until nothing moves."""
    x, corrections = w, [np.zeros_like(w) for _ in parts]
    for _ in range(rounds):
        before = (x, *corrections)
        for i, project in enumerate(parts):
            y = project(x + corrections[i])
            corrections[i], x = x + corrections[i] - y, y
        moved = max(np.max(np.abs(a - b)) for a, b in zip((x, *corrections), before, strict=True))
        if moved < 1e-15:
            break
    return x


# ------------------------------------------------------------------------------------- exact orders

SIGNS = ("SignPattern", ((1,), (-1,), (0,), (1,), (-1,)))
MASK = ("Mask", ((1,), (0,), (1,), (1,), (0,)))
NORMAL = ((1.0,), (-2.0,), (0.5,), (0.0,), (3.0,))
RADII = tuple(np.random.default_rng(1).uniform(0.1, 3.0, COUNT))

CONVEX: list[list[tuple[Any, ...]]] = [
    [("NonNeg",), ("MaxNorm", 1.0, 0)],
    [("NonPos",), ("MaxNorm", RADII, 0)],
    [SIGNS, ("MaxNorm", 1.0, 0)],
    [MASK, ("MaxNorm", 1.0, 0)],
    [("ZeroMean", 0), ("MaxNorm", 1.0, 0)],
    [("FixedSum", 0.0, 0), ("MaxNorm", 1.0, 0)],
    [("ZeroMean", 0), ("MaxNorm", 3.0, None)],
    [("Hyperplane", NORMAL, 0.0, 0), ("MaxNorm", 1.0, 0)],
    [("HalfSpace", NORMAL, 0.0, 0), ("MaxNorm", 1.0, 0)],
    [("SecondOrderCone", 0), ("MaxNorm", 1.0, 0)],
    [("NonNeg",), ("L1Ball", 1.0, 0)],
    [SIGNS, ("L1Ball", RADII, 0)],
    [MASK, ("L1Ball", 1.0, 0)],
    [MASK, ("SolidSimplex", 1.0, 0)],
    [SIGNS, ("SolidSimplex", 1.0, 0)],
    [("NonNeg",), ("LInfBall", 0.7, 0)],
    [("NonNeg",), MASK, ("L1Ball", 1.0, 0)],
    [("NonNeg",), ("L1Ball", 1.0, 0), ("L1Ball", 2.0, 0)],
    [("MaxNorm", 1.0, 0), ("MaxNorm", RADII, 0)],
    [("SolidSimplex", 1.0, 0), ("SolidSimplex", RADII, 0)],
    [("Box", -0.5, 2.0), ("Box", -1.0, 0.7)],
    [("Box", -0.5, 2.0), ("NonNeg",), ("LInfBall", 1.0, 0)],
]


def build(spec: tuple[Any, ...]) -> Any:
    name, *args = spec
    if name in ("NonNeg", "NonPos", "SignPattern", "Mask", "Box"):
        return made(name, *args)
    return made(name, *args[:-1], axis=args[-1])


@pytest.mark.parametrize("specs", CONVEX, ids=lambda s: " ".join(str(x[0]) for x in s))
def test_exact_orders_of_convex_sets(specs: list[tuple[Any, ...]]) -> None:
    parts = [build(s) for s in specs]
    w = columns()
    want = dykstra(w, tuple(c.project for c in parts), 4000)
    # The reference is in every set; that it is nearest is Boyle and Dykstra's theorem.
    for order in itertools.permutations(parts):
        c = Intersection(*order)
        assert c.exact
        assert "not exact" not in repr(c)
        np.testing.assert_allclose(c(w), want, rtol=0, atol=1e-10)
        assert nc.is_satisfied(c, c(w))
        assert not nc.is_satisfied(c, w)


def by_supports(
    w: Any, k: int, allowed: Callable[[tuple[int, ...]], bool], project: Project
) -> Any:
    """The distance of one vector from its nearest projection on any support."""
    best = math.inf
    for support in itertools.combinations(range(SIZE), k):
        if allowed(support):
            z = np.zeros(SIZE)
            z[list(support)] = project(w[list(support)])
            best = min(best, float(np.linalg.norm(w - z)))
    return best


LARGEST = [
    [("TopK", 2, 0), ("MaxNorm", 1.0, 0)],
    [("TopK", 2, 0), ("L1Ball", 1.0, 0)],
    [("TopK", 2, 0), ("LInfBall", 0.7, 0)],
    [("TopK", 2, 0), ("UnitNorm", 0)],
    [("TopK", 2, 0), ("MinNorm", 3.0, 0)],
    [("TopK", 2, 0), ("NonNeg",)],
    [("TopK", 2, 0), ("NonNeg",), ("L1Ball", 1.0, 0)],
]


@pytest.mark.parametrize("specs", LARGEST, ids=lambda s: " ".join(str(x[0]) for x in s))
def test_exact_orders_of_the_largest_entries(specs: list[tuple[Any, ...]]) -> None:
    parts = [build(s) for s in specs]
    rest = Intersection(*parts[1:])
    w = columns()
    want = [by_supports(x, 2, lambda s: True, rest.project) for x in w.T]
    for order in itertools.permutations(parts):
        c = Intersection(*order)
        assert c.exact
        p = c(w)
        assert np.all(np.sum(p != 0, axis=0) <= 2)
        assert nc.is_satisfied(c, p)
        np.testing.assert_allclose(np.linalg.norm(w - p, axis=0), want, rtol=0, atol=1e-10)


def test_exact_order_of_n_of_m() -> None:
    w = columns(3)[:4]
    c = Intersection(build(("L1Ball", 0.5, 0)), made("NOfM", 1, 2, axis=0))
    assert c.exact
    for x, p in zip(w.T, c(w).T, strict=True):
        best = math.inf
        for i, j in itertools.product((0, 1), (2, 3)):
            z = np.zeros(4)
            z[[i, j]] = build(("L1Ball", 0.5, 0))(x[[i, j]])
            best = min(best, float(np.linalg.norm(x - z)))
        np.testing.assert_allclose(np.linalg.norm(x - p), best, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "spec",
    [("UnitNorm", 0), ("FixedNorm", 2.0, 0), ("UnitRMS", 0), ("MinNorm", 2.0, 0)],
    ids=lambda s: str(s[0]),
)
def test_exact_orders_of_subspaces_and_lengths(spec: tuple[Any, ...]) -> None:
    w, lengths = columns(4), build(spec)
    # In coordinates of the subspace only the length counts.
    basis = np.linalg.svd(np.ones((1, SIZE)))[2][1:]
    inside = basis @ w
    norms = np.linalg.norm(inside, axis=0)
    goal = {
        "UnitNorm": np.ones(COUNT),
        "FixedNorm": np.full(COUNT, 2.0),
        "UnitRMS": np.full(COUNT, SIZE**0.5),
        "MinNorm": np.maximum(norms, 2.0),
    }[spec[0]]
    c = build(("ZeroMean", 0)) & lengths
    assert c.exact
    assert (lengths & build(("ZeroMean", 0))).exact
    np.testing.assert_allclose(c(w), basis.T @ (inside * goal / norms), rtol=0, atol=1e-10)


IDS = ((0, 1, -1, 0), (1, 2, -1, 2), (-1, 0, 0, 1), (3, -1, 2, 3))
MATRICES = [
    nc.Symmetric(),
    nc.SkewSymmetric(),
    nc.Toeplitz(),
    nc.Circulant(),
    nc.Triangular(),
    nc.Tied(IDS, axis=(-2, -1)),
]
BATCH = 2 * np.random.default_rng(6).standard_normal((3, 4, 4))
BALL = nc.MaxNorm(1.0, axis=(-2, -1))


@pytest.mark.parametrize("subspace", MATRICES, ids=lambda c: type(c).__name__)
def test_exact_orders_of_matrices_and_lengths(subspace: Any) -> None:
    want = dykstra(BATCH, (subspace.project, BALL.project), 4000)
    for ball in (BALL, nc.MaxNorm(1.0, axis=(-1, -2))):
        for c in (subspace & ball, ball & subspace):
            assert c.exact
            np.testing.assert_allclose(c(BATCH), want, rtol=0, atol=1e-10)
            assert nc.is_satisfied(c, c(BATCH))
    # In coordinates of the subspace only the length counts, also of the one sphere for all.
    for axes, sphere in (
        ((-2, -1), nc.UnitNorm(axis=(-2, -1))),
        (None, nc.FixedNorm(3.0, axis=None)),
    ):
        inside = subspace(BATCH)
        goal = sphere.value if isinstance(sphere, nc.FixedNorm) else 1.0
        want = goal * inside / np.sqrt(np.sum(inside**2, axis=axes, keepdims=True))
        for c in (subspace & sphere, sphere & subspace):
            assert c.exact
            np.testing.assert_allclose(c(BATCH), want, rtol=0, atol=1e-12)


def test_a_triangle_is_a_mask() -> None:
    mask = nc.Mask(tuple(tuple(j <= i for j in range(4)) for i in range(4)))
    for other in (nc.MaxNorm(1.0, axis=-1), nc.L1Ball(1.0, axis=0), nc.NonNeg(), nc.Box(-1.0, 1.0)):
        c = nc.Triangular() & other
        assert c.exact
        np.testing.assert_array_equal(c(BATCH), (mask & other)(BATCH))


@pytest.mark.parametrize("minimum", [0.0, 0.5])
def test_exact_orders_of_positive_semidefinite_matrices(minimum: float) -> None:
    import cvxpy

    cone = nc.PositiveSemidefinite(minimum)
    with_ball = minimum == 0  # else it is no cone
    x, w = cvxpy.Variable((4, 4), symmetric=True), BATCH[0]
    bounds = [x >> minimum * np.eye(4), *([cvxpy.norm(x, "fro") <= 1] if with_ball else [])]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - w)), bounds)
    problem.solve(cvxpy.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    parts = [nc.Symmetric(), cone, *([BALL] if with_ball else [])]
    np.testing.assert_allclose(
        Sequence(*parts)(w), dykstra(w, tuple(c.project for c in parts), 4000), rtol=0, atol=1e-10
    )
    for order in itertools.permutations(parts):
        c = Intersection(*order)
        assert c.exact
        np.testing.assert_allclose(c(w), x.value, rtol=0, atol=5e-6)
        np.testing.assert_allclose(c(w), Sequence(*parts)(w), rtol=0, atol=1e-14)
        assert nc.is_satisfied(c, c(w))
    assert (cone & BALL).exact == with_ball


def test_a_wrong_order_is_another_map() -> None:
    w = columns()
    cone, ball = nc.NonNeg(), nc.MaxNorm(1.0, axis=0)
    right, wrong = Sequence(cone, ball)(w), Sequence(ball, cone)(w)
    assert np.max(np.abs(right - wrong)) > 0.5
    nearer = np.linalg.norm(w - right, axis=0) <= np.linalg.norm(w - wrong, axis=0) + 1e-12
    assert nearer.all()
    for c in (cone & ball, ball & cone):
        np.testing.assert_array_equal(c(w), right)


def test_groups_decide_what_is_exact() -> None:
    mean, ball = (lambda axis: made("ZeroMean", axis=axis)), (lambda a: nc.MaxNorm(1.0, axis=a))
    assert (mean(0) & ball(0)).exact
    assert (mean(0) & ball((0, 1))).exact
    assert (mean(0) & ball(None)).exact
    assert (mean(-1) & ball((-2, -1))).exact
    assert (mean("unit") & ball("unit")).exact
    assert not (mean(1) & ball(0)).exact
    assert not (mean((0, 1)) & ball(0)).exact
    assert not (mean(0) & ball((-2, -1))).exact
    assert not (mean(None) & ball(0)).exact
    assert not (mean("unit") & ball(0)).exact
    assert not (made("FixedSum", 1.0, axis=0) & ball(0)).exact
    assert not (made("FixedSum", (0.0, 1.0), axis=0) & ball(0)).exact
    assert not (made("HalfSpace", 1.0, 1.0, axis=0) & ball(0)).exact
    assert not (nc.MaxNorm(1.0, axis=0) & nc.MaxNorm(1.0, axis=1)).exact
    assert not (nc.NonNeg() & nc.Simplex(axis=0)).exact
    assert not (nc.Box(-1.0, 1.0) & ball(0)).exact
    assert (nc.Symmetric() & nc.UnitNorm(axis=None)).exact
    assert not (nc.Symmetric() & ball(-1)).exact
    assert not (nc.Symmetric(axis=(0, 1)) & nc.PositiveSemidefinite()).exact
    assert not (nc.Symmetric() & nc.Toeplitz()).exact
    assert not (nc.PositiveSemidefinite(1.0) & ball((-2, -1))).exact


def test_a_class_of_another_module_is_not_taken_for_a_set() -> None:
    class NonNeg(nc.Convex):
        def _project(self, w: Any, xp: Any) -> Any:
            return w

        def _violation(self, w: Any, xp: Any) -> Any:
            return w * 0

    assert not (NonNeg() & nc.MaxNorm(1.0, axis=0)).exact


# ------------------------------------------------------------------------------------------ Dykstra


def test_dykstra_against_slsqp() -> None:
    w = columns(5, 1.0)[:, :20]
    c = Intersection(nc.Box(0.05, 0.4), nc.MaxNorm(0.6, axis=0), rounds=1000)
    for x, p in zip(w.T, c(w).T, strict=True):
        found = scipy.optimize.minimize(
            lambda z, x=x: 0.5 * np.sum((z - x) ** 2),
            np.full(SIZE, 0.1),
            jac=lambda z, x=x: z - x,
            bounds=[(0.05, 0.4)] * SIZE,
            constraints={
                "type": "ineq",
                "fun": lambda z: 0.36 - z @ z,
                "jac": lambda z: -2 * z,
            },
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(p, found.x, rtol=0, atol=2e-6)


def test_dykstra_of_a_simplex_with_a_bound_is_the_capped_simplex() -> None:
    w = columns(6, 0.5)
    c = nc.Simplex(axis=0) & nc.Box(upper=0.4)
    low, high = np.full(COUNT, -10.0), np.full(COUNT, 10.0)
    for _ in range(100):
        middle = (low + high) / 2
        heavy = np.clip(w - middle, 0, 0.4).sum(axis=0) > 1
        low, high = np.where(heavy, middle, low), np.where(heavy, high, middle)
    np.testing.assert_allclose(c(w), np.clip(w - low, 0, 0.4), rtol=0, atol=1e-10)
    assert nc.is_satisfied(c, c(w))


def test_dykstra_against_many_rounds() -> None:
    w = columns(7)
    parts = (nc.MaxNorm(1.0, axis=0), nc.MaxNorm(5.0, axis=1), nc.Box(-0.3, 0.5))
    want = dykstra(w, tuple(c.project for c in parts), 10**5)
    errors = [np.max(np.abs(Intersection(*parts, rounds=n)(w) - want)) for n in (10, 100, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_dykstra_computes_single_precision_in_double() -> None:
    w = columns(8)
    c = nc.Simplex(axis=0) & nc.Box(upper=0.4)
    single = w.astype(np.float32)
    np.testing.assert_allclose(c(single), c(single.astype(float)), rtol=0, atol=2e-7)
    assert c(single).dtype == np.float32


def test_dykstra_says_how_far_it_came() -> None:
    w = columns(9, 1e3)
    c = Intersection(nc.Box(0.2, 0.4), made("FixedSum", 1.5, axis=0), rounds=1)
    violation = c.violation(w)
    assert violation.shape == (COUNT,)
    parts = [c.constraints[0].violation(w).max(axis=0), c.constraints[1].violation(w)]
    np.testing.assert_array_equal(violation, np.maximum(*parts))
    other = nc.MaxNorm(1.0, axis=0) & nc.MaxNorm(1.0, axis=1)
    assert np.shape(other.violation(w)) == ()
    assert other.violation(w) == max(np.max(p.violation(w)) for p in other.constraints)
    # Of a square matrix both have as many groups, but not the same.
    assert np.shape(other.violation(w[:, :SIZE])) == ()


def test_inside_is_untouched_group_by_group() -> None:
    c = nc.Box(0.05, 0.4) & nc.MaxNorm(0.6, axis=0)
    w = columns(10, 0.3)
    w[:, ::2] = c(w)[:, ::2]
    before = c.violation(w) == 0
    assert 100 <= before.sum() < COUNT
    np.testing.assert_array_equal(c(w)[:, before], w[:, before])
    assert np.all(c.violation(c(w)) == 0)
    np.testing.assert_array_equal(c(c(w)), c(w))
    zeros = np.array([-0.0, 0.0, 0.1])
    for d in (nc.Box(-1.0, 0.5) & nc.MaxNorm(0.6, axis=0), nc.NonNeg() & nc.MaxNorm(1.0, axis=0)):
        np.testing.assert_array_equal(np.signbit(d(zeros)), [True, False, False])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_spread(bad: float) -> None:
    w = columns(11)[:, :6]
    w[2, 3] = bad
    clean = np.delete(w, 3, axis=1)
    for c in (
        nc.Simplex(axis=0) & nc.Box(upper=0.4),
        nc.Box(0.05, 0.4) & nc.MaxNorm(0.6, axis=0),
        nc.NonNeg() & nc.MaxNorm(1.0, axis=0),
    ):
        p = c(w)
        np.testing.assert_array_equal(np.delete(p, 3, axis=1), c(clean))
        assert np.isfinite(np.delete(p[:, 3], 2)).all()
        assert not np.isnan(p[2, 3]) or np.isnan(bad)


def test_far_from_the_set_nothing_overflows() -> None:
    w = np.array([1.7e308, -1.7e308, 1.0, 1e300])
    for c in (
        nc.Box(0.05, 0.4) & nc.MaxNorm(0.6, axis=0),
        nc.Simplex(axis=0) & nc.Box(upper=0.4),
        nc.MaxNorm(1e308, axis=0) & nc.Box(lower=-1e308),
    ):
        assert np.isfinite(c(w)).all()


# ------------------------------------------------------------------------------------ the others


def test_and_is_flat() -> None:
    a, b, c = nc.NonNeg(), nc.Box(upper=1.0), nc.MaxNorm(1.0, axis=0)
    assert ((a & b) & c).constraints == (a & (b & c)).constraints == (a, b, c)
    assert Intersection(a & b, c) == Intersection(a, b, c)
    with pytest.raises(TypeError, match="unsupported operand"):
        a & 1.0  # type: ignore[operator]


def test_sequence_keeps_the_order_and_says_it_is_none() -> None:
    w = columns()
    c = Sequence(nc.MaxNorm(1.0, axis=0), nc.Box(0.5, 1.0))
    np.testing.assert_array_equal(c(w), nc.Box(0.5, 1.0)(nc.MaxNorm(1.0, axis=0)(w)))
    assert np.any(c.violation(c(w)) > 0)
    assert Sequence(nc.NonNeg(), nc.NonPos()) != Sequence(nc.NonPos(), nc.NonNeg())
    assert repr(Sequence(nc.NonNeg(), nc.NonPos())) == "Sequence(NonNeg(), NonPos())"


def test_relaxed_goes_part_of_the_way() -> None:
    w, ball = columns(), nc.MaxNorm(1.0, axis=0)
    for dtype in (np.float32, np.float64):
        x = w.astype(dtype)
        np.testing.assert_array_equal(Relaxed(ball)(x), ball(x))
        np.testing.assert_array_equal(Relaxed(ball, np.asarray(1.0))(x), ball(x))
        eps = np.finfo(dtype).eps
        want = x.astype(float) + 0.3 * (ball(x).astype(float) - x.astype(float))
        np.testing.assert_allclose(Relaxed(ball, 0.3)(x), want, rtol=0, atol=8 * eps)
    rates = tuple(np.linspace(0.1, 1.0, COUNT))
    np.testing.assert_allclose(
        Relaxed(ball, rates)(w), w + np.array(rates) * (ball(w) - w), rtol=0, atol=1e-14
    )
    np.testing.assert_array_equal(Relaxed(ball, rates)(w)[:, -1], ball(w)[:, -1])
    # Keras' rate is the same for lengths.
    np.testing.assert_allclose(
        Relaxed(nc.MinMaxNorm(0.5, 1.0, axis=0), 0.25)(w),
        nc.MinMaxNorm(0.5, 1.0, rate=0.25, axis=0)(w),
        rtol=1e-14,
    )
    inside = np.array([-0.0, 0.1, 5e-324])
    p = Relaxed(ball, 0.3)(inside)
    np.testing.assert_array_equal(p, inside)
    assert np.signbit(p[0])


@pytest.mark.parametrize(
    "part",
    [
        np.s_[1:3],
        np.s_[:, 2],
        np.s_[:, -1, 1:],
        np.s_[::2, 1:4:2, 1],
        np.s_[-3:, :, ::3],
        np.s_[2:2],
        (),
    ],
    ids=repr,
)
def test_masked_is_the_constraint_on_a_part(part: Any) -> None:
    w = np.random.default_rng(12).standard_normal((4, 5, 6))
    c = nc.MaxNorm(0.5, axis=1)
    masked = Masked(c, part)
    index = tuple(
        slice(p, p + 1 or None) if isinstance(p, int) else p
        for p in (part if isinstance(part, tuple) else (part,))
    )
    for x in (w, w.astype(np.float32), torch.tensor(w)):
        want = np.asarray(x).copy()
        want[index] = np.asarray(c(x[index]))
        np.testing.assert_array_equal(np.asarray(masked(x)), want)
        np.testing.assert_array_equal(
            np.asarray(masked.violation(x)), np.asarray(c.violation(x[index]))
        )
    assert masked == Masked(c, masked.part)


def test_translated_moves_the_set() -> None:
    w, center = columns(), np.random.default_rng(13).standard_normal((SIZE, 1))
    for c in (nc.MaxNorm(1.0, axis=0), nc.Simplex(axis=0), nc.Box(-0.5, 1.0)):
        moved = Translated(c, center)
        np.testing.assert_allclose(moved(w), center + c(w - center), rtol=0, atol=1e-14)
        np.testing.assert_allclose(moved.violation(w), c.violation(w - center), atol=1e-14)
        for dtype in (np.float16, np.float32, np.float64):
            p = moved(w.astype(dtype))
            assert np.all(moved.violation(p) == 0)
            np.testing.assert_array_equal(moved(p), p)
            want = Translated(c, center)(w.astype(dtype).astype(float))
            np.testing.assert_allclose(p, want, rtol=0, atol=16 * np.finfo(dtype).eps)
    # A small radius around large weights: what subtracting loses is not taken for a violation.
    pretrained = np.float32(1e3) * np.ones(8, dtype=np.float32)
    near = Translated(nc.MaxNorm(1e-3, axis=0), tuple(pretrained.tolist()))
    np.testing.assert_array_equal(near(pretrained), pretrained)


def test_parts_may_be_made_of_parts() -> None:
    w = columns()
    inner = Translated(nc.MaxNorm(1.0, axis=0), 0.25) & nc.Box(-0.3, 0.5)
    for c in (inner, Relaxed(inner, 0.5), Sequence(inner, nc.NonNeg())):
        assert np.shape(c.violation(w)) == (COUNT,)
        assert nc.from_config(json.loads(json.dumps(nc.to_config(c)))) == c
    want = dykstra(
        w, (lambda x: 0.25 + nc.MaxNorm(1.0, axis=0)(x - 0.25), inner.constraints[1]), 5000
    )
    np.testing.assert_allclose(inner(w), want, atol=1e-4)


# -------------------------------------------------------------------------- what all of them keep

ALL: list[nc.Constraint] = [
    nc.NonNeg() & nc.MaxNorm((1.0, 2.0, 3.0), axis=0),
    Intersection(nc.Box(-0.5, 0.4), nc.MaxNorm(0.6, axis=0), rounds=7),
    Sequence(nc.NonNeg(), nc.UnitNorm(axis=0)),
    Relaxed(nc.NonNeg() & nc.MaxNorm(1.0, axis=0), 0.5),
    Masked(nc.MaxNorm(1.0, axis=0), np.s_[1:, 0]),
    Translated(nc.Simplex(axis=0), ((0.5,), (1.0,), (0.0,), (2.0,))),
]


@pytest.mark.parametrize("c", ALL, ids=lambda c: type(c).__name__)
def test_round_trips(c: nc.Constraint) -> None:
    assert nc.from_config(json.loads(json.dumps(nc.to_config(c)))) == c
    again = pickle.loads(pickle.dumps(c))
    assert again == c
    assert hash(again) == hash(c)
    assert repr(again) == repr(c)


def test_a_configuration_is_nested() -> None:
    assert nc.to_config(Relaxed(nc.NonNeg() & nc.NonPos(), 0.5)) == {
        "constraint": "Relaxed",
        "parameters": {
            "constraint": {
                "constraint": "Intersection",
                "parameters": {
                    "constraints": [
                        {"constraint": "NonNeg", "parameters": {}},
                        {"constraint": "NonPos", "parameters": {}},
                    ],
                    "rounds": 100,
                },
            },
            "rate": 0.5,
        },
    }
    with pytest.raises(
        ValueError, match=r"from_config: constraint must be one of .*, got 'Nothing'"
    ):
        nc.from_config(
            {
                "constraint": "Relaxed",
                "parameters": {"constraint": {"constraint": "Nothing", "parameters": {}}},
            }
        )


@pytest.mark.parametrize("c", ALL, ids=lambda c: type(c).__name__)
def test_libraries_agree_and_gradients_are_finite(c: nc.Constraint) -> None:
    w = np.random.default_rng(14).standard_normal((4, 3))
    w[:, 0] = 0  # a group of zeros, in which NaN gradients are born
    w[0, 1], w[2, 2] = 0.0, -0.0
    want = c(w)
    t = torch.tensor(w, requires_grad=True)
    found = c(t)
    np.testing.assert_allclose(found.detach().numpy(), want, rtol=0, atol=1e-14)
    u = np.random.default_rng(15).standard_normal(w.shape)
    found.backward(torch.tensor(u))
    assert t.grad is not None
    assert torch.isfinite(t.grad).all()

    @jax.jit
    def both(x: Any) -> Any:
        p, pull = jax.vjp(c.project, x)
        return p, pull(jax.numpy.asarray(u))[0]

    with jax.enable_x64(True):
        p, pulled = both(jax.numpy.asarray(w))
        np.testing.assert_allclose(np.asarray(p), want, rtol=0, atol=1e-14)
        np.testing.assert_allclose(np.asarray(pulled), t.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("c", ALL, ids=lambda c: type(c).__name__)
def test_gradients_are_those_of_differences(c: nc.Constraint) -> None:
    w = np.random.default_rng(16).standard_normal((4, 3))
    u, v = np.random.default_rng(17).standard_normal((2, 4, 3))
    t = torch.tensor(w, requires_grad=True)
    c(t).backward(torch.tensor(u))
    assert t.grad is not None
    h = 1e-6
    slope = np.sum(u * (c(w + h * v) - c(w - h * v))) / (2 * h)
    np.testing.assert_allclose(np.sum(t.grad.numpy() * v), slope, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_a_relaxed_constraint_where_an_entry_is_zero() -> None:
    # The entry does not move, and its derivative is not that of what is left alone.
    w = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64, requires_grad=True)
    Relaxed(nc.MaxNorm(1.0, axis=0), 0.5)(w)[2].backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), [0, 0, 0.5 + 0.5 / 5], atol=1e-12)


def test_complex_weights() -> None:
    w = torch.tensor([3 + 4j, 0.1j], dtype=torch.complex64)
    ball = nc.MaxNorm(1.0, axis=0)
    for c in (ball & nc.LInfBall(0.5, axis=0), Relaxed(ball, 0.5), Masked(ball, 0)):
        assert c.allows_complex
        assert c(w).dtype == torch.complex64
    c = ball & nc.NonNeg()
    assert not c.allows_complex
    with pytest.raises(TypeError, match=r"Intersection: w must be real, got torch.complex64"):
        c(w)


@pytest.mark.parametrize("c", ALL, ids=lambda c: type(c).__name__)
def test_contract(c: nc.Constraint) -> None:
    expected = {}
    if isinstance(c, Sequence):
        expected = {"arrives": "a group of zeros has no direction", "violation": "the same"}
    shape = (4, 3)
    results = check_constraint(c, backends=["numpy"], expected_failures=expected, shape=shape)
    assert [r for r in results if r.status == "failed"] == []


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Intersection(), ValueError, "Intersection: constraints must be one at least"),
        (lambda: Sequence(), ValueError, "Sequence: constraints must be one at least, got none"),
        (
            lambda: Intersection([nc.NonNeg()]),
            TypeError,
            r"Intersection: constraints must be constraints, got \[NonNeg\(\)\]; give them one by",
        ),
        (
            lambda: Sequence(nc.NonNeg(), 1.0),
            TypeError,
            "Sequence: constraints must be .*, got 1.0",
        ),
        (lambda: Sequence(nc.NonNeg), TypeError, "Sequence: constraints must be .*, got <class"),
        (
            lambda: Sequence(nc.NonNeg(), constraints=(nc.NonNeg(),)),
            TypeError,
            "Sequence: constraints must be given one by one or by keyword, got both",
        ),
        (
            lambda: Sequence(constraints=nc.NonNeg()),
            TypeError,
            r"Sequence: constraints must be a tuple, got NonNeg\(\)",
        ),
        (
            lambda: Intersection(nc.NonNeg(), rounds=0),
            ValueError,
            "Intersection: rounds must be an integer >= 1, got 0",
        ),
        (
            lambda: nc.NonNeg() & nc.Box(upper=-1.0),
            ValueError,
            r"Intersection: constraints must have a common member, got NonNeg\(\) and Box",
        ),
        (
            lambda: nc.LInfBall(1.0, axis=0) & nc.MaxNorm(1.0, axis=0) & nc.Box((0.0, 2.0), 3.0),
            ValueError,
            "Intersection: constraints must have a common member, got Box.* and LInfBall",
        ),
        (
            lambda: nc.NonNeg() & nc.UnitNorm(axis=0),
            ValueError,
            r"Intersection: constraints must be convex .* got UnitNorm\(axis=0\); write Sequence",
        ),
        (
            lambda: Relaxed(nc.NonNeg(), 0.5) & nc.MaxNorm(1.0, axis=0),
            ValueError,
            "Intersection: constraints must be convex sets .*, got Relaxed",
        ),
        (lambda: Relaxed(1.0), TypeError, "Relaxed: constraint must be a constraint, got 1.0"),
        (
            lambda: Relaxed(nc.NonNeg(), 0.0),
            ValueError,
            "Relaxed: rate must be a finite number > 0 and <= 1, got 0.0",
        ),
        (lambda: Relaxed(nc.NonNeg(), 1.5), ValueError, "Relaxed: rate must be .* <= 1, got 1.5"),
        (lambda: Relaxed(nc.NonNeg(), "1"), TypeError, "Relaxed: rate must be .*, got '1'"),
        (lambda: Masked(None, ()), TypeError, "Masked: constraint must be a constraint, got None"),
        (lambda: Masked(nc.NonNeg(), "a"), TypeError, "Masked: part must be a tuple .*, got 'a'"),
        (lambda: Masked(nc.NonNeg(), (1.5,)), TypeError, r"Masked: part must be .*, got \(1.5,\)"),
        (lambda: Masked(nc.NonNeg(), (True,)), TypeError, "Masked: part must be .*, got .True"),
        (lambda: Masked(nc.NonNeg(), (None,)), TypeError, "Masked: part must be .*, got .None"),
        (lambda: Masked(nc.NonNeg(), ((1, 2),)), TypeError, "Masked: part must be"),
        (
            lambda: Masked(nc.NonNeg(), np.s_[::-1]),
            ValueError,
            "Masked: part must be .*; a step must be at least 1",
        ),
        (
            lambda: Masked(nc.NonNeg(), (0, 0, 0))(np.ones((2, 2))),
            ValueError,
            "Masked: part must have an entry for each axis at most, got 3 for an array with 2 dim",
        ),
        (
            lambda: Masked(nc.NonNeg(), 2)(np.ones(2)),
            ValueError,
            "Masked: part must be within the weight, got 2 for axis 0, which has 2 entries",
        ),
        (
            lambda: Translated(nc.NonNeg(), math.inf),
            ValueError,
            "Translated: center must be a finite number, got inf",
        ),
        (
            lambda: Translated(nc.NonNeg(), (1.0, 2.0))(np.ones(3)),
            ValueError,
            "Translated: center must broadcast against w, got shape .2,. against .3,.",
        ),
        (
            lambda: Relaxed(nc.MaxNorm(1.0, axis=1), 0.5)(np.ones(3)),
            ValueError,
            "Relaxed: MaxNorm: axis must exist, got axis=1",
        ),
        (
            lambda: Sequence(nc.NonNeg(), nc.MaxNorm(1.0, axis="unit"))(np.ones(3)),
            ValueError,
            'Sequence: MaxNorm: axis="unit" depends on the layer',
        ),
    ],
)
def test_bad_input(build: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_the_unit_is_resolved_inside_compositions() -> None:
    word = nc.NonNeg() & nc.MaxNorm(1.0, axis="unit")
    found = layout.resolve(word, layout.Layout("oi"), (4, 3))
    assert found == nc.NonNeg() & nc.MaxNorm(1.0, axis=1)
    deep = nc.Sequence(nc.Relaxed(nc.L1Ball(1.0, axis="unit"), 0.5), nc.NonNeg())
    found = layout.resolve(deep, layout.Layout("ois.."), (4, 3, 2, 2))
    assert found == nc.Sequence(nc.Relaxed(nc.L1Ball(1.0, axis=(1, 2, 3)), 0.5), nc.NonNeg())


def test_a_number_inside_a_composition_is_scheduled() -> None:
    both = nc.NonNeg() & nc.MaxNorm(1.0, axis=0)
    scheduled = nc.Scheduled(both, {"max_value": nc.schedules.Linear(1.0, 3.0, 10)})
    assert scheduled.at(10) == nc.NonNeg() & nc.MaxNorm(3.0, axis=0)
