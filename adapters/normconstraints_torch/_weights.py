"""The weights of a torch.nn.Module: names without the prefixes of wrappers, layers, ties."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from typing import Any, NoReturn

import torch
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from normconstraints.weights import Place, Weight, register_walker, tie

_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""The children of the wrappers of torch.compile, FSDP1, checkpointing and Lightning's Fabric."""
_PARALLEL = (
    torch.nn.DataParallel,
    torch.nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
# What torch.nn.utils.weight_norm, spectral_norm and prune append to the name of a weight.
_SUFFIXES = ("_g", "_v", "_orig")

_PARAMETRIZED = (
    "must be a parameter to be projected, and is computed by a parametrization, from a tensor "
    "whose projection is not that of the weight; take that off first "
    "(torch.nn.utils.parametrize.remove_parametrizations), or exempt the weight with None"
)
_RECOMPUTED = (
    "must be a parameter to be projected, and is computed before each forward pass by weight_norm, "
    "spectral_norm or prune of torch.nn.utils; take that off first (remove_weight_norm, "
    "remove_spectral_norm, prune.remove), or exempt the weight with None"
)
_FSDP1 = (
    "must be a tensor of its own to be projected, and FullyShardedDataParallel (FSDP1) flattens it "
    "together with others and cuts through its units; shard the model by FSDP2 "
    "(torch.distributed.fsdp.fully_shard), or exempt the weight with None"
)
_ZERO3 = (
    "must be there to be projected, and ZeRO-3 of DeepSpeed flattens it and cuts through its "
    "units; shard the model by FSDP2 (torch.distributed.fsdp.fully_shard), or exempt the weight "
    "with None"
)


class OutOfReach:
    """Stands for a weight that a rule must not choose: it has a shape, and a reason for the rest.

    A model that holds one can be planned and constrained, as long as no rule chooses it.
    """

    def __init__(self, name: str, shape: tuple[int, ...], reason: str) -> None:
        self.shape = shape
        self._reason = f"{name!r} {reason}"

    def refuse(self) -> NoReturn:
        """Say why."""
        raise ValueError(self._reason)

    def __array_namespace__(self, api_version: str | None = None) -> NoReturn:
        """A constraint that is to measure or project it asks for this."""
        self.refuse()


def walk(model: torch.nn.Module) -> list[Weight]:
    """The weights of a model, each with the layers that hold it; tied ones are one weight."""
    return tie(_pairs(model))


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside the wrappers of torch.compile, DDP, AveragedModel, FSDP1, Fabric, ..."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    inner: torch.nn.Module | None = model
    while inner is not None:
        model = inner
        children = model.named_children()
        inner = next((child for name, child in children if _is_wrapper(model, name)), None)
    return model


def _is_wrapper(module: torch.nn.Module, child: str) -> bool:
    """Whether a module only wraps that child of it, which then has the name of the module."""
    return child in _WRAPPED or (child == "module" and isinstance(module, _PARALLEL))


def _pairs(model: torch.nn.Module) -> Iterator[tuple[Any, Place]]:
    flattened = _flattened(model)
    stand_ins: dict[Hashable, OutOfReach] = {}  # one for each tensor, so that ties are found
    modules: dict[str, tuple[torch.nn.Module, str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        outer, _, own = path.rpartition(".")
        name, layer, within = "", module, ""
        if path:
            parent, name = modules[outer]
            if not _is_wrapper(parent, own):
                name = _join(name, own)
            # Lists of parameters are no layers: what they mean, their owner knows.
            if isinstance(module, torch.nn.ParameterList | torch.nn.ParameterDict):
                layer, within = parent, f"{own}."
        modules[path] = module, name
        if isinstance(module, ParametrizationList):
            continue
        for attribute, tensor, reason in _tensors(module, flattened.get(id(module), {})):
            full = _join(name, attribute)
            if reason:
                sharded = reason in (_FSDP1, _ZERO3)
                key: Hashable = id(tensor) if sharded else (id(module), attribute)
                shape = tuple(getattr(tensor, "ds_shape", tensor.shape))
                tensor = stand_ins.setdefault(key, OutOfReach(full, shape, reason))
            yield tensor, Place(full, layer, within + attribute)


def _tensors(
    module: torch.nn.Module, flattened: dict[str, torch.Tensor]
) -> Iterator[tuple[str, Any, str]]:
    """The weights of a module itself, each with the reason why it is out of reach, or an empty one.

    The tensor of one that is only stands for its shape.
    """
    parts: dict[str, list[torch.nn.Parameter]] = {}
    for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        if (computed := _computed(module, attribute)) is not None:
            parts.setdefault(computed, []).append(parameter)
        elif attribute not in flattened and not hasattr(parameter, "_is_flat_param"):
            yield attribute, parameter, _ZERO3 if hasattr(parameter, "ds_id") else ""
    for attribute, tensors in parts.items():
        yield attribute, _shaped(tensors), _RECOMPUTED
    if is_parametrized(module):
        assert isinstance(module.parametrizations, torch.nn.ModuleDict)
        for attribute, originals in module.parametrizations.items():
            if tensors := list(originals.parameters(recurse=False)):  # or a buffer
                yield attribute, _shaped(tensors), _PARAMETRIZED
    for attribute, tensor in flattened.items():
        yield attribute, tensor, _FSDP1


def _computed(module: torch.nn.Module, attribute: str) -> str | None:
    """The weight that a hook computes from a parameter, if one does."""
    for suffix in _SUFFIXES if module._forward_pre_hooks else ():
        name = attribute.removesuffix(suffix)
        if name != attribute and isinstance(vars(module).get(name), torch.Tensor):
            return name
    return None


def _shaped(parts: list[torch.nn.Parameter]) -> torch.Tensor:
    """The one that has the shape of the weight: the largest, for a weight norm's other is thin."""
    return max(parts, key=lambda part: part.numel())


def _flattened(model: torch.nn.Module) -> dict[int, dict[str, torch.Tensor]]:
    """What FSDP1 took from each module of a model, as empty tensors of the whole shape."""
    # Without the import nothing can be wrapped, and it takes a second.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return {}
    found: dict[int, dict[str, torch.Tensor]] = {}
    for wrapper in model.modules():
        handle: Any = getattr(wrapper, "_handle", None)
        if handle is None or not isinstance(wrapper, fsdp.FullyShardedDataParallel):
            continue
        flat = handle.flat_param
        for (attribute, module, _), shape in zip(flat._param_infos, flat._shapes, strict=True):
            found.setdefault(id(module), {})[attribute] = torch.empty(shape, device="meta")
        for attribute, module, _, first, owner, _ in flat._shared_param_infos:
            found.setdefault(id(module), {})[attribute] = found[id(owner)][first]
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


register_walker(torch.nn.Module, walk)
