"""Sets of linear equations and inequalities, and the second-order cone, against second solutions.

Those of LAPACK (least squares) and of mpmath, for random and adversarial groups in double.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch

import normconstraints as nc
from normconstraints.sets.affine import Affine
from normconstraints.sets.fixed_sum import FixedSum
from normconstraints.sets.half_space import HalfSpace
from normconstraints.sets.hyperplane import Hyperplane
from normconstraints.sets.second_order_cone import SecondOrderCone
from normconstraints.sets.slab import Slab
from normconstraints.sets.zero_mean import ZeroMean

MP = mpmath.mp.clone()
MP.dps = 60
COUNT = 200
CLOSE = 1e-10


def _groups(count: int = COUNT, least: int = 2) -> Iterator[tuple[np.random.Generator, Any]]:
    """Groups of several sizes: gaussian, small integers, sparse, nearly equal, of mixed scales."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(least, 12))
        w = rng.standard_normal(n)
        yield (
            rng,
            [
                w,
                rng.integers(-2, 3, n).astype(float),
                w * (rng.random(n) < 0.3),
                1e3 + 1e-9 * w,
                w * 10.0 ** rng.uniform(-12, 3, n),
            ][seed % 5],
        )


def _normal(rng: np.random.Generator, w: Any) -> Any:
    """A normal of any direction, of small integers, or nearly along the group."""
    kind = rng.integers(4)
    if kind == 0:
        a = rng.integers(-2, 3, w.size).astype(float)
    elif kind == 1:
        a = w + 1e-9 * rng.standard_normal(w.size)
    else:
        a = rng.standard_normal(w.size) * 10.0 ** rng.uniform(-3, 3)
    return a if np.any(a) else a + 1.0


def _mp(x: Any) -> list[Any]:
    return [MP.mpf(float(v)) for v in x]


def _dot(x: Any, y: Any) -> Any:
    return MP.fsum(a * b for a, b in zip(x, y, strict=True))


def _on_plane(w: Any, a: Any, b: float) -> list[Any]:
    """The formula of the nearest point of a hyperplane, in 60 digits."""
    x, n = _mp(w), _mp(a)
    step = (_dot(n, x) - MP.mpf(b)) / _dot(n, n)
    return [v - step * c for v, c in zip(x, n, strict=True)]


def _check(c: nc.Constraint, w: Any, want: list[Any]) -> None:
    """The projection to 8 units of the last place of its largest entry, and hence to 1e-10."""
    got = c(w)
    off = max(float(abs(MP.mpf(float(g)) - x)) for g, x in zip(got, want, strict=True))
    largest = max(float(abs(x)) for x in want)
    assert off <= CLOSE * max(largest, 1e-6), (c, w, got)
    near = np.spacing(largest) * (8 + np.log2(w.size) / 4)
    # Near 0 what is left is the error of the second step: some units of the square of eps.
    assert off <= near + 1e-30 * float(np.max(np.abs(w))), (c, w, off / np.spacing(largest))
    assert float(c.violation(got)) == 0
    assert (c(got) == got).all()


def _inside(w: Any, a: Any) -> float:
    return float(_dot(_mp(a), _mp(w)))


def test_fixed_sum_and_zero_mean() -> None:
    for rng, w in _groups():
        s = [0.0, 1.0, -2.5, 1e3 * rng.standard_normal()][int(rng.integers(4))]
        _check(FixedSum(s, axis=0), w, _on_plane(w, np.ones(w.size), s))
        _check(ZeroMean(axis=0), w, _on_plane(w, np.ones(w.size), 0.0))


def test_fixed_sum_of_complex_weights() -> None:
    for rng, w in _groups():
        z = w + 1j * rng.permutation(w)
        got = FixedSum(0.75, axis=0)(z)
        want = [_on_plane(z.real, np.ones(w.size), 0.75), _on_plane(z.imag, np.ones(w.size), 0.0)]
        np.testing.assert_allclose(got.real, np.array(want[0], dtype=float), atol=1e-13)
        np.testing.assert_allclose(got.imag, np.array(want[1], dtype=float), atol=1e-13)


def test_hyperplane() -> None:
    for rng, w in _groups():
        a = _normal(rng, w)
        b = [0.0, float(rng.standard_normal()), 1e3][int(rng.integers(3))]
        _check(Hyperplane(a, b, axis=0), w, _on_plane(w, a, b))


