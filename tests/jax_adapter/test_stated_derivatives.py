"""The derivatives that sets state themselves, in both modes of JAX and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitting import fitting
from thin import thin

jax = pytest.importorskip("jax")

import normconstraints as nc  # noqa: E402
import normconstraints_jax  # noqa: E402, F401 - tells JAX of them
from normconstraints import _convolution, _correlation  # noqa: E402
from normconstraints.testing import examples  # noqa: E402

ENTRIES = 3 * np.random.default_rng(0).standard_normal((3, 64))
SHAPES = ((5, 3), (5, 5), (8, 6), (6, 8), (2, 2, 3))
STATED = [*{type(c): c for c in examples() if isinstance(c, nc.HasVJP)}.values()]


def _agree(c: nc.Constraint) -> Any:
    w, g, t = (fitting(c, ENTRIES[k], SHAPES) for k in range(3))
    assert c.violation(w).any()
    stated = c._vjp(w, c(w), g, np)
    along = c._vjp(w, c(w), t, np)

    @jax.jit
    def both(w: Any, g: Any, t: Any) -> tuple[Any, Any]:
        _, pull = jax.vjp(c.project, w)
        return pull(g)[0], jax.jvp(c.project, (w,), (t,))[1]

    with jax.enable_x64(True):
        pulled, pushed = both(w, g, t)
    np.testing.assert_allclose(pulled, stated, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(pushed, along, rtol=1e-7, atol=1e-7)
    assert np.abs(stated - g).max() > 1e-3  # or it says nothing
    return stated


@pytest.mark.parametrize("c", thin(STATED, 2), ids=lambda c: type(c).__name__)
def test_both_modes_are_the_stated_product(c: nc.Constraint) -> None:
    _agree(c)


@pytest.mark.parametrize(
    "c", thin([nc.Correlation(), nc.ConvOperatorBall(1.0, spatial=(5,), roles="ois")], 2)
)
def test_where_systems_are_solved_by_conjugate_gradients(
    c: nc.Constraint, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = _agree(c)
    monkeypatch.setattr(_correlation, "_DENSE", 1)
    monkeypatch.setattr(_convolution, "_DENSE", 1)
    np.testing.assert_allclose(_agree(c), want, rtol=1e-6, atol=1e-6)
