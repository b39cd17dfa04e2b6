"""Projection after each step of an optimizer, and once by hand."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, final

import torch

from normconstraints import Bound, Constraint, Rules, Scheduled
from normconstraints.report import Report
from normconstraints_torch._weights import OutOfReach, unwrap


@dataclass(frozen=True)
class _Target:
    """A weight, by the module that holds it: the parameter itself may be replaced at any time."""

    name: str
    module: torch.nn.Module
    attribute: str
    bound: Bound

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

    @property
    def start(self) -> int:
        """The first step at which it is constrained."""
        constraint = self.bound.constraint
        return constraint.start if isinstance(constraint, Scheduled) else 0


@final
class Handle:
    """What `constrain` attached: the constrained weights of one model, under one optimizer.

    Used in a ``with`` block it takes itself off at the end.

    Attributes
    ----------
    step : int
        How many steps the optimizer has taken, which is the number of its next one: schedules and
        reports count from 0.
    report : normconstraints.report.Report
        What the projections did, every `report_every` steps; without that it stays empty.
    """

    def __init__(
        self, model: torch.nn.Module, targets: list[_Target], step: int, report_every: int | None
    ) -> None:
        self.step = step
        self.report = Report()
        self._report_every = report_every
        self._model = model
        self._targets = targets
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __repr__(self) -> str:
        rules = {target.name: target.bound.constraint for target in self._targets}
        return f"<Handle {'attached' if self._hook else 'removed'}: {rules}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def project_(self) -> None:
        """Project every weight now: after a load, or after a change that no optimizer made.

        A `Scheduled` constraint is taken as it was at the last step, whether or not that was one of
        those on which it acts; before its start it does nothing.

        Raises
        ------
        TypeError, ValueError
            If a weight does not fit its constraint. No weight is changed then.
        """
        _check(self._targets, self._last)
        _project(self._targets, self._last)

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights.

        Returns
        -------
        dict of str to Tensor
            One number per group, in the units of the weights, 0 inside. Frozen weights
            (``requires_grad=False``) are left out, as they are not projected, and so are those
            whose `Scheduled` constraint has not started. A tied weight has its first name.
        """
        return _check(self._targets, self._last)

    def remove(self) -> None:
        """Take the hook off the optimizer; the weights stay as they are. Twice does no harm."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @property
    def _last(self) -> int:
        return max(self.step - 1, 0)

    def _after_step(self, *_: object) -> None:
        step = self.step
        self.step += 1
        with torch.no_grad():
            for target, weight in _trainable(self._targets):
                if target.bound.due(step):
                    self._project(target, weight, step)

    def _project(self, target: _Target, weight: torch.nn.Parameter, step: int) -> None:
        constraint = target.bound.at(step)
        if self._report_every is None or step % self._report_every:
            constraint.project_(weight)
            return
        before = weight.detach().clone()
        constraint.project_(weight)
        self.report.record(step, target.name, constraint, before, weight)


# For each optimizer the handles on it. A handle does not refer to its optimizer, so that the two
# go together.
_handles: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[Handle]] = (
    weakref.WeakKeyDictionary()
)


def constrain(
    model: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    optimizer: torch.optim.Optimizer,
    *,
    step: int = 0,
    report_every: int | None = None,
) -> Handle:
    """Project weights of a model now and after every step of an optimizer.

    Parameters
    ----------
    model : torch.nn.Module
        May be compiled, or wrapped for parallel training.
    rules : Rules or mapping to Constraint, Scheduled or None
        Which weights get which constraint. Names are those of ``model.named_parameters()`` without
        the prefixes of wrappers (``_orig_mod.``, ``module.``, ``_fsdp_wrapped_module.``,
        ``_checkpoint_wrapped_module.``); a parametrized weight has the name that it has in its
        layer.
    optimizer : torch.optim.Optimizer
        The one that updates the weights. Its state (momentum) is left alone.
    step : int, default 0
        How many steps were taken before, if training goes on from a checkpoint. Only `Scheduled`
        constraints and reports ask for it.
    report_every : int, optional
        Record what the projections do in ``handle.report``, at steps 0, `report_every` and so on.
        This copies weights and waits for the device; on other steps it costs nothing.

    Returns
    -------
    Handle
        To project by hand, to ask for the violation, to take the constraints off. Constraining the
        same model under the same optimizer again removes the handle from before.

    Raises
    ------
    TypeError, ValueError
        If a pattern matches no weight, a weight does not fit its constraint, or a rule chooses one
        that cannot be projected where it is: computed by a parametrization, or flattened by FSDP1
        or ZeRO-3. No weight is changed then, and what was attached before stays.

    Notes
    -----
    Steps count from 0: after the first one a `Scheduled` constraint is asked for step 0, and so is
    it when attached. What starts later is not projected before. Frozen weights
    (``requires_grad=False``) are skipped, for as long as they are frozen. Weights are looked up at
    each step, so ``load_state_dict(assign=True)`` is survived. A loaded weight is projected at the
    next step, or by `Handle.project_`. A copy of the optimizer (deepcopy, pickle) has no hooks:
    constrain again.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import constrain
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> handle = constrain(model, {"*.weight": nc.MaxNorm(0.5, axis="unit")}, optimizer)
    >>> model(torch.ones(2, 1, 5, 5)).square().sum().backward()
    >>> optimizer.step()
    >>> {name: float(v.max()) for name, v in handle.violation().items()}
    {'0.weight': 0.0}
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"constrain: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    _check_count("step", step, 0)
    if report_every is not None:
        _check_count("report_every", report_every, 1)
    inner = unwrap(model)
    targets = _targets(inner, rules)
    handle = Handle(inner, targets, step, report_every)
    _check(targets, handle._last)
    handle._hook = optimizer.register_step_post_hook(_hook(handle))
    attached = _handles.setdefault(optimizer, [])
    for former in attached:
        if former._model is inner:
            former.remove()
    attached[:] = [h for h in attached if h._hook is not None] + [handle]
    _project(targets, handle._last)
    return handle


