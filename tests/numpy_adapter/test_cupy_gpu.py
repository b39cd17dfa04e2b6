"""CuPy itself, where there is a GPU: the kernels, which the double cannot stand in for."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normconstraints as nc
from normconstraints.optimize import projected_gradient
from normconstraints.testing.backends._cupy import Cupy
from normconstraints_numpy import Projector

_MISSING = Cupy().missing()
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))

RULES = {
    "layers.*.kernel": nc.MaxNorm(0.5, axis=0),
    "mix": nc.Simplex(axis=1),
    "atoms": nc.NonNegUnitNorm(axis=0),
    "ball": nc.L1Ball(1.0, axis=0),
    "views.*": nc.NonNeg(),
}


def structure(convert: Any, dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return convert(rng.standard_normal(shape).astype(dtype))

    whole = array(64, 48)
    return {
        "layers": [{"kernel": array(300, 200)}, {"kernel": array(200, 10)}],
        "mix": array(500, 40),
        "atoms": array(64, 128),
        "ball": array(1000),
        "views": [whole[::2, :20], whole[1::2, 20:].T],
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_object_on_numpy_and_on_the_device(dtype: str) -> None:
    import cupy

    projector = Projector(RULES)
    here, there = structure(np.array, dtype), structure(cupy.asarray, dtype)
    kernels = [layer["kernel"] for layer in there["layers"]]
    projector(here)
    projector(there)
    assert all(layer["kernel"] is k for layer, k in zip(there["layers"], kernels, strict=True))
    for bound in nc.Rules(RULES).bind(there):
        assert nc.is_satisfied(bound.at(0), bound.weight.array), bound.name
    eps = np.finfo(dtype).eps
    for name in ("mix", "atoms", "ball"):
        assert type(there[name]) is cupy.ndarray
        np.testing.assert_allclose(there[name].get(), here[name], rtol=0, atol=64 * eps)
    for one, two in zip(there["views"], here["views"], strict=True):
        np.testing.assert_array_equal(one.get(), two)


def test_a_broadcast_array_is_refused() -> None:
    import cupy

    with pytest.raises(ValueError, match="have each their own memory"):
        Projector({"w": nc.NonNeg()})({"w": cupy.broadcast_to(cupy.ones(3), (4, 3))})


def test_least_squares_on_the_simplex() -> None:
    import cupy

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 20)), rng.standard_normal(50)

    def solve(convert: Any) -> Any:
        here, there = convert(a), convert(b)

        def f(x: Any) -> Any:
            r = here @ x - there
            return (r @ r) / 2, here.T @ r

        return projected_gradient(f, convert(np.zeros(20)), nc.Simplex(axis=0), tol=1e-11).x

    np.testing.assert_allclose(solve(cupy.asarray).get(), solve(np.array), atol=1e-9)
