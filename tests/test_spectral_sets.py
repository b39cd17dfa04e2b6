"""Sets of singular values and eigenvalues against mpmath, LAPACK, cvxpy and SciPy."""

from __future__ import annotations

import functools
from typing import Any

import array_api_strict as strict
import cvxpy
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.transform import Rotation
from thin import thin

import normconstraints as nc


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def orthogonal(n: int, seed: int = 0) -> Any:
    return np.linalg.qr(normal(n, n, seed=seed))[0]


def made(values: Any, m: int, n: int, seed: int = 0) -> Any:
    """A matrix with these singular values."""
    k = min(m, n)
    return orthogonal(m, seed)[:, :k] * np.asarray(values)[:k] @ orthogonal(n, seed + 1)[:k]


def raw(*shape: int, seed: int = 0, dtype: str = "complex128") -> Any:
    real = normal(*shape, seed=seed)
    return real + 1j * normal(*shape, seed=seed + 99) if dtype.startswith("complex") else real


# ------------------------------------------------------------------------------- many matrices

SHAPES = ((5, 3), (3, 5), (4, 4), (1, 6), (6, 1), (12, 12), (20, 12), (12, 20))
SMALL = 36
"""Entries of the matrices that mpmath decomposes."""


def kinds(m: int, n: int) -> dict[str, Any]:
    k, g = min(m, n), normal(m, n, seed=31 * m + n)
    i = np.arange(k)
    found = {
        "twice the identity": 2 * np.eye(m, n),
        "thrice an orthogonal one": 3 * made(np.ones(k), m, n, 3),
        "rank one": 2 * np.outer(g[:, 0], g[0]),
        "zeros": np.zeros((m, n)),
        "Hilbert": 4 * scipy.linalg.hilbert(max(m, n))[:m, :n],
        "graded": made(5 * 10.0 ** (-8 * i / max(k - 1, 1)), m, n, 5),
        "near the bound": made(1 + 1e-9 * (k / 2 - i), m, n, 7),
        "in pairs": made(3.0 - i // 2, m, n, 9),
        "huge": 1e12 * g,
        "tiny": 1e-12 * g,
    }
    return found | {f"normal {s}": 2.0 ** (s - 1) * normal(m, n, seed=s) for s in range(3)}


def on_simplex(y: Any, total: float) -> list[Any]:
    sums, theta = 0, 0
    for count, x in enumerate(sorted(y, reverse=True), 1):
        sums = sums + x
        if x - (sums - total) / count > 0:
            theta = (sums - total) / count
    return [max(x - theta, 0 * x) for x in y]


# What becomes of a spectrum, from the largest value on: of floats or of mpmath's.
CHANGES: dict[str, Any] = {
    "SpectralBall": (nc.SpectralBall(1.0), lambda y: [min(x, x * 0 + 1) for x in y]),
    "SpectralSphere": (
        nc.SpectralSphere(1.5),
        lambda y: [y[0] * 0 + 1.5, *[min(x, x * 0 + 1.5) for x in y[1:]]],
    ),
    "SingularValues": (
        nc.SingularValues(0.5, 2.0),
        lambda y: [min(max(x, x * 0 + 0.5), x * 0 + 2) for x in y],
    ),
    "NuclearBall": (nc.NuclearBall(2.0), lambda y: list(y) if sum(y) <= 2 else on_simplex(y, 2)),
    "MaxRank": (nc.MaxRank(2), lambda y: [x if i < 2 else x * 0 for i, x in enumerate(y)]),
    "Orthogonal": (nc.Orthogonal(), lambda y: [x * 0 + 1 for x in y]),
    "SpecialOrthogonal": (nc.SpecialOrthogonal(), lambda y: [x * 0 + 1 for x in y]),
    "PositiveSemidefinite": (nc.PositiveSemidefinite(), lambda y: [max(x, x * 0) for x in y]),
    "Spectraplex": (nc.Spectraplex(2.0), lambda y: on_simplex(y, 2)),
}
SQUARE = ("SpecialOrthogonal", "PositiveSemidefinite", "Spectraplex")
UNIQUE = ("SpectralBall", "NuclearBall", "PositiveSemidefinite", "Spectraplex")
"""Convex sets, whose projection rounding of the weight does not move far."""


@functools.cache
def decomposed(data: bytes, shape: tuple[int, int]) -> Any:
    w = np.frombuffer(data).reshape(shape)
    if w.size > SMALL:
        return scipy.linalg.svd(w, full_matrices=False, lapack_driver="gesvd")
    a = mpmath.matrix(w.tolist())
    if shape[0] < shape[1]:
        vt, y, u = mpmath.svd_r(a.T)
        return u.T, y, vt.T
    return mpmath.svd_r(a)


def exact(name: str, w: Any) -> tuple[Any, float]:
    """A nearest matrix, and how far it is away."""
    change = CHANGES[name][1]
    with mpmath.workdps(60):
        if name in UNIQUE[2:]:
            half = (w + w.T) / 2
            if w.size > SMALL:
                y, u = scipy.linalg.eigh(half, driver="ev")
            else:
                y, u = mpmath.eigsy(mpmath.matrix(half.tolist()))
            vt = u.T
        else:
            u, y, vt = decomposed(w.tobytes(), w.shape)
        values = change(list(y))
        if name == "SpecialOrthogonal":
            det = mpmath.det if w.size <= SMALL else np.linalg.det
            values[-1] = values[-1] * (1 if det(u) * det(vt) > 0 else -1)
        if w.size > SMALL:
            p = u * np.array(values) @ vt
            return p, float(np.linalg.norm(w - p))
        p = u * mpmath.diag(values) * vt
        off = float(mpmath.mnorm(mpmath.matrix(w.tolist()) - p, "f"))
        return np.array(p.tolist(), dtype=float), off


DTYPES = ("float64", "float32")
KINDS = [(name, DTYPES[(i + j) % 2]) for i, name in enumerate(CHANGES) for j in (0, 1)]


@pytest.mark.parametrize(("name", "dtype"), thin(KINDS, 2))
def test_many_matrices_of_every_kind(name: str, dtype: str) -> None:
    """Nearest by their distance, and the nearest themselves where that is unique."""
    constraint, allowed = CHANGES[name][0], 1e-12 if dtype == "float64" else 1e-6
    count = 0
    for m, n in SHAPES:
        if name in SQUARE and m != n:
            continue
        made_of = {kind: w.astype(dtype) for kind, w in kinds(m, n).items()}
        stack = np.stack(list(made_of.values()))
        together = constraint(stack), constraint(torch.asarray(stack))
        for i, (kind, w) in enumerate(made_of.items()):
            data = w.astype(float)
            want, distance = exact(name, data)
            size = max(np.linalg.norm(data), np.linalg.norm(want))
            alone = constraint(w), constraint(torch.asarray(w))
            for got in (*alone, *[each[i] for each in together]):
                p = np.asarray(got).astype(float)
                assert abs(np.linalg.norm(data - p) - distance) <= allowed * size, (m, n, kind)
                assert constraint.violation(got) == 0, (m, n, kind)
                if name in UNIQUE or kind.startswith("normal"):
                    assert np.linalg.norm(p - want) <= allowed * size, (m, n, kind)
                count += 1
    assert count >= (90 if name in SQUARE else 400)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_largest_singular_value_after_the_cap(dtype: str) -> None:
    """Within 4 eps of the bound, by exact arithmetic."""
    for m, n in SHAPES[:5]:
        for kind, w in kinds(m, n).items():
            for x in (w.astype(dtype), torch.asarray(w.astype(dtype))):
                p = np.asarray(nc.SpectralBall(1.0)(x)).astype(float)
                with mpmath.workdps(40):
                    tall = mpmath.matrix((p if m >= n else p.T).tolist())
                    largest = max(mpmath.svd_r(tall, compute_uv=False))
                assert largest <= 1 + 4 * float(np.finfo(dtype).eps), (m, n, kind)


CLUSTERS = [(n, gap) for n in (8, 16, 24, 64) for gap in (0.0, 1e-12, 1e-9, 1e-3)]


@pytest.mark.parametrize(("n", "gap"), thin(CLUSTERS, 5))
def test_clusters_stay_after_one_projection(n: int, gap: float) -> None:
    """As a matrix that was projected and trained on: all singular values are nearly equal.

    Libraries give vectors then that are orthonormal to 25 eps and not to one or two, and values
    alone that are up to 48 eps too large.
    """
    sets: list[Any] = [CHANGES[name][0] for name in CHANGES]
    for seed in range(4):
        i, q = np.arange(n), orthogonal(n, seed)
        for w in (
            made(1 + gap * (n / 2 - i), n, n, seed),
            q * (1 + gap * (n / 2 - i)) @ q.T,
            q + gap * normal(n, n, seed=seed),
        ):
            for c in sets:
                for x in (w, torch.asarray(w)):
                    p = c(x)
                    assert bool((c(p) == p).all()), (c, seed)
            if seed == 0 and n < 64 and gap:  # else it may be a member as it is
                assert _largest(nc.SpectralBall(1.0)(w)) <= 1 + 4 * 2.0**-52


def _largest(p: Any) -> float:
    """The largest singular value of what has none much above 1, to rounding of what is above."""
    with mpmath.workdps(40):
        a = mpmath.matrix(p.tolist())
        off = np.array((a.T * a - mpmath.eye(p.shape[1])).tolist(), dtype=float)
    return 1 + float(scipy.linalg.eigvalsh(off)[-1]) / 2


# ----------------------------------------------------------------------------- other programs


def _solved(w: Any, bound: Any, x: Any) -> Any:
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - w)), bound)
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-14, tol_gap_rel=1e-14, tol_feas=1e-14)
    return x.value


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize(("m", "n"), [(4, 3), (3, 4), (4, 4)])
def test_cvxpy_finds_the_same(m: int, n: int) -> None:
    """To the root of the gap of 1e-14 that its solver ends with, and no further."""
    w = 2 * normal(m, n, seed=m)
    x = cvxpy.Variable((m, n))
    cases = [
        (nc.SpectralBall(1.5), [cvxpy.sigma_max(x) <= 1.5]),
        (nc.NuclearBall(4.0), [cvxpy.normNuc(x) <= 4.0]),
    ]
    for constraint, bound in cases:
        np.testing.assert_allclose(constraint(w), _solved(w, bound, x), rtol=0, atol=1e-7)
    if m == n:
        y = cvxpy.Variable((n, n), symmetric=True)
        squares: list[Any] = [
            (nc.PositiveSemidefinite(), [y >> 0]),
            (nc.PositiveSemidefinite(0.5), [y >> 0.5 * np.eye(n)]),
            (nc.Spectraplex(3.0), [y >> 0, cvxpy.trace(y) == 3.0]),
        ]
        for constraint, bound in squares:
            np.testing.assert_allclose(constraint(w), _solved(w, bound, y), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (6, 6), (30, 20)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_optimality_conditions_of_convex_sets(shape: tuple[int, int], dtype: str) -> None:
    """W - P is in the normal cone: no member has a larger product with it than P has."""
    for seed in range(5):
        w = 2 * raw(*shape, seed=seed, dtype=dtype)
        for constraint in (nc.SpectralBall(1.5), nc.NuclearBall(4.0), nc.Spectraplex(3.0)):
            if isinstance(constraint, nc.Spectraplex) and shape[0] != shape[1]:
                continue
            p = constraint(w)
            far = nc.lmo(constraint, p - w)
            off = np.vdot(w - p, far - p).real
            assert abs(off) <= 1e-13 * np.linalg.norm(w) ** 2
        if shape[0] == shape[1]:
            h = (w + w.conj().T) / 2
            p = nc.PositiveSemidefinite()(w)
            assert np.linalg.eigvalsh(p)[0] >= -1e-14 and np.linalg.eigvalsh(p - h)[0] >= -1e-13
            assert abs(np.vdot(p, p - h)) <= 1e-13 * np.linalg.norm(w) ** 2


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (5, 5), (40, 20)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_polar_factor_of_scipy(shape: tuple[int, int], dtype: str) -> None:
    for seed in range(5):
        w = raw(*shape, seed=seed, dtype=dtype)
        side = "right" if shape[0] >= shape[1] else "left"
        want = scipy.linalg.polar(w, side=side)[0]
        for method in ("svd", "polar"):
            p = nc.Orthogonal(method=method)(w)
            allowed = 1e-12 if method == "svd" else 1e-11
            np.testing.assert_allclose(p, want, rtol=0, atol=allowed)


def test_the_problem_of_procrustes() -> None:
    for seed in range(5):
        a, b = normal(9, 4, seed=seed), normal(9, 4, seed=seed + 50)
        want, _ = scipy.linalg.orthogonal_procrustes(a, b)
        np.testing.assert_allclose(nc.Orthogonal()(a.T @ b), want, rtol=0, atol=1e-12)


def test_the_rotations_of_kabsch() -> None:
    signs = set()
    for seed in range(20):
        a, b = normal(9, 3, seed=seed), normal(9, 3, seed=seed + 50)
        want, _ = Rotation.align_vectors(a, b)
        signs.add(float(np.sign(np.linalg.det(a.T @ b))))
        np.testing.assert_allclose(
            nc.SpecialOrthogonal()(a.T @ b), want.as_matrix(), rtol=0, atol=1e-12
        )
    assert signs == {1.0, -1.0}


# --------------------------------------------------------------------------------- the calculus


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_orthogonal_and_unitary_matrices_go_through(name: str, dtype: str) -> None:
    """P(Q W Z) = Q P(W) Z; for symmetric matrices with Z the mirror image of Q."""
    constraint = CHANGES[name][0]
    if dtype == "complex128" and name == "SpecialOrthogonal":
        return
    m, n = (4, 4) if name in SQUARE else (5, 4)
    w = 1.5 * raw(m, n, seed=3, dtype=dtype)
    q = np.linalg.qr(raw(m, m, seed=1, dtype=dtype))[0]
    z = np.linalg.qr(raw(n, n, seed=2, dtype=dtype))[0]
    if name in UNIQUE[2:]:
        z = q.conj().T
    if name == "SpecialOrthogonal":
        q, z = (x * np.sign(np.linalg.det(x)) ** np.eye(n)[0] for x in (q, z))
    np.testing.assert_allclose(constraint(q @ w @ z), q @ constraint(w) @ z, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("matrices", "vectors"),
    [
        (nc.SpectralBall(1.0), nc.LInfBall(1.0, axis=-1)),
        (nc.NuclearBall(2.0), nc.L1Ball(2.0, axis=-1)),
        (nc.MaxRank(2), nc.TopK(2, axis=-1)),
        (nc.Spectraplex(1.5), nc.Simplex(1.5, axis=-1)),
        (nc.PositiveSemidefinite(0.25), nc.Box(0.25, None)),
    ],
    ids=repr,
)
def test_on_diagonals_it_is_the_set_of_vectors(matrices: Any, vectors: Any) -> None:
    for seed in range(20):
        x = 1.5 * normal(5, seed=seed)
        p = matrices(np.diag(x))
        np.testing.assert_allclose(p, np.diag(vectors(x)), rtol=0, atol=1e-14)


def test_what_the_cap_takes_is_the_proximal_map_of_the_dual_norm() -> None:
    """W = P(W) + prox(W): of the nuclear norm, and of the spectral norm."""
    w = 2 * normal(6, 4)
    u, y, vt = np.linalg.svd(w, full_matrices=False)
    soft = u * np.maximum(y - 1.5, 0) @ vt  # the proximal map of 1.5 times the nuclear norm
    np.testing.assert_allclose(nc.SpectralBall(1.5)(w) + soft, w, rtol=0, atol=1e-13)
    ball = cvxpy.Variable(w.shape)
    least = cvxpy.Minimize(cvxpy.sum_squares(ball - w) / 2 + 2.0 * cvxpy.sigma_max(ball))
    cvxpy.Problem(least).solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-14, tol_gap_rel=1e-14)
    np.testing.assert_allclose(nc.NuclearBall(2.0)(w) + ball.value, w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CHANGES)