def test_half_space() -> None:
    moved = 0
    for rng, w in _groups():
        a = _normal(rng, w)
        b = [0.0, float(rng.standard_normal()), -1e3][int(rng.integers(3))]
        outside = _dot(_mp(a), _mp(w)) > b
        moved += bool(outside)
        _check(HalfSpace(a, b, axis=0), w, _on_plane(w, a, b) if outside else _mp(w))
    assert 60 < moved < COUNT


def test_slab() -> None:
    sides = set()
    for rng, w in _groups():
        a = _normal(rng, w)
        low, high = sorted(rng.standard_normal(2))
        low = high if rng.random() < 0.2 else low
        product = _dot(_mp(a), _mp(w))
        side = int(product > high) - int(product < low)
        sides.add(side)
        want = _mp(w) if side == 0 else _on_plane(w, a, high if side > 0 else low)
        _check(Slab(a, float(low), float(high), axis=0), w, want)
    assert sides == {-1, 0, 1}


def test_a_number_is_a_normal_of_equal_entries() -> None:
    for rng, w in _groups(40):
        x = float(rng.standard_normal() * 3)
        a = np.full(w.size, x)
        _check(Hyperplane(x, 0.5, axis=0), w, _on_plane(w, a, 0.5))
        outside = _dot(_mp(a), _mp(w)) > 0.5
        _check(HalfSpace(x, 0.5, axis=0), w, _on_plane(w, a, 0.5) if outside else _mp(w))


def test_normals_and_weights_of_every_size() -> None:
    rng = np.random.default_rng(0)
    a, w = rng.standard_normal(7), rng.standard_normal(7)
    base = Hyperplane(a, 0.0, axis=0)(w)
    for far in (2.0**900, 2.0**-900):
        np.testing.assert_array_equal(Hyperplane(a * far, 0.0, axis=0)(w), base)
        np.testing.assert_allclose(Hyperplane(a, 0.0, axis=0)(w * far), base * far, rtol=1e-13)
        moved = Hyperplane(a * far, 0.5 * far, axis=0)(w)
        np.testing.assert_array_equal(moved, Hyperplane(a, 0.5, axis=0)(w))


def test_affine_is_least_squares() -> None:
    for rng, w in _groups(least=4):
        n = w.size
        m = int(rng.integers(1, n))
        a = rng.standard_normal((m, n))
        b = a @ rng.standard_normal(n)
        step = np.linalg.lstsq(a, a @ w - b, rcond=None)[0]
        got = Affine(a, b, axis=0)(w)
        scale = max(1.0, float(np.max(np.abs(w)))) * np.linalg.cond(a)
        np.testing.assert_allclose(got, w - step, rtol=0, atol=1e-14 * scale)
        np.testing.assert_allclose(got, w - step, rtol=0, atol=CLOSE * max(1.0, np.max(np.abs(w))))
        assert float(Affine(a, b, axis=0).violation(got)) == 0


def _nearest_solution(w: Any, a: Any, b: Any) -> list[Any]:
    """By multipliers, in 60 digits."""
    matrix, x = MP.matrix(a.tolist()), MP.matrix(w.tolist())
    y = MP.lu_solve(matrix * matrix.T, matrix * x - MP.matrix(b.tolist()))
    return list(x - matrix.T * y)


def test_affine_exactly() -> None:
    """Also for rows that are nearly parallel, and weights nearly at right angles to the set."""
    for rng, w in _groups(least=4):
        m = int(rng.integers(1, 4))
        a = rng.standard_normal((m, w.size))
        if m > 1 and rng.random() < 0.5:
            a[0] = a[1] + 1e-6 * rng.standard_normal(w.size)
        if rng.random() < 0.3:
            w = a.T @ rng.standard_normal(m) + 1e-9 * w
        b = a @ rng.standard_normal(w.size) * (rng.random() < 0.7)
        _check(Affine(a, b, axis=0), w, _nearest_solution(w, a, b))


def test_affine_of_dependent_rows() -> None:
    """Rows that add nothing change nothing, whatever the order."""
    for rng, w in _groups(least=4):
        a = rng.integers(-3, 4, (2, w.size)) + np.eye(2, w.size) * 8.0
        b = rng.integers(-3, 4, 2).astype(float)
        order = rng.permutation(4)
        more = np.vstack([a, a[0] + a[1], 2 * a[0]])[order]
        right = np.array([*b, b[0] + b[1], 2 * b[0]])[order]
        _check(Affine(more, right, axis=0), w, _nearest_solution(w, a, b))


