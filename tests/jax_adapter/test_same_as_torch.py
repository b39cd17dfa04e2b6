"""The same rules on the same weights, in PyTorch and in JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from thin import thin

torch = pytest.importorskip("torch")
pytest.importorskip("flax.nnx")

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

import normconstraints as nc  # noqa: E402
import normconstraints_jax.nnx  # noqa: E402
import normconstraints_torch  # noqa: E402

ULPS = 8


class Torch(torch.nn.Module):
    """Convolutions, the second in groups, then linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.second = torch.nn.Conv2d(8, 12, 3, groups=2)
        self.hidden = torch.nn.Linear(48, 70)
        self.head = torch.nn.Linear(70, 10)


class Jax(nnx.Module):
    """The same."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.second = nnx.Conv(8, 12, (3, 3), feature_group_count=2, rngs=rngs)
        self.hidden = nnx.Linear(48, 70, rngs=rngs)
        self.head = nnx.Linear(70, 10, rngs=rngs)


LAYERS = ("first", "second", "hidden", "head")


def to_jax(w: Any) -> Any:
    """From (out, in, ...) to (..., in, out)."""
    return np.moveaxis(w, (0, 1), (-1, -2)) if w.ndim > 1 else w


def pair(scale: float) -> tuple[Any, Any]:
    """Two models with the same weights."""
    rng = np.random.default_rng(0)
    ours, theirs = Torch(), Jax()
    for name in LAYERS:
        for attribute, other in (("weight", "kernel"), ("bias", "bias")):
            parameter = getattr(getattr(ours, name), attribute)
            w = (scale * rng.standard_normal(parameter.shape)).astype("float32")
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(w))
            getattr(getattr(theirs, name), other).set_value(jnp.asarray(to_jax(w)))
    return ours, theirs


SETS = {
    "max norm": (nc.MaxNorm(1.0, axis="unit"), nc.MaxNorm(0.5, axis=0)),
    "unit norm": (nc.UnitNorm(axis="unit"), nc.UnitNorm(axis=0)),
    "norms between": (nc.MinMaxNorm(0.5, 2.0, rate=0.5, axis="unit"), nc.MinNorm(1.0, axis=0)),
    "box": (nc.Box(-0.3, 0.2), nc.NonNeg()),
    "simplex": (nc.Simplex(1.0, axis="unit"), nc.SolidSimplex(1.0, axis=0)),
    "l1": (nc.L1Ball(2.0, axis="unit"), nc.L1Sphere(1.0, axis=0)),
    "sparse": (nc.TopK(5, axis="unit"), nc.LInfBall(0.1, axis=0)),
    "mean": (nc.ZeroMean(axis="unit"), nc.FixedSum(1.0, axis=0)),
    "both": (nc.NonNegUnitNorm(axis="unit"), nc.Monotone(axis=0)),
    "scheduled": (
        nc.Scheduled(nc.MaxNorm(3.0, axis="unit"), {"max_value": nc.schedules.Linear(3, 1, 4)}),
        nc.Scheduled(nc.Box(-0.1, 0.1), every=3),
    ),
}


def largest(x: Any) -> Any:
    """Of each group of (out, in, ...), the largest modulus, with its axes kept."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    return abs(x).max(axis=axes, keepdims=True)


# These select and clip, and compute nothing.
BIT_FOR_BIT = {"box", "sparse"}


@pytest.mark.parametrize("name", thin(SETS, 6))
def test_the_numbers_are_the_same(name: str) -> None:
    weight, bias = SETS[name]
    rules = {"*.kernel": weight, "*.bias": bias}
    apply = nnx.jit(lambda m: normconstraints_jax.nnx.project_(m, rules, step=3))
    moved = set()
    for scale in (0.05, 1.0, 1e3):
        ours, theirs = pair(scale)
        before = {n: p.detach().clone() for n, p in ours.named_parameters()}
        normconstraints_torch.project_(ours, {"*.weight": weight, "*.bias": bias}, step=3)
        apply(theirs)
        for (full, parameter), module in zip(
            ours.named_parameters(), np.repeat(LAYERS, 2), strict=True
        ):
            moved |= set() if torch.equal(parameter, before[full]) else {full}
            x = parameter.detach().numpy()
            layer = getattr(theirs, module)
            y = np.asarray((layer.kernel if x.ndim > 1 else layer.bias)[...])
            y = np.moveaxis(y, (-1, -2), (0, 1)) if y.ndim > 1 else y
            ulp = np.spacing(np.maximum(largest(x), np.finfo("float32").tiny))
            off = (abs(x.astype("float64") - y) / ulp).max()
            assert off <= (0 if name in BIT_FOR_BIT else ULPS), (full, scale)
    assert len(moved) == 8  # or the test says nothing
