"""Sets that select and order: brute force over supports, isotonic regression, ties, bad input."""

from __future__ import annotations

import functools
import itertools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

import normconstraints as nc
from normconstraints.sets.group_top_k import GroupTopK
from normconstraints.sets.mask import Mask
from normconstraints.sets.monotone import Monotone
from normconstraints.sets.n_of_m import NOfM
from normconstraints.sets.non_neg_unit_norm import NonNegUnitNorm
from normconstraints.sets.sign_pattern import SignPattern
from normconstraints.sets.top_k import TopK


def _inputs(size: int, *, complex_too: bool = True) -> list[Any]:
    """Groups of one axis: gaussian, with ties, sparse, of mixed scales and of both kinds."""
    rng = np.random.default_rng(size)
    found: list[Any] = [rng.standard_normal(size) for _ in range(12)]
    found += [rng.integers(-2, 3, size).astype(float) for _ in range(12)]
    found += [rng.standard_normal(size) * (rng.random(size) < 0.4) for _ in range(6)]
    found += [rng.standard_normal(size) * 10.0 ** rng.uniform(-300, 300, size) for _ in range(6)]
    if complex_too:
        found += [rng.standard_normal(size) + 1j * rng.standard_normal(size) for _ in range(6)]
    return found


def _norm(x: Any) -> float:
    """The Euclidean norm, of scaled entries."""
    top = float(np.max(np.abs(x), initial=0.0))
    return top * float(np.linalg.norm(x / top)) if top else 0.0


def _least(w: Any, supports: list[tuple[int, ...]]) -> float:
    """The distance of the nearest array with one of these supports."""
    return min(_norm(np.delete(w, support)) for support in supports)


def _check(c: Any, w: Any, supports: list[tuple[int, ...]]) -> None:
    p = c(w)
    assert any(set(np.flatnonzero(p)) <= set(support) for support in supports)
    least = _least(w.ravel(), supports)
    assert _norm((w - p).ravel()) == pytest.approx(least, rel=1e-14, abs=0)
    assert float(c.violation(w)) == pytest.approx(least, rel=1e-14, abs=0)
    assert float(c.violation(p)) == 0
    assert np.all((p == w) | (p == 0))


@pytest.mark.parametrize("k", [1, 2, 4, 6, 9])
def test_top_k_is_the_best_of_all_supports(k: int) -> None:
    for w in _inputs(6):
        _check(TopK(k, axis=0), w, list(itertools.combinations(range(6), min(k, 6))))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("inner", [0, 1])
def test_group_top_k_is_the_best_of_all_supports(k: int, inner: int) -> None:
    places = np.arange(12).reshape(4, 3)
    rows = places if inner == 1 else places.T
    chosen = itertools.combinations(range(len(rows)), min(k, len(rows)))
    supports = [tuple(int(i) for r in some for i in rows[r]) for some in chosen]
    for w in _inputs(12):
        _check(GroupTopK(k, axis=(0, 1), group_axis=inner), w.reshape(4, 3), supports)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (1, 8), (8, 8)])
def test_n_of_m_is_the_best_of_all_supports(n: int, m: int) -> None:
    blocks = [
        [tuple(start + i for i in some) for some in itertools.combinations(range(m), n)]
        for start in range(0, 8, m)
    ]
    supports = [tuple(itertools.chain(*some)) for some in itertools.product(*blocks)]
    for w in _inputs(8):
        _check(NOfM(n, m, axis=0), w, supports)


def test_groups_along_other_axes_are_groups_alone() -> None:
    w = np.random.default_rng(0).standard_normal((3, 8, 2, 4))
    for c, alone in (
        (NOfM(2, 4, axis=1), NOfM(2, 4, axis=0)),
        (TopK(3, axis=1), TopK(3, axis=0)),
        (Monotone(axis=-3), Monotone(axis=0)),
        (NonNegUnitNorm(axis=1), NonNegUnitNorm(axis=0)),
    ):
        p, v = c(w), c.violation(w)
        for i, j, k in np.ndindex(3, 2, 4):
            np.testing.assert_allclose(p[i, :, j, k], alone(w[i, :, j, k]), rtol=1e-15)
            np.testing.assert_allclose(v[i, j, k], alone.violation(w[i, :, j, k]), rtol=1e-15)
    several = GroupTopK(2, axis=(0, 1, 3), group_axis=(3, 0))
    for j in range(2):
        moved = w[:, :, j].transpose(1, 0, 2).reshape(8, 12)
        want = GroupTopK(2, axis=(0, 1), group_axis=1)(moved)
        np.testing.assert_array_equal(several(w)[:, :, j].transpose(1, 0, 2).reshape(8, 12), want)


