"""Blocks of host memory and threads: the same bits as in one piece, whatever the layout."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import normconstraints as nc
from normconstraints import _host

SHAPE = (7, 6, 5)
SETS = (
    lambda axis: nc.MaxNorm(1.0, axis=axis),
    lambda axis: nc.UnitNorm(axis=axis),
    lambda axis: nc.MinMaxNorm(1.0, 1.5, rate=0.5, axis=axis),
    lambda axis: nc.UnitRMS(0.5, axis=axis),
)
AXES = (0, 1, 2, (0, 1), (0, 2), (1, 2), None)


def _weights(dtype: str, order: tuple[int, ...]) -> Any:
    """An array whose axes lie in memory in this order."""
    w = np.random.default_rng(0).standard_normal(SHAPE) * 0.6
    w[0] *= 1e-3
    return np.ascontiguousarray(w.astype(dtype).transpose(order)).transpose(np.argsort(order))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows, and threads for anything."""
    monkeypatch.setattr(_host, "BLOCK", {"numpy": 60, "torch": 60})
    monkeypatch.setattr(_host, "_ACROSS", 60)
    monkeypatch.setattr(_host, "_THREADED", 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_blocks_give_the_bits_of_one_piece(
    library: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    cases = []
    for order, make, axis in itertools.product(itertools.permutations(range(3)), SETS, AXES):
        w = _weights(dtype, order)
        c = make(axis)
        cases.append((c, w, _project(c, w, library)))
    request.getfixturevalue("small_blocks")
    moved = 0
    for c, w, whole in cases:
        for found in (_project(c, w, library), _project(c, w, library, in_place=True)):
            if dtype == "float64":  # the order of a sum may change its last bits
                np.testing.assert_allclose(found, whole, rtol=1e-15)
            else:
                np.testing.assert_array_equal(found, whole, err_msg=f"{c} {w.strides}")
        moved += not np.array_equal(whole, w)
    assert moved > len(cases) / 2


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_bounds_and_rates_of_each_group_go_with_their_block(
    library: str, small_blocks: None
) -> None:
    w = np.random.default_rng(1).standard_normal((8, 60)).astype("float32")
    bounds = tuple(np.linspace(0.5, 4.0, 8).tolist())
    rates = tuple(np.linspace(0.2, 1.0, 8).tolist())
    found = _project(nc.MinMaxNorm(0.0, bounds, rate=rates, axis=1), w, library, in_place=True)
    for i in range(8):
        alone = nc.MinMaxNorm(0.0, bounds[i], rate=rates[i], axis=1)
        np.testing.assert_array_equal(found[i], alone(w[i : i + 1])[0])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_block_with_extreme_and_infinite_groups(
    library: str, dtype: str, small_blocks: None
) -> None:
    tiny, huge = (1e-30, 1e30) if dtype == "float32" else (1e-300, 1e300)
    w = np.ones((6, 60), dtype)
    w[1] *= huge
    w[2] *= tiny
    w[3, 0] = np.inf
    w[4, 0] = np.nan
    found = _project(nc.UnitNorm(axis=1), w, library, in_place=True)
    np.testing.assert_allclose(found[:3], 60**-0.5, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(found[3:5], w[3:5])


def _project(c: nc.Constraint, w: Any, library: str, *, in_place: bool = False) -> Any:
    if library == "torch":
        given = torch.from_numpy(np.array(w))  # numpy.array keeps the order of the axes
        assert given.stride() == tuple(s // w.itemsize for s in w.strides)
        return (c.project_(given) if in_place else c(given)).numpy()
    given = np.array(w)
    return c.project_(given) if in_place else c(given)


# ------------------------------------------------------------------- norms in single precision

ROWS, SIZE = 64, 300
GLANCED = (
    nc.MaxNorm(1.0, axis=1),
    nc.MinNorm(1.0, axis=1),
    nc.MinMaxNorm(0.25, 1.0, axis=1),
    nc.MinMaxNorm(0.25, 1.0, rate=0.5, axis=1),
    nc.MaxNorm(1e-18, axis=1),
    nc.MinNorm(1e-25, axis=1),
)
ODD = {
    "on the bound": 1.0,
    "an ulp outside": 1.0 + 2.0**-23,
    "zeros": 0.0,
    "squares underflow": 1e-24,
    "squares overflow": 1e25,
    "short": 0.01,
    "at the shorter bound": 0.25,
}


def _rows(norm: float) -> torch.Tensor:
    w = torch.tensor(np.random.default_rng(1).standard_normal((ROWS, SIZE)))
    return (norm * w / w.norm(dim=1, keepdim=True)).float()


@pytest.mark.parametrize("odd", [*ODD, "NaN", "infinity"])
@pytest.mark.parametrize("usual", [0.5, 1e-19, 0.999999, 1.0])
def test_a_glance_decides_as_the_exact_norms_do(
    usual: float, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = _rows(usual)
    if odd in ODD:
        w[ROWS - 1] = _rows(ODD[odd])[ROWS - 1]
    else:
        w[ROWS - 1, 3] = float("nan" if odd == "NaN" else "inf")
    for c in GLANCED:
        found = c.project_(w.clone())
        with monkeypatch.context() as exactly:
            exactly.setattr(_host, "can_glance", lambda *_: False)
            expected = c.project_(w.clone())
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_where_nothing_moves_a_glance_is_all_that_is_done() -> None:
    w = _rows(0.5)
    version = w._version
    nc.MaxNorm(1.0, axis=1).project_(w)
    assert w._version == version  # nothing was written
    w[ROWS - 1] *= 4
    others = w[:-1].clone()
    nc.MaxNorm(1.0, axis=1).project_(w)
    assert torch.equal(w[:-1], others)
    assert 1 - 2.0**-22 < float(w[-1].double().norm()) <= 1


# --------------------------------------------------------------------------- entries in place


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    "c",
    [
        nc.NonNeg(),
        nc.NonPos(),
        nc.Box(-0.5, 0.1),
        nc.Box(0.0, None),
        nc.Box(-0.0, 0.0),
        nc.Box(None, -0.25),
        nc.LInfBall(0.3, axis=0),
        nc.LInfBall(0.0, axis=None),
    ],
    ids=repr,
)
def test_clipping_in_place_gives_the_bits_of_a_new_array(
    c: nc.Constraint, library: str, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 7, 33, 1000):  # vectors and the rest of them are different code
        w = rng.choice([-0.0, 0.0, np.nan, np.inf, -np.inf, 0.1, -0.5, 1e-7, -3.0], size)
        w = (w if size > 7 else np.full(size, -0.0)).astype(dtype)
        expected = _project(c, w, library)
        found = _project(c, w, library, in_place=True)
        np.testing.assert_array_equal(
            found.view(f"u{found.itemsize}"), expected.view(f"u{expected.itemsize}")
        )
