"""`ConvOperatorBall` against explicit matrices, cvxpy and Dykstra's method."""

from __future__ import annotations

import itertools
import math
from typing import Any

import cvxpy
import numpy as np
import pytest
from thin import thin

import normconstraints as nc
from normconstraints import _convolution


def _normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def _matrix(kernel: Any, spatial: tuple[int, ...], *, wrapped: bool = True) -> Any:
    """The convolution with a kernel (o, i, ...) as one matrix, entry by entry."""
    o, i = kernel.shape[:2]
    points = list(itertools.product(*(range(n) for n in spatial)))
    number = {p: k for k, p in enumerate(points)}
    matrix = np.zeros((len(points), o, len(points), i))
    for p in points:
        for shift in itertools.product(*(range(n) for n in kernel.shape[2:])):
            q = tuple(a - b for a, b in zip(p, shift, strict=True))
            if wrapped:
                q = tuple(a % n for a, n in zip(q, spatial, strict=True))
            if q in number:
                matrix[number[p], :, number[q], :] += kernel[(slice(None), slice(None), *shift)]
    return matrix.reshape(len(points) * o, len(points) * i)


def _norm(kernel: Any, spatial: tuple[int, ...], roles: str) -> float:
    """As the set measures it."""
    ball = nc.ConvOperatorBall(0.0, spatial=spatial, roles=roles)
    return float(ball.violation(kernel))


def _dykstra(kernel: Any, spatial: tuple[int, ...], rounds: int) -> Any:
    """Onto the capped frequencies with a correction, and onto the kernels that fit, in turn."""
    axes = tuple(range(2, kernel.ndim))
    inside = tuple(slice(0, n) for n in kernel.shape)
    x = np.zeros((*kernel.shape[:2], *spatial))
    x[inside] = kernel
    correction = np.zeros_like(x)
    for _ in range(rounds):
        y = np.moveaxis(np.fft.fftn(x + correction, axes=axes), (0, 1), (-2, -1))
        u, s, v = np.linalg.svd(y, full_matrices=False)
        capped = np.moveaxis((u * np.minimum(s, 1.0)[..., None, :]) @ v, (-2, -1), (0, 1))
        z = np.fft.ifftn(capped, axes=axes).real
        correction += x - z
        x = np.zeros_like(z)
        x[inside] = z[inside]
    return x[inside]


@pytest.mark.parametrize(
    ("shape", "spatial"),
    [
        ((2, 3, 3), (7,)),
        ((3, 2, 4), (4,)),
        ((1, 1, 1), (1,)),
        ((2, 2, 3, 2), (4, 5)),
        ((2, 1, 2, 3), (6, 3)),
        ((2, 2, 1, 2, 2), (2, 3, 2)),
    ],
)
def test_the_norm_is_that_of_the_explicit_matrix(
    shape: tuple[int, ...], spatial: tuple[int, ...]
) -> None:
    kernel = _normal(*shape)
    exact = np.linalg.norm(_matrix(kernel, spatial), 2)
    assert _norm(kernel, spatial, "oi" + "s" * len(spatial)) == pytest.approx(exact, rel=1e-14)


def test_it_is_not_the_norm_of_the_reshaped_kernel() -> None:
    kernel = np.full((1, 1, 3), 3**-0.5)
    assert np.linalg.norm(kernel.reshape(1, 3), 2) == pytest.approx(1.0)
    assert _norm(kernel, (8,), "ois") == pytest.approx(3**0.5)


