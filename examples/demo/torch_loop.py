"""The network in PyTorch, whose weights are (out, in): axis=1."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

import normconstraints as nc
from normconstraints_torch import constrain, project_

from .task import MOMENTUM, SIZES, AfterStep, Cases, FloatArray, Layer, Task

# Threads gain nothing on layers this small, and wait for each other where the cores are busy.
torch.set_num_threads(1)


class Network(torch.nn.Module):
    """Fully connected layers with ReLU; the dropout masks come from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairwise(SIZES))

    def forward(self, x: torch.Tensor, masks: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The scores of the classes."""
        for layer, mask in zip(self.layers, masks, strict=False):
            x = torch.relu(layer(x)) * mask
        scores: torch.Tensor = self.layers[-1](x)
        return scores


def train(task: Task, seed: int, bound: float | None, after_step: AfterStep) -> list[Layer]:
    """Train the network, under max-norm unless `bound` is None."""
    model = Network()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for i, layer in enumerate(task.start(seed)):
            parameters[f"layers.{i}.weight"].copy_(torch.from_numpy(layer.kernel.T))
            parameters[f"layers.{i}.bias"].copy_(torch.from_numpy(layer.bias))
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=MOMENTUM)
    # The whole of max-norm is in these two lines.
    rules = {} if bound is None else {"*.weight": nc.MaxNorm(bound, axis=1)}
    handle = constrain(model, rules, optimizer)
    for batch in task.batches(seed):
        optimizer.param_groups[0]["lr"] = batch.learning_rate
        optimizer.zero_grad()
        masks = tuple(torch.from_numpy(mask) for mask in batch.masks)
        scores = model(torch.from_numpy(batch.x), masks)
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(batch.labels))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        violation = handle.violation().values()
        first = parameters["layers.0.weight"].detach().numpy().T
        after_step(first, max((float(v.max()) for v in violation), default=0))
    numbers = {name: p.detach().numpy() for name, p in parameters.items()}
    return [
        Layer(numbers[f"layers.{i}.weight"].T, numbers[f"layers.{i}.bias"])
        for i in range(len(model.layers))
    ]


def project(cases: Cases) -> dict[str, FloatArray]:
    """The nearest weights whose units have norms of at most the bound."""
    # A transpose in memory, as torch's own weights are laid out.
    start = {n: torch.from_numpy(np.ascontiguousarray(k.T)) for n, (k, _) in cases.items()}
    weights = torch.nn.ParameterDict({n: torch.nn.Parameter(w) for n, w in start.items()})
    project_(weights, {name: nc.MaxNorm(bound, axis=1) for name, (_, bound) in cases.items()})
    return {name: p.detach().numpy().T for name, p in weights.items()}