@pytest.mark.parametrize("largest", [1e308, 1e-308, 5e-324])
def test_norms_of_inner_groups_neither_overflow_nor_underflow(largest: float) -> None:
    w = np.full((3, 4), largest)
    w[0] *= 0.5
    w[2, 0] *= 1.7
    p = GroupTopK(1, axis=(0, 1), group_axis=1)(w)
    np.testing.assert_array_equal(np.flatnonzero(p.any(axis=1)), [2])
    moduli = np.asarray([1.5 + 1.4j, 1.7, 1.5 + 1.5j]) * 1e308
    np.testing.assert_array_equal(np.flatnonzero(TopK(1, axis=0)(moduli)), [2])


# ------------------------------------------------------------------------------------- libraries


@pytest.fixture(params=["numpy", "torch", "jax"])
def asarray(request: pytest.FixtureRequest) -> Any:
    return {
        "numpy": lambda x: np.asarray(x, dtype=np.float32),
        "torch": lambda x: torch.tensor(x, dtype=torch.float32),
        "jax": lambda x: jnp.asarray(x, dtype=jnp.float32),
    }[request.param]


def test_ties_go_to_the_lowest_index(asarray: Any) -> None:
    def run(f: Any, values: Any) -> Any:
        w = asarray(values)
        # Compiled as one: each operation by itself takes JAX seconds.
        return np.asarray(jax.jit(f)(w) if isinstance(w, jax.Array) else f(w))

    ones = [1.0, -1.0] * 32
    got = run(TopK(5, axis=0), ones)
    np.testing.assert_array_equal(np.flatnonzero(got), range(5))
    got = run(TopK(3, axis=0), [2.0, -3.0, 2.0, 2.0, -2.0, 1.0])
    np.testing.assert_array_equal(got, [2.0, -3.0, 2.0, 0.0, 0.0, 0.0])
    got = run(NOfM(2, 4, axis=0), ones)
    np.testing.assert_array_equal(got.reshape(-1, 4), [[1.0, -1.0, 0.0, 0.0]] * 16)
    rows = [[3.0, 4.0], [5.0, 0.0], [-4.0, 3.0], [0.0, -5.0]]
    got = run(GroupTopK(2, axis=(0, 1), group_axis=1), rows)
    np.testing.assert_array_equal(got, [[3.0, 4.0], [5.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    got = run(NonNegUnitNorm(axis=0), [-2.0, -1.0, -1.0])
    np.testing.assert_array_equal(got, [0.0, 1.0, 0.0])
    got = run(functools.partial(nc.lmo, NonNegUnitNorm(axis=0)), [2.0, 1.0, 1.0])
    np.testing.assert_array_equal(got, [0.0, 1.0, 0.0])


def test_masks_of_every_form_mean_the_same(asarray: Any) -> None:
    w = asarray([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
    bools = ((True, False, True), (False, False, True))
    want = [[1.0, 0.0, 3.0], [0.0, 0.0, -6.0]]
    ones = asarray(bools)
    for mask in (bools, [[1, 0, 1], [0, 0, 1]], ones, ones > 0, np.asarray(bools).tolist()):
        np.testing.assert_array_equal(np.asarray(Mask(mask)(w)), want)
    np.testing.assert_array_equal(np.asarray(Mask(False)(w)), np.zeros((2, 3)))
    np.testing.assert_array_equal(np.asarray(Mask(True)(w)), np.asarray(w))
    np.testing.assert_array_equal(
        np.asarray(SignPattern(ones)(w)), [[1.0, -2.0, 3.0], [-4.0, 5.0, 0.0]]
    )
    assert Mask(bools) == Mask([[1, 0, 1], [0, 0, 1]])
    assert hash(Mask(bools)) == hash(Mask([[1, 0, 1], [0, 0, 1]]))


def test_masks_keep_complex_entries() -> None:
    w = np.asarray([1 + 2j, 3 + 4j, complex(np.inf, 0), complex(np.nan, 1)])
    np.testing.assert_array_equal(Mask((1, 0, 0, 0))(w), [1 + 2j, 0, w[2], w[3]])
    np.testing.assert_array_equal(Mask((1, 0, 0, 0)).violation(w), [0.0, 5.0, np.nan, np.nan])


# -------------------------------------------------------------------------------------- monotone


def _sequences() -> list[Any]:
    """Random and adversarial instances for isotonic regression, 200 of them."""
    rng = np.random.default_rng(0)
    found: list[Any] = []
    for i in range(120):
        size = int(rng.integers(1, 60))
        noise = rng.standard_normal(size)
        kind = i % 6
        found.append(
            [
                noise,
                np.cumsum(noise),
                np.arange(size) * 0.3 + noise,
                rng.integers(-2, 3, size).astype(float),  # ties
                1e6 + noise,  # an offset
                np.sort(noise)[::-1],  # one block
            ][kind]
        )
    for size in (2, 3, 5, 8, 13, 21, 34, 55):
        ramp = np.arange(size, dtype=float)
        found += [ramp, -ramp, ramp % 2, -(ramp % 2), (ramp % 3) * 1e-3, np.abs(ramp - size / 2)]
        found += [np.full(size, 0.1), np.where(ramp == 0, 10.0, 0.0), 2.0**-ramp, -(2.0**ramp)]
    return found[:200]


def test_monotone_is_isotonic_regression() -> None:
    sequences = _sequences()
    assert len(sequences) == 200
    for w in sequences:
        for increasing in (True, False):
            c = Monotone(axis=0, increasing=increasing)
            regression = IsotonicRegression(increasing=increasing)
            want = regression.fit_transform(np.arange(w.size, dtype=float), w)
            p = c(w)
            np.testing.assert_allclose(p, want, rtol=1e-10, atol=1e-10 * np.max(np.abs(w)))
            steps = np.diff(p) if increasing else -np.diff(p)
            assert np.all(steps >= 0)  # exactly
            assert c.violation(p) == 0
            np.testing.assert_array_equal(c(p), p)


def _pooled(w: Any) -> Any:
    """Pool adjacent violators in fractions."""
    blocks: list[tuple[Fraction, int]] = []
    for x in w:
        blocks.append((Fraction(float(x)), 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]:
            total, count = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + count)
    return np.asarray([float(total / count) for total, count in blocks for _ in range(count)])


def test_monotone_to_the_last_places() -> None:
    """Offsets far above the noise, equal means of neighbours, and means far below the entries."""
    rng = np.random.default_rng(3)
    offsets = [1e12 + rng.standard_normal(300) for _ in range(8)]
    ties = [rng.integers(-2, 3, int(n)) * 0.1 for n in rng.integers(3, 60, 60)]
    ties += [1e15 + rng.integers(0, 5, 200) for _ in range(8)]
    cancelling = []
    for _ in range(20):
        fall = np.sort(rng.standard_normal(31))[::-1]
        cancelling.append(np.append(fall, -np.sum(fall)))
        cancelling[-1] = np.sort(cancelling[-1])[::-1]
    for w in (*offsets, *ties, *cancelling):
        p, want = Monotone(axis=0)(w), _pooled(w)
        assert np.all(np.abs(p - want) <= 4 * np.spacing(np.max(np.abs(want))))
        assert np.all(np.diff(p) >= 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_monotone_is_in_order_exactly_in_every_precision(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    top = float(np.finfo(dtype).max)
    for scale in (1.0, top / 4, float(np.finfo(dtype).smallest_normal)):
        w = np.asarray(np.clip(rng.standard_normal((40, 30)), -4, 4) * scale, dtype=dtype)
        p = Monotone(axis=0)(w)
        assert np.all(p[1:] >= p[:-1])
        np.testing.assert_array_equal(Monotone(axis=0)(p), p)


def test_monotone_keeps_small_entries_beside_large_ones() -> None:
    w = np.asarray([-1e300, 1e-300, 2e-300, 5e299, 3e299])
    np.testing.assert_allclose(
        Monotone(axis=0)(w), [-1e300, 1e-300, 2e-300, 4e299, 4e299], rtol=1e-15
    )


def test_the_derivative_of_monotone_averages_over_blocks() -> None:
    w = torch.tensor([1.0, 3.0, 2.0, 4.0, 0.5, 0.25], dtype=torch.float64)
    found = torch.autograd.functional.jacobian(Monotone(axis=0).project, w)
    pool = np.zeros((6, 6))
    pool[0, 0] = 1
    pool[1:, 1:] = 1 / 5
    np.testing.assert_allclose(np.asarray(found), pool, atol=1e-15)


# --------------------------------------------------------------------------- non-negative, norm 1


def test_non_neg_unit_norm_against_a_grid() -> None:
    """The nearest of many members, the axes among them."""
    rng = np.random.default_rng(2)
    members = np.abs(rng.standard_normal((20_000, 3)))
    members[: len(members) // 2] *= rng.random((len(members) // 2, 3)) < 0.5
    norms = np.linalg.norm(members, axis=1)
    members = np.concatenate([members[norms > 0] / norms[norms > 0, None], np.eye(3)])
    for _ in range(40):
        w = rng.standard_normal(3) - rng.integers(0, 3)
        p = NonNegUnitNorm(axis=0)(w)
        assert np.all(p >= 0)
        assert np.linalg.norm(p) == pytest.approx(1, rel=1e-15)
        least = np.min(np.linalg.norm(members - w, axis=1))
        assert np.linalg.norm(p - w) <= least + 1e-14
        v = nc.lmo(NonNegUnitNorm(axis=0), w)
        assert v @ w <= np.min(members @ w) + 1e-14


def test_a_sample_does_not_depend_on_the_values_beside_it() -> None:
    c = NonNegUnitNorm(axis=0)
    a = nc.sample(c, like=np.full((5, 2), np.nan), seed=3)
    np.testing.assert_array_equal(a, nc.sample(c, like=np.zeros((5, 2)), seed=3))
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), 1, rtol=1e-15)


# -------------------------------------------------------------------------------------- tangents


def test_tangents_are_zero_where_nothing_may_move() -> None:
    g = np.asarray([1.0, -2.0, 3.0, -4.0])
    w = np.asarray([0.0, 5.0, 0.0, 0.0])
    # One entry is taken, one is free: the longest of the gradient gets it.
    np.testing.assert_array_equal(nc.tangent(TopK(2, axis=0), w, g), [0.0, -2.0, 0.0, -4.0])
    np.testing.assert_array_equal(nc.tangent(NOfM(1, 2, axis=0), w, g), [0.0, -2.0, 0.0, -4.0])
    np.testing.assert_array_equal(nc.tangent(Mask((1, 1, 0, 0)), w, g), [1.0, -2.0, 0.0, 0.0])
    np.testing.assert_array_equal(
        nc.tangent(SignPattern((1, 1, -1, -1)), w, g), [0.0, -2.0, 3.0, 0.0]
    )
    rows, slopes = w.reshape(2, 2), g.reshape(2, 2)
    got = nc.tangent(GroupTopK(1, axis=(0, 1), group_axis=1), rows, slopes)
    np.testing.assert_array_equal(got, [[1.0, -2.0], [0.0, 0.0]])
    got = nc.tangent(Monotone(axis=0), np.asarray([1.0, 1.0, 2.0]), np.asarray([-1.0, 3.0, 5.0]))
    np.testing.assert_array_equal(got, [1.0, 1.0, 5.0])


# ------------------------------------------------------------------------------------- bad input

ONES = np.ones((4, 6))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: TopK(0, axis=0), ValueError, r"TopK: k must be an integer >= 1, got 0"),
        (lambda: TopK(1.5, axis=0), TypeError, r"TopK: k must be an integer >= 1, got 1.5"),
        (lambda: TopK(True, axis=0), TypeError, r"TopK: k must be an integer >= 1, got True"),
        (lambda: TopK(2), TypeError, r"TopK: axis must be given by keyword"),
        (
            lambda: GroupTopK(0, axis=0, group_axis=0),
            ValueError,
            r"GroupTopK: k must be an integer >= 1, got 0",
        ),
        (
            lambda: GroupTopK(1, axis=None, group_axis=None),
            TypeError,
            r"GroupTopK: group_axis must be an int or a tuple of ints, got None",
        ),
        (
            lambda: GroupTopK(1, axis=None, group_axis="unit"),
            TypeError,
            r"GroupTopK: group_axis must be an int or a tuple of ints, got 'unit'",
        ),
        (
            lambda: GroupTopK(1, axis=None, group_axis=()),
            ValueError,
            r"GroupTopK: group_axis .*, got an empty tuple; an inner group spans one axis",
        ),
        (
            lambda: GroupTopK(1, axis=0, group_axis=1)(ONES),
            ValueError,
            r"GroupTopK: group_axis must name axes of the set, .* group_axis=1 and axes \(0,\);",
        ),
        (
            lambda: GroupTopK(1, axis=None, group_axis=2)(ONES),
            ValueError,
            r"GroupTopK: group_axis must name axes of the set, .* group_axis=2 and axes \(0, 1\);",
        ),
        (
            lambda: GroupTopK(1, axis=None, group_axis=(1, -1))(ONES),
            ValueError,
            r"GroupTopK: group_axis must name axes of the set, each once, got group_axis=\(1, -1\)",
        ),
        (lambda: NOfM(3, 2, axis=0), ValueError, r"NOfM: n must be <= m, got n=3 and m=2"),
        (lambda: NOfM(0, 2, axis=0), ValueError, r"NOfM: n must be an integer >= 1, got 0"),
        (lambda: NOfM(1, 2.0, axis=0), TypeError, r"NOfM: m must be an integer >= 1, got 2.0"),
        (lambda: NOfM(1, 2, axis=(0,)), TypeError, r"NOfM: axis must be one axis, .* got \(0,\);"),
        (lambda: NOfM(1, 2, axis=None), TypeError, r"NOfM: axis must be one axis, .* got None;"),
        (
            lambda: NOfM(2, 4, axis=1)(ONES),
            ValueError,
            r"NOfM: the length of axis 1 must be a multiple of m=4, got 6 .* pad the weight",
        ),
        (
            lambda: NOfM(2, 4, axis="unit")(ONES),
            ValueError,
            r'NOfM: axis="unit" depends on the layer',
        ),
        (lambda: Mask(2), ValueError, r"Mask: mask must be 0 or 1 \(False or True\), .* got 2"),
        (lambda: Mask("no"), TypeError, r"Mask: mask must be 0 or 1 .*, got 'no'"),
        (lambda: Mask(None), TypeError, r"Mask: mask must be 0 or 1 .*, got None"),
        (lambda: Mask((1, (0, 1))), ValueError, r"Mask: mask .*, got rows of different lengths"),
        (lambda: Mask((ONES, ONES)), TypeError, r"Mask: mask .*, got arrays inside a tuple"),
        (lambda: Mask(ONES * 0.5), ValueError, r"Mask: mask must be 0 or 1 .* in every entry, got"),
        (lambda: Mask(ONES * 1j), TypeError, r"Mask: mask must be 0 or 1 .*, got"),
        (lambda: Mask((1, 0))(ONES), ValueError, r"Mask: mask must broadcast against w, got"),
        (
            lambda: Mask(ONES)(torch.ones(4, 6)),
            TypeError,
            r"Mask: mask must be of the library of w \(torch\), got numpy.ndarray",
        ),
        (
            lambda: SignPattern((1, 2)),
            ValueError,
            r"SignPattern: signs must be -1, 0 or 1, nested tuples or an array of such, got 2",
        ),
        (lambda: SignPattern((True,)), TypeError, r"SignPattern: signs must be -1, .* got True"),
        (lambda: SignPattern(ONES > 0), TypeError, r"SignPattern: signs must be -1, .* got"),
        (lambda: SignPattern(float("nan")), ValueError, r"SignPattern: signs .*, got nan"),
        (lambda: SignPattern(1)(ONES * 1j), TypeError, r"SignPattern: w must be real, got complex"),
        (lambda: NonNegUnitNorm(axis=0)(ONES * 1j), TypeError, r"NonNegUnitNorm: w must be real"),
        (lambda: NonNegUnitNorm(axis=2)(ONES), ValueError, r"NonNegUnitNorm: axis must exist"),
        (
            lambda: Monotone(axis=0, increasing=1),
            TypeError,
            r"Monotone: increasing must be True or False, got 1$",
        ),
        (
            lambda: Monotone(axis=(0, 1)),
            TypeError,
            r"Monotone: axis must be one axis, for the order of the entries counts, got \(0, 1\);",
        ),
        (lambda: Monotone(axis=0)(ONES * 1j), TypeError, r"Monotone: w must be real, got complex"),
        (lambda: Monotone(), TypeError, r"Monotone: axis must be given by keyword"),
        (lambda: nc.lmo(TopK(1, axis=0), ONES), TypeError, r"lmo: constraint must be a HasLMO"),
    ],
)
def test_bad_input(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