def test_affine_takes_the_entries_in_c_order() -> None:
    w = np.random.default_rng(0).standard_normal((3, 2, 2))
    row = tuple(float(i) for i in range(6))
    for axis in ((0, 2), (2, 0), (-1, 0)):
        got = Affine((row,), (1.0,), axis=axis)(w)
        for j in range(2):
            assert np.dot(row, got[:, j, :].ravel()) == pytest.approx(1.0, abs=1e-13)


def _on_cone(w: Any) -> list[Any]:
    """The three cases, in 60 digits."""
    *x, t = _mp(w)
    n = MP.sqrt(_dot(x, x))
    if n <= t:
        return [*x, t]
    if n <= -t:
        return [MP.mpf(0)] * len(w)
    return [*((n + t) / (2 * n) * v for v in x), (n + t) / 2]


def test_second_order_cone() -> None:
    cases = set()
    for rng, w in _groups(2 * COUNT):
        w = w.copy()
        n = float(np.linalg.norm(w[:-1]))
        # Near the cone, near its polar, on the axis.
        w[-1] = [w[-1], n * (1 + 1e-9), -n * (1 - 1e-9), n, 0.5 * n][int(rng.integers(5))]
        want = _on_cone(w)
        cases.add((want == _mp(w), not any(want)))
        _check(SecondOrderCone(axis=0), w, want)
    assert len(cases) >= 3


