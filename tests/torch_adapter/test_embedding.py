"""Bounded rows of embeddings, and what ``torch.nn.Embedding(max_norm=)`` does instead."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import normconstraints as nc  # noqa: E402
from normconstraints_torch import constrain  # noqa: E402

ROWS = {torch.nn.Embedding: nc.MaxNorm(1.0, axis="unit")}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Tied(torch.nn.Module):
    """A model whose output layer shares the weight of its embedding."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 4, **options)
        self.head = torch.nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        return self.head(self.embedding(tokens))


def largest(layer: Any) -> float:
    return float(layer.weight.detach().double().norm(dim=1).max())


def test_all_rows_are_inside_after_each_step_and_forward_is_left_alone() -> None:
    model = Tied()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    constrain(model, ROWS, optimizer)
    assert largest(model.embedding) <= 1
    for _ in range(5):
        tokens = torch.randint(10, (6,))
        before = model.embedding.weight.detach().clone()
        loss = torch.nn.functional.cross_entropy(model(tokens), tokens)
        loss = loss + torch.nn.functional.cross_entropy(model(tokens.flip(0)), tokens)
        assert torch.equal(model.embedding.weight, before)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert 0.9 < largest(model.embedding) <= 1
    assert model.head.weight is model.embedding.weight


def test_bags_and_sparse_gradients() -> None:
    for layer in (
        torch.nn.EmbeddingBag(10, 4, sparse=True),
        torch.nn.Embedding(10, 4, sparse=True),
    ):
        optimizer = torch.optim.SparseAdam(layer.parameters(), lr=0.5)
        constrain(layer, {"weight": nc.MaxNorm(1.0, axis="unit")}, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.tensor([[1, 2, 1]])).square().sum().neg().backward()
            assert layer.weight.grad.is_sparse
            optimizer.step()
            assert 0.9 < largest(layer) <= 1


def test_the_row_of_padding_stays_zero() -> None:
    layer = torch.nn.Embedding(10, 4, padding_idx=0)
    constrain(layer, {"weight": nc.UnitNorm(axis="unit")}, torch.optim.SGD(layer.parameters(), 1.0))
    assert layer.weight.detach().norm(dim=1).tolist() == pytest.approx([0.0] + [1.0] * 9)


def test_the_option_of_torch_edits_the_weight_in_the_forward_pass() -> None:
    layer = torch.nn.Embedding(10, 4, max_norm=1.0)
    with torch.no_grad():
        layer.weight.mul_(10)
    before = layer.weight.detach().clone()
    layer(torch.tensor([3]))
    changed = (layer.weight != before).any(dim=1)
    assert changed.tolist() == [i == 3 for i in range(10)]  # only the row that was looked up


def test_the_option_of_torch_breaks_the_backward_pass_of_tied_weights() -> None:
    model = Tied(max_norm=1.0)
    with torch.no_grad():
        model.embedding.weight.mul_(10)
    tokens = torch.tensor([1, 2])
    loss = model(tokens).sum() + model(tokens + 2).sum()  # the second look-up edits the first's
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_example_says_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "examples"))
    importlib.import_module("torch_embedding").main()
    printed = capsys.readouterr().out
    assert "rows outside after the last step" in printed
    page = (root / "docs/pytorch_forward.md").read_text(encoding="utf-8")
    assert printed in page
