"""Equinox: the layouts of its layers, and models as Equinox has them, trees of their own class.

Import it once, then rules know the layers of a model::

    import normconstraints_jax.equinox

    rules = nc.Rules({eqx.nn.Linear: nc.MaxNorm(3.0, axis="unit")})
    print(rules.plan(model))
    model = normconstraints_jax.project(eqx.apply_updates(model, updates), rules)

The same array in two places of a model is two weights, as it is for Equinox; to tie weights it has
`equinox.nn.Shared`. Layers inside `equinox.nn.WeightNorm` and `equinox.nn.SpectralNorm` are
constrained as they are stored, before these scale them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
from equinox import nn

from normconstraints.layout import declare
from normconstraints.weights import Weight, register_walker
from normconstraints_jax import _tree

__all__: list[str] = []


def _conv(before: str) -> Callable[[Any], str]:
    # Not "oi..", for which the axis of a stack would be one more spatial axis.
    return lambda layer: before + "s" * layer.num_spatial_dims


def _scales(name: str) -> Callable[[Any], str]:
    return lambda layer: "o" * getattr(layer, name).ndim


declare(nn.Linear, weight="oi", bias="o")
declare(nn.Conv, weight=_conv("oi"), bias=lambda layer: "o" * (layer.num_spatial_dims + 1))
# Unlike PyTorch's, the kernel of a transposed convolution has its output channels first.
declare(nn.ConvTranspose, weight=_conv("oi"), bias=lambda layer: "o" * (layer.num_spatial_dims + 1))
declare(nn.Embedding, weight="te")
declare(nn.GRUCell, weight_ih="oi", weight_hh="oi", bias="o", bias_n="o")
declare(nn.LSTMCell, weight_ih="oi", weight_hh="oi", bias="o")
declare(nn.LayerNorm, weight=_scales("weight"), bias=_scales("bias"))
declare(nn.RMSNorm, weight=_scales("weight"), bias=_scales("bias"))
declare(nn.GroupNorm, weight="o", bias="o")
declare(nn.BatchNorm, weight="o", bias="o")
declare(nn.PReLU, negative_slope=_scales("negative_slope"))
declare(nn.WeightNorm, g=_scales("g"))

_tree.hidden.append(lambda node: isinstance(node, nn.StateIndex))


def _weights(model: eqx.Module) -> list[Weight]:
    return _tree.flatten(model)[0]


register_walker(eqx.Module, _weights)
