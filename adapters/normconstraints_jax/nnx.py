"""Flax NNX: the layouts of its layers, and constraints in place on the parameters of a module.

Import it once, then rules know the layers of a model::

    from normconstraints_jax.nnx import project_

    rules = nc.Rules({nnx.Linear: nc.MaxNorm(3.0, axis="unit")})
    print(rules.plan(model))

    @nnx.jit
    def step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(loss)(model, x, y))
        project_(model, rules)

Only `flax.nnx.Param` are weights, not statistics and random keys. A parameter in two places is one
weight with two names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from normconstraints import Constraint, Rules, Scheduled
from normconstraints.layout import Layout, LayoutError, declare
from normconstraints.weights import Weight, register_walker
from normconstraints_jax import _project, _trace, _tree

__all__ = ["layouts", "project_"]


def _conv(after: str) -> Callable[[Any], str]:
    # Not "..io", for which the axis of a stack would be one more spatial axis.
    return lambda layer: "s" * len(layer.kernel_size) + after


def _general(layer: Any, inputs: bool) -> str:
    n_in, n_out = len(layer.in_features), len(layer.out_features)
    return "g" * len(layer.batch_axis) + "i" * n_in * inputs + "o" * n_out


declare(nnx.Linear, kernel="io", bias="o")
declare(
    nnx.LinearGeneral,
    kernel=lambda layer: _general(layer, inputs=True),
    bias=lambda layer: "o" * len(_general(layer, inputs=False)),
)
declare(
    nnx.Einsum,
    kernel=lambda layer: _trace.einsum(layer.einsum_str),
    bias=lambda layer: "o" * len(layer.bias_shape),
)
declare(nnx.Conv, kernel=_conv("io"), bias="o")
declare(
    nnx.ConvTranspose,
    kernel=lambda layer: _conv("oi" if layer.transpose_kernel else "io")(layer),
    bias="o",
)
declare(nnx.Embed, embedding="te")
declare(nnx.LoRA, lora_a="io", lora_b="io")
declare(nnx.PReLU, negative_slope="")
for _norm in (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm):
    declare(_norm, scale="o", bias="o")
declare(nnx.RMSNorm, scale="o")

_tree.boxes.append(nnx.Variable)
_tree.hidden.append(lambda n: isinstance(n, nnx.Variable) and not isinstance(n, nnx.Param))


def _params(model: nnx.Module) -> tuple[list[Weight], list[Any]]:
    """The weights of a module, and the parameters of the same order."""
    nodes: dict[tuple[Any, ...], Any] = {}
    places: dict[int, list[tuple[Any, ...]]] = {}
    params: dict[int, Any] = {}
    for path, node in nnx.iter_graph(model):
        nodes[path] = node
        if isinstance(node, nnx.Param):
            params[id(node)] = node
            places[id(node)] = [path]
    # The walk shows each parameter once; the modules know where else it is.
    for path, node in nodes.items():
        for name, value in vars(node).items() if isinstance(node, nnx.Module) else ():
            if id(value) in params and (*path, name) not in places[id(value)]:
                places[id(value)].append((*path, name))
    weights = []
    for key, param in params.items():
        array = param.get_value()
        place, *ties = [
            _tree.LayerPlace(
                ".".join(map(str, path)),
                nodes.get(path[:-1]) if isinstance(path[-1], str) else None,
                str(path[-1]),
                ndim=len(array.shape),
            )
            for path in places[key]
        ]
        weights.append(Weight(array, place, tuple(ties)))
    return weights, list(params.values())


def _flatten(model: nnx.Module) -> _tree.Flat:
    def rebuild(arrays: Sequence[Any]) -> Any:
        copy = nnx.clone(model)
        for param, array in zip(_params(copy)[1], arrays, strict=True):
            param.set_value(array)
        return copy

    return _params(model)[0], rebuild


_tree.models[nnx.Module] = _flatten
register_walker(nnx.Module, lambda model: _params(model)[0])


def project_(
    model: nnx.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: Any = None,
) -> None:
    """Replace the parameters of a module by the nearest that fulfil their constraints, in place.

    Parameters
    ----------
    model : flax.nnx.Module
        The names of its parameters are their paths in the graph, as ``layers.0.kernel``.
    rules : Rules or mapping
        As for `normconstraints_jax.project`.
    step : int or integer array, optional
        As for `normconstraints_jax.project`.

    Raises
    ------
    TypeError, ValueError
        As for `normconstraints_jax.project`.

    Notes
    -----
    Call it after ``optimizer.update``, inside `flax.nnx.jit` too. Outside of `flax.nnx`
    transformations, `normconstraints_jax.project` returns a copy with the constraints fulfilled.
    """
    weights, params = _params(model)
    for weight, param, array in zip(
        weights, params, _project.projected(weights, rules, step), strict=True
    ):
        if array is not weight.array:
            param.set_value(array)


def layouts(model: nnx.Module) -> dict[str, Layout]:
    """The layouts of the weights of a module by name, for its state when it is split off.

    Parameters
    ----------
    model : flax.nnx.Module
        The module that is split.

    Returns
    -------
    dict of str to Layout
        For ``Rules(rules, layouts=...)``; weights of unknown layers are left out.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from flax import nnx
    >>> import normconstraints_jax.nnx
    >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    >>> layouts = normconstraints_jax.nnx.layouts(model)
    >>> rules = nc.Rules({"kernel": nc.MaxNorm(1.0, axis="unit")}, layouts=layouts)
    >>> graph, params = nnx.split(model)
    >>> params = normconstraints_jax.project(params, rules)
    """
    found = {}
    for weight in _params(model)[0]:
        try:
            roles = weight.place.layout()
            roles.fit(len(weight.shape))
        except LayoutError:
            continue
        found[_trace.exactly(weight.name)] = roles
    return found
