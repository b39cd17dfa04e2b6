"""Equinox: the layouts of its layers, and models as Equinox has them, trees of their own class.

Import it once, then rules know the layers of a model::

    from normconstraints_jax.equinox import project

    rules = nc.Rules({eqx.nn.Linear: nc.MaxNorm(3.0, axis="unit")})
    print(rules.plan(model))
    model = project(eqx.apply_updates(model, updates), rules)

The same array in two places of a model is two weights, as it is for Equinox; to tie weights it has
`equinox.nn.Shared`. Layers inside `equinox.nn.WeightNorm` and `equinox.nn.SpectralNorm` are
constrained as they are stored, before these scale them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
from equinox import nn

from normconstraints.layout import declare
from normconstraints.weights import Weight, register_walker
from normconstraints_jax import _project, _tree
from normconstraints_jax._project import RulesLike

__all__ = ["project"]

Model = TypeVar("Model")


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


def project(model: Model, rules: RulesLike, *, step: Any = None) -> Model:
    """A model of which the weights that have a constraint are the nearest that fulfil it.

    Parameters
    ----------
    model : equinox.Module
        Or what `equinox.filter` and `equinox.partition` leave of one. Leaves that are no arrays,
        activation functions for example, stay.
    rules : Rules or mapping
        As for `normconstraints_jax.project`, which this is, by the name that one looks for here.
        The name of a weight is the path to it, as ``layers.0.weight``.
    step : int or integer array, optional
        As for `normconstraints_jax.project`.

    Returns
    -------
    equinox.Module
        The same tree. Leaves without a constraint are the very same.

    Raises
    ------
    TypeError, ValueError
        As for `normconstraints_jax.project`.

    Notes
    -----
    Call it after `equinox.apply_updates`, inside of `equinox.filter_jit` or outside. Weights that
    are tied by `equinox.nn.Shared` are one, by the name of the place that has the array.

    Examples
    --------
    >>> import equinox as eqx
    >>> import jax
    >>> import normconstraints as nc
    >>> from normconstraints_jax import violation
    >>> from normconstraints_jax.equinox import project
    >>> model = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> rules = {eqx.nn.Linear: nc.MaxNorm(0.1, axis="unit")}
    >>> model = eqx.filter_jit(lambda m: project(m, rules))(model)
    >>> violation(model, rules)["layers.1.weight"]
    Array([0., 0.], dtype=float32)
    """
    return _project.project(model, rules, step=step)
