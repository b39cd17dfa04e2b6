"""Minimising over a set, against the solvers of scipy and cvxpy, and on every array library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import torch

import normconstraints as nc
from normconstraints.optimize import Function, Result, frank_wolfe, projected_gradient

SHAPES = [(20, 10), (50, 50), (30, 60), (200, 100)]


def least_squares(a: Any, b: Any) -> Function:
    def function(x: Any) -> tuple[Any, Any]:
        r = a @ x - b
        return (r @ r) / 2, a.T @ r

    return function


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), rng.standard_normal(rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_non_negative_least_squares_as_scipy(shape: tuple[int, int]) -> None:
    a, b = problem(*shape)
    found = projected_gradient(least_squares(a, b), np.zeros(shape[1]), nc.NonNeg(), tol=1e-11)
    expected, _ = scipy.optimize.nnls(a, b)
    assert found.success
    np.testing.assert_allclose(found.x, expected, atol=1e-8)


def in_simplex(x: Any) -> list[Any]:
    return [x >= 0, cp.sum(x) == 1]


PROBLEMS: list[tuple[nc.Constraint, Callable[[Any], list[Any]]]] = [
    (nc.Simplex(axis=0), in_simplex),
    (nc.L1Ball(0.7, axis=0), lambda x: [cp.norm1(x) <= 0.7]),
    (nc.Box(-0.05, 0.1), lambda x: [x >= -0.05, x <= 0.1]),
    (nc.Monotone(axis=0), lambda x: [cp.diff(x) >= 0]),
]


@pytest.mark.parametrize(("constraint", "conditions"), PROBLEMS, ids=lambda v: type(v).__name__)
def test_convex_programs_as_cvxpy(constraint: nc.Constraint, conditions: Any) -> None:
    a, b = problem(30, 12, seed=1)
    found = projected_gradient(least_squares(a, b), np.zeros(12), constraint, tol=1e-12)
    x = cp.Variable(12)
    program = cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b) / 2), conditions(x))
    tight = {f"tol_{kind}": 1e-12 for kind in ("gap_abs", "gap_rel", "feas")}
    program.solve(solver=cp.CLARABEL, **tight)
    assert found.success
    np.testing.assert_allclose(found.x, np.asarray(x.value), atol=1e-8)
    assert nc.is_satisfied(constraint, found.x)


def test_in_a_ball_as_by_its_multiplier() -> None:
    a, b = problem(30, 12, seed=1)

    def with_multiplier(k: float) -> Any:
        return np.linalg.solve(a.T @ a + k * np.eye(12), a.T @ b)

    k: Any = scipy.optimize.brentq(
        lambda k: float(np.linalg.norm(with_multiplier(k))) - 0.3, 0, 1e6, xtol=1e-13
    )
    found = projected_gradient(
        least_squares(a, b), np.zeros(12), nc.MaxNorm(0.3, axis=None), tol=1e-12
    )
    np.testing.assert_allclose(found.x, with_multiplier(k), atol=1e-8)


def test_the_optimality_is_that_of_the_definition() -> None:
    a, b = problem(30, 12)
    f, c = least_squares(a, b), nc.Simplex(axis=0)
    found = projected_gradient(f, np.zeros(12), c, tol=1e-3)
    value, grad = f(found.x)
    assert found.fun == value
    np.testing.assert_array_equal(found.jac, grad)
    for step in (1e-3, 1e-2):
        length = np.linalg.norm(found.x - c(found.x - step * grad)) / step
        assert length <= 1e-3 * max(1.0, float(np.linalg.norm(f(c(np.zeros(12)))[1]))) * 1.01


def test_momentum_and_its_restarts_are_worth_their_while() -> None:
    # Without restarts it takes ten times as many iterations, without momentum more still.
    a, _ = problem(200, 100)
    a = a * np.logspace(0, -2, 100)
    b = a @ np.abs(problem(100, 1)[1]) + 0.1 * problem(200, 1)[1]
    found = projected_gradient(
        least_squares(a, b), np.zeros(100), nc.NonNeg(), tol=1e-9, max_iter=5000
    )
    assert found.success


def test_many_problems_at_once() -> None:
    a, _ = problem(30, 12)
    many = np.random.default_rng(2).standard_normal((30, 5))

    def f(x: Any) -> tuple[Any, Any]:
        r = a @ x - many
        return (r * r).sum() / 2, a.T @ r

    found = projected_gradient(f, np.zeros((12, 5)), nc.Simplex(axis=0), tol=1e-11)
    for i in range(5):
        one = least_squares(a, many[:, i])
        alone = projected_gradient(one, np.zeros(12), nc.Simplex(axis=0), tol=1e-11)
        np.testing.assert_allclose(found.x[:, i], alone.x, atol=1e-8)


def test_a_function_that_is_not_convex() -> None:
    def f(x: Any) -> tuple[Any, Any]:
        return scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)

    found = projected_gradient(f, np.zeros(2), nc.Box(-1.0, 0.8), tol=1e-9)
    assert found.success
    np.testing.assert_allclose(found.x, [0.8, 0.64], atol=1e-7)


def test_a_set_that_is_not_convex() -> None:
    a, _ = problem(40, 40)
    a = a + a.T
    x0 = np.random.default_rng(3).standard_normal(40)

    def f(x: Any) -> tuple[Any, Any]:  # least on the sphere at the eigenvector of the least value
        return x @ a @ x / 2, a @ x

    found = projected_gradient(f, x0, nc.UnitNorm(axis=0), tol=1e-8)
    assert found.success
    assert found.fun == pytest.approx(np.linalg.eigvalsh(a)[0] / 2, abs=1e-8)


def test_complex_arrays() -> None:
    goal = np.array([3 + 4j, 0.1j, -2.0])

    def f(x: Any) -> tuple[Any, Any]:
        d = x - goal
        return np.vdot(d, d).real / 2, d

    found = projected_gradient(f, np.zeros(3, dtype=complex), nc.MaxNorm(1.0, axis=None))
    np.testing.assert_allclose(found.x, goal / np.linalg.norm(goal), atol=1e-7)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("step", [1e-6, 1.0, 1e6])
def test_any_scale_and_any_first_step(scale: float, step: float) -> None:
    a, b = problem(30, 12)

    def f(x: Any) -> tuple[Any, Any]:
        value, grad = least_squares(a, b)(x)
        return value * scale, grad * scale

    found = projected_gradient(f, np.zeros(12), nc.NonNeg(), tol=1e-10 * min(scale, 1), step=step)
    np.testing.assert_allclose(found.x, scipy.optimize.nnls(a, b)[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_tolerance_rounding_ends_it(dtype: Any) -> None:
    a, b = (x.astype(dtype) for x in problem(200, 100))
    found = projected_gradient(least_squares(a, b), np.zeros(100, dtype), nc.NonNeg(), tol=0)
    assert found.status in (0, 3)
    assert found.nit < 1000
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found.x, scipy.optimize.nnls(a, b)[0], atol=100 * eps)


def test_a_start_at_the_minimum_is_left_alone() -> None:
    found = projected_gradient(lambda x: (x @ x / 2, x), np.zeros(3), nc.NonNeg())
    assert (found.status, found.nit) == (0, 1)
    assert not found.x.any()


def autograd(a: Any, b: Any) -> Function:
    def f(x: Any) -> tuple[Any, Any]:
        x = x.clone().requires_grad_()
        r = a @ x - b
        value = (r @ r) / 2
        (grad,) = torch.autograd.grad(value, x)
        return value, grad

    return f


def libraries() -> dict[str, tuple[Function, Any]]:
    a, b = problem(30, 12)
    ta, tb = torch.tensor(a), torch.tensor(b)
    ja, jb = jnp.asarray(a, dtype=jnp.float32), jnp.asarray(b, dtype=jnp.float32)
    sa, sb = strict.asarray(a), strict.asarray(b)
    return {
        "torch": (autograd(ta, tb), torch.zeros(12, dtype=torch.float64)),
        "jax": (
            jax.jit(jax.value_and_grad(lambda x: ((ja @ x - jb) ** 2).sum() / 2)),
            jnp.zeros(12, dtype=jnp.float32),
        ),
        "strict": (least_squares(sa, sb), strict.zeros(12)),
    }


@pytest.mark.parametrize("library", ["torch", "jax", "strict"])
@pytest.mark.parametrize("search", [projected_gradient, frank_wolfe])
def test_every_library(library: str, search: Callable[..., Result]) -> None:
    function, x0 = libraries()[library]
    c = nc.Simplex(axis=0)
    tol = 1e-4 if library == "jax" else 1e-6
    found = search(function, x0, c, tol=tol, max_iter=300)
    a, b = problem(30, 12)
    expected = projected_gradient(least_squares(a, b), np.zeros(12), c, tol=1e-12)
    assert type(found.x) is type(x0)
    assert found.x.dtype == x0.dtype
    assert found.fun - expected.fun <= max(found.optimality, 1e-5)
    if search is projected_gradient:
        x = np.asarray(found.x.tolist() if library == "torch" else found.x)
        np.testing.assert_allclose(x, expected.x, atol=1e-4)


def test_the_gap_bounds_how_far_the_value_is_above_the_minimum() -> None:
    a, b = problem(30, 12)
    f, c = least_squares(a, b), nc.L1Ball(0.7, axis=0)
    least = projected_gradient(f, np.zeros(12), c, tol=1e-12).fun
    seen: list[tuple[float, float]] = []
    frank_wolfe(
        f, np.zeros(12), c, max_iter=50, callback=lambda r: seen.append((r.fun, r.optimality))
    )
    assert len(seen) == 50
    before = math.inf
    for value, gap in seen:
        # The gap is that before the step to this value.
        assert least - 1e-12 <= value <= least + gap + 1e-12
        assert value <= before + 1e-12
        before = value


@pytest.mark.parametrize("tol", [1e-1, 1e-2])
def test_frank_wolfe_ends_where_the_gap_is_small_and_not_before(tol: float) -> None:
    a, b = problem(30, 12)
    f, c = least_squares(a, b), nc.L1Ball(0.7, axis=0)
    first = float(f(np.zeros(12))[1] @ -nc.lmo(c, f(np.zeros(12))[1]))
    assert first > 1
    found = frank_wolfe(f, np.zeros(12), c, tol=tol)
    assert found.success
    gap = float(found.jac @ (found.x - nc.lmo(c, found.jac)))
    assert found.optimality == pytest.approx(gap)
    assert 0 < gap <= tol * first


def test_frank_wolfe_ends_at_a_corner() -> None:
    g = np.array([1.0, -3.0, 2.0])
    found = frank_wolfe(lambda x: (g @ x, g), np.zeros(3), nc.Simplex(axis=0))
    assert found.success
    np.testing.assert_array_equal(found.x, [0.0, 1.0, 0.0])


# ----------------------------------------------------------------------------- what callers do


def test_the_callback_sees_results_and_can_end_it() -> None:
    a, b = problem(30, 12)
    seen: list[Result] = []

    def callback(result: Result) -> None:
        seen.append(result)
        if len(seen) == 3:
            raise StopIteration

    found = projected_gradient(
        least_squares(a, b), np.zeros(12), nc.NonNeg(), tol=0, callback=callback
    )
    assert (found.status, found.nit, len(seen)) == (2, 3, 3)
    assert "StopIteration" in found.message
    assert not found.success
    assert all(nc.is_satisfied(nc.NonNeg(), r.x) for r in seen)


def test_the_limit() -> None:
    a, b = problem(30, 60)
    found = projected_gradient(
        least_squares(a, b), np.zeros(60), nc.NonNeg(), tol=1e-12, max_iter=5
    )
    assert (found.status, found.nit, found.success) == (1, 5, False)
    assert "limit" in found.message


def test_evaluations_are_counted() -> None:
    a, b = problem(30, 12)
    calls: list[int] = []

    def f(x: Any) -> tuple[Any, Any]:
        calls.append(1)
        return least_squares(a, b)(x)

    assert projected_gradient(f, np.zeros(12), nc.NonNeg()).nfev == len(calls)


def test_the_start_is_not_changed() -> None:
    x0 = -np.ones(12)
    projected_gradient(least_squares(*problem(30, 12)), x0, nc.NonNeg())
    assert (x0 == -1).all()


def flat(x: Any) -> tuple[Any, Any]:
    return 0.0, np.zeros_like(x)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: projected_gradient(flat, [1.0], nc.NonNeg()), TypeError, "array"),
        (lambda: projected_gradient(flat, np.ones(2, int), nc.NonNeg()), TypeError, "floating"),
        (lambda: projected_gradient(flat, np.ones(2), abs), TypeError, "Constraint"),  # type: ignore[arg-type]
        (lambda: projected_gradient(flat, np.ones(2), nc.NonNeg(), tol=-1.0), ValueError, "tol"),
        (
            lambda: projected_gradient(flat, np.ones(2), nc.NonNeg(), tol=math.nan),
            ValueError,
            "tol",
        ),
        (lambda: projected_gradient(flat, np.ones(2), nc.NonNeg(), step=0.0), ValueError, "step"),
        (lambda: projected_gradient(flat, np.ones(2), nc.NonNeg(), max_iter=0), ValueError, "max"),
        (lambda: projected_gradient(flat, np.ones(2), nc.Simplex(axis=1)), ValueError, "axis"),
        (
            lambda: projected_gradient(lambda x: (0.0, x[:1]), np.ones(2), nc.NonNeg()),
            TypeError,
            "gradient of the type, dtype and shape",
        ),
        (
            lambda: projected_gradient(lambda x: (math.nan, x), np.ones(2), nc.NonNeg()),
            ValueError,
            "finite where the search begins",
        ),
        (lambda: frank_wolfe(flat, np.ones(2), nc.NonNeg()), TypeError, "HasLMO"),  # type: ignore[arg-type]
        (lambda: frank_wolfe(flat, np.ones(2), nc.UnitNorm(axis=0)), TypeError, "convex"),
    ],
)
def test_bad_input(call: Callable[[], Result], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_values_that_are_not_finite_on_the_way_are_stepped_back_from() -> None:
    def f(x: Any) -> tuple[Any, Any]:  # infinite from 2 on
        with np.errstate(all="ignore"):
            return -np.log(2 - x).sum() * -1 if (x < 2).all() else math.inf, -1 / (2 - x)

    found = projected_gradient(f, np.zeros(1), nc.Box(None, 1.5), step=100.0)
    assert found.success
    np.testing.assert_allclose(found.x, [1.5])
