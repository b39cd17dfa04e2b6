"""Constraints in the forward pass: a weight that always is the projection of a raw one."""

from __future__ import annotations

import weakref
from typing import Any, final

import torch
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from normconstraints import Bound, Constraint, Gradual, Rules, Scheduled
from normconstraints_torch._weights import OutOfReach, unwrap


@final
class Projection(torch.nn.Module):
    """What stands between the raw weight and the weight: a constraint as a module of torch."""

    def __init__(self, constraint: Constraint, recenter_every: int | None = None) -> None:
        super().__init__()
        self.constraint = constraint
        self.recenter_every = recenter_every
        self.steps = 0
        """Of the optimizer: an int, for to ask a tensor would wait for its device."""
        self.register_state_dict_post_hook(_save_steps)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_load_steps)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """What the module shows when the model is printed."""
        every = f", recenter_every={self.recenter_every}" if self.recenter_every else ""
        return f"{self.constraint}{every}"

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """The weight."""
        projected: torch.Tensor = self.constraint.project(raw)
        return projected

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """The raw weight for an assigned weight: its projection, of which the projection is itself.

        So an assigned weight that is outside closes no door: see `parametrize`.
        """
        raw: torch.Tensor = self.constraint.project(weight)
        return raw


def _save_steps(
    projection: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: object
) -> None:
    assert isinstance(projection, Projection)
    if projection.recenter_every is not None:
        state[f"{prefix}steps"] = torch.tensor(projection.steps)


def _load_steps(
    projection: torch.nn.Module, state: dict[str, Any], prefix: str, *_: object
) -> None:
    """Take what was saved, if it was: states with and without recentring load into each other."""
    assert isinstance(projection, Projection)
    steps = state.pop(f"{prefix}steps", None)
    if steps is not None:
        projection.steps = int(steps)


@final
class Recentering:
    """What `recenter` attached: the raw weights that one optimizer's steps are counted for."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], torch.nn.Module] = {}
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __repr__(self) -> str:
        names = [name for _, name in self._places]
        return f"<Recentering {'attached' if self._hook else 'removed'}: {names}>"

    def remove(self) -> None:
        """Take the hook off the optimizer; the weights stay as they are. Twice does no harm."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._places.clear()

    def _add(self, layer: torch.nn.Module, attribute: str) -> None:
        self._places[id(layer), attribute] = layer

    def _after_step(self, *_: object) -> None:
        for (key, attribute), layer in list(self._places.items()):
            projection = _projection(layer, attribute)
            if projection is None or projection.recenter_every is None:
                del self._places[key, attribute]  # the parametrization was taken off
                continue
            projection.steps += 1
            if projection.steps % projection.recenter_every == 0:
                _recenter(layer, attribute, projection)


# One for each optimizer, to which it does not refer, so that the two go together.
_attached: weakref.WeakKeyDictionary[torch.optim.Optimizer, Recentering] = (
    weakref.WeakKeyDictionary()
)


