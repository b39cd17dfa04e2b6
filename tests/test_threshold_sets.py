"""Simplices and L1 balls: Newton's steps, independent solutions, derivatives, lost digits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from thin import thin

import normconstraints as nc
from normconstraints import functional
from normconstraints._groups import Groups
from normconstraints._threshold import newton_steps, support

# ------------------------------------------------------------------------------- Newton's steps


def _adversarial(n: int, count: int, rng: np.random.Generator) -> Any:
    """Rows that make thresholds slow or wrong: offsets, ties, powers, one giant, mixed scales."""
    k = np.arange(n)
    rows = []
    for _ in range(count // 10):
        rows += [
            rng.standard_normal(n),
            rng.standard_normal(n) + 1000,
            np.round(rng.standard_normal(n), 1),
            0.5**k,
            rng.uniform(1.05, 4) ** -k,
            -(rng.uniform(1.05, 4) ** np.minimum(k, 60)),
            np.where(k == 0, 1e6, rng.standard_normal(n)),
            1 / (1 + k),
            -np.log1p(k) * rng.uniform(0.01, 1),
            rng.standard_normal(n) * 10.0 ** rng.uniform(-8, 8, n),
        ]
    return np.stack(rows)


@pytest.mark.parametrize(("n", "count"), [(1, 100), (2, 500), (8, 4000), (64, 4000), (1000, 1500)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fixpoint_is_reached(n: int, count: int, dtype: Any) -> None:
    """10,100 groups in each dtype: one more step changes no support, and half of them suffice."""
    rng = np.random.default_rng(n)
    w = _adversarial(n, count, rng).astype(dtype)
    for total in (1e-6, 0.3, 1.0, 100.0):
        groups = Groups(w, 1, "Simplex")
        y = groups.wide - groups.max(groups.wide)
        mask, taken = y > -total, 0
        while True:
            theta = (np.where(mask, y, 0).sum(1, keepdims=True) - total) / mask.sum(
                1, keepdims=True
            )
            smaller = mask & (y > theta)
            if np.array_equal(smaller, mask):
                break
            mask, taken = smaller, taken + 1
        assert taken <= newton_steps(n, np.finfo(dtype).eps)
        assert taken <= 16  # what was seen; the bound is for what was not
        np.testing.assert_array_equal(support(groups, y, total, y > -total), mask)


def test_the_fixpoint_is_reached_among_a_million() -> None:
    w = _adversarial(10**6, 10, np.random.default_rng(0)).astype(np.float32)
    p = nc.Simplex(axis=1)(w)
    np.testing.assert_allclose(p.sum(1, dtype=np.float64), 1.0, rtol=4 * 2.0**-23)
    compiled = np.asarray(jax.jit(nc.Simplex(axis=1).project)(jnp.asarray(w[:3])))
    np.testing.assert_allclose(compiled, p[:3], atol=1e-7)


def test_as_many_steps_as_the_bound_says() -> None:
    assert newton_steps(1, 2.0**-23) == 2
    assert newton_steps(8, 2.0**-23) == 9
    assert newton_steps(10**6, 2.0**-23) == 33
    assert newton_steps(10**6, 2.0**-52) == 47


# ---------------------------------------------------------------------------- independent solutions


def _by_supports(w: Any, total: float) -> Any:
    """The nearest point of the simplex among those of all supports."""
    best, least = None, np.inf
    for size in range(1, w.size + 1):
        for chosen in itertools.combinations(range(w.size), size):
            x = np.zeros_like(w)
            part = w[list(chosen)]
            x[list(chosen)] = part - (part.sum() - total) / size
            if x.min() >= -1e-15 and (d := np.sum((x - w) ** 2)) < least:
                best, least = x, d
    return best


def _by_root(
    at: Callable[[float], Any], excess: Callable[[Any], float], low: float, high: float
) -> Any:
    return at(brentq(lambda t: excess(at(t)), low, high, xtol=1e-15, rtol=8.9e-16, maxiter=500))


def _weighted(w: Any, radius: float, c: Any) -> Any:
    if np.sum(c * abs(w)) <= radius:
        return w
    sizes = _by_root(
        lambda t: np.maximum(abs(w) - t * c, 0),
        lambda x: np.sum(c * x) - radius,
        0,
        np.max(abs(w) / c),
    )
    return np.sign(w) * sizes


def _capped(w: Any, low: Any, high: Any, total: float, a: Any) -> Any:
    far = np.max(np.abs(w)) * 4 + 40
    return _by_root(
        lambda t: np.clip(w - t * a, low, high), lambda x: np.sum(a * x) - total, -far, far
    )


def _group_l1(w: Any, radius: float) -> Any:
    norms = np.linalg.norm(w, axis=1, keepdims=True)
    if norms.sum() <= radius:
        return w
    lengths = _by_root(
        lambda t: np.maximum(norms - t, 0), lambda x: x.sum() - radius, 0, norms.max()
    )
    return w * lengths / norms


def _over(row: Any, taken: float, level: float) -> float:
    return float(np.maximum(row - level, 0).sum() - taken)


def _l1_inf(w: Any, radius: float) -> Any:
    sizes = abs(w)
    if sizes.max(1).sum() <= radius:
        return w

    def levels(taken: float) -> Any:
        found = []
        for row in sizes:
            if row.sum() <= taken:
                found.append(0.0)
            else:
                found.append(
                    brentq(lambda m, row=row: np.maximum(row - m, 0).sum() - taken, 0, row.max())
                )
        return np.asarray(found)

    bound = _by_root(levels, lambda m: m.sum() - radius, 0, sizes.sum(1).max())
    return np.sign(w) * np.minimum(sizes, bound[:, None])


def _instances(shape: tuple[int, ...], count: int = 200) -> Any:
    rng = np.random.default_rng(sum(shape))
    rows = _adversarial(int(np.prod(shape)), count, rng)
    return np.clip(rows, -1e3, 1e3).reshape(-1, *shape)


@pytest.mark.parametrize("total", [0.1, 1.0, 7.0])
def test_simplex_and_l1_against_all_supports(total: float) -> None:
    for w in _instances((6,)):
        w = np.asarray(w)
        want = _by_supports(w, total)
        np.testing.assert_allclose(nc.Simplex(total, axis=0)(w), want, atol=1e-10)
        inside = np.maximum(w, 0)
        solid = inside if inside.sum() <= total else want
        np.testing.assert_allclose(nc.SolidSimplex(total, axis=0)(w), solid, atol=1e-10)
        signs = np.where(w < 0, -1.0, 1.0)
        sphere = signs * _by_supports(abs(w), total)
        np.testing.assert_allclose(nc.L1Sphere(total, axis=0)(w), sphere, atol=1e-10)
        ball = w if abs(w).sum() <= total else sphere
        np.testing.assert_allclose(nc.L1Ball(total, axis=0)(w), ball, atol=1e-10)


def test_sparse_simplex_against_all_supports() -> None:
    for w in _instances((6,)):
        got = nc.SparseSimplex(2, 1.0, axis=0)(w)
        assert np.count_nonzero(got) <= 2
        near = min(
            np.sum((w - _embedded(w, chosen)) ** 2)
            for chosen in itertools.combinations(range(6), 2)
        )
        np.testing.assert_allclose(np.sum((w - got) ** 2), near, rtol=1e-10)


def _embedded(w: Any, chosen: tuple[int, ...]) -> Any:
    x = np.zeros_like(w)
    x[list(chosen)] = _by_supports(w[list(chosen)], 1.0)
    return x


def test_the_others_against_root_finding() -> None:
    rng = np.random.default_rng(5)
    for w in _instances((4, 3)):
        c = rng.uniform(0.5, 3, (4, 3))
        got = nc.WeightedL1Ball(1.5, c, axis=None)(w)
        np.testing.assert_allclose(got, _weighted(w, 1.5, c), atol=1e-10)
        got = nc.GroupL1Ball(1.5, axis=None, group_axis=1)(w)
        np.testing.assert_allclose(got, _group_l1(w, 1.5), atol=1e-10)
        got = nc.L1InfBall(1.5, axis=None, group_axis=1)(w)
        np.testing.assert_allclose(got, _l1_inf(w, 1.5), atol=1e-10)
        low, high = rng.uniform(-1, 0, (4, 3)), rng.uniform(0, 1, (4, 3))
        got = nc.CappedSimplex(low, high, 0.25, c, axis=None)(w)
        np.testing.assert_allclose(got, _capped(w, low, high, 0.25, c), atol=1e-10)


CONVEX = [
    nc.Simplex(axis=1),
    nc.SolidSimplex(axis=1),
    nc.L1Ball(1.0, axis=1),
    nc.L1Sphere(1.0, axis=1),
    nc.WeightedL1Ball(1.0, (0.5, 1.0, 2.0, 1.5, 3.0, 0.75), axis=1),
    nc.CappedSimplex(0.0, 0.5, 1.0, axis=1),
]


@pytest.mark.parametrize("c", CONVEX, ids=lambda c: type(c).__name__)
def test_float32_is_right_to_8_ulp_of_float64(c: nc.Constraint) -> None:
    w = _instances((6,)).astype(np.float32)
    want = c(w.astype(np.float64))
    ulp = np.spacing(np.max(abs(want), axis=1, keepdims=True).astype(np.float32))
    for convert in (np.asarray, torch.tensor):
        assert np.all(abs(np.asarray(c(convert(w))) - want) <= 8 * ulp)


def _in_double(c: nc.Constraint, w: Any) -> Any:
    return c(np.asarray(w, dtype=np.float64))


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
@pytest.mark.parametrize("c", [nc.Simplex(axis=1), nc.L1Ball(1.0, axis=1)], ids=repr)
@pytest.mark.parametrize("row", ["outside", "inside", "nan", "infinity", "ties", "zeros"])
def test_large_groups_of_which_little_stays(convert: Any, c: nc.Constraint, row: str) -> None:
    """The path that looks at few entries, and inputs for which it must stand back."""
    w = np.random.default_rng(1).standard_normal((24, 1024)).astype(np.float32)
    rows = {
        "outside": w[3],
        "inside": np.full(1024, 2.0**-10),
        "nan": np.where(w[3] == w[3].max(), np.nan, w[3]),
        "infinity": np.where(w[3] == w[3].max(), np.inf, w[3]),
        "ties": np.where(w[3] > 0, 1.0, -1.0),
        "zeros": np.zeros(1024),
    }
    w[3] = rows[row]
    got, want = np.asarray(c(convert(w))), _in_double(c, w)
    whole = np.isfinite(w).all(axis=1)
    ulp = np.spacing(np.max(abs(want[whole]), axis=1, keepdims=True).astype(np.float32))
    assert np.all(abs(got[whole] - want[whole]) <= 4 * ulp)
    np.testing.assert_array_equal(got[~whole], w[~whole])
    if row == "inside":
        np.testing.assert_array_equal(got[3], w[3])
    np.testing.assert_array_equal(np.asarray(c(convert(got))), got)
    other = type(c)(1.0, axis=0)(convert(np.ascontiguousarray(w.T)))
    np.testing.assert_array_equal(np.asarray(other).T, got)


# ---------------------------------------------------------------------------------- exact numbers


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, jnp.asarray])
def test_a_large_offset_costs_no_digits(convert: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    w = (1000 + rng.standard_normal(10**5)).astype(np.float32)
    got = np.asarray(nc.Simplex(axis=0)(convert(w)))
    total = mpmath.fsum(mpmath.mpf(float(x)) for x in got)
    assert abs(total - 1) <= 4 * 2.0**-23


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
def test_complex_moduli_keep_the_digits_that_a_small_ball_needs(
    convert: Callable[[Any], Any],
) -> None:
    """Moduli near 1000 on a ball of radius 1: rounded to complex128 they miss it by 400 ulp."""
    rng = np.random.default_rng(0)
    size, angle = 1000 + 0.1 * rng.random(16), 7 * rng.random(16)
    w = size * np.exp(1j * angle)
    got = np.asarray(nc.L1Ball(1.0, axis=0)(convert(w)))
    with mpmath.workdps(50):
        exact = [mpmath.mpc(complex(x)) for x in w]
        moduli = sorted((abs(x) for x in exact), reverse=True)
        theta = max((mpmath.fsum(moduli[:k]) - 1) / k for k in range(1, 17))
        want = [x / abs(x) * max(abs(x) - theta, 0) for x in exact]
        off = max(abs(mpmath.mpc(complex(g)) - x) for g, x in zip(got, want, strict=True))
        assert off <= 8 * 2.0**-52 * max(abs(x) for x in want)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, jnp.asarray])
def test_zeros_get_mass_too(convert: Callable[[Any], Any]) -> None:
    w = convert(np.asarray([0.0, 0.1], dtype=np.float32))
    got = np.asarray(nc.L1Sphere(1.0, axis=0)(w))
    np.testing.assert_allclose(got, [0.45, 0.55], rtol=1e-6)
    got = np.asarray(nc.L1Sphere(1.0, axis=0)(convert(np.zeros(4, dtype=np.float32))))
    np.testing.assert_allclose(got, 0.25, rtol=1e-6)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, jnp.asarray])
def test_minus_infinity_becomes_zero(convert: Callable[[Any], Any]) -> None:
    w = convert(np.asarray([0.5, -np.inf, 1.0], dtype=np.float32))
    for c in (nc.Simplex(axis=0), nc.SolidSimplex(axis=0), nc.SparseSimplex(2, axis=0)):
        # A solid simplex is not left by rounding, so that its sum is a unit below the total.
        np.testing.assert_allclose(np.asarray(c(w)), [0.25, 0.0, 0.75], rtol=2.0**-22)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, jnp.asarray])
def test_ties_go_to_the_lowest_index(convert: Callable[[Any], Any]) -> None:
    w = convert(np.ones(10, dtype=np.float32))
    assert np.flatnonzero(np.asarray(nc.SparseSimplex(3, axis=0)(w))).tolist() == [0, 1, 2]
    assert np.flatnonzero(np.asarray(nc.lmo(nc.L1Ball(1.0, axis=0), w))).tolist() == [0]
    assert np.flatnonzero(np.asarray(nc.lmo(nc.Simplex(axis=0), w))).tolist() == [0]


# ------------------------------------------------------------------------------------ derivatives

PARAMETERS: dict[str, Callable[[Any, Any], Any]] = {
    "simplex": lambda w, s: functional.project_simplex(w, s, axis=0),
    "solid simplex": lambda w, s: functional.project_solid_simplex(w, s, axis=0),
    "l1 ball": lambda w, s: functional.project_l1_ball(w, s, axis=0),
    "l1 sphere": lambda w, s: functional.project_l1_sphere(w, s, axis=0),
    "weighted": lambda w, s: functional.project_weighted_l1_ball(w, s, 2.0, axis=0),
    "max norm": lambda w, s: functional.project_max_norm(w, s, axis=0),
    "fixed sum": lambda w, s: functional.project_fixed_sum(w, s, axis=0),
}


@pytest.mark.parametrize("name", thin(PARAMETERS, 2))
def test_jacobians_in_the_weight_and_in_the_parameter(name: str) -> None:
    project = PARAMETERS[name]
    w = np.random.default_rng(3).standard_normal(7)
    step = 1e-6
    sides = [(project(w + step * e, 0.8) - project(w - step * e, 0.8)) for e in np.eye(7)]
    by_weight = np.stack(sides, axis=1) / (2 * step)
    by_parameter = (project(w, 0.8 + step) - project(w, 0.8 - step)) / (2 * step)
    with jax.enable_x64(True):
        x, s = jnp.asarray(w), jnp.asarray(0.8)
        for jacobian in (jax.jacrev, jax.jacfwd):
            found = jacobian(project, argnums=(0, 1))(x, s)
            np.testing.assert_allclose(found[0], by_weight, atol=1e-8)
            np.testing.assert_allclose(found[1], by_parameter, atol=1e-8)
    found = torch.func.jacrev(project, argnums=(0, 1))(torch.tensor(w), torch.tensor(0.8))
    np.testing.assert_allclose(found[0], by_weight, atol=1e-8)
    np.testing.assert_allclose(found[1], by_parameter, atol=1e-8)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("w", [np.zeros(4), np.ones(4), np.asarray([0.8, 0.0, 0.0, 0.0])])
def test_jacobians_are_finite_at_kinks(name: str, w: Any) -> None:
    found = torch.func.jacrev(PARAMETERS[name])(torch.tensor(w), torch.tensor(0.8).double())
    assert torch.isfinite(found).all()


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nc.Simplex(-1.0, axis=0), ValueError, "Simplex: total must be .* >= 0, got -1.0"),
        (lambda: nc.L1Ball("1", axis=0), TypeError, "L1Ball: radius must be a finite number"),
        (lambda: nc.Simplex(), TypeError, "Simplex: axis must be given by keyword"),
        (
            lambda: nc.SparseSimplex(0, axis=0),
            ValueError,
            "SparseSimplex: k must be an integer >= 1",
        ),
        (lambda: nc.SparseSimplex(1.5, axis=0), TypeError, "SparseSimplex: k must be an integer"),
        (
            lambda: nc.CappedSimplex(0.0, 0.1, 1.0, axis=0)(np.ones(3)),
            ValueError,
            "CappedSimplex: total must be from 0 to 0.3 for groups of 3 entries",
        ),
        (
            lambda: nc.CappedSimplex(None, None, 1.0, axis=0),
            ValueError,
            "CappedSimplex: lower or upper must be given",
        ),
        (
            lambda: nc.CappedSimplex(1.0, 0.0, 1.0, axis=0),
            ValueError,
            "CappedSimplex: lower must be <= upper",
        ),
        (
            lambda: nc.GroupL1Ball(1.0, axis=0, group_axis=1)(np.ones((2, 2))),
            ValueError,
            "GroupL1Ball: group_axis must be among axis",
        ),
        (
            lambda: nc.WeightedL1Ball(1.0, 0.0, axis=0),
            ValueError,
            "WeightedL1Ball: weights must be a finite number > 0, got 0.0",
        ),
        (
            lambda: nc.Simplex(axis=0)(np.ones(3) + 0j),
            TypeError,
            "Simplex: w must be real, got complex128",
        ),
        (
            lambda: nc.lmo(nc.MinNorm(1.0, axis=0), np.ones(3)),
            TypeError,
            "lmo: constraint must be a HasLMO, got MinNorm, which has no linear minimiser",
        ),
        (
            lambda: nc.lmo(nc.Box(lower=0.0), np.ones(3)),
            ValueError,
            "Box: lower and upper must be given for a linear minimiser",
        ),
        (
            lambda: nc.dual_norm(nc.Simplex(axis=0), np.ones(3)),
            TypeError,
            "dual_norm: constraint must be a HasDualNorm, got Simplex",
        ),
        (
            lambda: nc.sample(nc.Simplex(axis=0), like=np.ones(3), seed=-1),
            ValueError,
            "Simplex: seed must be an integer >= 0, got -1",
        ),
        (
            lambda: nc.tangent(nc.Simplex(axis=0), np.ones(3), np.ones(4)),
            ValueError,
            "Simplex: w and g must have one shape",
        ),
        (
            lambda: nc.tangent(nc.Simplex(axis=0), np.ones(3), np.ones(3, dtype=np.float32)),
            TypeError,
            "Simplex: w and g must be of one library and dtype",
        ),
    ],
)
def test_bad_input(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