def test_second_order_cone_near_its_polar_cone() -> None:
    """Where n + t cancels: 16 digits of it, not of n."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(9)
        w = np.array([*x, -np.linalg.norm(x) * (1 - 10.0 ** rng.uniform(-14, -3))])
        _check(SecondOrderCone(axis=0), w, _on_cone(w))


@pytest.mark.parametrize("far", [1e-310, 1e-200, 1e200, 1e307])
def test_second_order_cone_of_every_size(far: float) -> None:
    w = np.array([3.0, 4.0, 1.0]) * far
    got = SecondOrderCone(axis=0)(w) / far
    np.testing.assert_allclose(got, [1.8, 2.4, 3.0], rtol=1e-12)


MOREAU: list[tuple[str, Callable[[Any], nc.Constraint], Callable[[Any, Any], Any]]] = [
    # The polar of the cone is its mirror image; that of a half-space is the ray of its normal.
    (
        "cone",
        lambda a: SecondOrderCone(axis=0),
        lambda a, w: -SecondOrderCone(axis=0)(-w),
    ),
    (
        "half-space",
        lambda a: HalfSpace(a, 0.0, axis=0),
        lambda a, w: a * max(float(np.dot(a, w) / np.dot(a, a)), 0.0),
    ),
]


@pytest.mark.parametrize(("name", "build", "polar"), MOREAU, ids=[m[0] for m in MOREAU])
def test_moreau(name: str, build: Any, polar: Any) -> None:
    """Every group is the sum of its projections onto a cone and its polar, at right angles."""
    for rng, w in _groups():
        a = rng.standard_normal(w.size)
        p, q = build(a)(w), polar(a, w)
        size = float(np.linalg.norm(w))
        np.testing.assert_allclose(p + q, w, rtol=0, atol=1e-14 * max(size, 1e-300))
        assert abs(np.dot(p, q)) <= 1e-14 * size**2


def test_tangents_stay() -> None:
    rng = np.random.default_rng(0)
    w, g, a = rng.standard_normal((3, 6))
    step = nc.tangent(Hyperplane(a, 1.0, axis=0), w, g)
    assert abs(np.dot(a, step)) < 1e-14
    inside = HalfSpace(a, float(a @ w) + 1.0, axis=0)
    np.testing.assert_array_equal(nc.tangent(inside, w, g), g)
    bound = HalfSpace(a, float(a @ w) - 1.0, axis=0)
    np.testing.assert_array_equal(nc.tangent(bound, w, a), a)  # against the gradient: inward
    np.testing.assert_allclose(nc.tangent(bound, w, -a), 0 * a, atol=1e-15)
    narrow = Slab(a, 0.5, 0.5, axis=0)
    for sign in (1, -1):
        np.testing.assert_allclose(nc.tangent(narrow, w, sign * a), 0 * a, atol=1e-15)
    # At the apex of the cone, the nearest of its members is the step.
    zero = np.zeros(3)
    toward = nc.tangent(SecondOrderCone(axis=0), zero, np.array([-3.0, -4.0, 0.0]))
    np.testing.assert_allclose(-toward, [1.5, 2.0, 2.5], rtol=1e-15)


def test_a_group_without_a_normal() -> None:
    w = np.array([[1.0, 2.0], [3.0, 4.0]])
    for c in (
        Hyperplane(((0.0, 0.0), (1.0, 1.0)), 0.0, axis=1),
        HalfSpace(((0.0, 0.0), (1.0, 1.0)), 0.0, axis=1),
        Slab(((0.0, 0.0), (1.0, 1.0)), -1.0, 0.0, axis=1),
    ):
        np.testing.assert_array_equal(c(w)[0], w[0])
        np.testing.assert_allclose(c(w)[1], [-0.5, 0.5])
        assert np.isnan(c.violation(w)[0]) and c.violation(w)[1] > 0


def test_libraries_agree() -> None:
    rng = np.random.default_rng(3)
    w, a = rng.standard_normal((2, 4, 6)).astype(np.float32)
    rows = rng.standard_normal((2, 6))
    for build in (
        lambda x: Hyperplane(x(a), 0.5, axis=1),
        lambda x: HalfSpace(x(a), -0.5, axis=1),
        lambda x: Slab(x(a), 0.25, 0.5, axis=1),
        lambda x: Affine(rows, (0.5, 1.0), axis=1),
        lambda x: SecondOrderCone(axis=1),
    ):
        numpy = build(np.asarray)(w)
        np.testing.assert_array_equal(numpy, build(torch.tensor)(torch.tensor(w)).numpy())


SUBSPACES = [
    (ZeroMean(axis=0), [1.0] * 4),
    (FixedSum(2.5, axis=0), [1.0] * 4),
    (Hyperplane((1e200, -2e200, 0.0, 5e199), 1.0, axis=0), [1.0, -2.0, 0.0, 0.5]),
    (Affine(((0.0, 3.0, 0.0, 0.0), (2.0, 1.0, -1.0, 0.0)), 4.0, axis=0), None),
]


@pytest.mark.parametrize(("c", "normal"), SUBSPACES, ids=lambda c: repr(c)[:20])
def test_the_derivative_is_the_projection_matrix_at_members_too(c: Any, normal: Any) -> None:
    import normconstraints_jax  # noqa: F401
    import normconstraints_torch  # noqa: F401 - attach it

    rows = np.asarray([normal] if normal else c.matrix)
    want = np.eye(4) - np.linalg.pinv(rows) @ rows
    w = np.asarray([0.5, 1.0, 3.0, 0.25])
    member, broken = c(w), np.asarray([np.nan, 1.0, 2.0, 3.0])
    assert np.array_equal(c(member), member)
    with jax.enable_x64(True):
        for at in (w, member):
            for way in (jax.jacrev, jax.jacfwd, lambda f: jax.jit(jax.jacrev(f))):
                np.testing.assert_allclose(way(c.project)(jnp.asarray(at)), want, atol=1e-14)
            t = torch.tensor(at, requires_grad=True)
            found = torch.autograd.functional.jacobian(c.project, t)
            np.testing.assert_allclose(found, want, atol=1e-14)
        assert not np.any(jax.hessian(lambda w: c(w)[0])(jnp.asarray(member)))
        np.testing.assert_array_equal(jax.jacrev(c.project)(jnp.asarray(broken)), np.eye(4))


def test_derivatives_of_parameters() -> None:
    """In the offset a / |a|^2, in the normal as central differences say."""
    w = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    a = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor(0.75, dtype=torch.float64, requires_grad=True)
    u = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    (Hyperplane(a, b, axis=0)(w) @ u).backward()
    n = a.detach()
    assert float(b.grad) == pytest.approx(float(u @ n / (n @ n)), rel=1e-14)
    for i in range(3):
        h = torch.zeros(3, dtype=torch.float64)
        h[i] = 1e-6
        ends = [Hyperplane(n + s * h, 0.75, axis=0)(w) @ u for s in (1, -1)]
        assert float(a.grad[i]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-6)


ONES = np.ones((8, 6))
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Hyperplane(0.0, 1.0, axis=0), ValueError, "Hyperplane: normal must have an entry oth"),
    (lambda: HalfSpace((0.0, 0.0), 1.0, axis=0), ValueError, "HalfSpace: normal .* got .0.0, 0.0."),
    (lambda: Slab((), 0.0, 1.0, axis=0), ValueError, "Slab: normal must have an entry other than"),
    (lambda: Slab(1.0, 2.0, 1.0, axis=0), ValueError, "Slab: lower must be <= upper, got lower=2"),
    (lambda: Hyperplane("a", 1.0, axis=0), TypeError, "Hyperplane: normal must be a finite number"),
    (
        lambda: Hyperplane(1.0, np.nan, axis=0),
        ValueError,
        "Hyperplane: offset .* finite .* got nan",
    ),
    (lambda: HalfSpace(np.inf, 0.0, axis=0), ValueError, "HalfSpace: normal .* finite .* got inf"),
    (lambda: FixedSum(np.inf, axis=0), ValueError, "FixedSum: total must be a finite number, got"),
    (
        lambda: FixedSum(True, axis=0),
        TypeError,
        "FixedSum: total must be a finite number, got True",
    ),
    (lambda: FixedSum(1j, axis=0), TypeError, "FixedSum: total must be a finite number, got 1j"),
    (lambda: ZeroMean(), TypeError, "ZeroMean: axis must be given by keyword"),  # type: ignore[call-arg]
    (lambda: SecondOrderCone(axis=()), ValueError, "SecondOrderCone: axis .* got an empty tuple"),
    (
        lambda: Hyperplane((1.0, 2.0), 1.0, axis=0)(ONES),
        ValueError,
        r"Hyperplane: normal must broadcast against w, got shape \(2,\) against \(8, 6\)",
    ),
    (
        lambda: HalfSpace(1.0, (1.0, 2.0), axis=0)(ONES),
        ValueError,
        r"HalfSpace: offset must broadcast against the groups, got shape \(2,\) against \(6,\)",
    ),
    (
        lambda: Slab(1.0, 0.0, (1.0, 2.0), axis=0)(ONES),
        ValueError,
        "Slab: upper must broadcast against the groups",
    ),
    (
        lambda: Affine(((1.0, 2.0),), 1.0, axis=0)(ONES),
        ValueError,
        "Affine: matrix must have one column .* got 2 columns for groups of 8; mend matrix or axis",
    ),
    (lambda: Affine(1.0, 1.0, axis=0), ValueError, r"Affine: matrix must have two dimensions"),
    (lambda: Affine((), 1.0, axis=0), ValueError, r"Affine: matrix must have two dimensions"),
    (lambda: Affine(((),), 1.0, axis=0), ValueError, r"Affine: matrix must have two dimensions"),
    (lambda: Affine(np.ones((2, 2, 2)), 1.0, axis=0), ValueError, r"two dimensions, \(m, n\)"),
    (lambda: Affine(((1.0,), (1.0, 2.0)), 1.0, axis=0), ValueError, "rows of different lengths"),
    (lambda: Affine(((0.0, 0.0),), 0.0, axis=0), ValueError, "Affine: matrix must have an entry"),
    (
        lambda: Affine(((1.0, 2.0),), (1.0, 2.0), axis=0),
        ValueError,
        "Affine: offset must have one number for each of the 1 rows of matrix",
    ),
    (lambda: Affine(((1.0, 2.0),), ((1.0,),), axis=0), ValueError, "Affine: offset must have one"),
    (
        lambda: Affine(((1.0, 2.0), (2.0, 4.0)), (1.0, 1.0), axis=0),
        ValueError,
        "Affine: matrix and offset must have a solution, got row [01], .* remove the row or mend",
    ),
    (
        lambda: Affine(((1.0, 2.0), (0.0, 0.0)), (1.0, 1.0), axis=0),
        ValueError,
        "Affine: matrix and offset must have a solution, got row 1,",
    ),
    (
        lambda: jax.jit(lambda a: Affine(a, 1.0, axis=0)(jnp.ones(2)))(jnp.ones((1, 2))),
        TypeError,
        "Affine: matrix and offset must have values, .* construct outside of what is compiled",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), BAD, ids=[m[2][:40] for m in BAD])
def test_bad_input(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    "c",
    [
        Hyperplane(1.0, 1.0, axis=0),
        HalfSpace(1.0, 1.0, axis=0),
        Slab(1.0, 0.0, 1.0, axis=0),
        Affine(((1.0,) * 8,), 1.0, axis=0),
        SecondOrderCone(axis=0),
    ],
    ids=lambda c: type(c).__name__,
)
def test_complex_weights_are_refused(c: nc.Constraint) -> None:
    with pytest.raises(TypeError, match=f"{type(c).__name__}: w must be real, got complex128"):
        c(ONES * 1j)


def test_affine_is_kept_as_numbers() -> None:
    """An array of integers and nested tuples give one constraint, which hashes and pickles."""
    a = Affine(np.array([[1, 2], [0, 1]]), np.array([1, 2]), axis=0)
    b = Affine(((1.0, 2.0), (0.0, 1.0)), (1.0, 2.0), axis=0)
    assert a == b and hash(a) == hash(b)
    assert nc.from_config(nc.to_config(a)) == a
    np.testing.assert_allclose(a(np.zeros(2)), [-3.0, 2.0], rtol=1e-15)
