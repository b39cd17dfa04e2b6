"""`Correlation` against Higham's example, cvxpy and its optimality conditions."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest

import normconstraints as nc
from normconstraints._correlation import stages
from normconstraints._search import Search
from normconstraints.sets.correlation import slow_projection
from normconstraints.testing import BACKENDS
from normconstraints.testing._exact import digits, to_group

CORRELATION = nc.Correlation()


def _normal(n: int, scale: float = 1.0, seed: int = 0) -> Any:
    w = scale * np.random.default_rng(seed).standard_normal((n, n))
    return (w + w.T) / 2


def _exact(w: Any) -> Any:
    with digits():
        found = slow_projection(to_group(w), w.shape)
    return np.array([float(x) for (x,) in found]).reshape(w.shape)


def _dykstra(w: Any, rounds: int) -> Any:
    """Higham's method: onto the positive semidefinite matrices with a correction, and the ones."""
    y, correction = (w + w.T) / 2, np.zeros_like(w)
    for _ in range(rounds):
        r = y - correction
        values, vectors = np.linalg.eigh(r)
        x = (vectors * np.maximum(values, 0)) @ vectors.T
        correction = x - r
        y = x.copy()
        np.fill_diagonal(y, 1.0)
    return y


def test_the_example_of_higham() -> None:
    w = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    a, b = 0.7607, 0.1573
    np.testing.assert_allclose(
        CORRELATION(w), [[1.0, a, b], [a, 1.0, a], [b, a, 1.0]], rtol=0, atol=5e-5
    )
    np.testing.assert_allclose(_exact(w), CORRELATION(w), rtol=0, atol=2e-15)
    np.testing.assert_allclose(_dykstra(w, 400), CORRELATION(w), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("scale", [0.3, 2.0, 30.0])
def test_cvxpy_finds_the_same(scale: float) -> None:
    w = _normal(5, scale)
    x = cvxpy.Variable((5, 5), symmetric=True)
    least = cvxpy.Minimize(cvxpy.sum_squares(x - w))
    problem = cvxpy.Problem(least, [x >> 0, cvxpy.diag(x) == 1])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-14, tol_gap_rel=1e-14, tol_feas=1e-14)
    # Where the result is singular, cvxpy's is off by that much from the one in exact arithmetic.
    allowed = 1e-9 if scale < 1 else 1e-6
    np.testing.assert_allclose(CORRELATION(w), x.value, rtol=0, atol=allowed)
    np.testing.assert_allclose(CORRELATION(w), _exact(w), rtol=0, atol=1e-14)


def _check_optimal(w: Any, allowed: float) -> None:
    """X is a member and S = X - W - Diag(y) is positive semidefinite with X S = 0."""
    x = CORRELATION(w)
    np.testing.assert_array_equal(np.diag(x), 1.0)
    np.testing.assert_array_equal(x, x.T)
    assert np.linalg.eigvalsh(x)[0] > -1e-14 * np.linalg.eigvalsh(x)[-1]
    s = x - w
    np.fill_diagonal(s, 0.0)
    s -= np.diag(np.sum(x * s, axis=1))
    size = np.max(np.abs(w))
    assert np.linalg.eigvalsh(s)[0] > -allowed * size
    assert np.max(np.abs(x @ s)) < allowed * size


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3, 1e12])
@pytest.mark.parametrize("n", [20, 50])
def test_larger_matrices_fulfil_the_conditions(n: int, scale: float) -> None:
    _check_optimal(_normal(n, scale), 1e-12)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_conjugate_gradients_for_large_matrices(scale: float) -> None:
    _check_optimal(_normal(66, scale), 1e-12)


def _hard() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    g, u = rng.standard_normal((4, 4)), np.array([1.0, -1.0, 1.0, 1.0])
    return {
        "negative definite": -g @ g.T - np.eye(4),
        "zeros": np.zeros((4, 4)),
        "a diagonal": np.diag([1e300, -1e300, 0.0, 1.0]),
        "all against each other": np.full((4, 4), -1.0),
        "rank one": 50 * np.outer(u, u),
        "huge, of rank one": 1e300 * np.outer(u, u),
        "huge": 1e60 * g,
        "large": 1e6 * g,
        "subnormal": 1e-310 * g,
        "in blocks": np.kron(np.eye(2), [[1.0, 7.0], [7.0, 1.0]]),
        "another size": np.diag([1.0, 1e-8, 1.0, 1e-8]) @ (1e8 * (g + g.T)),
    }