def test_zeros_around_the_input_are_bounded_by_a_larger_grid() -> None:
    for seed in range(10):
        kernel = _normal(2, 2, 3, 3, seed=seed)
        padded = np.linalg.norm(_matrix(kernel, (4, 5), wrapped=False), 2)
        assert padded <= _norm(kernel, (6, 7), "oiss") * (1 + 1e-12)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_cvxpy_finds_the_same(bound: float) -> None:
    w = _normal(2, 2, 2)
    basis = [_matrix(e.reshape(w.shape), (4,)) for e in np.eye(8)]
    x = cvxpy.Variable(8)
    matrix = sum(x[j] * basis[j] for j in range(8))
    least = cvxpy.Minimize(cvxpy.sum_squares(x - w.ravel()))
    problem = cvxpy.Problem(least, [cvxpy.sigma_max(matrix) <= bound])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-14, tol_gap_rel=1e-14, tol_feas=1e-14)
    found = nc.ConvOperatorBall(bound, spatial=(4,), roles="ois")(w)
    # Its own result is off by so much: this one is a member and at least as near.
    np.testing.assert_allclose(found.ravel(), x.value, rtol=0, atol=1e-5)
    assert np.linalg.norm(_matrix(found, (4,)), 2) <= bound * (1 + 1e-14)
    assert np.linalg.norm(found - w) <= math.sqrt(problem.value) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("shape", "spatial"),
    [((2, 2, 3), (5,)), ((1, 1, 3), (12,)), ((2, 3, 2, 2), (3, 4)), ((3, 1, 2, 2), (4, 4))],
)
@pytest.mark.parametrize("scale", [0.6, 3.0])
def test_the_method_of_dykstra_comes_to_the_same(
    shape: tuple[int, ...], spatial: tuple[int, ...], scale: float
) -> None:
    w = scale * _normal(*shape)
    found = nc.ConvOperatorBall(1.0, spatial=spatial, roles="oi" + "s" * len(spatial))(w)
    np.testing.assert_allclose(found, _dykstra(w, spatial, 6000), rtol=0, atol=1e-9)


def test_a_kernel_as_large_as_the_grid_has_its_frequencies_capped() -> None:
    w = 2 * _normal(2, 3, 4)
    found = nc.ConvOperatorBall(1.0, spatial=(4,), roles="ois")(w)
    np.testing.assert_allclose(found, _dykstra(w, (4,), 1), rtol=0, atol=1e-14)


def test_to_cap_and_to_cut_off_is_another_map() -> None:
    w = 2 * _normal(1, 1, 3)
    ball = nc.ConvOperatorBall(1.0, spatial=(16,), roles="ois")
    cut = _dykstra(w, (16,), 1)
    assert ball.violation(cut) > 0.01
    assert np.max(np.abs(cut - ball(w))) > 0.01


@pytest.mark.parametrize(
    ("scale", "seed"), thin(itertools.product([1.0, 30.0, 1e8, 1e150], range(3)), 3)
)
def test_no_member_lies_beyond(scale: float, seed: int) -> None:
    w = scale * _normal(3, 2, 3, 3, seed=seed)
    ball = nc.ConvOperatorBall(1.0, spatial=(6, 5))
    p = ball(w)
    assert _norm(p, (6, 5), "oiss") <= 1 + 1e-14
    np.testing.assert_array_equal(ball(p), p)
    away = (w - p) / np.linalg.norm(w - p)
    for k in range(50):
        z = ball(p + 10.0 ** -(k % 8) * _normal(*w.shape, seed=100 + k))
        assert np.sum(away * (z - p)) < 1e-13


