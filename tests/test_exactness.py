"""The numbers that other libraries get wrong, against mpmath."""

from __future__ import annotations

from typing import Any

import array_api_strict
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch
from thin import thin

import normconstraints as nc

MP = mpmath.mp.clone()
MP.dps = 60


def _unit(column: Any, value: float = 1.0) -> Any:
    norm = MP.sqrt(MP.fsum(MP.mpf(float(x)) ** 2 for x in column))
    return [MP.mpf(float(x)) * value / norm for x in column]


def _ulps(got: Any, want: Any, dtype: Any) -> float:
    ulp = float(np.spacing(np.asarray(max(abs(float(x)) for x in want), dtype=dtype)))
    return max(float(abs(MP.mpf(float(g)) - x)) / ulp for g, x in zip(got, want, strict=True))


COLUMNS = {
    "float16, 1024 entries of 300": np.full(1024, 300.0, dtype=np.float16),
    "float16, 65504": np.full(1024, 65504.0, dtype=np.float16),
    "float32, 1e30": np.full(1000, 1e30, dtype=np.float32),
    "float32, 1e-30": np.full(1000, 1e-30, dtype=np.float32),
    "float32, 3e38": np.random.default_rng(0).uniform(-3e38, 3e38, 1000).astype(np.float32),
    "float32, norm 1e-7": (1e-7 / np.sqrt(500) * np.ones(500)).astype(np.float32),
    "float32, 300 gaussian": np.random.default_rng(1).standard_normal(300).astype(np.float32),
    "float32, 20,000 gaussian": np.random.default_rng(2).standard_normal(20000).astype(np.float32),
}
LIBRARIES = {"numpy": (np.asarray, 4), "torch": (torch.tensor, 4), "jax": (jnp.asarray, 8)}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("axis", thin([0, 1], 2))
def test_unit_norm_and_max_norm(library: str, name: str, axis: int) -> None:
    convert, budget = LIBRARIES[library]
    column = COLUMNS[name]
    w = np.stack([column, -column], axis=1 - axis)
    # A norm that float16 still resolves: 1 / sqrt(1024) is a normal number of it.
    for value in (1.0, 1e-3) if "float32" in name else (1.0,):
        got = nc.FixedNorm(value, axis=axis)(convert(w))
        assert _ulps(np.asarray(got).take(0, 1 - axis), _unit(column, value), w.dtype) <= budget

    if "1e-7" not in name and "1e-30" not in name:
        got = nc.MaxNorm(1.0, axis=axis)(convert(w))
        assert _ulps(np.asarray(got).take(0, 1 - axis), _unit(column), w.dtype) <= budget


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_ball_is_never_left(library: str, dtype: Any) -> None:
    """In exact arithmetic; w * (r / n) is outside in about half of all draws."""
    rng = np.random.default_rng(4)
    for bound in (1.0, 0.1, 3.0, 1 / 3):
        w = rng.standard_normal((300, 23)).astype(dtype)
        p = nc.MaxNorm(bound, axis=1)(LIBRARIES[library][0](w))
        limit = MP.mpf(bound) ** 2
        for row in np.asarray(p).astype(np.float64):
            assert MP.fsum(MP.mpf(x) ** 2 for x in row) <= limit


def test_a_million_doubles_along_the_slow_axis() -> None:
    w = np.full((10**6, 2), 0.1)
    got = nc.UnitNorm(axis=0)(w)
    assert _ulps(got[:1, 0], [MP.mpf(1) / 1000], np.float64) <= 8 + np.log2(10**6) / 4


@pytest.mark.parametrize("exponent", [-1070, -1022, -600, -300, 0, 300, 600, 1000, 1023])
def test_doubles_of_every_size(exponent: int) -> None:
    w = np.random.default_rng(5).uniform(0.5, 1.0, (40, 2)) * 2.0**exponent
    got = nc.FixedNorm(3.0, axis=0)(w)
    assert _ulps(got[:, 1], _unit(w[:, 1], 3.0), np.float64) <= 8


def test_radii_of_every_size() -> None:
    w = np.random.default_rng(6).standard_normal((40, 3)).astype(np.float32)
    for scale in (1e-37, 1e-20, 1.0, 1e20, 1e37):
        for radius in (1e-36, 1e-10, 1.0, 1e10, 1e36):
            data = (w * scale).astype(np.float32)
            got = nc.FixedNorm(radius, axis=0)(data)
            assert _ulps(got[:, 2], _unit(data[:, 2], radius), np.float32) <= 4
            assert (got == nc.FixedNorm(radius, axis=0)(torch.tensor(data)).numpy()).all()


def test_keras_rate() -> None:
    w = np.random.default_rng(7).standard_normal((50, 4)) * [0.01, 0.3, 1.0, 3.0]
    c = nc.MinMaxNorm(0.5, 2.0, rate=0.3, axis=0)
    n = np.linalg.norm(w, axis=0)
    want = w * (0.3 * np.clip(n, 0.5, 2.0) + 0.7 * n) / n
    np.testing.assert_allclose(c(w), want, rtol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2)])
def test_long_groups_along_any_axis_of_the_strict_library(axis: Any) -> None:
    x = np.random.default_rng(0).standard_normal((70, 65, 67))
    found = nc.MaxNorm(0.5, axis=axis)(array_api_strict.asarray(x))
    np.testing.assert_allclose(np.asarray(found), nc.MaxNorm(0.5, axis=axis)(x), rtol=1e-14)
