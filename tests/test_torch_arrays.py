"""What only torch has: parameters, versions, code generation, memory formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import normconstraints as nc
from normconstraints import _array

W = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))


def test_a_parameter_goes_in_and_a_tensor_with_a_gradient_comes_out() -> None:
    w = torch.nn.Parameter(W.clone())
    p = nc.UnitNorm(axis=1)(w)
    assert type(p) is torch.Tensor
    assert p.requires_grad
    (got,) = torch.autograd.grad((p * W).sum(), w)
    n = torch.linalg.vector_norm(W, dim=1, keepdim=True)
    u = W / n
    torch.testing.assert_close(got, (W - u * (u * W).sum(1, keepdim=True)) / n)


@pytest.mark.parametrize("c", [nc.MaxNorm(1.0, axis=1), nc.LInfBall(0.1, axis=1)], ids=repr)
def test_in_place_moves_the_version_counter(c: nc.Constraint) -> None:
    """So that a backward pass through the old value raises and is not silently wrong."""
    w = torch.nn.Parameter(W.clone())
    loss = (w * w).sum()
    with torch.no_grad():
        c.project_(w)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_keeps_the_memory_format() -> None:
    w = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    strides, want = w.stride(), nc.MaxNorm(1.0, axis=(1, 2, 3))(w)
    nc.MaxNorm(1.0, axis=(1, 2, 3)).project_(w)
    assert w.stride() == strides
    assert torch.equal(w, want)


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_arrays_in_place_are_bit_for_bit_the_same(
    axis: int | None, dtype: torch.dtype
) -> None:
    """Above the size of a block: the blocked path, the path of autograd, and NumPy's."""
    w = torch.randn(1100, 1024, generator=torch.Generator().manual_seed(1)).to(dtype)
    c = nc.MaxNorm(20.0, axis=axis)
    want = c(w)
    followed = c(w.clone().requires_grad_()).detach()
    # Sums in another order differ in the last bit of float64, which the result rarely shows.
    assert (followed != want).float().mean() < (1e-3 if dtype != torch.float64 else 0.6)
    transposed = w.T.clone().T
    c.project_(transposed)
    c.project_(w)
    assert torch.equal(w, want)
    if dtype != torch.float64:
        assert torch.equal(transposed, want)
    if dtype in (torch.float16, torch.float32):
        numpy = c(
            torch.randn(1100, 1024, generator=torch.Generator().manual_seed(1)).to(dtype).numpy()
        )
        assert (np.asarray(want) != numpy).mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "c",
    [
        nc.MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1000.0, 0.7, 1.5), axis=1),
        nc.UnitNorm(axis=0),
        nc.MinMaxNorm(0.5, 1.0, rate=0.25, axis=0),
        nc.MinNorm(1.0, axis=None),
    ],
    ids=repr,
)
def test_the_few_calls_for_a_cuda_device(
    c: nc.Constraint, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on the CPU: what the many give that everything else gets, and signs and NaN.

    To the last bit but in float32, where those round the factor too.
    """
    ulp = torch.finfo(dtype).eps if dtype == torch.float32 else 0.0
    monkeypatch.setattr(_array, "host_library", lambda w: None)
    rng = torch.Generator().manual_seed(0)
    for scale in (1.0, 1e-3, 1e30, 1e-30, 1e-42, 0.0):
        w = scale * torch.randn(8, 6, generator=rng, dtype=torch.float64)
        w[0] = 0
        w[1, 2] = torch.nan if scale == 1 else w[1, 2]
        w = w.to(dtype)
        monkeypatch.setattr(_array, "is_plain_cuda", lambda w: False)
        want = c(w)
        monkeypatch.setattr(_array, "is_plain_cuda", lambda w: True)
        transposed = w.T.clone().T
        before, strides = transposed._version, transposed.stride()
        c.project_(transposed)
        assert transposed._version > before and transposed.stride() == strides
        for found in (c(w), transposed):
            torch.testing.assert_close(found, want, rtol=ulp, atol=0, equal_nan=True)
            assert torch.equal(found == w, want == w)
            assert torch.equal(found.signbit() | found.isnan(), want.signbit() | want.isnan())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's of itself
@pytest.mark.parametrize("c", [nc.MaxNorm(1.0, axis=1), nc.Box(-0.5, 0.5)], ids=repr)
def test_the_code_generator(c: nc.Constraint) -> None:
    compiled = torch.compile(c.project, fullgraph=True)
    for w in (W, 1e-3 * W, torch.zeros(32, 16)):
        torch.testing.assert_close(compiled(w), c(w), rtol=1e-6, atol=0)


def test_compiling_before_any_eager_call_does_not_warn() -> None:
    import subprocess
    import sys

    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import torch, normconstraints as nc\n"
        "c = nc.MaxNorm(1.0, axis=1)\n"
        "p = torch.compile(c.project, backend='eager', fullgraph=True)(torch.ones(2, 3))\n"
        "assert torch.linalg.vector_norm(p, dim=1).max() <= 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_gradcheck() -> None:
    w = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for c in (
        nc.MaxNorm(0.7, axis=0),
        nc.UnitNorm(axis=1),
        nc.MinMaxNorm(0.1, 0.5, rate=0.3, axis=None),
        nc.UnitRMS(axis=0),
        nc.Box(-0.3, 0.4),
        nc.LInfBall(0.4, axis=0),
    ):
        assert torch.autograd.gradcheck(c.project, (w,))
        assert torch.autograd.gradgradcheck(c.project, (w,))


def test_an_expanded_tensor_is_not_written_to() -> None:
    w = torch.ones(1, 3).expand(2, 3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        nc.MaxNorm(1.0, axis=1).project_(w)