def test_layouts_of_frameworks_and_strides_agree() -> None:
    torch_kernel = 2 * _normal(4, 3, 2, 3)
    expected = nc.ConvOperatorBall(1.0, spatial=(5, 4))(torch_kernel)
    keras = nc.ConvOperatorBall(1.0, spatial=(5, 4), roles="ssio")
    found = keras(np.ascontiguousarray(np.transpose(torch_kernel, (2, 3, 1, 0))))
    np.testing.assert_allclose(np.transpose(found, (3, 2, 0, 1)), expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(keras(np.transpose(torch_kernel, (2, 3, 1, 0))), found)
    turned = nc.ConvOperatorBall(1.0, spatial=(4, 5))(np.swapaxes(torch_kernel, 2, 3))
    np.testing.assert_allclose(np.swapaxes(turned, 2, 3), expected, rtol=0, atol=1e-13)
    every_other = np.repeat(torch_kernel, 2, axis=0)[::2]
    np.testing.assert_array_equal(nc.ConvOperatorBall(1.0, spatial=(5, 4))(every_other), expected)


def test_conjugate_gradients_for_large_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    w = _normal(4, 3, 3, 3) / 2
    ball = nc.ConvOperatorBall(1.0, spatial=(6, 6))
    g = _normal(*w.shape, seed=1)
    whole, slope = ball(w), ball._vjp(w, ball(w), g, np)
    monkeypatch.setattr(_convolution, "_DENSE", 1)
    np.testing.assert_allclose(ball(w), whole, rtol=0, atol=1e-13)
    np.testing.assert_allclose(ball._vjp(w, whole, g, np), slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_the_derivative_is_that_of_differences(scale: float) -> None:
    w, h, g = scale * _normal(2, 3, 3), _normal(2, 3, 3, seed=1), _normal(2, 3, 3, seed=2)
    ball = nc.ConvOperatorBall(1.0, spatial=(7,), roles="ois")
    found = ball._vjp(w, ball(w), g, np)
    step = 1e-6
    slope = (ball(w + step * h) - ball(w - step * h)) / (2 * step)
    assert np.sum(found * h) == pytest.approx(np.sum(g * slope), rel=1e-6)


def test_the_derivative_is_finite_where_singular_values_are_equal() -> None:
    ball = nc.ConvOperatorBall(1.0, spatial=(6,), roles="ois")
    g = _normal(3, 3, 2)
    w = np.stack([2 * np.eye(3), np.zeros((3, 3))], axis=-1)
    for kernel in (w, 1e300 * w, np.ones_like(w), 0 * w):
        found = ball._vjp(kernel, ball(kernel), g, np)
        assert np.all(np.isfinite(found))
        assert np.linalg.norm(found) <= np.linalg.norm(g) * (1 + 1e-9)


@pytest.mark.thorough
def test_the_steps_are_nearly_always_enough() -> None:
    """What the docstring says: where they are not, the result is nearly the nearest."""
    short = 0
    for shape, spatial in [((1, 1, 3), (16,)), ((2, 2, 3), (8,)), ((1, 1, 5), (32,))]:
        for seed in range(25):
            for times in (1.5, 3.0, 10.0, 100.0, 1e20):
                w = _normal(*shape, seed=seed)
                w *= times / _norm(w, spatial, "ois")
                ball = nc.ConvOperatorBall(1.0, spatial=spatial, roles="ois")
                p = ball(w)
                away = (w - p) / np.linalg.norm(w - p)
                z = [ball(p + 1e-3 * _normal(*shape, seed=k)) for k in range(4)]
                beyond = max(float(np.sum(away * (x - p))) for x in z)
                assert beyond < 1e-2
                short += beyond > 1e-10
    assert short <= 6  # of 375


def test_members_zeros_and_a_bound_of_zero() -> None:
    w = _normal(2, 2, 3)
    ball = nc.ConvOperatorBall(20.0, spatial=(4,), roles="ois")
    np.testing.assert_array_equal(ball(w), w)
    assert ball.violation(w) == 0
    point = nc.ConvOperatorBall(0.0, spatial=(4,), roles="ois")
    np.testing.assert_array_equal(point(w), 0 * w)
    np.testing.assert_array_equal(point(0 * w), 0 * w)
    assert point(np.zeros((0, 2, 3))).shape == (0, 2, 3)
    assert point.violation(np.zeros((2, 0, 3))) == 0


def test_the_result_scales_with_bound_and_weight() -> None:
    w = 3 * _normal(2, 2, 3)
    p = nc.ConvOperatorBall(1.0, spatial=(6,), roles="ois")(w)
    for by in (2.0**-900, 2.0**900):
        scaled = nc.ConvOperatorBall(by, spatial=(6,), roles="ois")(by * w)
        np.testing.assert_allclose(scaled / by, p, rtol=0, atol=1e-14)


def test_what_does_not_fit_is_refused() -> None:
    make = nc.ConvOperatorBall
    with pytest.raises(TypeError, match="ConvOperatorBall: spatial must be a tuple of integers"):
        make(1.0, spatial=8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ConvOperatorBall: spatial must be an integer >= 1"):
        make(1.0, spatial=(8, 0))
    with pytest.raises(ValueError, match=r"ConvOperatorBall: roles must be a word .* got 'ois'"):
        make(1.0, spatial=(8, 8), roles="ois")
    with pytest.raises(ValueError, match=r"ConvOperatorBall: roles must be a word .* got 'oosi'"):
        make(1.0, spatial=(8,), roles="oosi")
    with pytest.raises(TypeError, match="ConvOperatorBall: roles must be a word"):
        make(1.0, spatial=(8,), roles=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ConvOperatorBall: radius must be a finite number >= 0"):
        make(-1.0, spatial=(8, 8))
    ball = make(1.0, spatial=(4, 4))
    with pytest.raises(ValueError, match="ConvOperatorBall: w must have 4 axes, one for each"):
        ball(np.ones((2, 2, 3)))
    with pytest.raises(ValueError, match=r"spatial must be at least .* for a kernel of \(5, 3\)"):
        ball(np.ones((2, 2, 5, 3)))
    with pytest.raises(TypeError, match="ConvOperatorBall: w must be real"):
        ball(np.ones((2, 2, 3, 3), dtype=complex))
