"""Bounded rows of an embedding: ``torch.nn.Embedding(max_norm=)`` against a constraint.

Run as ``python examples/torch_embedding.py``.
"""

from __future__ import annotations

import torch

import normconstraints as nc
from normconstraints_torch import constrain

BOUND, TOKENS, SIZE, STEPS = 1.0, 1000, 16, 20


class Tied(torch.nn.Module):
    """An embedding whose weight is that of the output layer too."""

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(TOKENS, SIZE, max_norm=max_norm)
        self.head = torch.nn.Linear(SIZE, TOKENS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The scores of all tokens."""
        scores: torch.Tensor = self.head(self.embedding(tokens))
        return scores


def loss(model: torch.nn.Module, tokens: torch.Tensor, views: int) -> torch.Tensor:
    """Of as many views of one batch; with two, the weight is used and then looked up once more."""
    total = torch.zeros(())
    for _ in range(views):
        noise = torch.randint(TOKENS, tokens.shape)
        total = total + torch.nn.functional.cross_entropy(model(noise), tokens)
    return total


def train(max_norm: float | None, views: int) -> tuple[str, str]:
    """How many rows are outside after the last step, and whether the backward pass worked."""
    torch.manual_seed(0)
    model = Tied(max_norm)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    if max_norm is None:
        rules = {torch.nn.Embedding: nc.MaxNorm(BOUND, axis="unit")}
        constrain(model, rules, optimizer)
    try:
        for _ in range(STEPS):
            optimizer.zero_grad()
            tokens = torch.randint(TOKENS, (32,))
            loss(model, tokens, views).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return "-", "RuntimeError"
    norms = model.embedding.weight.detach().double().norm(dim=1)
    return f"{int((norms > BOUND).sum())} of {TOKENS}", "works"


def main() -> None:
    """Print the table."""
    print(f"{'':<32}{'rows outside after the last step':>34}{'  two views in one graph':>24}")
    for name, max_norm in (
        (f"nn.Embedding(max_norm={BOUND:g})", BOUND),
        (f'nc.MaxNorm({BOUND:g}, axis="unit")', None),
    ):
        outside, _ = train(max_norm, views=1)
        _, twice = train(max_norm, views=2)
        print(f"{name:<32}{outside:>34}{twice:>24}")


if __name__ == "__main__":
    main()
