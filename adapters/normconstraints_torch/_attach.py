"""Projection after each step of an optimizer, and once by hand."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, final

from normconstraints import Constraint, Rules
from normconstraints.weights import Place, tie

try:
    import torch
except ImportError as error:
    raise ImportError(
        'normconstraints_torch needs PyTorch; run: pip install "normconstraints[torch]"'
    ) from error


@dataclass(frozen=True)
class _Target:
    """A weight, by the module that holds it: the parameter itself may be replaced at any time."""

    name: str
    module: torch.nn.Module
    attribute: str
    constraint: Constraint

    def weight(self) -> torch.nn.Parameter:
        """The parameter as it is now."""
        try:
            return self.module.get_parameter(self.attribute)
        except AttributeError:
            # A parametrization leaves a computed tensor under the old name: to project that would
            # change nothing and say nothing.
            raise ValueError(
                f"{self.name!r} must be a parameter of its module, and is one no longer "
                "(parametrized or deleted?); remove the handle and constrain the model as it is now"
            ) from None


@final
class Handle:
    """What `constrain` attached: the constrained weights of one model, under one optimizer.

    Used in a ``with`` block it takes itself off at the end.
    """

    def __init__(self, model: torch.nn.Module, targets: list[_Target]) -> None:
        self._model = model
        self._targets = targets
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __repr__(self) -> str:
        rules = {target.name: target.constraint for target in self._targets}
        return f"<Handle {'attached' if self._hook else 'removed'}: {rules}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def project_(self) -> None:
        """Project every weight now: after a load, or after a change that no optimizer made.

        Raises
        ------
        TypeError, ValueError
            If a weight does not fit its constraint. No weight is changed then.
        """
        _check(self._targets)
        _project(self._targets)

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights.

        Returns
        -------
        dict of str to Tensor
            One number per group, in the units of the weights, 0 inside. Frozen weights
            (``requires_grad=False``) are left out, as they are not projected.
        """
        return _check(self._targets)

    def remove(self) -> None:
        """Take the hook off the optimizer; the weights stay as they are. Twice does no harm."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


# For each optimizer the handles on it. A handle does not refer to its optimizer, so that the two
# go together.
_handles: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[Handle]] = (
    weakref.WeakKeyDictionary()
)


def constrain(
    model: torch.nn.Module,
    rules: Rules | Mapping[str, Constraint | None],
    optimizer: torch.optim.Optimizer,
) -> Handle:
    """Project weights of a model now and after every step of an optimizer.

    Parameters
    ----------
    model : torch.nn.Module
        May be compiled, or wrapped for parallel training.
    rules : Rules or mapping of str to Constraint or None
        Names or globs of the weights, as in ``model.named_parameters()`` without the prefixes
        ``_orig_mod.`` and ``module.`` of such wrappers.
    optimizer : torch.optim.Optimizer
        The one that updates the weights. Its state (momentum) is left alone.

    Returns
    -------
    Handle
        To project by hand, to ask for the violation, to take the constraints off. Constraining the
        same model under the same optimizer again removes the handle from before.

    Raises
    ------
    TypeError, ValueError
        If a pattern matches no weight, or a weight does not fit its constraint. No weight is
        changed then, and what was attached before stays.

    Notes
    -----
    Frozen weights (``requires_grad=False``) are skipped, for as long as they are frozen. Weights
    are looked up at each step, so ``load_state_dict(assign=True)`` is survived. A loaded weight is
    projected at the next step, or by `Handle.project_`. A copy of the optimizer (deepcopy, pickle)
    has no hooks: constrain again.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import constrain
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 10))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> handle = constrain(model, {"*.weight": nc.MaxNorm(0.5, axis=1)}, optimizer)
    >>> model(torch.ones(8, 64)).square().sum().backward()
    >>> optimizer.step()
    >>> {name: float(v.max()) for name, v in handle.violation().items()}
    {'0.weight': 0.0, '1.weight': 0.0}
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"constrain: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    inner = _unwrap(model)
    targets = _plan(inner, rules)
    _check(targets)
    handle = Handle(inner, targets)
    handle._hook = optimizer.register_step_post_hook(_hook(targets))
    attached = _handles.setdefault(optimizer, [])
    for former in attached:
        if former._model is inner:
            former.remove()
    attached[:] = [h for h in attached if h._hook is not None] + [handle]
    _project(targets)
    return handle


def project_(model: torch.nn.Module, rules: Rules | Mapping[str, Constraint | None]) -> None:
    """Project weights of a model once, in place.

    Parameters
    ----------
    model : torch.nn.Module
        As for `constrain`.
    rules : Rules or mapping of str to Constraint or None
        As for `constrain`.

    Raises
    ------
    TypeError, ValueError
        As for `constrain`. No weight is changed then.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import project_
    >>> layer = torch.nn.Linear(3, 2)
    >>> project_(layer, {"weight": nc.UnitNorm(axis=1)})
    >>> bool((layer.weight.norm(dim=1) - 1).abs().max() < 1e-6)
    True
    """
    targets = _plan(_unwrap(model), rules)
    _check(targets)
    _project(targets)


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside the wrappers of torch.compile, DataParallel, DDP and AveragedModel."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    while next(model.parameters(recurse=False), None) is None:
        children = dict(model.named_children())
        if children.keys() not in ({"module"}, {"_orig_mod"}):
            break
        (model,) = children.values()
    return model


def _plan(model: torch.nn.Module, rules: Rules | Mapping[str, Constraint | None]) -> list[_Target]:
    # A part that was compiled by itself has the prefix in the middle of a name.
    weights = tie(
        (parameter, Place(path.replace("_orig_mod.", ""), model.get_submodule(owner), attribute))
        for path, parameter in model.named_parameters(remove_duplicate=False)
        for owner, _, attribute in [path.rpartition(".")]
    )
    return [
        _Target(b.name, b.weight.place.layer, b.weight.place.attribute, b.at(0))
        for b in Rules.of(rules).bind(weights)
    ]


def _check(targets: list[_Target]) -> dict[str, torch.Tensor]:
    """The violations, which can only be had of weights that fit their constraints."""
    found = {}
    for target in targets:
        weight = target.weight()
        if torch.nn.parameter.is_lazy(weight):
            raise ValueError(
                f"{target.name!r} must have a shape, and a lazy module has none before its first "
                "batch; run one through the model, then constrain it"
            )
        if not weight.requires_grad:
            continue
        try:
            with torch.no_grad():
                found[target.name] = target.constraint.violation(weight)
        except (TypeError, ValueError) as error:
            error.add_note(f"This is about the weight {target.name!r}.")
            raise
    return found


def _project(targets: list[_Target]) -> None:
    with torch.no_grad():
        for target in targets:
            weight = target.weight()
            if weight.requires_grad:
                target.constraint.project_(weight)


def _hook(targets: list[_Target]) -> Callable[..., None]:
    def after_step(*_: object) -> None:
        _project(targets)

    # Inside a compiled step the look-up of the weights would break the graph at each module.
    disabled: Callable[..., None] = torch.compiler.disable(after_step)  # type: ignore[no-untyped-call]
    return disabled
