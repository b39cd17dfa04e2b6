"""Any shape and any axes: the groups that the contract means, found another way."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import normconstraints as nc


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    count = draw(st.integers(1, len(shape)))
    axes = draw(st.permutations(range(len(shape))))[:count]
    signed = tuple(a - len(shape) if draw(st.booleans()) else a for a in axes)
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).standard_normal(shape), signed


@settings(max_examples=200, deadline=None)
@given(_cases())
def test_groups_are_those_of_numpy_sum(case: tuple[Any, tuple[int, ...]]) -> None:
    w, axes = case
    p = nc.UnitNorm(axis=axes)(w)
    np.testing.assert_allclose(np.sum(p**2, axis=axes), 1, rtol=1e-14)
    assert nc.MaxNorm(0.5, axis=axes).violation(w).shape == np.sum(w, axis=axes).shape


@settings(max_examples=100, deadline=None)
@given(_cases())
def test_array_parameters_belong_to_the_groups(case: tuple[Any, tuple[int, ...]]) -> None:
    w, axes = case
    radii = np.linspace(0.5, 2.0, np.sum(w, axis=axes).size).reshape(np.sum(w, axis=axes).shape)
    p = nc.FixedNorm(radii, axis=axes)(w)
    np.testing.assert_allclose(np.sqrt(np.sum(p**2, axis=axes)), radii, rtol=1e-14)


@settings(max_examples=100, deadline=None)
@given(_cases())
def test_memory_order_does_not_matter(case: tuple[Any, tuple[int, ...]]) -> None:
    w, axes = case
    c = nc.MaxNorm(0.5, axis=axes)
    np.testing.assert_allclose(c(np.asfortranarray(w)), c(w), rtol=1e-15)