def test_batches_and_axes(name: str) -> None:
    constraint = CHANGES[name][0]
    cls, shape = type(constraint), (4, 4) if name in SQUARE else (5, 3)
    given = {
        f: getattr(constraint, f)
        for f in ("radius", "lower", "upper", "rank", "total")
        if hasattr(constraint, f)
    }
    w = 1.5 * normal(2, 3, *shape)
    want = np.stack([[constraint(x) for x in row] for row in w])
    np.testing.assert_allclose(constraint(w), want, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(constraint.violation(w).shape, (2, 3))
    for axis in ((0, 1), (1, 0), (0, 3), (2, 1), (1, 2), (3, 0), (-4, -2)):
        moved = np.moveaxis(w, (-2, -1), axis)
        found = cls(**given, axis=axis)(moved)
        np.testing.assert_allclose(np.moveaxis(found, axis, (-2, -1)), want, rtol=0, atol=1e-14)


def test_an_array_of_bounds() -> None:
    w = 2 * normal(3, 5, 4)
    bounds = np.array([0.5, 1.0, 2.0])
    for cls in (nc.SpectralBall, nc.SpectralSphere, nc.NuclearBall):
        want = np.stack([cls(float(r))(x) for r, x in zip(bounds, w, strict=True)])
        np.testing.assert_allclose(cls(bounds)(w), want, rtol=0, atol=1e-14)
        np.testing.assert_allclose(cls((0.5, 1.0, 2.0))(w), want, rtol=0, atol=1e-14)


def test_a_kernel_as_a_matrix() -> None:
    kernel = normal(8, 3, 3, 2)
    p = nc.AsMatrix(nc.SpectralBall(1.0), rows=0)(kernel)
    want = nc.SpectralBall(1.0)(kernel.reshape(8, -1)).reshape(kernel.shape)
    np.testing.assert_allclose(p, want, rtol=0, atol=1e-14)
    assert np.linalg.norm(p.reshape(8, -1), 2) == pytest.approx(1.0)


def test_it_is_not_spectral_normalization() -> None:
    w = made([3.0, 2.0, 0.5], 5, 3)
    p = nc.SpectralBall(1.0)(w)
    np.testing.assert_allclose(scipy.linalg.svdvals(p), [1.0, 1.0, 0.5], rtol=1e-14)
    assert np.linalg.norm(p - w) < np.linalg.norm(w / 3 - w)


# ------------------------------------------------------------- minimisers, tangents and samples


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_linear_minimisers_and_dual_norms(shape: tuple[int, int], dtype: str) -> None:
    g = raw(*shape, dtype=dtype)
    u, y, vh = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(nc.lmo(nc.SpectralBall(2.0), g), -2 * u @ vh, atol=1e-14)
    np.testing.assert_allclose(nc.lmo(nc.SpectralSphere(2.0), g), -2 * u @ vh, atol=1e-14)
    np.testing.assert_allclose(nc.lmo(nc.Orthogonal(), g), -u @ vh, atol=1e-14)
    first = -2 * np.outer(u[:, 0], vh[0])
    np.testing.assert_allclose(nc.lmo(nc.NuclearBall(2.0), g), first, atol=1e-14)
    assert nc.dual_norm(nc.SpectralBall(2.0), g) == pytest.approx(y.sum(), rel=1e-14)
    assert nc.dual_norm(nc.NuclearBall(2.0), g) == pytest.approx(y[0], rel=1e-14)
    if shape == (4, 4):
        values, v = np.linalg.eigh((g + g.conj().T) / 2)
        least = 3 * np.outer(v[:, 0], v[:, 0].conj())
        np.testing.assert_allclose(nc.lmo(nc.Spectraplex(3.0), g), least, atol=1e-14)
        assert np.vdot(g, least).real == pytest.approx(3 * values[0])


@pytest.mark.parametrize("n", [3, 4])
def test_no_rotation_is_better_than_the_minimiser(n: int) -> None:
    for seed in range(10):
        g = normal(n, n, seed=seed)
        v = nc.lmo(nc.SpecialOrthogonal(), g)
        assert np.linalg.det(v) == pytest.approx(1.0)
        np.testing.assert_allclose(v.T @ v, np.eye(n), atol=1e-14)
        others = nc.sample(nc.SpecialOrthogonal(), like=np.zeros((200, n, n)), seed=seed)
        assert np.all(np.sum(g * others, axis=(1, 2)) >= np.sum(g * v) - 1e-12)
        # The nearest rotation to -g is it, too.
        np.testing.assert_allclose(v, nc.SpecialOrthogonal()(-g), atol=1e-12)


def test_the_step_of_muon() -> None:
    """Newton and Schulz with the coefficients of Muon come near what the minimiser is exactly."""
    g = normal(16, 8)
    x = g / np.linalg.norm(g)
    for _ in range(5):
        a = x.T @ x
        x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
    step = -nc.lmo(nc.SpectralBall(1.0), g)
    assert np.sum(x * step) / np.linalg.norm(x) / np.linalg.norm(step) > 0.97
    np.testing.assert_allclose(scipy.linalg.svdvals(step), 1.0, rtol=1e-14)


def _member(kind: str) -> tuple[Any, Any]:
    i = np.eye(5, 4)
    return {
        "inside": (nc.SpectralBall(1.0), 0.3 * i),
        "one value at the bound": (nc.SpectralBall(1.0), made([1.0, 0.6, 0.4, 0.1], 5, 4)),
        "two at the bound": (nc.SpectralBall(1.0), made([1.0, 1.0, 0.4, 0.4], 5, 4)),
        "all at the bound, wide": (nc.SpectralBall(1.0), made(np.ones(4), 4, 6)),
        "rank one": (nc.NuclearBall(2.0), made([2.0, 0, 0, 0], 5, 4)),
        "rank two": (nc.NuclearBall(2.0), made([1.5, 0.5, 0, 0], 4, 5)),
        "full rank": (nc.NuclearBall(2.0), made([0.8, 0.6, 0.4, 0.2], 5, 4)),
        "inside of a nuclear ball": (nc.NuclearBall(9.0), made([1.5, 0.5, 0, 0], 5, 4)),
        "tall": (nc.Orthogonal(), made(np.ones(4), 6, 4)),
        "wide": (nc.Orthogonal(), made(np.ones(4), 4, 6)),
        "square": (nc.Orthogonal(), orthogonal(4)),
        "rotation": (nc.SpecialOrthogonal(), nc.SpecialOrthogonal()(normal(4, 4))),
        "of rank two": (nc.PositiveSemidefinite(), _psd([2.0, 1.0, 0.0, 0.0])),
        "definite": (nc.PositiveSemidefinite(), _psd([2.0, 1.0, 1.0, 0.5])),
        "zeros": (nc.PositiveSemidefinite(), np.zeros((4, 4))),
        "at a floor": (nc.PositiveSemidefinite(0.5), _psd([2.0, 0.5, 0.5, 0.5])),
    }[kind]


def _psd(values: Any) -> Any:
    q = orthogonal(len(values), 4)
    w = q * np.asarray(values) @ q.T
    return (w + w.T) / 2


MEMBERS = (
    "inside",
    "one value at the bound",
    "two at the bound",
    "all at the bound, wide",
    "rank one",
    "rank two",
    "full rank",
    "inside of a nuclear ball",
    "tall",
    "wide",
    "square",
    "rotation",
    "of rank two",
    "definite",
    "zeros",
    "at a floor",
)


@pytest.mark.parametrize("kind", MEMBERS)
def test_tangents_are_the_first_order_of_steps(kind: str) -> None:
    constraint, w = _member(kind)
    w = constraint(w)
    for seed in range(5):
        g = normal(*w.shape, seed=seed)
        found = nc.tangent(constraint, w, g)
        step = 1e-7
        slope = (w - constraint(w - step * g)) / step
        np.testing.assert_allclose(found, slope, rtol=0, atol=3e-6 * np.linalg.norm(g))
        if kind in ("tall", "square", "rotation"):
            turn = w.T @ found
            np.testing.assert_allclose(turn, -turn.T, rtol=0, atol=1e-14)
        if kind == "wide":
            turn = w @ found.T
            np.testing.assert_allclose(turn, -turn.T, rtol=0, atol=1e-14)


def test_projected_steps_are_a_retraction_of_second_order() -> None:
    """The distance from the geodesic falls with the third power of the step."""
    w = orthogonal(5)
    for constraint in (nc.Orthogonal(), nc.SpecialOrthogonal()):
        w = constraint(w)
        t = nc.tangent(constraint, w, normal(5, 5, seed=1))
        off = []
        for step in (0.02, 0.01, 0.005):
            geodesic = w @ scipy.linalg.expm(-step * w.T @ t)
            off.append(np.linalg.norm(constraint(w - step * t) - geodesic))
        orders = np.log2(np.array(off[:-1]) / off[1:])
        np.testing.assert_allclose(orders, 3.0, atol=0.05)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_samples_of_orthogonal_matrices_are_uniform(dtype: str) -> None:
    """After Haar: means of 0, squares of 1 / n, fourth powers of 3 / (n (n + 2)) if real."""
    count, n = 6_000, 4
    x = nc.sample(nc.Orthogonal(), like=np.zeros((count, n, n), dtype=dtype), seed=0)
    noise = 5 / np.sqrt(count)
    np.testing.assert_allclose(np.mean(x, axis=0), 0.0, atol=noise * n**-0.5)
    np.testing.assert_allclose(np.mean(abs(x) ** 2, axis=0), 1 / n, atol=noise / n * 1.5)
    fourth = 3 / (n * (n + 2)) if dtype == "float64" else 2 / (n * (n + 1))
    np.testing.assert_allclose(np.mean(abs(x) ** 4, axis=0), fourth, atol=noise * fourth * 3)
    if dtype == "float64":
        assert abs(np.mean(np.linalg.det(x))) < noise
        # Traces: E tr = 0, E tr^2 = 1, as of a normal number.
        assert np.mean(np.trace(x, axis1=1, axis2=2) ** 2) == pytest.approx(1.0, abs=2 * noise)
    tall = nc.sample(nc.Orthogonal(), like=np.zeros((count, 6, 2)), seed=1)
    np.testing.assert_allclose(np.mean(tall**2, axis=0), 1 / 6, atol=noise / 4)
    turns = nc.sample(nc.SpecialOrthogonal(), like=np.zeros((count, 3, 3)), seed=2)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, rtol=1e-13)
    np.testing.assert_allclose(np.mean(turns, axis=0), 0.0, atol=noise)
    np.testing.assert_allclose(np.mean(turns**2, axis=0), 1 / 3, atol=noise / 2)


