"""Linear algebra as each library has it: products, decompositions, systems."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from normconstraints._array import Array, Namespace, is_jax, is_traced, name_of, repeat


def product(a: Array, b: Array, xp: Namespace) -> Array:
    """The product of matrices with all the digits of their dtype."""
    # XLA's default on a GPU or TPU is fewer than half of them.
    return xp.matmul(a, b, precision="highest") if is_jax(xp) else xp.matmul(a, b)


# ------------------------------------------------------------------------------- decompositions


def svd(x: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """The left singular vectors, the values from the largest on, the right vectors as rows."""
    if name_of(xp) == "mlx":  # whose singular vectors are those of both spaces, all of them
        u, s, vh = xp.linalg.svd(x)
        size = s.shape[-1]
        return u[..., :size], s, vh[..., :size, :]
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    return u, s, vh


def singular_values(x: Array, xp: Namespace) -> Array:
    """The singular values, from the largest on."""
    if name_of(xp) == "mlx":
        return xp.linalg.svd(x, compute_uv=False)
    return xp.linalg.svdvals(x)


def eigh(x: Array, xp: Namespace) -> tuple[Array, Array]:
    """The eigenvalues of self-adjoint matrices from the smallest on, and vectors as columns."""
    values, vectors = xp.linalg.eigh(x)
    return values, vectors


def eigenvalues(x: Array, xp: Namespace) -> Array:
    """The eigenvalues of self-adjoint matrices, from the smallest on."""
    return xp.linalg.eigvalsh(x)


def determinant_sign(x: Array, xp: Namespace) -> Array:
    """The signs of the determinants."""
    return xp.linalg.slogdet(x)[0]


# ------------------------------------------------------------------------------------- systems


def solve(a: Array, b: Array, xp: Namespace) -> Array:
    """The solutions of linear systems, none of which is singular."""
    # torch's own would wait for a CUDA device, to raise if one is.
    if "torch" in xp.__name__:
        return sys.modules["torch"].linalg.solve_ex(a, b)[0]
    return xp.linalg.solve(a, b)


def conjugate_gradients(
    system: Callable[[Array], Array],
    right: Array,
    rounds: int,
    xp: Namespace,
    *,
    inverse: Array | float = 1.0,
    axes: int | None = None,
) -> Array:
    """The solution of a system that is positive definite, near it after so many rounds.

    Preconditioned by a factor for each entry, `inverse`; `axes` are those of one system, None for
    all of them.
    """

    def inner(a: Array, b: Array) -> Array:
        return xp.sum(a * b, axis=axes, keepdims=True)

    def solve(system: Callable[[Array], Array], right: Array) -> Array:
        def turn(state: Any) -> Any:
            x, rest, way, size = state
            turned = system(way)
            bend = inner(way, turned)
            step = size / xp.where(bend > 0, bend, 1.0)
            x, rest = x + step * way, rest - step * turned
            again = inner(rest, inverse * rest)
            way = inverse * rest + again / xp.where(size > 0, size, 1.0) * way
            return x, rest, way, again

        start = (xp.zeros_like(right), right, inverse * right, inner(right, inverse * right))
        solution: Array = repeat(turn, start, rounds, xp)[0]
        return solution

    if is_jax(xp) and is_traced(right):
        # The rounds are not linear in the right side, as what JAX transposes has to be.
        linear: Callable[..., Array] = sys.modules["jax"].lax.custom_linear_solve
        return linear(system, right, solve, symmetric=True)
    return solve(system, right)
