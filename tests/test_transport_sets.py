"""`Birkhoff` and `Transport` against other algorithms, and where they are known to be hard."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from normconstraints._transport import nearest_of_sums
from normconstraints.sets.birkhoff import Birkhoff
from normconstraints.sets.transport import Transport

SUMS = {
    "birkhoff": ((1.0,) * 6, (1.0,) * 6),
    # Parts of the rows have the sum of a part of the columns: plans are degenerate.
    "parts": ((0.5, 1.25, 1.0, 0.75, 2.0, 0.25), (1.0, 0.5, 2.0, 1.5, 0.75)),
    "uneven": ((1e-3, 4.0, 0.0, 2.5, 1e3), (7.0, 0.5, 1e-3, 1e3 - 1.0)),
}


def _matrices(shape: tuple[int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for i in range(5):
        g = rng.standard_normal(shape)
        made |= {
            f"{name} {i}": w
            for name, w in {
                "normal": g,
                "small": 1e-3 * g,
                "wide": 10 * g,
                "far": 1e3 * g,
                "huge": 1e300 * g,
                "all sizes": g * 10 ** rng.uniform(-250, 250, shape),
                "sizes of single precision": g * 10 ** rng.uniform(-34, 34, shape),
                "ties": np.round(2 * g) / 4,
                "rows and columns": 100 * (g[:, :1] + g[:1]),
                "sparse": 3 * g * (rng.random(shape) < 0.2),
                "near a permutation": np.eye(*shape) + 1e-9 * g,
                "offset": 1e6 + g,
                "infinite but for the digits": np.full(shape, 1e308),
            }.items()
        }
    return made


def _exact(w: Any, rows: tuple[float, ...], cols: tuple[float, ...]) -> Any:
    group = [(Decimal(float(x)),) for x in w.ravel()]
    r, c = (tuple(Decimal(x) for x in side) for side in (rows, cols))
    return np.array([float(x) for (x,) in nearest_of_sums(group, r, c)]).reshape(w.shape)


@pytest.mark.parametrize("name", SUMS)
def test_small_matrices_are_nearest(name: str) -> None:
    rows, cols = SUMS[name]
    worst = {}
    for kind, w in _matrices((len(rows), len(cols))).items():
        result = Transport(rows, cols)(w)
        worst[kind] = float(np.max(np.abs(result - _exact(w, rows, cols)))) / max(rows)
        assert Transport(rows, cols).violation(result) == 0, kind
    assert {kind: off for kind, off in worst.items() if off > 1e-14} == {}


def _dykstra(w: Any, rounds: int = 20_000) -> Any:
    """Onto the right sums, exactly, and onto entries >= 0 in turn."""
    x, correction = w, np.zeros_like(w)
    for _ in range(rounds):
        off_rows, off_cols = 1 - x.sum(1, keepdims=True), 1 - x.sum(0, keepdims=True)
        x = x + off_rows / x.shape[1] + off_cols / x.shape[0] - off_rows.sum() / x.size
        x, before = np.maximum(x + correction, 0), x + correction
        correction = before - x
    return x


@pytest.mark.parametrize("size", [9, 24])
def test_newton_starts_larger_matrices(size: int) -> None:
    rng = np.random.default_rng(size)
    w = rng.standard_normal((size, size)) / 2
    assert np.max(np.abs(Birkhoff()(w) - _dykstra(w))) < 1e-11


@pytest.mark.parametrize("scale", [1e2, 1e6, 1e308])
def test_large_matrices_of_huge_weights_are_members_at_least(scale: float) -> None:
    w = scale * np.random.default_rng(1).uniform(-1, 1, (24, 24))
    result = Birkhoff()(w)
    assert Birkhoff().violation(result) == 0
    assert np.array_equal(Birkhoff()(result), result)


def test_axes_say_which_sums_are_of_rows() -> None:
    w = np.random.default_rng(2).standard_normal((3, 4, 2))
    plan = Transport((1.0, 2.0, 3.0), (5.0, 1.0), axis=(0, 2))(w)
    np.testing.assert_allclose(plan.sum(2), [[1.0] * 4, [2.0] * 4, [3.0] * 4])
    flipped = Transport((5.0, 1.0), (1.0, 2.0, 3.0), axis=(2, 0))(w)
    np.testing.assert_allclose(flipped, plan, atol=1e-15)
    for i in range(4):
        alone = Transport((1.0, 2.0, 3.0), (5.0, 1.0))(w[:, i])
        np.testing.assert_allclose(plan[:, i], alone, atol=1e-15)


def test_batches_mix_matrices_that_are_done_with_others() -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((5, 12, 12)) * np.array([0.1, 1.0, 10.0, 1e6, 1e300])[:, None, None]
    together = Birkhoff()(w)
    for one, result in zip(w, together, strict=True):
        np.testing.assert_allclose(result, Birkhoff()(one), atol=1e-13)


def test_no_more_than_two_sums_and_axes() -> None:
    with pytest.raises(ValueError, match=r"Birkhoff: w must be square in axis \(-2, -1\), got"):
        Birkhoff()(np.ones((8, 6)))
    with pytest.raises(ValueError, match="Birkhoff: axis must be two integers"):
        Birkhoff(axis=(0, 1, 2))
    with pytest.raises(ValueError, match="Birkhoff: axis must be two integers"):
        Birkhoff(axis=(1, 1))
    for axis in (0, None, "unit"):
        with pytest.raises(TypeError, match="Birkhoff: axis must be two integers"):
            Birkhoff(axis=axis)
    with pytest.raises(ValueError, match="Transport: w must have as many rows and columns"):
        Transport((1.0, 1.0), (2.0,))(np.ones((1, 2)))
    with pytest.raises(ValueError, match="Transport: rows must have the total of cols"):
        Transport((1.0, 1.0), (2.5,))
    with pytest.raises(ValueError, match="Transport: rows must have the total of cols, above 0"):
        Transport((0.0,), (0.0, 0.0))
    with pytest.raises(ValueError, match="Transport: cols must be a finite number >= 0"):
        Transport((1.0,), (2.0, -1.0))
    for rows in (1.0, (), ((1.0,), (1.0,))):
        with pytest.raises(ValueError, match="Transport: rows must be one number for each"):
            Transport(rows, (2.0,))
    assert Transport(np.array([1.0, 2.0]), np.array([3.0])) == Transport((1.0, 2.0), (3.0,))


def test_right_sums_of_entries_below_zero_are_outside() -> None:
    w = np.array([[1.5, -0.5], [-0.5, 1.5]])
    assert Birkhoff().violation(w) == 0.5
    assert np.array_equal(Birkhoff()(w), np.eye(2))
