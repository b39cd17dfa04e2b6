"""Derivatives of sets of singular values and eigenvalues, where those of decompositions fail."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from test_spectral_sets import made, normal, orthogonal, raw
from thin import thin

import normconstraints as nc
import normconstraints_jax  # noqa: F401 - tells the library of the derivatives
import normconstraints_torch  # noqa: F401 - the same

# torch's of itself, in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def _generic(*shape: int, dtype: str = "float64") -> Any:
    return 1.5 * raw(*shape, seed=sum(shape), dtype=dtype)


def _unitary(n: int) -> Any:
    return np.linalg.qr(raw(n, n, seed=7))[0]


RANK_ONE = 3 * np.outer([0.6, 0.0, 0.8], [0.8, 0.6])
PROJECTOR = 3 * np.outer([0.6, 0.0, 0.8], [0.6, 0.0, 0.8])
TALL, WIDE, SQUARE = _generic(5, 3), _generic(3, 4), _generic(4, 4)
COMPLEX = _generic(4, 3, dtype="complex128")
BALL, NUCLEAR, SPHERE = nc.SpectralBall(1.0), nc.NuclearBall(2.0), nc.SpectralSphere(1.5)
CLIP, RANK = nc.SingularValues(0.5, 1.5), nc.MaxRank(2)
GRAM, POLAR = nc.SpectralBall(1.0, method="gram"), nc.SpectralBall(1.0, method="polar")
O, SO = nc.Orthogonal(), nc.SpecialOrthogonal()  # noqa: E741
PSD, PLEX = nc.PositiveSemidefinite(), nc.Spectraplex(2.0)

POINTS: list[tuple[str, Any, Any]] = [
    *[("twice I", c, 2 * np.eye(3)) for c in (BALL, NUCLEAR, SPHERE, CLIP, O, SO, PSD, PLEX)],
    *[("twice I, tall", c, 2 * np.eye(4, 2)) for c in (BALL, NUCLEAR, SPHERE, CLIP, O)],
    *[("thrice unitary", c, 3 * _unitary(3)[:2]) for c in (BALL, NUCLEAR, SPHERE, CLIP, O)],
    *[("minus I", c, -np.eye(3)) for c in (PSD, PLEX, nc.Spectraplex(0.5))],
    ("rotation by a half", SO, 2 * np.diag([-1.0, -1.0, 1.0, 1.0])),
    ("determinant below 0", SO, np.diag([3.0, 2.0, 2.0, -0.5])),
    *[("rank one", c, RANK_ONE) for c in (BALL, NUCLEAR, SPHERE, nc.MaxRank(1), GRAM, POLAR)],
    *[("rank one, square", c, PROJECTOR) for c in (BALL, NUCLEAR, PLEX)],
    *[("zeros", c, np.zeros((3, 2))) for c in (BALL, NUCLEAR)],
    *[("zeros, square", c, np.zeros((3, 3))) for c in (PLEX, nc.PositiveSemidefinite(0.5))],
    ("zeros, square", nc.PositiveSemidefinite(-0.5), np.zeros((3, 3))),
    ("in pairs", RANK, made([3.0, 3.0, 1.0, 1.0], 4, 5)),
    ("in pairs", CLIP, made([3.0, 3.0, 0.1, 0.1], 4, 5)),
    ("in pairs", PSD, np.diag([1.0, 1.0, -2.0, -2.0])),
    *[("tall", c, TALL) for c in (BALL, NUCLEAR, SPHERE, CLIP, RANK, O, GRAM, POLAR)],
    *[("wide", c, WIDE) for c in (BALL, NUCLEAR, SPHERE, CLIP, RANK, O)],
    *[("square", c, SQUARE) for c in (BALL, NUCLEAR, SPHERE, CLIP, RANK, O, SO, PSD, PLEX)],
    *[("complex", c, COMPLEX) for c in (BALL, NUCLEAR, SPHERE, CLIP, RANK, O)],
    *[("Hermitian", c, _generic(3, 3, dtype="complex128")) for c in (PSD, PLEX)],
    # What is curved at its members too.
    ("member", O, made(np.ones(3), 5, 3)),
    ("member", O, _unitary(3)),
    ("member", SO, SO(SQUARE)),
    ("member", RANK, made([2.0, 1.0, 0.0], 4, 3)),
    ("member", SPHERE, made([1.5, 1.0, 0.5], 4, 3)),
    ("interior", CLIP, made([1.2, 1.0, 0.8], 4, 3)),
]
NAMES = [f"{kind} {type(c).__name__}" for kind, c, _ in POINTS]


EVERY = [(n, c, w) for n, (_, c, w) in zip(NAMES, POINTS, strict=True)]


def _name(x: Any) -> str:
    return x if isinstance(x, str) else ""


@pytest.mark.parametrize(("name", "constraint", "w"), thin(EVERY, 3), ids=_name)
def test_torch_against_finite_differences(name: str, constraint: Any, w: Any) -> None:
    x = torch.tensor(w, requires_grad=True)
    assert torch.autograd.gradcheck(constraint, x, check_forward_ad=True)


@pytest.mark.parametrize(
    ("constraint", "w"),
    thin(
        [
            *[(c, TALL) for c in (BALL, NUCLEAR, SPHERE, CLIP, RANK, O)],
            *[(c, WIDE) for c in (BALL, NUCLEAR, O)],
            *[(c, SQUARE) for c in (SO, PSD, PLEX)],
        ],
        4,
    ),
    ids=lambda x: type(x).__name__,
)
def test_second_derivatives_at_a_generic_point(constraint: Any, w: Any) -> None:
    assert torch.autograd.gradgradcheck(constraint, torch.tensor(w, requires_grad=True))


def _differences(constraint: Any, w: Any) -> Any:
    """The Jacobian, by central differences."""
    step, columns = 1e-5, []
    for e in np.eye(w.size).reshape(-1, *w.shape):
        columns.append((constraint(w + step * e) - constraint(w - step * e)) / (2 * step))
    return np.moveaxis(np.array(columns).reshape(*w.shape, *w.shape), (0, 1), (2, 3))


REAL = [case for case in EVERY if not np.iscomplexobj(case[2])]


@pytest.mark.parametrize(("name", "constraint", "w"), thin(REAL, 20), ids=_name)
def test_jax_both_ways(name: str, constraint: Any, w: Any) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(w)
        back = jax.jit(jax.jacrev(constraint.project))(x)
        forth = jax.jit(jax.jacfwd(constraint.project))(x)
        np.testing.assert_allclose(back, forth, rtol=0, atol=1e-12)
        np.testing.assert_allclose(back, _differences(constraint, w), rtol=0, atol=1e-8)


@pytest.mark.parametrize("c", thin([BALL, NUCLEAR], 2))
def test_jax_in_batches_and_compiled(c: Any) -> None:
    stack = np.stack([TALL, made([2.0, 2.0, 2.0], 5, 3), 3 * np.eye(5, 3), np.zeros((5, 3))])
    with jax.enable_x64(True):

        def loss(w: Any) -> Any:
            return jnp.sum(c(w) ** 3)

        slope = jax.jit(jax.grad(loss))
        together = slope(jnp.asarray(stack))
        mapped = jax.jit(jax.vmap(jax.grad(loss)))(jnp.asarray(stack))
        alone = np.stack([slope(jnp.asarray(w)) for w in stack])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)
        np.testing.assert_allclose(mapped, alone, rtol=0, atol=1e-13)
    x = torch.tensor(stack, requires_grad=True)
    (c(x) ** 3).sum().backward()
    np.testing.assert_allclose(x.grad, alone, rtol=0, atol=1e-12)


def test_derivatives_of_convex_sets_are_projections_of_no_more_than_length_one() -> None:
    """Symmetric, with eigenvalues from 0 to 1."""
    for c, w in (
        (BALL, TALL),
        (NUCLEAR, WIDE),
        (PSD, SQUARE),
        (PLEX, SQUARE),
        (BALL, 2 * np.eye(3)),
    ):
        x = torch.tensor(w)
        jacobian = torch.func.jacrev(c.project)(x).reshape(w.size, w.size)
        torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=1e-13)
        values = torch.linalg.eigvalsh(jacobian)
        assert values[0] >= -1e-13 and values[-1] <= 1 + 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_less_precision(dtype: torch.dtype) -> None:
    for c in (BALL, NUCLEAR, O):
        for w in (TALL, 2 * np.eye(4, 3), made([2.0, 2.0, 1e-3], 4, 3)):
            x = torch.tensor(w, dtype=dtype, requires_grad=True)
            g = torch.tensor(normal(*w.shape, seed=2), dtype=dtype)
            c(x).backward(g)
            y = x.detach().double().requires_grad_()
            c(y).backward(g.double())
            assert x.grad is not None and y.grad is not None
            allowed = 8 * float(torch.finfo(dtype).eps) * float(1 + y.grad.abs().max())
            assert float((x.grad.double() - y.grad).abs().max()) <= allowed


def test_a_weight_that_starts_orthogonal_turns() -> None:
    """The gradient at a member is along the set, as it is after the first step."""
    q = orthogonal(4)
    g = normal(4, 4, seed=5)
    for c in (nc.Orthogonal(), nc.Orthogonal(method="polar"), nc.SpecialOrthogonal()):
        w = c(q)
        x = torch.tensor(w, requires_grad=True)
        c(x).backward(torch.tensor(g))
        want = nc.tangent(c, w, g)
        np.testing.assert_allclose(x.grad, want, rtol=0, atol=1e-13)


FRESH = """
import sys
import {library}
import numpy as np
import normconstraints as nc

assert "normconstraints_{library}" not in sys.modules
generic = np.arange(1.0, 7.0).reshape(3, 2) * [[1.0, -1.0]]
twice = 2 * np.eye(3, 2)

def slope(c, w):
    if "{library}" == "torch":
        x = torch.tensor(w, requires_grad=True)
        (c(x) ** 3).sum().backward()
        return x.grad.numpy()
    jax.config.update("jax_enable_x64", True)
    return np.asarray(jax.jit(jax.grad(lambda x: (c(x) ** 3).sum()))(jax.numpy.asarray(w)))

sets = nc.SpectralBall(1.0), nc.Orthogonal()
known = [slope(c, generic) for c in sets]
for c in sets:
    assert np.isnan(slope(c, twice)).any(), c
import normconstraints_{library}
for c, before in zip(sets, known):
    np.testing.assert_allclose(slope(c, generic), before, rtol=0, atol=1e-9)
    assert np.isfinite(slope(c, twice)).all()
"""


@pytest.mark.parametrize("library", thin(["torch", "jax"], 2))
def test_without_an_adapter_equal_values_give_nan(library: str) -> None:
    code = FRESH.format(library=library)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
