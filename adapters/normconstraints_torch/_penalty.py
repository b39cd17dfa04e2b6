"""The distance of the weights from their sets, as a term of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints import penalty as half_squared_distance
from normconstraints_torch._targets import Target, targets
from normconstraints_torch._weights import unwrap


def penalty(
    model: torch.nn.Module,
    rules: Rules | Mapping[Any, Constraint | Scheduled | None],
    *,
    step: int = 0,
) -> torch.Tensor:
    r"""Half the squared distance of the weights of a model from their sets, for the loss.

    .. math:: \sum_i \frac{1}{2} \| w_i - P_i(w_i) \|_2^2

    Parameters
    ----------
    model : torch.nn.Module
        As for `constrain`.
    rules : Rules or mapping to Constraint, Scheduled or None
        As for `constrain`.
    step : int, default 0
        The step at which a `Scheduled` constraint is meant; before its start, and at steps that it
        passes over, it adds nothing.

    Returns
    -------
    Tensor
        0-d, on the device of the first of the weights; float64 if one of them is, else float32,
        also for half precision and under autocast. Its gradient at each weight is
        :math:`w - P(w)`, the step from the set to the weight.

    Raises
    ------
    TypeError, ValueError
        As for `constrain`: if a pattern matches no weight, or a weight does not fit its constraint.

    Notes
    -----
    Times a coefficient it joins the loss. It pulls the weights towards their sets and never quite
    puts them there: where the gradient of the loss points out, the weight comes to rest outside, at
    a distance of that gradient over the coefficient. A step of gradient descent with a rate times
    coefficient of 1 is a projection; above 2 it diverges.

    Tied weights count once. Frozen ones (``requires_grad=False``) are left out: they would add a
    constant. A group with NaN or infinity makes it NaN.

    The rules are bound to the model at each call, which breaks the graph of ``torch.compile``. In a
    loop, and inside of a compiled function, bind them once, by `Penalty`.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import penalty
    >>> layer = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> term = penalty(layer, {"weight": nc.MaxNorm(1.0, axis="unit")})
    >>> term.backward()
    >>> term.item(), layer.weight.grad
    (8.0, tensor([[2.4000, 3.2000]]))
    """
    return Penalty(model, rules)(step)


@final
class Penalty:
    """`penalty` with the rules bound to the model once: for loops, and to be compiled.

    Parameters
    ----------
    model : torch.nn.Module
        As for `penalty`.
    rules : Rules or mapping to Constraint, Scheduled or None
        As for `penalty`.

    Raises
    ------
    TypeError, ValueError
        As `penalty` does.

    Notes
    -----
    Weights are looked up at each call, so that replaced ones count; which are tied is asked once.

    Examples
    --------
    >>> import torch
    >>> import normconstraints as nc
    >>> from normconstraints_torch import Penalty
    >>> model = torch.nn.Linear(2, 1)
    >>> term = Penalty(model, {"weight": nc.MaxNorm(1.0, axis="unit")})
    >>> @torch.compile(backend="eager", fullgraph=True)
    ... def loss(x):
    ...     return model(x).square().mean() + 0.1 * term()
    >>> loss(torch.ones(4, 2)).shape
    torch.Size([])
    """

    def __init__(
        self, model: torch.nn.Module, rules: Rules | Mapping[Any, Constraint | Scheduled | None]
    ) -> None:
        first: dict[int, Target] = {}
        for target in targets(unwrap(model), rules):
            weight = target.weight()
            if torch.nn.parameter.is_lazy(weight):
                raise ValueError(
                    f"{target.name!r} must have a shape, and a lazy module has none before its "
                    "first batch; run one through the model"
                )
            with torch.no_grad():  # here, so that a compiled call has nothing to refuse
                target.bound.check(weight, target.start)
            first.setdefault(id(weight), target)
        self._targets = list(first.values())

    def __call__(self, step: int = 0) -> torch.Tensor:
        """The penalty at a step, as `penalty` gives it."""
        total: torch.Tensor | None = None
        for target in self._targets:
            weight = target.weight()
            if total is None:
                total = torch.zeros((), device=weight.device)
            if weight.requires_grad and target.start <= step and target.bound.due(step):
                term = half_squared_distance(target.bound.at(step), weight)
                total = total + term.to(total.device)
        return torch.zeros(()) if total is None else total  # rules that exempt all choose nothing
