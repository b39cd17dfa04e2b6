"""Constraints as trees: through jit, vmap and grad with numbers that change."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fitting import fitting
from thin import thin

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402
import normconstraints_jax  # noqa: E402, F401

W = jnp.asarray(3 * np.random.default_rng(0).standard_normal((8, 8)), jnp.float32)


def examples() -> Iterator[nc.Constraint]:
    for name in nc.__all__:
        cls = getattr(nc, name)
        if isinstance(cls, type) and issubclass(cls, nc.Constraint):
            given = getattr(sys.modules[cls.__module__], "EXAMPLES", ())
            yield from (c for c in given if type(c) is cls)


# Of each set the one with most numbers. Of those with long traces all that they have is static.
SETS = list(
    {
        type(c): c
        for c in sorted(examples(), key=lambda c: len(jax.tree.leaves(c)))
        if not isinstance(c, nc.Birkhoff | nc.Transport)
    }.values()
)


@pytest.mark.parametrize("c", thin(SETS, 5), ids=lambda c: repr(c)[:60])
def test_a_constraint_is_an_argument_of_a_compiled_function(c: nc.Constraint) -> None:
    leaves, tree = jax.tree.flatten(c)
    again = tree.unflatten(leaves)
    assert again == c
    assert repr(again) == repr(c)
    assert jax.tree.structure(again) == tree
    assert jax.tree.structure(copy.deepcopy(c)) == tree
    w = fitting(c, W)
    found = jax.jit(lambda c, w: c(w))(c, w)
    np.testing.assert_allclose(found, jax.jit(c.project)(w), rtol=1e-6, atol=1e-6)


def test_all_leaves_are_numbers() -> None:
    """Else no compiled function takes the constraint."""
    for c in examples():
        leaves, tree = jax.tree.flatten(c)
        assert all(isinstance(leaf, int | float) for leaf in leaves), c
        assert hash(tree) == hash(jax.tree.structure(c))


def test_a_radius_that_changes_is_compiled_once() -> None:
    count = 0

    @jax.jit
    def step(c: nc.MaxNorm, w: Any) -> Any:
        nonlocal count
        count += 1
        return c(w)

    for i in range(100):
        c = nc.MaxNorm(1.0 + i / 100, axis=0)
        np.testing.assert_allclose(step(c, W), c(W), rtol=1e-6)
    assert count == 1
    step(nc.MaxNorm(1.0, axis=1), W)  # another axis is another program
    step(nc.MaxNorm((1.0,) * 8, axis=0), W)  # and so is a number for each group
    assert count == 3


def test_a_method_is_part_of_the_program() -> None:
    methods = []

    @jax.jit
    def step(c: nc.SpectralBall, w: Any) -> Any:
        methods.append(c.method)
        return c(w)

    for radius in (1.0, 2.0):
        for method in ("svd", "gram"):
            c = nc.SpectralBall(radius, method=method)
            np.testing.assert_allclose(step(c, W), c(W), rtol=1e-5, atol=1e-5)
    assert methods == ["svd", "gram"]


def test_many_radii_at_once() -> None:
    radii = jnp.asarray([0.5, 1.0, 2.0])
    many = jax.vmap(lambda r: nc.MaxNorm(r, axis=0)(W))(radii)
    stacked = nc.MaxNorm(radii, axis=0)
    by_tree = jax.vmap(lambda c: c(W))(stacked)
    for i, radius in enumerate(radii.tolist()):
        for found in (many[i], by_tree[i]):
            np.testing.assert_allclose(found, nc.MaxNorm(radius, axis=0)(W), rtol=1e-6)


def test_the_derivative_in_the_numbers_of_a_constraint() -> None:
    def total(c: nc.L1Ball) -> Any:
        return jnp.sum(abs(c(W)))

    slope = jax.grad(total)(nc.L1Ball(2.0, axis=0))
    assert isinstance(slope, nc.L1Ball)
    assert float(slope.radius) == pytest.approx(8.0, rel=1e-5)  # one for each of the groups


def test_constraints_in_a_tree_are_mapped_over() -> None:
    rules = {"a": nc.Box(-1.0, 1.0), "b": nc.NonNeg() & nc.MaxNorm(2.0, axis=0)}
    halved = jax.tree.map(lambda x: x / 2, rules)
    assert halved["a"] == nc.Box(-0.5, 0.5)
    assert halved["b"] == nc.NonNeg() & nc.MaxNorm(1.0, axis=0)
    with_paths = jax.tree_util.tree_flatten_with_path(rules)[0]
    assert jax.tree_util.keystr(with_paths[0][0]) == "['a'].lower"


@pytest.mark.thorough
def test_monotone_states_its_derivative_to_jax_in_both_modes() -> None:
    c, w = nc.Monotone(axis=0), jnp.asarray([3.0, 1.0, 2.0, 5.0])
    expected = np.array([[1 / 3] * 3 + [0.0]] * 3 + [[0.0] * 3 + [1.0]])
    np.testing.assert_allclose(jax.jacrev(c)(w), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(c)(w), expected, atol=1e-6)