@pytest.mark.parametrize("kind", _hard())
def test_hard_matrices(kind: str) -> None:
    w = _hard()[kind]
    x = CORRELATION(w)
    off = np.max(np.abs(x - _exact(w)))
    assert off < (2e-12 if np.max(np.abs(w)) > 1e3 else 1e-14)
    assert CORRELATION.violation(x) == 0
    np.testing.assert_array_equal(CORRELATION(x), x)


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e6, 1e10, 1e300])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_many_matrices_of_every_size_are_nearest(n: int, scale: float) -> None:
    for seed in range(20 if scale < 1e100 else 3):
        w = _normal(n, scale, seed)
        # Relative to the weight its rounding, times what the result moves for it.
        assert np.max(np.abs(CORRELATION(w) - _exact(w))) < 1e-11, seed


def test_the_steps_are_enough() -> None:
    """Where they are not the diagonal before the last scaling would not be 1, and S not >= 0."""
    for seed in range(30):
        _check_optimal(_normal(6, 1e9, seed), 1e-9)


@pytest.mark.parametrize("scale", [3.0, 1e2, 1e4, 1e8, 1e38])
def test_single_precision_alone_rounds_little(scale: float) -> None:
    """Multipliers that were taken from stage to stage gave 6833 units at 5 rows, 774 at 3."""
    backend = BACKENDS["strict no x64"]
    off = {}
    with backend.session():
        for n in (3, 5, 10):
            w = np.random.default_rng(n).standard_normal((8, n, n))
            w = np.float32(scale * w / np.max(np.abs(w), axis=(1, 2), keepdims=True))
            found = backend.numpy(backend.project(CORRELATION, backend.asarray(w, "float32")))
            off[n] = np.max(np.abs(found - CORRELATION(w.astype(np.float64))), axis=(1, 2))
    eps = 2.0**-23
    assert max(np.median(x) for x in off.values()) < 3 * eps
    assert max(np.max(off[3]), np.max(off[5])) < 8 * eps
    # A multiplier near 0 of the smallest eigenvalue is lost in what large stages round.
    assert np.max(off[10]) < 1000 * eps


def test_single_precision_alone_goes_on_until_rounding_stops_it() -> None:
    """Content with what may be rounded, and not with what is, one of these was 545 units off."""
    backend = BACKENDS["strict no x64"]
    w = np.random.default_rng(8).standard_normal((24, 5, 5))
    w = np.float32(1e38 * w / np.max(np.abs(w), axis=(1, 2), keepdims=True))
    with backend.session():
        found = backend.numpy(backend.project(CORRELATION, backend.asarray(w, "float32")))
    assert np.max(np.abs(found - CORRELATION(w.astype(np.float64)))) < 16 * 2.0**-23


def test_a_search_comes_past_a_bend() -> None:
    """A function that falls slowly first, and rises steeply soon after."""

    def slope(t: Any) -> Any:
        return np.where(t < 1e-4, -1.0, -1.0 + 1e5 * (t - 1e-4))

    search = Search.begun(np.asarray(-1.0))
    tries = 0
    while tries < 40:
        at = slope(search.step)
        if search.found(at):
            break
        tries += 1
        search = search.following(at, at, np.asarray(False), np)
    assert tries < 20
    assert abs(at) <= 0.5


def test_the_stages_rise_and_fall() -> None:
    double, single = stages(2.0**-52, wide=False), stages(2.0**-23, wide=False)
    for found in (double, single, stages(2.0**-52, wide=True)):
        assert found.sizes[0] == found.sizes[-1] == 16.0
        assert len(found.sizes) == len(found.goals) == len(found.rising)
    assert max(double.sizes) == 8.0**15
    assert max(single.sizes) == 8.0**6


def test_correlations_of_data_stay() -> None:
    data = np.random.default_rng(2).standard_normal((5, 40))
    w = np.corrcoef(data)
    w = (w + w.T) / 2
    np.fill_diagonal(w, 1.0)
    np.testing.assert_array_equal(CORRELATION(w), w)
    assert CORRELATION.violation(w) == 0
    few = np.corrcoef(data[:, :3])  # of rank 2
    few = (few + few.T) / 2
    np.fill_diagonal(few, 1.0)
    np.testing.assert_array_equal(CORRELATION(few), few)