def project_(
    model: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: int = 0,
) -> None:
    """Project weights of a model once, in place.

    Parameters
    ----------
    model : torch.nn.Module
        As for `constrain`.
    rules : Rules or mapping to Constraint, Scheduled or None
        As for `constrain`.
    step : int, default 0
        The step at which a `Scheduled` constraint is meant; before its start it does nothing.

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
    _check_count("step", step, 0)
    targets = _targets(unwrap(model), rules)
    _check(targets, step)
    _project(targets, step)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"constrain: {name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"constrain: {name} must be >= {least}, got {value!r}")


def _targets(
    model: torch.nn.Module, rules: Rules | Mapping[Any, Constraint | Scheduled | None]
) -> list[_Target]:
    """One for each place of each weight: tied ones come apart when they are replaced."""
    found = []
    for bound in Rules.of(rules).bind(model):
        if isinstance(bound.weight.array, OutOfReach):
            bound.weight.array.refuse()
        bare = replace(bound, weight=replace(bound.weight, array=None))  # let go if replaced
        for place in bound.weight.places:
            found.append(_Target(place.name, place.layer, place.attribute, bare))
    return found


def _trainable(targets: list[_Target]) -> Iterator[tuple[_Target, torch.nn.Parameter]]:
    """The weights as they are now, each once, without frozen ones."""
    seen = set()
    for target in targets:
        weight = target.weight()
        if weight.requires_grad and id(weight) not in seen:
            seen.add(id(weight))
            yield target, weight


def _check(targets: list[_Target], step: int) -> dict[str, torch.Tensor]:
    """The violations at a step, which can only be had of weights that fit their constraints."""
    found = {}
    with torch.no_grad():
        for target, weight in _trainable(targets):
            if torch.nn.parameter.is_lazy(weight):
                raise ValueError(
                    f"{target.name!r} must have a shape, and a lazy module has none before its "
                    "first batch; run one through the model, then constrain it"
                )
            # One that starts later is checked now too, for what it will be then.
            violation = target.bound.check(weight, max(step, target.start))
            if target.start <= step:
                found[target.name] = violation
    return found


def _project(targets: list[_Target], step: int) -> None:
    """By hand: also where a schedule would pass over the step."""
    with torch.no_grad():
        for target, weight in _trainable(targets):
            if target.start <= step:
                target.bound.at(step).project_(weight)


def _hook(handle: Handle) -> Callable[..., None]:
    # Inside a compiled step the look-up of the weights would break the graph at each module.
    disabled: Callable[..., None] = torch.compiler.disable(handle._after_step)  # type: ignore[no-untyped-call]
    return disabled
