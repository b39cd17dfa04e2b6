"""Flax Linen: the layouts of its layers, and which of them a module gives to its parameters.

Parameters of Linen are dicts without layers. `layouts` looks at the module once, by tracing its
initialisation, and the rules take what it finds::

    layouts = normconstraints_jax.linen.layouts(module, x)
    rules = nc.Rules({"*.kernel": nc.MaxNorm(3.0, axis="unit")}, layouts=layouts)
    print(rules.plan(params))
    params = normconstraints_jax.project(optax.apply_updates(params, updates), rules)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import meta
from flax.linen.recurrent import DenseParams

from normconstraints.layout import Layout, declare
from normconstraints_jax import _trace, _tree

__all__ = ["layouts"]


def _many(x: Any) -> int:
    return len(x) if isinstance(x, tuple | list) else 1


def _conv(after: str) -> Callable[[Any], str]:
    # Not "..io", for which the axis of a stack would be one more spatial axis.
    return lambda layer: "s" * _many(layer.kernel_size) + after


def _general(layer: Any) -> str:
    groups = "g" * _many(layer.batch_dims)
    return groups + "i" * _many(layer.axis) + "o" * _many(layer.features)


declare(nn.Dense, kernel="io", bias="o")
declare(DenseParams, kernel="io", bias="o")
declare(nn.DenseGeneral, kernel=_general, bias="o")
declare(nn.Einsum, kernel=lambda layer: _trace.einsum(layer.einsum_str), bias="o")
declare(nn.Conv, kernel=_conv("io"), bias="o")
# Without shared weights each position has units of its own.
declare(nn.ConvLocal, kernel=lambda layer: "o" * _many(layer.kernel_size) + "io", bias="o")
declare(
    nn.ConvTranspose,
    kernel=lambda layer: _conv("oi" if layer.transpose_kernel else "io")(layer),
    bias="o",
)
declare(nn.Embed, embedding="te")
declare(nn.PReLU, negative_slope="o")
declare(nn.WeightNorm, {"*scale": "o"})
for _norm in (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm):
    declare(_norm, scale="o", bias="o")
declare(nn.RMSNorm, scale="o")

_tree.boxes.append(meta.AxisMetadata)


def layouts(
    module: nn.Module, *args: Any, rngs: Any = None, prefix: str = "", **kwargs: Any
) -> dict[str, Layout]:
    """The layouts of the parameters of a module, found by tracing its initialisation.

    Parameters
    ----------
    module : flax.linen.Module
        The module.
    *args, **kwargs
        What ``module.init`` takes after the random key, ``method`` too: arrays, or their shapes as
        `jax.ShapeDtypeStruct`. Nothing is computed.
    rngs : jax.Array or dict of str to jax.Array, optional
        Random keys as ``module.init`` takes them, if it needs others than for parameters.
    prefix : str, default ""
        What stands in front of names: "params." if rules get the whole of the variables.

    Returns
    -------
    dict of str to Layout
        For ``Rules(rules, layouts=...)``. Axes that `flax.linen.scan` and `flax.linen.vmap` add are
        layers of a stack. Parameters of unknown layers, and stacks of which the axis cannot be told
        as another is as long, are left out.

    Examples
    --------
    >>> import flax.linen as nn
    >>> import jax.numpy as jnp
    >>> import normconstraints_jax.linen
    >>> normconstraints_jax.linen.layouts(nn.Dense(3), jnp.ones((1, 2)))
    {'bias': Layout(roles='o', groups=1), 'kernel': Layout(roles='io', groups=1)}
    """
    seen: _trace.Seen = {}

    def look(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        result = call(*call_args, **call_kwargs)
        layer = context.module
        if layer.scope is None:  # the lifted transformations of a class call it unbound
            return result
        if isinstance(layer, nn.Einsum) and context.method_name == "__call__":
            equation = call_kwargs.get("einsum_str", call_args[1] if call_args[1:] else None)
            layer = layer.clone(einsum_str=layer.einsum_str or equation)
        for attribute, value in context.module.variables.get("params", {}).items():
            if not isinstance(value, Mapping):
                name = ".".join((*context.module.path, attribute))
                _trace.see(seen, name, layer, attribute, meta.unbox(value).shape)
        return result

    rngs = jax.random.key(0) if rngs is None else rngs
    with nn.intercept_methods(look):
        made = _trace.shapes(module.init, rngs, *args, **kwargs)
    weights = _tree.flatten(made.get("params", {}))[0]
    found = _trace.layouts(seen, {weight.name: weight.shape for weight in weights})
    return {prefix + name: roles for name, roles in found.items()}