def test_neither_the_diagonal_nor_a_skew_part_matter() -> None:
    w = _normal(4)
    skew = np.triu(np.ones((4, 4)), 1)
    other = w + np.diag([3.0, -2.0, 0.0, 1e3]) + 0.5 * (skew - skew.T)
    np.testing.assert_allclose(CORRELATION(other), CORRELATION(w), rtol=0, atol=4e-15)


def test_what_the_violation_is() -> None:
    violation = CORRELATION.violation
    assert violation(np.array([[1.0, 2.0], [2.0, 1.0]])) == pytest.approx(1.0)
    assert violation(np.array([[1.0, 0.5], [0.25, 1.0]])) == pytest.approx(0.125 * 2**0.5)
    assert violation(np.diag([1.0, 0.75])) == 0.25
    assert violation(np.diag([1.0, 3.0])) == 2.0
    assert np.isnan(violation(np.array([[1.0, np.nan], [0.0, 1.0]])))


def test_one_row_and_none() -> None:
    np.testing.assert_array_equal(CORRELATION(np.array([[-3.0]])), [[1.0]])
    np.testing.assert_array_equal(CORRELATION(np.array([[[1.0]], [[0.0]]])), np.ones((2, 1, 1)))
    assert CORRELATION(np.zeros((0, 0))).shape == (0, 0)
    assert CORRELATION.violation(np.zeros((2, 0, 0))).shape == (2,)


def test_batches_and_axes() -> None:
    w = np.stack([_normal(4, s, i) for i, s in enumerate([1e-3, 1.0, 30.0, 1e5, 1e200])])
    w[1] = CORRELATION(w[1])
    together = CORRELATION(w)
    np.testing.assert_array_equal(together[1], w[1])
    for one, x in zip(w, together, strict=True):
        np.testing.assert_allclose(CORRELATION(one), x, rtol=0, atol=1e-11)
    moved = nc.Correlation(axis=(2, 0))(np.moveaxis(w, 0, 1))
    np.testing.assert_allclose(np.moveaxis(moved, 1, 0), together, rtol=0, atol=1e-11)


def test_complex_matrices_are_hermitian() -> None:
    rng = np.random.default_rng(3)
    w = 2 * (rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4)))
    x = CORRELATION(w)
    np.testing.assert_array_equal(x, x.conj().T)
    np.testing.assert_array_equal(np.diag(x), 1.0)
    assert np.linalg.eigvalsh(x)[0] > -1e-15
    # Phases in front of rows, and against them of columns, change nothing.
    d = np.exp(1j * rng.uniform(0, 6, 4))
    real = _normal(4)
    np.testing.assert_allclose(
        CORRELATION(d[:, None] * real * d.conj()),
        d[:, None] * CORRELATION(real) * d.conj(),
        atol=1e-14,
    )


@pytest.mark.parametrize("n", [4, 66])
def test_the_derivative_is_that_of_differences(n: int) -> None:
    w, h = _normal(n, 1.5), _normal(n, seed=1)
    g = np.random.default_rng(2).standard_normal((n, n))
    found = nc.Correlation()._vjp(w, CORRELATION(w), g, np)
    step = 1e-6
    slope = (CORRELATION(w + step * h) - CORRELATION(w - step * h)) / (2 * step)
    assert np.sum(found * h) == pytest.approx(np.sum(g * slope), rel=1e-6)
    np.testing.assert_array_equal(np.diag(found), 0.0)


@pytest.mark.parametrize("kind", _hard())
def test_the_derivative_is_finite(kind: str) -> None:
    w = _hard()[kind]
    found = nc.Correlation()._vjp(w, CORRELATION(w), _normal(4), np)
    assert np.all(np.isfinite(found))
    assert np.linalg.norm(found) <= np.linalg.norm(_normal(4)) * (1 + 1e-6)


def test_what_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Correlation: w must have square .* 3 rows and 4"):
        CORRELATION(np.ones((3, 4)))
    with pytest.raises(ValueError, match="Correlation: axis must be two integers"):
        nc.Correlation(axis=(0, 0))
    with pytest.raises(TypeError, match="Correlation: axis must be two integers"):
        nc.Correlation(axis=0)
