"""The projections of optax under their own names and arguments, by the sets of this library.

Code that was written for ``optax.projections`` moves over with one import::

    from normconstraints_jax import projections  # was: from optax import projections

A tree is one vector, as it is there: the norm of `projection_l2_ball` is that of all leaves
together. For one norm for each unit use `normconstraints_jax.project`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from normconstraints import functional

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]

Tree = TypeVar("Tree")


def _as_vector(project: Callable[[Any], Any], tree: Tree) -> Tree:
    vector, unravel = ravel_pytree(tree)
    projected: Tree = unravel(project(vector))
    return projected


def _like(value: Any, tree: Any) -> Any:
    """A bound for every leaf: one for all, or a tree of the same kind."""
    given: Any = jax.tree.structure(value)
    if given == jax.tree.structure(tree):
        return jax.tree.map(lambda bound, x: jnp.broadcast_to(bound, jnp.shape(x)), value, tree)
    return jax.tree.map(lambda x: jnp.broadcast_to(value, jnp.shape(x)), tree)


def projection_non_negative(tree: Tree) -> Tree:
    """Every entry at least 0; see `normconstraints.NonNeg`."""
    projected: Tree = jax.tree.map(functional.project_non_neg, tree)
    return projected


def projection_box(tree: Tree, lower: Any, upper: Any) -> Tree:
    """Every entry from `lower` to `upper`, numbers or trees; see `normconstraints.Box`."""
    bounds = _like(lower, tree), _like(upper, tree)
    projected: Tree = jax.tree.map(functional.project_box, tree, *bounds)
    return projected


def projection_hypercube(tree: Tree, scale: Any = 1) -> Tree:
    """Every entry from 0 to `scale`; see `normconstraints.Box`."""
    return projection_box(tree, 0.0, scale)


def projection_simplex(tree: Tree, scale: Any = 1) -> Tree:
    """Entries at least 0 with the sum `scale`; see `normconstraints.Simplex`."""
    total = _number(scale)
    return _as_vector(lambda v: functional.project_simplex(v, total, axis=0), tree)


def projection_l1_sphere(tree: Tree, scale: Any = 1) -> Tree:
    """Moduli with the sum `scale`; see `normconstraints.L1Sphere`."""
    radius = _number(scale)
    return _as_vector(lambda v: functional.project_l1_sphere(v, radius, axis=0), tree)


def projection_l1_ball(tree: Tree, scale: Any = 1) -> Tree:
    """Moduli with a sum of at most `scale`; see `normconstraints.L1Ball`."""
    radius = _number(scale)
    return _as_vector(lambda v: functional.project_l1_ball(v, radius, axis=0), tree)


def projection_l2_sphere(tree: Tree, scale: Any = 1) -> Tree:
    """The Euclidean norm `scale`; see `normconstraints.FixedNorm`. Zeros stay zeros."""
    value = _number(scale)
    return _as_vector(lambda v: functional.project_fixed_norm(v, value, axis=0), tree)


def projection_l2_ball(tree: Tree, scale: Any = 1) -> Tree:
    """A Euclidean norm of at most `scale`; see `normconstraints.MaxNorm`."""
    value = _number(scale)
    return _as_vector(lambda v: functional.project_max_norm(v, value, axis=0), tree)


def projection_linf_ball(tree: Tree, scale: Any = 1) -> Tree:
    """Moduli of at most `scale`; see `normconstraints.LInfBall`."""
    radius = _number(scale)
    return _as_vector(lambda v: functional.project_linf_ball(v, radius, axis=0), tree)


def projection_hyperplane(x: Tree, a: Any, b: Any) -> Tree:
    """The inner product with `a` equal to `b`; see `normconstraints.Hyperplane`."""
    normal, offset = ravel_pytree(a)[0], _number(b)
    return _as_vector(lambda v: functional.project_hyperplane(v, normal, offset, axis=0), x)


def projection_halfspace(x: Tree, a: Any, b: Any) -> Tree:
    """The inner product with `a` at most `b`; see `normconstraints.HalfSpace`."""
    normal, offset = ravel_pytree(a)[0], _number(b)
    return _as_vector(lambda v: functional.project_half_space(v, normal, offset, axis=0), x)


def projection_vector(x: Tree, a: Any) -> Tree:
    """The nearest multiple of `a`: what is left of `x` without its part across `a`."""
    normal = ravel_pytree(a)[0]
    return _as_vector(lambda v: v - functional.project_hyperplane(v, normal, 0.0, axis=0), x)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) else value
