"""Flax NNX: the layouts of its layers, and constraints in place on the parameters of a module.

Import it once, then rules know the layers of a model::

    from normconstraints_jax.nnx import project_

    rules = nc.Rules({nnx.Linear: nc.MaxNorm(3.0, axis="unit")})
    print(rules.plan(model))

    @nnx.jit
    def step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(loss)(model, x, y))
        project_(model, rules)

Or a layer says itself what holds of its weights, in the metadata of its parameters::

    nnx.Linear(64, 32, kernel_metadata={"constraint": nc.MaxNorm(3.0, axis="unit")}, rngs=rngs)

and ``project_(model)`` needs no rules; `rules_of` takes both to where there are no layers.

Only `flax.nnx.Param` are weights, not statistics and random keys. A parameter in two places is one
weight with two names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.core import Tracer

from normconstraints import Constraint, Rules, Scheduled
from normconstraints.layout import Layout, LayoutError, declare
from normconstraints.weights import Weight, register_walker
from normconstraints_jax import _project, _trace, _tree
from normconstraints_jax._project import RulesLike

__all__ = ["layouts", "project_", "rules_of"]

_KEY = "constraint"
"""Where the metadata of a parameter hold its constraint."""


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
        weights.append(Weight(array, place, tuple(ties), _said(param, place.name)))
    return weights, list(params.values())


def _said(param: nnx.Param[Any], name: str) -> Constraint | Scheduled | None:
    """The constraint in the metadata of a parameter, None if there is none."""
    found = param.get_metadata(_KEY, None)
    if found is None:
        return None
    what = f"the metadata of {name!r}"
    if not isinstance(found, Constraint | Scheduled):
        raise TypeError(f"{what}: {_KEY} must be a constraint or None, got {found!r}")
    numbers = found.constraint if isinstance(found, Scheduled) else found
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(numbers)):
        raise ValueError(
            f"{what}: {_KEY} must hold numbers, and holds a tracer of the function that made the "
            f"model inside of jit, got {found!r}; give nested tuples of numbers"
        )
    return found


def _flatten(model: nnx.Module) -> _tree.Flat:
    def rebuild(arrays: Sequence[Any]) -> Any:
        copy = nnx.clone(model)
        for param, array in zip(_params(copy)[1], arrays, strict=True):
            param.set_value(array)
        return copy

    return _params(model)[0], rebuild


_tree.models[nnx.Module] = _flatten
register_walker(nnx.Module, lambda model: _params(model)[0])


def project_(model: nnx.Module, rules: RulesLike | None = None, *, step: Any = None) -> None:
    """Replace the parameters of a module by the nearest that fulfil their constraints, in place.

    Parameters
    ----------
    model : flax.nnx.Module
        The names of its parameters are their paths in the graph, as ``layers.0.kernel``. The
        metadata of a parameter may hold its constraint, under the key ``"constraint"``.
    rules : Rules or mapping, optional
        As for `normconstraints_jax.project`, for parameters without a constraint in their metadata;
        None in a rule exempts from that.
    step : int, integer array, or the step of a flax.nnx.Optimizer, optional
        As for `normconstraints_jax.project`. That of an optimizer counts its updates, and is 1
        after the first.

    Raises
    ------
    TypeError, ValueError
        As for `normconstraints_jax.project`; if a parameter has one constraint by a rule and one in
        its metadata; without rules if none has one.

    Notes
    -----
    Call it after ``optimizer.update``, inside `flax.nnx.jit` too. Outside of `flax.nnx`
    transformations, `normconstraints_jax.project` returns a copy with the constraints fulfilled.

    Metadata are those of the parameter object: they stay through ``split`` and ``merge``,
    ``clone``, ``jit`` and pure dicts, and go where a new `flax.nnx.Param` is assigned. With
    ``nnx.update(model, state)`` they become those of the state.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from flax import nnx
    >>> from normconstraints_jax import violation
    >>> from normconstraints_jax.nnx import project_
    >>> said = {"constraint": nc.MaxNorm(0.1, axis="unit")}
    >>> model = nnx.Linear(3, 2, kernel_metadata=said, rngs=nnx.Rngs(0))
    >>> project_(model)
    >>> violation(model, {})
    {'kernel': Array([0., 0.], dtype=float32)}
    """
    weights, params = _params(model)
    if rules is None:
        if all(weight.constraint is None for weight in weights):
            raise ValueError(
                f"project_: rules must be given, got None, where no parameter of the "
                f"{type(model).__name__} has a constraint in its metadata, as by nnx.Linear(..., "
                f'kernel_metadata={{"{_KEY}": ...}})'
            )
        rules = {}
    if isinstance(step, nnx.Variable):
        step = step.get_value()
    for weight, param, array in zip(
        weights, params, _project.projected(weights, rules, step), strict=True
    ):
        if array is not weight.array:
            param.set_value(array)


def rules_of(model: nnx.Module, rules: RulesLike | None = None) -> Rules:
    """Rules for the state of a module, where there are no layers: by names, with axes resolved.

    Parameters
    ----------
    model : flax.nnx.Module
        The module, with constraints in the metadata of its parameters perhaps.
    rules : Rules or mapping, optional
        More rules, as for `project_`, with layer classes perhaps.

    Returns
    -------
    Rules
        For `normconstraints_jax.optax.constrained` in a `flax.nnx.Optimizer`, and for the state
        that is split off. Every parameter that has a constraint must be in it.

    Raises
    ------
    TypeError, ValueError
        As for `project_`, but for a module without any constraint, whose rules are empty.

    Examples
    --------
    >>> import normconstraints as nc
    >>> import optax
    >>> from flax import nnx
    >>> from normconstraints_jax.nnx import rules_of
    >>> from normconstraints_jax.optax import constrained
    >>> said = {"constraint": nc.MaxNorm(0.1, axis="unit")}
    >>> model = nnx.Linear(3, 2, kernel_metadata=said, rngs=nnx.Rngs(0))
    >>> rules_of(model, {"bias": nc.NonNeg()})
    Rules({'bias': NonNeg(), 'kernel': MaxNorm(max_value=0.1, axis=0)})
    >>> tx = constrained(optax.sgd(0.1), rules_of(model))
    >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    """
    bound = Rules.of(rules or {}).bind(_params(model)[0])
    return Rules([(_trace.exactly(b.name), b.constraint) for b in bound])


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
