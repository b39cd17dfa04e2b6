"""PyTorch: eager, compiled, batched, differentiated, without values, watched, and on a GPU."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from normconstraints.constraint import Constraint, Decomposed
from normconstraints.testing.backends._base import DOUBLE, HALF, SINGLE, Array, Backend


class Torch(Backend):
    name = "torch"
    modes = True
    dtypes: ClassVar[tuple[str, ...]] = (*HALF, *SINGLE, *DOUBLE)
    quick = True
    differentiable = True
    device: ClassVar[str] = "cpu"

    def missing(self) -> str | None:
        return None if find_spec("torch") else "torch is not installed"

    def asarray(self, data: Any, dtype: str) -> Array:
        import torch

        return torch.tensor(np.array(data)).to(getattr(torch, dtype)).to(self.device)

    def strided(self, data: Any, dtype: str) -> Array | None:
        import torch

        shape, kind = tuple(2 * s for s in data.shape)[::-1], getattr(torch, dtype)
        store = torch.zeros(shape, dtype=kind, device=self.device)
        view = store.permute(*range(data.ndim - 1, -1, -1))[
            tuple([slice(None, None, 2)] * data.ndim)
        ]
        view.copy_(self.asarray(data, dtype))
        return view

    def numpy(self, w: Array) -> Any:
        import torch

        return w.detach().to(torch.complex128 if w.is_complex() else torch.float64).numpy().copy()

    def pullback(self, constraint: Constraint, w: Array, cotangent: Array) -> Array:
        w = w.clone().requires_grad_()
        constraint.project(w).backward(cotangent)
        return w.grad


class TorchCompile(Torch):
    name = "torch compile"
    modes = False
    mutable = False
    compiles = True
    quick = False
    differentiable = False
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32", "float64")

    def session(self) -> AbstractContextManager[Any]:
        import torch

        # One graph for each dtype and shape of each constraint: more than the default allows.
        context: AbstractContextManager[Any] = torch._dynamo.config.patch(
            recompile_limit=1000, accumulated_recompile_limit=10**6
        )
        return context

    def start(self, constraint: Constraint) -> None:
        import torch

        torch._dynamo.reset()
        # The front end is what refuses Python on values; the code generator of each shape would
        # cost minutes and is tested once in the tests.
        self._project = torch.compile(constraint.project, backend="eager", fullgraph=True)
        self._violation = torch.compile(constraint.violation, backend="eager", fullgraph=True)

    def project(self, constraint: Constraint, w: Array) -> Array:
        return self._project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        return self._violation(w)


class TorchVmap(Torch):
    name = "torch vmap"
    modes = False
    mutable = False
    quick = False
    differentiable = False

    def project(self, constraint: Constraint, w: Array) -> Array:
        import torch

        return torch.func.vmap(constraint.project)(torch.stack([w, w]))[1]

    def violation(self, constraint: Constraint, w: Array) -> Array:
        import torch

        return torch.func.vmap(constraint.violation)(torch.stack([w, w]))[1]


class TorchGrad(Torch):
    """The value that comes along with a derivative of torch.func, and that derivative."""

    name = "torch grad"
    modes = False
    mutable = False
    quick = False

    def project(self, constraint: Constraint, w: Array) -> Array:
        import torch

        return torch.func.vjp(constraint.project, w)[0]

    def pullback(self, constraint: Constraint, w: Array, cotangent: Array) -> Array:
        import torch

        return torch.func.vjp(constraint.project, w)[1](cotangent)[0]


class TorchMeta(Torch):
    name = "torch meta"
    modes = False
    has_values = False
    mutable = False
    quick = False
    differentiable = False

    def asarray(self, data: Any, dtype: str) -> Array:
        import torch

        return torch.empty(data.shape, dtype=getattr(torch, dtype), device="meta")

    def strided(self, data: Any, dtype: str) -> Array | None:
        return None


class TorchFake(TorchMeta):
    name = "torch fake cuda"

    def session(self) -> AbstractContextManager[Any]:
        from torch._subclasses.fake_tensor import FakeTensorMode

        stack = ExitStack()
        stack.enter_context(FakeTensorMode())
        stack.enter_context(_unguarded())
        return stack

    def asarray(self, data: Any, dtype: str) -> Array:
        import torch

        return torch.empty(data.shape, dtype=getattr(torch, dtype), device="cuda")


def _unguarded() -> AbstractContextManager[Any]:
    """A mode in which indexing and ``~`` are the operations that they come to.

    Themselves they first ask for the CUDA device, which a build without CUDA refuses.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Unguarded(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.Tensor.__invert__:
                return torch.bitwise_not(*args)
            if func is torch.Tensor.__getitem__:
                return _indexed(*args)
            return func(*args, **(kwargs or {}))

    return Unguarded()


def _indexed(x: Array, index: Any) -> Array:
    """A tensor at integers, slices, None and an ellipsis."""
    import torch

    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        used = sum(i is not None and i is not Ellipsis for i in index)
        index = (*index[:at], *[slice(None)] * (x.ndim - used), *index[at + 1 :])
    axis = 0
    for i in index:
        if i is None:
            x = x.unsqueeze(axis)
        elif isinstance(i, slice):
            x = torch.ops.aten.slice(x, axis, i.start, i.stop, i.step or 1)
        else:
            x = torch.select(x, axis, i)
            continue
        axis += 1
    return x


class TorchNoSync(Torch):
    """A dispatch mode that refuses what would stop a GPU to look at a value."""

    name = "torch no sync"
    quick = False
    differentiable = False

    def project(self, constraint: Constraint, w: Array) -> Array:
        with _no_sync():
            return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        with _no_sync():
            return constraint.violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        with _no_sync():
            return function(*arrays)


def _no_sync() -> AbstractContextManager[Any]:
    from torch.utils._python_dispatch import TorchDispatchMode

    refused = (
        *("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"),
        "_linalg_check_errors",  # as linalg.solve and others do, to raise
    )

    class NoSync(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            if name in refused:
                raise RuntimeError(f"aten::{name} looks at a value on the host")
            return func(*args, **(kwargs or {}))

    return NoSync()  # type: ignore[no-untyped-call]


class TorchCuda(Torch):
    """A CUDA device that refuses to be waited for while a projection is computed."""

    name = "torch cuda"
    gpu = True
    device = "cuda"

    def missing(self) -> str | None:
        if (reason := super().missing()) is not None:
            return reason
        import torch

        return None if torch.cuda.is_available() else "no GPU: torch finds no CUDA device"

    def numpy(self, w: Array) -> Any:
        return super().numpy(w.cpu())

    def project(self, constraint: Constraint, w: Array) -> Array:
        with _watched(constraint):
            return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        with _watched(constraint):
            return constraint.violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        with _watched(*function.args):
            return function(*arrays)


def _watched(*given: Any) -> AbstractContextManager[Any]:
    """`never_waiting`, but for decompositions: torch's ask the device whether they converged."""
    waits = any(isinstance(x, Decomposed) for x in given)
    return nullcontext() if waits else never_waiting()


@contextmanager
def never_waiting() -> Iterator[None]:
    """PyTorch's own check for host syncs: what waits for the CUDA device raises."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the mode does not see every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
