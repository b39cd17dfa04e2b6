"""GlobalNorm against the concatenation of its arrays, on every library."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch

import normconstraints as nc

SHAPES = [(3, 4), (5,), (2, 1, 2)]


def _arrays(scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(0)
    return [(scale * rng.standard_normal(s)).astype(np.float32) for s in SHAPES]


def _flat(arrays: Any) -> Any:
    return np.concatenate([np.asarray(a, dtype=np.float64).ravel() for a in arrays])


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e30, 1e-30])
@pytest.mark.parametrize(
    "convert",
    [np.asarray, torch.tensor, jnp.asarray, array_api_strict.asarray],
    ids=["numpy", "torch", "jax", "strict"],
)
def test_it_is_max_norm_of_the_concatenation(convert: Any, scale: float) -> None:
    arrays = _arrays(scale)
    bound = 0.5 * scale
    got = nc.GlobalNorm(bound)([convert(a) for a in arrays])
    exact = mpmath.mp.clone()
    exact.dps = 50
    norm = exact.sqrt(exact.fsum(exact.mpf(float(x)) ** 2 for x in _flat(arrays)))
    want = np.array([float(exact.mpf(float(x)) * bound / norm) for x in _flat(arrays)])
    host = [np.asarray(g._array if convert is array_api_strict.asarray else g) for g in got]
    assert [h.shape for h in host] == SHAPES
    assert {h.dtype for h in host} == {np.dtype(np.float32)}
    ulp = np.spacing(np.float32(np.abs(want).max()))
    assert np.abs(_flat(host) - want).max() <= 8 * float(ulp)
    assert float(nc.GlobalNorm(bound).violation(got)) == 0
    assert float(nc.GlobalNorm(bound).violation([convert(a) for a in arrays])) > 0


def test_inside_comes_back_bit_for_bit() -> None:
    arrays = _arrays()
    for a, b in zip(arrays, nc.GlobalNorm(100.0)(arrays), strict=True):
        assert a.tobytes() == b.tobytes()
        assert a is not b


def test_structures_are_kept() -> None:
    Pair = namedtuple("Pair", ["kernel", "bias"])
    a, b, c = _arrays()
    ws = OrderedDict(first=Pair(a, b), rest=[c, (a,)])
    got = nc.GlobalNorm(1.0)(ws)
    assert type(got) is OrderedDict
    assert type(got["first"]) is Pair
    assert type(got["rest"]) is list
    assert type(got["rest"][1]) is tuple
    assert nc.GlobalNorm(1.0)([]) == []


def test_in_place_gives_the_same_bits() -> None:
    want = nc.GlobalNorm(1.0)(_arrays())
    ws = _arrays()
    assert nc.GlobalNorm(1.0).project_(ws) is ws
    assert all(x.tobytes() == y.tobytes() for x, y in zip(ws, want, strict=True))


def test_nothing_is_half_written() -> None:
    ws = _arrays()
    ws[2].flags.writeable = False
    before = [w.copy() for w in ws]
    with pytest.raises(ValueError, match="GlobalNorm: project_ needs an array that can be changed"):
        nc.GlobalNorm(1.0).project_(ws)
    assert all((x == y).all() for x, y in zip(ws, before, strict=True))


def test_dtypes_may_differ_and_the_ball_is_not_left() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        ws = [rng.standard_normal(7).astype(d) for d in (np.float16, np.float32, np.float64)]
        got = nc.GlobalNorm(0.7)(ws)
        assert [g.dtype for g in got] == [w.dtype for w in ws]
        assert sum(mpmath.mpf(float(x)) ** 2 for x in _flat(got)) <= mpmath.mpf(0.7) ** 2


def test_one_nan_leaves_all_as_they_are() -> None:
    ws = _arrays()
    ws[1][0] = np.nan
    assert all(x.tobytes() == y.tobytes() for x, y in zip(ws, nc.GlobalNorm(1.0)(ws), strict=True))
    assert np.isnan(nc.GlobalNorm(1.0).violation(ws))


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e200])
def test_in_place_does_not_warn(value: float) -> None:
    """The bound times weights that stay overflows behind the mask."""
    c = nc.GlobalNorm(1e300)
    ws = [np.full(3, value), np.ones(2)]
    want = c(ws)
    c.project_(ws)
    assert all(x.tobytes() == y.tobytes() for x, y in zip(ws, want, strict=True))


def test_gradients_at_zero_and_under_jit() -> None:
    c = nc.GlobalNorm(1.0)
    zeros = {"a": jnp.zeros(3), "b": jnp.ones(2)}

    def total(ws: Any) -> Any:
        return sum(jnp.sum(x**2) for x in c(ws).values())

    found = jax.jit(jax.grad(total))(zeros)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in found.values())
    # On the bound the norm cannot grow: the derivative of its square along w is 0.
    np.testing.assert_allclose(float(jnp.sum(found["b"])), 0, atol=1e-6)


def test_no_arrays() -> None:
    with pytest.raises(ValueError, match="GlobalNorm: w must hold at least one array"):
        nc.GlobalNorm(1.0).violation({})


def test_configuration() -> None:
    assert nc.from_config(nc.to_config(nc.GlobalNorm(2.0))) == nc.GlobalNorm(2.0)
    with pytest.raises(TypeError, match="GlobalNorm: max_value must be one number"):
        nc.GlobalNorm((1.0, 2.0))
