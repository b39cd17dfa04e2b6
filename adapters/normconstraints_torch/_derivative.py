"""How autograd is told of the derivative that a set states itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.autograd import forward_ad

from normconstraints import derivatives

_Project: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
_Vjp: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class _Traced(torch.autograd.Function):
    """A projection whose backward pass keeps the weight and the result alone.

    Dynamo traces it; it refuses one with a forward mode.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(project: _Project, vjp: _Vjp, w: torch.Tensor) -> torch.Tensor:
        return project(w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, ctx.vjp, w = inputs
        ctx.save_for_backward(w, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,) = gradients
        return None, None, ctx.vjp(*ctx.saved_tensors, g)


class _Eager(torch.autograd.Function):
    """The same with a forward mode, by the same function: the Jacobian is symmetric."""

    generate_vmap_rule = True

    @staticmethod
    def forward(project: _Project, vjp: _Vjp, w: torch.Tensor) -> torch.Tensor:
        return project(w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _Traced.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[2], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Traced.backward(ctx, *gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return ctx.vjp(*ctx.saved_tensors, tangents[2])


def attach(project: _Project, vjp: _Vjp, w: torch.Tensor) -> torch.Tensor:
    """The projection, whose derivative autograd takes from `vjp`.

    Parameters
    ----------
    project : callable
        From the weight to its projection.
    vjp : callable
        From the weight, the projection and a gradient to the product with the Jacobian.
    w : Tensor
        The weight.

    Returns
    -------
    Tensor
        ``project(w)``.
    """
    recorded = torch.is_grad_enabled() and w.requires_grad
    if torch.compiler.is_compiling():
        function: type[torch.autograd.Function] | None = _Traced if recorded else None
    else:
        function = _Eager if recorded or _wrapped(w) or _is_dual(w) else None
    if function is None:
        return project(w)  # to say that nothing is recorded would cost more than a small weight
    # PyTorch has no types for either.
    return function.apply(project, vjp, w)  # type: ignore[no-any-return, no-untyped-call]


def _wrapped(w: torch.Tensor) -> bool:
    """Whether torch.func looks on: it may differentiate what does not say so."""
    # torch has no public question for it.
    functorch: Any = getattr(torch._C, "_functorch")  # noqa: B009 - for pyright
    return bool(functorch.is_functorch_wrapped_tensor(w))


def _is_dual(w: torch.Tensor) -> bool:
    """Whether it has a tangent, of torch.autograd.forward_ad."""
    # Outside of a level, which torch tells nobody, to unpack would cost what little there is.
    level: int = getattr(forward_ad, "_current_level")  # noqa: B009 - for pyright
    if level < 0:
        return False
    unpacked: Any = forward_ad.unpack_dual(w)  # type: ignore[no-untyped-call]
    return unpacked.tangent is not None


derivatives.register("torch", attach)
