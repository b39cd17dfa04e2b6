"""Symmetric, skew-symmetric, triangular, Toeplitz and circulant matrices beyond the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import normconstraints as nc

SQUARE = (nc.Symmetric, nc.SkewSymmetric, nc.Circulant)
ALL: tuple[Any, ...] = (*SQUARE, nc.Toeplitz, nc.Triangular)


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("cls", ALL)
def test_it_is_the_projection_matrix_of_the_subspace(cls: Any) -> None:
    """All of the linear map at once: it is symmetric, idempotent, and of the right rank."""
    c, n = cls(), 5
    p = np.stack([c(e.reshape(n, n)).ravel() for e in np.eye(n * n)])
    np.testing.assert_allclose(p, p.T, atol=1e-15)
    np.testing.assert_allclose(p @ p, p, atol=1e-15)
    ranks = {
        nc.Symmetric: n * (n + 1) // 2,
        nc.SkewSymmetric: n * (n - 1) // 2,
        nc.Triangular: n * (n + 1) // 2,
        nc.Toeplitz: 2 * n - 1,
        nc.Circulant: n,
    }
    assert round(float(np.trace(p))) == np.linalg.matrix_rank(p) == ranks[cls]


@pytest.mark.parametrize(
    ("constraint", "member"),
    [
        (nc.Toeplitz(), scipy.linalg.toeplitz(normal(7), normal(4))),
        (nc.Toeplitz(), scipy.linalg.toeplitz(normal(3), normal(8))),
        (nc.Circulant(), scipy.linalg.circulant(normal(6))),
        (nc.Triangular(), np.tril(normal(6, 4))),
        (nc.Triangular(lower=False), np.triu(normal(4, 6))),
        (nc.Symmetric(), normal(5, 5) + normal(5, 5).T),
        (nc.SkewSymmetric(), normal(5, 5) - normal(5, 5).T),
    ],
    ids=repr,
)
def test_members_of_scipy_and_numpy_stay(constraint: Any, member: Any) -> None:
    np.testing.assert_array_equal(constraint(member), member)
    assert constraint.violation(member) == 0
    other = member.copy()
    other[0, -1] += 1.0 if isinstance(constraint, nc.Triangular) else 1e-3
    if isinstance(constraint, nc.Triangular) and not constraint.lower:
        other[-1, 0] += 1.0
    if member.shape == (3, 8) or member.shape == (7, 4):
        other[0, 0] += 1e-3  # the corner is a diagonal by itself
    assert constraint.violation(other) > 0


def test_constant_diagonals_are_not_enough_for_a_circulant_matrix() -> None:
    w = scipy.linalg.toeplitz(np.arange(1.0, 5.0), np.array([1.0, 4.0, 3.0, 7.0]))
    assert nc.Toeplitz().violation(w) == 0
    assert nc.Circulant().violation(w) > 0
    np.testing.assert_array_equal(nc.Circulant()(w)[0], [1.0, 4.0, 3.0, 3.25])


def test_against_numpy() -> None:
    w = normal(3, 5, 5)
    t = np.swapaxes(w, -1, -2)
    np.testing.assert_array_equal(nc.Symmetric()(w), (w + t) / 2)
    np.testing.assert_array_equal(nc.SkewSymmetric()(w), (w - t) / 2)
    np.testing.assert_array_equal(nc.Triangular()(w), np.tril(w))
    np.testing.assert_array_equal(nc.Triangular(lower=False)(w), np.triu(w))
    np.testing.assert_allclose(nc.Symmetric()(w) + nc.SkewSymmetric()(w), w, atol=1e-16)


def test_a_circulant_matrix_is_diagonal_in_fourier_space() -> None:
    w = nc.Circulant()(normal(8, 8))
    f = np.fft.fft(np.eye(8)) / np.sqrt(8)
    d = f @ w @ f.conj().T
    np.testing.assert_allclose(d, np.diag(np.diag(d)), atol=1e-15)


def test_a_toeplitz_matrix_is_a_convolution() -> None:
    w = nc.Toeplitz()(normal(6, 4))
    x, kernel = normal(4), np.concatenate([w[0, :0:-1], w[:, 0]])
    np.testing.assert_allclose(w @ x, np.convolve(kernel, x)[3:9], atol=1e-14)


def test_complex_matrices_are_hermitian() -> None:
    w = normal(4, 4) + 1j * normal(4, 4)[::-1]
    h, s = nc.Symmetric()(w), nc.SkewSymmetric()(w)
    np.testing.assert_array_equal(h, h.conj().T)
    np.testing.assert_array_equal(s, -s.conj().T)
    assert not np.imag(np.diag(h)).any()


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("axis", [(-1, -2), (0, 1), (2, 0)])
def test_axes(cls: Any, axis: tuple[int, int]) -> None:
    w = normal(4, 4, 4)
    moved = np.moveaxis(w, axis, (-2, -1))
    # To the order in which sums are taken.
    found = np.moveaxis(cls(axis=axis)(w), axis, (-2, -1))
    np.testing.assert_allclose(found, cls()(moved), rtol=4e-16, atol=1e-15)
    violations = cls(axis=axis).violation(w), cls().violation(moved)
    np.testing.assert_allclose(*violations, rtol=1e-15)


@pytest.mark.parametrize("cls", ALL)
def test_members_of_other_libraries_keep_their_bits(cls: Any) -> None:
    # A mean of equal numbers is rounded: 0.1 three times over three is another number.
    w = cls()(np.full((6, 6), 0.1))
    np.testing.assert_array_equal(cls()(w), w)


@pytest.mark.parametrize("cls", SQUARE)
def test_what_is_not_square_is_refused(cls: Any) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__}: w must have square .* 3 rows and 4"):
        cls()(np.ones((3, 4)))
    with pytest.raises(ValueError, match="4 rows and 3"):
        cls(axis=(1, 0)).violation(np.ones((3, 4)))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 0)])
def test_nothing_is_in_every_set(cls: Any, shape: tuple[int, ...]) -> None:
    assert cls()(np.zeros(shape)).shape == shape
    assert not cls().violation(np.zeros(shape)).any()


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("axis", "error"), [(0, TypeError), ((0, 0), ValueError), ((0, 1, 2), ValueError)]
)
def test_bad_axes(cls: Any, axis: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{cls.__name__}: axis must be two integers"):
        cls(axis=axis)


def test_a_vector_has_no_matrix() -> None:
    with pytest.raises(ValueError, match="Toeplitz: axis must exist"):
        nc.Toeplitz()(np.ones(3))


@pytest.mark.parametrize("lower", [1, None, "yes", np.True_])
def test_lower_is_a_switch(lower: Any) -> None:
    with pytest.raises(TypeError, match="Triangular: lower must be True or False, got"):
        nc.Triangular(lower)
