"""Projection after each step of an optimizer, and once by hand."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, final

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints.report import Report
from normconstraints_torch import _targets
from normconstraints_torch._optimizers import unwrap_optimizer
from normconstraints_torch._targets import Stacks, Target
from normconstraints_torch._weights import unwrap


class _Share:
    """The weights that are projected after the steps of one optimizer, and how many it has taken.

    It does not refer to the optimizer, so that a handle does not keep that alive.
    """

    def __init__(self, targets: list[Target], step: int, frozen: bool) -> None:
        self.targets, self.step = targets, step
        self.stacks = Stacks(targets, frozen)
        self.hook: torch.utils.hooks.RemovableHandle | None = None

    @property
    def last(self) -> int:
        return max(self.step - 1, 0)


@final
class Handle:
    """What `constrain` attached: the constrained weights of one model, under its optimizers.

    Used in a ``with`` block it takes itself off at the end.

    Attributes
    ----------
    report : normconstraints.report.Report
        What the projections did, every `report_every` steps; without that it stays empty.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        shares: list[_Share],
        report_every: int | None,
        frozen: bool,
    ) -> None:
        self.report = Report()
        self._report_every = report_every
        self._frozen = frozen
        self._model = model
        self._shares = shares

    def __repr__(self) -> str:
        rules = {t.name: t.bound.constraint for share in self._shares for t in share.targets}
        return f"<Handle {'attached' if self._attached else 'removed'}: {rules}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def step(self) -> int:
        """How many steps were taken, which is the number of the next one: counted from 0.

        Of several optimizers, those of the one that took most; `steps` has them all. A trainer
        that counts by itself may set it.
        """
        return max(self.steps)

    @step.setter
    def step(self, count: int) -> None:
        for share in self._shares:
            share.step = count

    @property
    def steps(self) -> tuple[int, ...]:
        """How many steps each of the optimizers has taken."""
        return tuple(share.step for share in self._shares)

    def project_(self) -> None:
        """Project every weight now: after a load, or after a change that no optimizer made.

        A `Scheduled` constraint is taken as it was at the last step, whether or not that was one of
        those on which it acts; before its start it does nothing.

        Raises
        ------
        TypeError, ValueError
            If a weight does not fit its constraint. No weight is changed then.
        """
        self._check()
        for share in self._shares:
            _targets.project_(share.targets, share.last, self._frozen)

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights.

        Returns
        -------
        dict of str to Tensor
            One number per group, in the units of the weights, 0 inside. Frozen weights
            (``requires_grad=False``) are left out unless they are projected, and so are those
            whose `Scheduled` constraint has not started. A tied weight has its first name.
        """
        return self._check()

    def remove(self) -> None:
        """Take the hooks off the optimizers; the weights stay as they are. Twice does no harm."""
        for share in self._shares:
            if share.hook is not None:
                share.hook.remove()
                share.hook = None

    @property
    def _attached(self) -> bool:
        return any(share.hook is not None for share in self._shares)

    def _check(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for share in self._shares:
            found |= _targets.check(share.targets, share.last, self._frozen)
        return found

    def _after_step(self, share: _Share) -> None:
        step = share.step
        share.step += 1
        with torch.no_grad():
            if self._report_every is None or step % self._report_every:
                share.stacks.project_(step)
                return
            for target, weight in _targets.current(share.targets, self._frozen):
                if target.bound.due(step):
                    constraint = target.bound.at(step)
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
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer],
    *,
    step: int | Sequence[int] = 0,
    report_every: int | None = None,
    frozen: bool = False,
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
    optimizer : torch.optim.Optimizer or several
        The one that updates the weights; those of Accelerate, Lightning and Fabric too. Its state
        (momentum) is left alone. With several, each weight is projected after the steps of the one
        that updates it, and one that none of them updates after those of the first.
    step : int or sequence of int, default 0
        How many steps were taken before, if training goes on from a checkpoint: one number, or one
        for each optimizer. Only `Scheduled` constraints and reports ask for it.
    report_every : int, optional
        Record what the projections do in ``handle.report``, at steps 0, `report_every` and so on.
        This copies weights and waits for the device; on other steps it costs nothing.
    frozen : bool, default False
        Project frozen weights (``requires_grad=False``) too. Else they are skipped, for as long as
        they are frozen.

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
    it when attached. What starts later is not projected before. With `step` above 0 those are
    projected that were due at the last step, which changes nothing if they were.

    Weights are looked up at each step, so ``load_state_dict(assign=True)`` is survived. A loaded
    weight is projected at the next step, or by `Handle.project_`. A copy of the optimizer
    (deepcopy, pickle) has no hooks: constrain again. Small weights that are alike are stacked and
    projected as one.

    Of weights that several processes hold in parts (FSDP2, tensor parallel) each process projects
    its own as long as the groups are whole there. Norm sets across the parts exchange one sum, all
    others gather the weight.

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
    optimizers = _optimizers(optimizer)
    steps = [step] * len(optimizers) if isinstance(step, int) else list(step)
    for count in steps:
        _check_count("step", count, 0)
    if len(steps) != len(optimizers):
        raise ValueError(
            f"constrain: step must be one number, or one for each of {len(optimizers)} optimizers, "
            f"got {step!r}"
        )
    if report_every is not None:
        _check_count("report_every", report_every, 1)
    inner = unwrap(model)
    chosen = _shared_out(_targets.targets(inner, rules), optimizers)
    shares = [_Share(own, count, frozen) for own, count in zip(chosen, steps, strict=True)]
    handle = Handle(inner, shares, report_every, frozen)
    handle._check()
    for one, share in zip(optimizers, shares, strict=True):
        share.hook = one.register_step_post_hook(_hook(handle, share))
        attached = _handles.setdefault(one, [])
        for former in attached:
            if former._model is inner and former is not handle:
                former.remove()
        attached[:] = [h for h in attached if h._attached and h is not handle] + [handle]
    for share in shares:
        # A training that goes on finds its weights as they were left: what a schedule passed over
        # at the last step was not projected then, and is not now.
        _targets.project_(share.targets, share.last, frozen, as_due=share.step > 0)
    return handle


def _optimizers(given: Any) -> list[torch.optim.Optimizer]:
    """The optimizers themselves, each once."""
    several = [given] if isinstance(given, torch.optim.Optimizer) else given
    if not isinstance(several, Iterable) or isinstance(several, Mapping | str):
        raise TypeError(
            "constrain: optimizer must be a torch.optim.Optimizer or several, got "
            f"{type(given).__name__}"
        )
    found: list[torch.optim.Optimizer] = []
    for one in map(unwrap_optimizer, several):
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(
                "constrain: optimizer must be a torch.optim.Optimizer or several, got "
                f"{type(one).__name__}"
            )
        if not any(one is other for other in found):
            found.append(one)
    if not found:
        raise ValueError("constrain: optimizer must be one at least, got none")
    return found


def _shared_out(
    chosen: list[Target], optimizers: list[torch.optim.Optimizer]
) -> list[list[Target]]:
    """The targets of each optimizer: what it updates, and for the first what none does."""
    if len(optimizers) == 1:
        return [chosen]
    owners = {
        id(parameter): i
        for i, optimizer in enumerate(optimizers)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    shares: list[list[Target]] = [[] for _ in optimizers]
    for target in chosen:
        shares[owners.get(id(target.weight()), 0)].append(target)
    return shares


def project_(
    model: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: int = 0,
    frozen: bool = False,
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
    frozen : bool, default False
        Project frozen weights (``requires_grad=False``) too.

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
    chosen = _targets.targets(unwrap(model), rules)
    _targets.check(chosen, step, frozen)
    _targets.project_(chosen, step, frozen)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"constrain: {name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"constrain: {name} must be >= {least}, got {value!r}")


def _hook(handle: Handle, share: _Share) -> Callable[..., None]:
    def after_step(*_: object) -> None:
        handle._after_step(share)

    # Inside a compiled step the look-up of the weights would break the graph at each module.
    # PyTorch has no types for it.
    disabled: Callable[..., None] = torch.compiler.disable(after_step)  # type: ignore[no-untyped-call]
    return disabled
