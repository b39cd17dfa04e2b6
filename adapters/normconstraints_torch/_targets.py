"""The weights of a model that rules choose, and their projection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from normconstraints import Bound, Constraint, Rules, Scheduled, layout
from normconstraints_torch._weights import OutOfReach

SMALL = 1 << 16
"""Entries of a weight up to which its calls cost more than its numbers."""
_STACK = 1 << 20
"""Entries of a stack, so that it stays in cache."""
_FASTER = 1 << 4
"""On a GPU numbers cost that much less, and calls as much: a weight of 4 MB is small there."""


@dataclass(frozen=True)
class Target:
    """A weight, by the module that holds it: the parameter itself may be replaced at any time."""

    name: str
    module: torch.nn.Module
    attribute: str
    bound: Bound

    def weight(self) -> torch.nn.Parameter:
        """The parameter as it is now."""
        # What torch does to find it takes longer than a small projection.
        found = self.module._parameters.get(self.attribute)
        if found is not None:
            return found
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


def targets(
    model: torch.nn.Module, rules: Rules | Mapping[Any, Constraint | Scheduled | None]
) -> list[Target]:
    """One for each place of each weight: tied ones come apart when they are replaced."""
    found = []
    for bound in Rules.of(rules).bind(model):
        if isinstance(bound.weight.array, OutOfReach):
            bound.weight.array.refuse()
        bare = replace(bound, weight=replace(bound.weight, array=None))  # let go if replaced
        for place in bound.weight.places:
            found.append(Target(place.name, place.layer, place.attribute, bare))
    return found


def current(
    chosen: Iterable[Target], frozen: bool = False
) -> Iterator[tuple[Target, torch.nn.Parameter]]:
    """The weights as they are now, each once, without frozen ones unless asked."""
    seen = set()
    for target in chosen:
        weight = target.weight()
        if (frozen or weight.requires_grad) and id(weight) not in seen:
            seen.add(id(weight))
            yield target, weight


def check(chosen: list[Target], step: int, frozen: bool = False) -> dict[str, torch.Tensor]:
    """The violations at a step, which can only be had of weights that fit their constraints."""
    found = {}
    with torch.no_grad():
        for target, weight in current(chosen, frozen):
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


def project_(
    chosen: list[Target], step: int, frozen: bool = False, *, as_due: bool = False
) -> None:
    """By hand: also where a schedule would pass over the step, unless only what is due is asked."""
    with torch.no_grad():
        for target, weight in current(chosen, frozen):
            if target.bound.due(step) if as_due else target.start <= step:
                target.bound.at(step).project_(weight)


class Stacks:
    """Which weights are alike, and what they are projected onto as one array.

    A small weight costs its calls and not its numbers: 200 of 64 x 64 would have as many calls as
    200 of 4096 x 4096. It is worked out anew when a weight is another than before.
    """

    def __init__(self, chosen: list[Target], frozen: bool = False) -> None:
        self._chosen, self._frozen = chosen, frozen
        self._known: list[tuple[Any, ...]] = []
        self._groups: list[list[int]] = []
        self._stacked: dict[int, tuple[Constraint, Constraint | None]] = {}

    def project_(self, step: int) -> None:
        """Project each of the weights whose constraint acts at a step."""
        weights = [target.weight() for target in self._chosen]
        # Also what they are, for module.half() and the like change a parameter where it is.
        known = [(id(w), w.requires_grad, w.shape, w.dtype, w.device) for w in weights]
        if known != self._known:
            self._known, self._groups = known, _alike(self._chosen, self._frozen)
            self._stacked.clear()  # they depend on how many axes a weight has
        for group in self._groups:
            bound = self._chosen[group[0]].bound
            if not bound.due(step):
                continue
            constraint = bound.at(step)
            stacked = self._of(constraint, group[0], weights) if len(group) > 1 else None
            if stacked is None:
                for i in group:
                    constraint.project_(weights[i])
            else:
                _project_stack([weights[i] for i in group], stacked)

    def _of(
        self, constraint: Constraint, first: int, weights: list[torch.nn.Parameter]
    ) -> Constraint | None:
        """The constraint of a stack; asked for again as long as it stays the same."""
        known = self._stacked.get(first)
        if known is None or known[0] is not constraint:
            known = constraint, layout.stacked(constraint, weights[first].ndim)
            self._stacked[first] = known
        return known[1]


def _alike(chosen: list[Target], frozen: bool) -> list[list[int]]:
    """Which of the weights have the same constraint and shape, as many as make a stack."""
    alike: dict[Any, list[list[int]]] = {}
    places = {id(target): i for i, target in enumerate(chosen)}
    for target, weight in current(chosen, frozen):
        i = places[id(target)]
        key: Any = i
        times = 1 if weight.device.type == "cpu" else _FASTER
        # No subclass: a shard has to be asked where it is, and others may do anything.
        if type(weight) is torch.nn.Parameter and 0 < weight.numel() <= SMALL * times:
            try:
                key = (target.bound.constraint, weight.shape, weight.dtype, weight.device)
                hash(key)
            except TypeError:  # parameters that are arrays
                key = i
        groups = alike.setdefault(key, [[]])
        if groups[-1] and (len(groups[-1]) + 1) * weight.numel() > _STACK * times:
            groups.append([])
        groups[-1].append(i)
    return [group for groups in alike.values() for group in groups]


def _project_stack(weights: list[torch.nn.Parameter], stacked: Constraint) -> None:
    stack = torch.stack(weights)  # type: ignore[arg-type]
    before = stack._version
    stacked.project_(stack)
    if stack._version != before:  # where nothing has to move, nothing is written
        torch._foreach_copy_(weights, stack.unbind(0))  # type: ignore[arg-type]