# --------------------------------------------------------------------- what is not in the sets


LIBRARIES = [(name, library) for library in (np, torch, strict, jnp) for name in CHANGES]


@pytest.mark.parametrize(
    ("name", "library"),
    [*LIBRARIES[:27], *thin(LIBRARIES[27:], 9)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_matrices_with_nan_or_infinity_come_back(name: str, library: Any) -> None:
    constraint = CHANGES[name][0]
    data = 2 * normal(5, 4, 4)
    data[1, 2, 3], data[3, 0, 0] = np.nan, -np.inf
    data[4] = np.nan
    w = library.asarray(data.tolist(), dtype=library.float32)
    got = np.asarray(constraint(w).tolist() if library is jnp else constraint(w), dtype=float)
    single = data.astype(np.float32)
    for i in (1, 3, 4):
        np.testing.assert_array_equal(got[i], single[i])
    excess = np.asarray(constraint.violation(w))
    np.testing.assert_array_equal(np.isnan(excess), [False, True, False, True, True])
    for i in (0, 2):
        size = np.linalg.norm(single[i])
        np.testing.assert_allclose(got[i], constraint(single[i]), rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("name", thin(CHANGES, 3))
def test_half_precision(name: str) -> None:
    constraint = CHANGES[name][0]
    w = 2 * normal(3, 4, 4)
    for x, eps in (
        (w.astype(np.float16), 2.0**-10),
        (torch.asarray(w, dtype=torch.float16), 2.0**-10),
        (torch.asarray(w, dtype=torch.bfloat16), 2.0**-7),
        (jnp.asarray(w, dtype=jnp.bfloat16), 2.0**-7),
    ):
        p = constraint(x)
        assert p.dtype == x.dtype
        assert not any(float(e) for e in constraint.violation(p))
        wide = np.array([[[float(e) for e in row] for row in m] for m in x])
        got = np.array([[[float(e) for e in row] for row in m] for m in p])
        want = constraint(wide)
        assert np.max(abs(got - want)) <= eps * np.max(abs(want))


W = np.ones((3, 4))
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nc.SpectralBall(-1.0), ValueError, r"SpectralBall: radius must be .* >= 0, got -1"),
    (lambda: nc.SpectralBall("1"), TypeError, r"SpectralBall: radius must be .*, got '1'"),
    (lambda: nc.SpectralSphere(-0.5), ValueError, r"SpectralSphere: radius must be .* got -0.5"),
    (lambda: nc.NuclearBall(np.inf), ValueError, r"NuclearBall: radius must be .* got inf"),
    (lambda: nc.Spectraplex(-2.0), ValueError, r"Spectraplex: total must be .* >= 0, got -2"),
    (lambda: nc.SingularValues(-1.0), ValueError, r"SingularValues: lower must be .* got -1"),
    (
        lambda: nc.SingularValues(2.0, 1.0),
        ValueError,
        r"SingularValues: lower must be <= upper, got lower=2.0 and upper=1.0",
    ),
    (
        lambda: nc.PositiveSemidefinite(np.nan),
        ValueError,
        r"PositiveSemidefinite: minimum must be a finite number, got nan",
    ),
    (lambda: nc.MaxRank(0), ValueError, r"MaxRank: rank must be an integer >= 1, got 0"),
    (lambda: nc.MaxRank(1.5), TypeError, r"MaxRank: rank must be an integer >= 1, got 1.5"),
    (
        lambda: nc.SpectralBall(1.0, method="qr"),
        ValueError,
        r"SpectralBall: method must be one of 'svd', 'gram', 'polar', got 'qr'",
    ),
    (
        lambda: nc.SpectralBall(1.0, method=None),
        TypeError,
        r"SpectralBall: method must be one of .*, got None",
    ),
    (
        lambda: nc.Orthogonal(method="gram"),
        ValueError,
        r"Orthogonal: method must be one of 'svd', 'polar', got 'gram'",
    ),
    (
        lambda: nc.SpectralBall(1.0, axis=0),
        TypeError,
        r"SpectralBall: axis must be two integers, that of the rows .*, got 0",
    ),
    (
        lambda: nc.SpectralBall(1.0, axis=None),
        TypeError,
        r"SpectralBall: axis must be two integers.* got None",
    ),
    (
        lambda: nc.Orthogonal(axis=(0, 1, 2)),
        ValueError,
        r"Orthogonal: axis must be two integers.* got \(0, 1, 2\)",
    ),
    (lambda: nc.MaxRank(1, axis=(0, 0)), ValueError, r"MaxRank: axis must be two .* \(0, 0\)"),
    (lambda: nc.SpectralBall(1.0)(np.ones(3)), ValueError, r"SpectralBall: axis must exist, got"),
    (
        lambda: nc.SpectralBall(1.0, axis=(0, 2))(W),
        ValueError,
        r"SpectralBall: axis must exist, got axis=\(0, 2\) for an array with 2 dimensions; use",
    ),
    *[
        (
            functools.partial(c, W),
            ValueError,
            rf"{type(c).__name__}: w must .* square .* 3 rows and 4 columns .* give the axes",
        )
        for c in (nc.SpecialOrthogonal(), nc.PositiveSemidefinite(), nc.Spectraplex())
    ],
    (
        lambda: nc.SpecialOrthogonal()(np.eye(3) + 0j),
        TypeError,
        r"SpecialOrthogonal: .*complex128",
    ),
    (
        lambda: nc.SpectralBall((1.0, 2.0))(np.ones((3, 4, 4))),
        ValueError,
        r"SpectralBall: radius must .*",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "message"), ERRORS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_refusal_says_what_to_do(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_axes_that_are_equal_for_the_weight_at_hand() -> None:
    """(0, -2) are two axes of a stack and one of a matrix."""
    c = nc.SpectralBall(1.0, axis=(0, -2))
    assert c(np.ones((2, 3, 4))).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="SpectralBall: axis"):
        c(np.ones((3, 4)))
