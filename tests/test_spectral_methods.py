"""Gram matrices and products in place of decompositions: how far off they are, and why."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg
import torch
from test_spectral_sets import made, normal
from thin import thin

import normconstraints as nc
from normconstraints import _host_spectral
from normconstraints import _spectral_methods as methods

UNIT = 2.0**-52
SIZES = ((20, 12), (12, 20), (16, 16))
CONDITIONS = (1.0, 1e2, 1e4, 1e6, 1e8)
LARGEST = (1.0001, 3.0, 10.0, 100.0, 1e3, 1e4)


def _graded(largest: float, condition: float, m: int, n: int, seed: int) -> Any:
    k = min(m, n)
    return made(largest * condition ** (-np.arange(k) / (k - 1)), m, n, seed)


def _with(w: Any, change: Any) -> Any:
    u, y, vt = scipy.linalg.svd(w, full_matrices=False, lapack_driver="gesvd")
    return u * change(y) @ vt


CASES = [(largest, c) for largest in LARGEST for c in CONDITIONS]


@pytest.mark.parametrize(("largest", "condition"), thin(CASES, 4))
@pytest.mark.parametrize("method", ["svd", "gram", "polar"])
def test_how_far_off_a_cap_is_in_float64(method: str, largest: float, condition: float) -> None:
    """Relative to the bound: for "gram" u k (4 + the square of the largest singular value).

    About 10 units of the largest value are of LAPACK, here and in what it is compared with.
    """
    ball = nc.SpectralBall(1.0, method=method)
    for m, n in SIZES:
        worst = {
            "svd": 16 * UNIT * largest,
            "gram": UNIT * min(m, n) * (4 + largest**2),
            "polar": 64 * UNIT * largest,
        }[method]
        for seed in range(4):
            w = _graded(largest, condition, m, n, seed)
            want = _with(w, lambda y: np.minimum(y, 1))
            for x in (w, torch.asarray(w)):
                p = np.asarray(ball(x))
                assert np.linalg.norm(p - want, 2) <= worst
                assert np.linalg.norm(p, 2) <= 1 + nc.tolerance(w) * (
                    16 if method == "polar" else 4
                )
                assert ball.violation(p) == 0


@pytest.mark.parametrize(("largest", "condition"), thin(CASES, 4))
@pytest.mark.parametrize("method", ["svd", "gram", "polar"])
def test_a_cap_in_float32_is_rounded_once(method: str, largest: float, condition: float) -> None:
    """Whatever the method: float64 computes, or what is as good; the ball is not left by 4 eps."""
    ball = nc.SpectralBall(1.0, method=method)
    for m, n in (*SIZES, (48, 48)):
        for seed in range(3):
            w = _graded(largest, condition, m, n, seed).astype(np.float32)
            want = _with(w.astype(float), lambda y: np.minimum(y, 1))
            for x in (w, torch.asarray(w)):
                p = np.asarray(ball(x)).astype(float)
                assert np.linalg.norm(p - want) <= 2.0**-24 * np.linalg.norm(want)
                assert np.linalg.norm(p, 2) <= 1 + 2.0**-23


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_sign_against_a_decomposition(condition: float) -> None:
    """Off by rounding times the condition number, as the polar factor moves."""
    for m, n in (*SIZES, (48, 48)):
        for seed in range(4):
            w = _graded(3.0, condition, m, n, seed)
            want = _with(w, np.ones_like)
            for x in (w, torch.asarray(w)):
                p = np.asarray(nc.Orthogonal(method="polar")(x))
                assert np.linalg.norm(p - want, 2) <= (256 + 8 * condition) * UNIT
                np.testing.assert_allclose(scipy.linalg.svdvals(p), 1.0, rtol=0, atol=16 * UNIT)
            single = w.astype(np.float32)
            p = nc.Orthogonal(method="polar")(single).astype(float)
            q = nc.Orthogonal()(single).astype(float)
            assert np.max(abs(p - q)) <= 2.0**-23


@pytest.mark.parametrize("method", ["gram", "polar"])
def test_what_a_method_may_not_stumble_over(method: str) -> None:
    ball = nc.SpectralBall(1.0, method=method)
    others = [
        np.zeros((4, 3)),
        3 * made(np.ones(4), 4, 6),
        2 * np.eye(5, 3),
        np.outer(normal(5), normal(4, seed=1)),
        made([1e6, 1.0, 1e-6], 5, 3),
        1e150 * normal(5, 3),
        1e-150 * normal(5, 3),
        normal(1, 6),
        normal(6, 1),
        np.array([[-3.0]]),
        normal(4, 4) + 1j * normal(4, 4, seed=1),
    ]
    for w in others:
        p, want = ball(w), nc.SpectralBall(1.0)(w)
        size = max(float(np.linalg.norm(w)), 1.0)
        worst = 1e-14 * (size**2 if method == "gram" and size < 1e100 else size)
        assert np.linalg.norm(p - want) <= worst
        np.testing.assert_array_equal(ball(p), p)


@pytest.mark.parametrize("method", ["svd", "gram"])
def test_a_bound_that_is_no_number_beside_the_weight(method: str) -> None:
    """Their quotient is below the smallest number."""
    w, radius = 1e306 * made([4, 3, 2, 1], 6, 4), 1e-8
    p = nc.SpectralBall(radius, method=method)(w)
    np.testing.assert_allclose(scipy.linalg.svdvals(p / radius), 1.0, rtol=0, atol=1e-13)
    np.testing.assert_allclose(p / radius, _with(w / 1e306, np.ones_like), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", ["svd", "gram", "polar"])
@pytest.mark.parametrize("n", thin([8, 24, 64], 3))
def test_clusters_at_the_bound_stay(method: str, n: int) -> None:
    ball = nc.SpectralBall(1.0, method=method)
    for seed in range(6):
        for gap in (0.0, 1e-12, 1e-9, 1e-3):
            w = made(np.ones(n), n, n, seed) + gap * normal(n, n, seed=seed)
            for x in (w, torch.asarray(w), w.astype(np.float32)):
                p = ball(x)
                assert bool((ball(p) == p).all()), (seed, gap)


# --------------------------------------------------------- torch in host memory, single precision


@pytest.mark.parametrize("above", [0, 1, 3, 20, 23, 24])
@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-5, 1e-2])
@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-6, 1e-5, 1e-2])
def test_singular_values_around_the_bound(above: int, gap: float, spread: float) -> None:
    """So many are above by so much, in a cluster or not; the others are below by as much."""
    k = np.arange(24)
    for seed in range(3):
        values = np.where(k < above, 1 + gap + spread * (above - k), 1 - gap - spread * (k - above))
        w = torch.asarray(made(values, 40, 24, seed).astype(np.float32))
        p = nc.SpectralBall(1.0, method="gram")(w)
        largest = np.linalg.norm(w.double().numpy(), 2)
        assert torch.equal(nc.SpectralBall(1.0, method="gram")(p), p)
        if torch.equal(p, w):
            assert largest <= 1 + nc.tolerance(w)
            continue
        assert largest > 1
        want = _with(w.double().numpy(), lambda y: np.minimum(y, 1))
        assert np.linalg.norm(p.double().numpy() - want) <= 2.0**-24 * np.linalg.norm(want)
        assert np.linalg.norm(p.double().numpy(), 2) <= 1 + 2.0**-23


@pytest.mark.parametrize("noise", 10.0 ** np.arange(-7.5, -2, 0.5))
def test_a_large_cluster_on_both_sides_of_the_bound(noise: float) -> None:
    """As after a step of training: eigenvectors in single precision do not tell the sides apart."""
    for seed in range(2):
        w = made(np.ones(64), 72, 64, seed) + noise * normal(72, 64, seed=seed)
        found = nc.SpectralBall(1.0, method="gram")(torch.asarray(w.astype(np.float32)))
        p, x = found.double().numpy(), w.astype(np.float32).astype(float)
        want = _with(x, lambda y: np.minimum(y, 1))
        assert (p != x).any()
        assert np.linalg.norm(p - want) <= 2.0**-24 * np.linalg.norm(want)
        assert np.linalg.norm(p, 2) <= 1 + 2.0**-23


def test_matrices_of_a_batch_have_their_own_count_above_the_bound() -> None:
    parts = [made(size * np.geomspace(1, 0.1, 12), 20, 12, 1) for size in (0.5, 0.999, 1.5, 9.0)]
    w = torch.asarray(np.stack(parts).astype(np.float32))
    radius = torch.tensor([1.0, 1.0, 1.0, 3.0])
    found = nc.SpectralBall(radius, method="gram")(w)
    for x, p, r in zip(w, found, radius, strict=True):
        alone = nc.SpectralBall(float(r), method="gram")(x)
        torch.testing.assert_close(p, alone, rtol=0, atol=2.0**-22)
        assert torch.equal(p, x) == bool(r > torch.linalg.matrix_norm(x, 2))


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_products_of_fewer_digits_do_no_harm(precision: str) -> None:
    w = torch.asarray(made(3 * np.geomspace(1, 0.1, 64), 64, 64).astype(np.float32))
    want = nc.SpectralBall(1.0)(w)
    torch.set_float32_matmul_precision(precision)
    try:
        found = nc.SpectralBall(1.0, method="gram")(w)
        assert not _host_spectral._is_exact(torch)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert _host_spectral._is_exact(torch)
    torch.testing.assert_close(found, want, rtol=0, atol=2.0**-23)


# ------------------------------------------------------------------------------- the polynomials


def _best(low: Any, high: Any) -> tuple[Any, Any, Any, Any]:
    """The odd polynomial of degree 5 that is nearest to 1 on an interval, by exchange (Remez).

    It is as far off at both ends and at both zeros of its derivative, by turns below and above.
    """
    q, r = low + (high - low) / 3, low + 2 * (high - low) / 3
    while True:
        rows = [[x, x**3, x**5, (-1) ** i] for i, x in enumerate((low, q, r, high))]
        a, b, c, error = mp.lu_solve(mp.matrix(rows), mp.matrix([1, 1, 1, 1]))
        root = mp.sqrt(9 * b * b - 20 * a * c)
        zeros = sorted(mp.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (1, -1))
        if abs(zeros[0] - q) + abs(zeros[1] - r) < mp.mpf(10) ** -25:
            return a, b, c, error
        q, r = zeros


def test_the_polynomials_are_the_best_ones() -> None:
    with mp.workdps(40):
        wider = 1 + mp.mpf(2) ** -12
        low, high = mp.mpf("0.024"), mp.mpf(1)
        for i, have in enumerate(methods._FINISHING[:4]):
            a, b, c, error = _best(low, high)
            want = [x / wider**power for x, power in ((a, 1), (b, 3), (c, 5))]
            for x, y in zip(have, want, strict=True):
                assert abs(x - y) < 1e-9, i
            if i == 0:
                for x, y in zip(methods._RAISING, want, strict=True):
                    assert abs(x - y / (1 + error)) < 1e-9
                assert methods._RAISING[0] > methods._GROWTH
            low, high = sum(x * low**p for x, p in zip(want, (1, 3, 5), strict=True)), 1 + error
        assert max(high - 1, 1 - low) < 2e-4
    # The last ones have 1 as a double zero of what is left, and bring that to nothing.
    for a, b, c in methods._FINISHING[4:]:
        assert a + b + c == 1 and a + 3 * b + 5 * c == 0 and 6 * b + 20 * c == 0


@pytest.mark.parametrize("smallest", [2.0**-26, 2.0**-54])
def test_they_take_all_of_an_interval_to_one(smallest: float) -> None:
    x = np.concatenate([np.geomspace(smallest, 1.0, 200_001), np.linspace(0.02, 1 + 2**-13, 9999)])
    steps = methods.polynomials(smallest)
    for i, (a, b, c) in enumerate(steps):
        x = x * (a + x**2 * (b + c * x**2))
        raising = i < len(steps) - len(methods._FINISHING)
        # No value is taken down to where it has no digits.
        assert np.all(x > 0) and np.max(x) < (1.001 if raising else 1.82)
    np.testing.assert_allclose(x, 1.0, rtol=0, atol=2e-15)
    below = smallest / 2 ** np.arange(8)
    for a, b, c in steps:
        below = below * (a + below**2 * (b + c * below**2))
    assert np.all((below > 0) & (below < 1 + 1e-3) | (abs(below - 1) < 0.9))