def parametrize(
    module: torch.nn.Module,
    name: str,
    constraint: Constraint,
    *,
    recenter_every: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> torch.nn.Module:
    r"""Make a weight the projection of a raw one, so that every forward pass is in the set.

    .. math:: w = P(\mathrm{raw})

    by the parametrizations of torch (`torch.nn.utils.parametrize`). The raw weight is the parameter
    that there was, projected once, as ``parametrizations.weight.original``; an optimizer that has
    it keeps it.

    Parameters
    ----------
    module : torch.nn.Module
        A layer, or a model that holds it.
    name : str
        The weight, "weight" or with dots from the model, "decoder.weight". Ties are seen inside
        `module` only, so pass the whole model if some weights are tied.
    constraint : Constraint
        The axis may be a word ("unit"), which is resolved from the layer as `Rules` does.
    recenter_every : int, optional
        Project the raw weight after every so many steps of `optimizer`: the answer to raw weights
        that grow, and to the one-way door below.
    optimizer : torch.optim.Optimizer, optional
        The one that updates the raw weight. Given with `recenter_every` and only then; an optimizer
        that was made before stays right, as the parameter is the same.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, or the weight not of floating point.
    ValueError
        If there is no weight of that name; it does not fit the constraint; it is tied, lazy,
        sharded or parametrized already; or the constraint does not arrive at once (`rate` below 1).
        The module is not changed then.

    Notes
    -----
    **The one-way door.** This is another training method than `constrain`. Outside of the set the
    gradient of the raw weight has no component across the boundary: under `MaxNorm` a raw row that
    a step took out moves around the ball and can only grow, since a step along a tangent leads away
    from the centre. The weight stays on the boundary, even if the optimum is inside. Under
    `UnitNorm` all is tangential: the raw norm grows and the effective learning rate falls.
    `recenter_every` opens the door, for the gradient at a raw weight on the boundary is whole
    again. ``examples/torch_one_way_door.py`` measures both.

    **What is kept.** A weight inside is read bit for bit as it was. Assigning ``module.weight =
    value`` sets the raw weight to the projection of `value`. `state_dict` holds the raw weight;
    loading one restores it as it was, outside or not. deepcopy keeps everything but the hook on the
    optimizer (see `recenter`); pickle of parametrized modules torch refuses, `state_dict` is its
    way. ``torch.nn.utils.parametrize.remove_parametrizations`` takes it off: with
    ``leave_parametrized=True`` the weight stays what it was, with False it becomes the raw one.

    **When it recentres.** After a step of the optimizer, never in a forward pass: a raw weight that
    is changed while a graph holds it breaks the backward pass. So two forward passes before one
    backward pass are right. The steps so far are in the `state_dict`, which loads without
    `recenter_every` too.

    A second constraint on one weight is refused: use ``a & b`` or `Sequence`. Frozen weights are
    allowed, and read as their projection. Averages (EMA, SWA) are those of raw weights, so that the
    averaged model is in the set when it is read. Shard after this (``fully_shard``), not before;
    that was not tried on several processes. A recurrent layer of torch keeps the weights of its
    last pass in a list, which deepcopy refuses if the pass was recorded: run one under `no_grad`
    first.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import parametrize
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> constraint = nc.MaxNorm(0.5, axis="unit")
    >>> _ = parametrize(model, "0.weight", constraint, recenter_every=10, optimizer=optimizer)
    >>> model(torch.ones(2, 1, 5, 5)).square().sum().backward()
    >>> optimizer.step()
    >>> raw = model[0].parametrizations.weight.original
    >>> bool((model[0].weight.flatten(1).norm(dim=1) <= 0.5).all())
    True
    >>> bool((raw.flatten(1).norm(dim=1) <= 0.5).all())
    False
    """
    if not isinstance(name, str):
        raise TypeError(f"parametrize: name must be a str, got {name!r}")
    _check_constraint(name, constraint)
    _check_recentering(recenter_every, optimizer)
    inner = unwrap(module)
    bound = _bound(inner, name, constraint)
    layer, attribute = _place(bound)
    resolved = bound.at(0)
    weight = layer.get_parameter(attribute)
    if optimizer is not None and not _updates(optimizer, weight):
        raise ValueError(
            f"parametrize: optimizer must update {name!r} to count its steps, and has not got it; "
            "make it from the parameters of this model"
        )
    register_parametrization(layer, attribute, Projection(resolved, recenter_every))
    if optimizer is not None:
        _attach(optimizer)._add(layer, attribute)
    return module


def recenter_(model: torch.nn.Module) -> None:
    """Project the raw weights of all that `parametrize` made, now, in place.

    The weights themselves do not change, only what the optimizer steps from. Call it between a step
    and the next forward pass: after a load, say, of raw weights that are far outside.

    Parameters
    ----------
    model : torch.nn.Module
        A layer or a model; of what `parametrize` did not make nothing is touched.

    Raises
    ------
    ValueError
        If it holds no weight that `parametrize` made.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import parametrize, recenter_
    >>> layer = parametrize(torch.nn.Linear(2, 1), "weight", nc.MaxNorm(1.0, axis=1))
    >>> with torch.no_grad():
    ...     _ = layer.parametrizations.weight.original.fill_(3.0)
    >>> recenter_(layer)
    >>> layer.parametrizations.weight.original.norm().round(decimals=4).item()
    1.0
    """
    for layer, attribute, projection in _made(model, "recenter_"):
        _recenter(layer, attribute, projection)


def recenter(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Recentering:
    """Let an optimizer recentre again, where a copy of it or of the model has lost the hook.

    Parameters
    ----------
    model : torch.nn.Module
        With weights that `parametrize` made with `recenter_every`, a deepcopy for example.
    optimizer : torch.optim.Optimizer
        The one that updates them.

    Returns
    -------
    Recentering
        To take the hook off again; one for each optimizer.

    Raises
    ------
    TypeError, ValueError
        If `optimizer` is none, or `model` holds no such weight.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"recenter: optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    made = [found for found in _made(model, "recenter") if found[2].recenter_every is not None]
    if not made:
        raise ValueError(
            "recenter: model must hold a weight that was parametrized with recenter_every, and all "
            "were without; call recenter_(model) when you want it"
        )
    attached = _attach(optimizer)
    for layer, attribute, _ in made:
        attached._add(layer, attribute)
    return attached


# ------------------------------------------------------------------------------------- checks


def _check_constraint(name: str, constraint: object) -> None:
    if isinstance(constraint, Scheduled):
        raise TypeError(
            f"parametrize: constraint of {name!r} must be a Constraint, got a Scheduled one, and a "
            "forward pass has no step; give the constraint itself, or use constrain"
        )
    if not isinstance(constraint, Constraint):
        raise TypeError(
            f"parametrize: constraint of {name!r} must be a Constraint, got {constraint!r}"
        )
    if isinstance(constraint, Gradual):
        rate = constraint.rate
        if not (isinstance(rate, float) and rate == 1.0):
            raise ValueError(
                f"parametrize: constraint of {name!r} must arrive at once, got rate={rate!r}; give "
                "rate=1.0, or use constrain, which goes a part of the way at each step"
            )


def _check_recentering(every: object, optimizer: object) -> None:
    if every is None and optimizer is None:
        return
    if every is None or optimizer is None:
        raise ValueError(
            "parametrize: recenter_every must be given with optimizer, whose steps it counts, got "
            f"recenter_every={every!r} and optimizer={type(optimizer).__name__}; give both or none"
        )
    if not isinstance(every, int) or isinstance(every, bool):
        raise TypeError(f"parametrize: recenter_every must be an integer, got {every!r}")
    if every < 1:
        raise ValueError(f"parametrize: recenter_every must be >= 1, got {every!r}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"parametrize: optimizer must be a torch.optim.Optimizer, got {kind}")


def _bound(model: torch.nn.Module, name: str, constraint: Constraint) -> Bound:
    """The weight with its constraint, the axes resolved; refused if it cannot be parametrized."""
    if set(name) & set("*?["):
        raise ValueError(
            f"parametrize: name must be that of one weight, got the pattern {name!r}; call it for "
            "each weight, or use constrain, which takes patterns"
        )
    (bound,) = Rules({name: constraint}).bind(model)
    weight, places = bound.weight.array, bound.weight.places
    layer, attribute = places[0].layer, places[0].attribute
    if isinstance(weight, OutOfReach):
        if is_parametrized(layer, attribute):
            raise ValueError(
                f"parametrize: {name!r} must not be parametrized already, for the one below would "
                "see another weight than is read; combine constraints by a & b or Sequence, or "
                "take it off first (torch.nn.utils.parametrize.remove_parametrizations)"
            )
        weight.refuse()
    if torch.nn.parameter.is_lazy(weight):
        raise ValueError(
            f"parametrize: {name!r} must have a shape, and a lazy module has none before its first "
            "batch; run one through the model, then parametrize it"
        )
    if len({(id(place.layer), place.attribute) for place in places}) > 1:
        others = " and ".join(repr(p.name) for p in places if p.name != name)
        raise ValueError(
            f"parametrize: {name!r} must be a weight of its own, and is tied to {others}, which "
            "would silently become another weight; use constrain, which keeps ties"
        )
    if hasattr(weight, "full_tensor"):
        raise ValueError(
            f"parametrize: {name!r} must not be sharded yet, for FSDP2 and tensor parallelism look "
            "for it under its old name; parametrize the model first, then shard it"
        )
    with torch.no_grad():
        bound.check()
    return bound


def _place(bound: Bound) -> tuple[torch.nn.Module, str]:
    """The module that holds the parameter: lists of parameters are no layers, and hold some."""
    place = bound.weight.place
    path, _, attribute = place.attribute.rpartition(".")
    layer: torch.nn.Module = place.layer.get_submodule(path)
    return layer, attribute


def _updates(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> bool:
    return any(p is weight for group in optimizer.param_groups for p in group["params"])


# --------------------------------------------------------------------------------- recentring


def _attach(optimizer: torch.optim.Optimizer) -> Recentering:
    attached = _attached.setdefault(optimizer, Recentering())
    if attached._hook is None:
        # Inside a compiled step the look-up of the weights would break the graph.
        hook: Any = torch.compiler.disable(attached._after_step)  # type: ignore[no-untyped-call]
        attached._hook = optimizer.register_step_post_hook(hook)
    return attached


def _projection(layer: torch.nn.Module, attribute: str) -> Projection | None:
    """What `parametrize` put there, if it is there: the first, next to the raw weight."""
    if not is_parametrized(layer, attribute):
        return None
    assert isinstance(layer.parametrizations, torch.nn.ModuleDict)
    chain = layer.parametrizations[attribute]
    assert isinstance(chain, torch.nn.ModuleList)
    first = chain[0]
    return first if isinstance(first, Projection) else None


def _made(model: torch.nn.Module, owner: str) -> list[tuple[torch.nn.Module, str, Projection]]:
    found = []
    for layer in unwrap(model).modules():
        if is_parametrized(layer):
            assert isinstance(layer.parametrizations, torch.nn.ModuleDict)
            for attribute in layer.parametrizations:
                projection = _projection(layer, attribute)
                if projection is not None:
                    found.append((layer, attribute, projection))
    if not found:
        raise ValueError(
            f"{owner}: model must hold a weight that parametrize made, and has none; call "
            "parametrize first, or project_ for weights that are stored as they are"
        )
    return found


def _recenter(layer: torch.nn.Module, attribute: str, projection: Projection) -> None:
    raw = layer.get_parameter(f"parametrizations.{attribute}.original")
    if raw.requires_grad:
        with torch.no_grad():
            projection.constraint.project_(raw)
