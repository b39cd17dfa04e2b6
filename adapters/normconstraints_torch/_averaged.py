"""Averaged copies of a model (EMA, SWA), which leave sets that are not convex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints_torch import _targets
from normconstraints_torch._weights import unwrap


def project_averaged(
    averaged: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: int = 0,
) -> None:
    """Project the weights of an averaged model, in place: at the end, before it is saved or used.

    An average of members of a convex set is a member but for rounding. That of unit vectors is
    shorter than 1, that of orthogonal matrices is not orthogonal, that of sparse weights not
    sparse.

    Parameters
    ----------
    averaged : torch.nn.Module
        A ``torch.optim.swa_utils.AveragedModel``, or the averaged module of another library.
    rules : Rules or mapping to Constraint, Scheduled or None
        As for `constrain`, with the names of the model that was averaged.
    step : int, default 0
        The step at which a `Scheduled` constraint is meant: the last one. Before its start it does
        nothing.

    Raises
    ------
    TypeError, ValueError
        As for `constrain`. No weight is changed then.

    Notes
    -----
    Frozen weights are projected too, unlike by `constrain`: averaged weights are often set to
    ``requires_grad=False``, and none of them is trained.

    The running average goes on from the weights that are there. If it shall stay what it is, the
    average of the trained weights, do not project in place between updates: each projection would
    enter all later averages, and with vectors that turn quickly it gives the latest ones more
    weight than the averaging function says. For a look in between use `projected`.

    Statistics of batch norms depend on the weights: call ``torch.optim.swa_utils.update_bn``
    afterwards. A model under `parametrize` needs nothing of this: its raw weights are averaged, and
    what is read is their projection.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import project_, project_averaged
    >>> rules = {"weight": nc.UnitNorm(axis="unit")}
    >>> averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(20, 2))
    >>> for seed in range(4):
    ...     _ = torch.manual_seed(seed)
    ...     layer = torch.nn.Linear(20, 2)
    ...     project_(layer, rules)
    ...     averaged.update_parameters(layer)
    >>> bool((averaged.module.weight.norm(dim=1) < 0.7).all())
    True
    >>> project_averaged(averaged, rules)
    >>> bool(((averaged.module.weight.norm(dim=1) - 1).abs() < 1e-6).all())
    True
    """
    chosen = _targets.targets(unwrap(averaged), rules)
    _targets.check(chosen, step, frozen=True)
    _targets.project_(chosen, step, frozen=True)


@contextmanager
def projected(
    model: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: int = 0,
) -> Iterator[None]:
    """Project the weights of a model for a while, as a context manager; then they are as before.

    For an averaged model that is evaluated or saved while the average goes on.

    Parameters
    ----------
    model : torch.nn.Module
        As for `project_averaged`.
    rules : Rules or mapping to Constraint, Scheduled or None
        As for `project_averaged`.
    step : int, default 0
        As for `project_averaged`.

    Raises
    ------
    TypeError, ValueError
        As for `project_averaged`.

    Notes
    -----
    The chosen weights are copied for that time, and come back bit for bit, also after an exception;
    what else changes them inside is undone. A graph that was recorded inside cannot be gone back
    through outside.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import projected
    >>> averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 1, bias=False))
    >>> with projected(averaged, {"weight": nc.NonNeg()}):
    ...     assert averaged(-torch.ones(1, 2)).item() <= 0
    """
    chosen = _targets.targets(unwrap(model), rules)
    _targets.check(chosen, step, frozen=True)
    before = [
        (weight, weight.detach().clone())
        for target, weight in _targets.current(chosen, frozen=True)
        if target.start <= step
    ]
    try:
        _targets.project_(chosen, step, frozen=True)
        yield
    finally:
        with torch.no_grad():
            for weight, value in before:
                weight.copy_(value)
