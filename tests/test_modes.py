"""Distance, penalty and membership."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch
from thin import thin

import normconstraints as nc
from normconstraints.testing import examples

# One example of each set: the functions know nothing of the sets.
SETS = [
    c
    for c in {type(c): c for c in reversed(examples())}.values()
    if not (isinstance(c, nc.Gradual) and c.rate != 1.0)
    and not isinstance(c, nc.Sequence)  # no projection, so that its penalty has another gradient
    and getattr(c, "exact", True)
]


def _weights(c: nc.Constraint, seed: int) -> Any:
    shape = getattr(sys.modules[type(c).__module__], "SHAPE", (8, 6))
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("c", SETS, ids=repr)
def test_distance_and_penalty_are_of_the_offset(c: nc.Constraint) -> None:
    w = _weights(c, 0)
    offset = w - c(w)
    np.testing.assert_allclose(nc.distance(c, w), np.linalg.norm(offset), rtol=1e-14)
    np.testing.assert_allclose(nc.penalty(c, w), np.sum(offset**2) / 2, rtol=1e-14)
    assert np.shape(nc.distance(c, w)) == np.shape(nc.penalty(c, w)) == ()


@pytest.mark.parametrize("c", thin(SETS, 8), ids=repr)
def test_the_gradient_of_the_penalty_is_the_offset(c: nc.Constraint) -> None:
    # They attach what sets state of their derivatives, without which svd has NaN here.
    import normconstraints_jax  # noqa: F401
    import normconstraints_torch  # noqa: F401

    w = _weights(c, 1)
    w[:, 0] = 0  # a group of zeros, in which NaN gradients are born
    want = w - c(w)
    t = torch.tensor(w, requires_grad=True)
    nc.penalty(c, t).backward()
    assert t.grad is not None
    np.testing.assert_allclose(t.grad.numpy(), want, atol=1e-13)
    with jax.enable_x64(True):
        found = jax.grad(lambda w: nc.penalty(c, w))(jax.numpy.asarray(w))
        np.testing.assert_allclose(np.asarray(found), want, atol=1e-13)


@pytest.mark.parametrize("c", SETS, ids=repr)
def test_membership(c: nc.Constraint) -> None:
    w = _weights(c, 2)
    w = w * np.logspace(-3, 1, w.shape[-1])
    assert not (nc.is_satisfied(c, w) and nc.is_satisfied(c, -w))
    assert nc.is_satisfied(c, c(w))
    assert nc.is_satisfied(c, w, atol=1e3 + 9)
    w[0, 0] = np.nan
    assert not nc.is_satisfied(c, w, atol=1e9)


@pytest.mark.parametrize("atol", [-1.0, float("nan"), "0"])
def test_membership_refuses_a_wrong_atol(atol: Any) -> None:
    with pytest.raises(ValueError, match="is_satisfied: atol must be a finite number >= 0, got"):
        nc.is_satisfied(nc.NonNeg(), np.ones(2), atol=atol)


def test_half_precision_penalty_does_not_overflow() -> None:
    w = torch.full((1024,), 300.0, dtype=torch.float16)
    found = nc.penalty(nc.MaxNorm(1.0, axis=0), w)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(float(found), (9600.0 - 1) ** 2 / 2, rtol=1e-3)


def test_distance_of_large_numbers() -> None:
    w = np.full((4,), 1e200)
    np.testing.assert_allclose(nc.distance(nc.NonPos(), w), 2e200, rtol=1e-14)
