"""Haiku: the layouts of its layers, and which of them a function gives to its parameters.

Parameters of Haiku are dicts without layers. `layouts` looks at the function once, by tracing its
initialisation, and the rules take what it finds::

    layouts = normconstraints_jax.haiku.layouts(transformed, x)
    rules = nc.Rules({"*linear*.w": nc.MaxNorm(3.0, axis="unit")}, layouts=layouts)
    print(rules.plan(params))
    params = normconstraints_jax.project(optax.apply_updates(params, updates), rules)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax

from normconstraints.layout import Layout, declare
from normconstraints_jax import _trace, _tree

__all__ = ["layouts"]


def _conv(after: str) -> Callable[[Any], str]:
    # Not "..io", for which the axis of a stack would be one more spatial axis.
    return lambda layer: "s" * layer.num_spatial_dims + after


declare(hk.Linear, w="io", b="o")
declare(hk.ConvND, w=_conv("io"), b="o")
declare(hk.ConvNDTranspose, w=_conv("oi"), b="o")
for _depthwise in (hk.DepthwiseConv1D, hk.DepthwiseConv2D, hk.DepthwiseConv3D):
    declare(_depthwise, w=_conv("io"), b="o")
declare(hk.Embed, embeddings="te")
declare(hk.nets.VectorQuantizer, embeddings="et")
declare(hk.GRU, w_i="io", w_h="io", b="o")
declare(hk.Bias, b="o")
for _norm in (hk.BatchNorm, hk.LayerNorm, hk.GroupNorm):
    declare(_norm, scale="o", offset="o")
declare(hk.RMSNorm, scale="o")


def layouts(function: Any, *args: Any, rng: Any = None, **kwargs: Any) -> dict[str, Layout]:
    """The layouts of the parameters of a function, found by tracing its initialisation.

    Parameters
    ----------
    function : haiku.Transformed or callable
        What `haiku.transform` returned, or `haiku.transform_with_state`, or what it was given.
    *args, **kwargs
        What its ``init`` takes after the random key: arrays, or their shapes as
        `jax.ShapeDtypeStruct`. Nothing is computed.
    rng : jax.Array, optional
        A random key for ``init``.

    Returns
    -------
    dict of str to Layout
        For ``Rules(rules, layouts=...)``. Axes that `haiku.experimental.layer_stack` adds are
        layers of a stack. Parameters of unknown layers, and stacks of which the axis cannot be told
        as another is as long, are left out.

    Examples
    --------
    >>> import haiku as hk
    >>> import jax.numpy as jnp
    >>> import normconstraints_jax.haiku
    >>> normconstraints_jax.haiku.layouts(lambda x: hk.Linear(3)(x), jnp.ones((1, 2)))
    {'linear.b': Layout(roles='o', groups=1), 'linear.w': Layout(roles='io', groups=1)}
    """
    seen: _trace.Seen = {}

    def made(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        layer = context.module
        if layer is not None:
            name = f"{layer.module_name}.{context.name}"
            _trace.see(seen, name, layer, context.name, tuple(shape))
        return create(shape, dtype, init)

    def look(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        # A creator can only be set inside of what is transformed, so each call sets it.
        with hk.custom_creator(made):
            return call(*call_args, **call_kwargs)

    if not hasattr(function, "init"):
        function = hk.transform_with_state(function)
    rng = jax.random.key(0) if rng is None else rng
    with hk.intercept_methods(look):
        found = _trace.shapes(function.init, rng, *args, **kwargs)
    with_state = isinstance(function, hk.TransformedWithState | hk.MultiTransformedWithState)
    weights = _tree.flatten(found[0] if with_state else found)[0]
    # What is lifted, as a stack is, gets the name of the lift in front.
    return _trace.layouts(seen, {w.name: w.shape for w in weights}, lifted=True)
