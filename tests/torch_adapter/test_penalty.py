"""The distance from the sets as a term of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_torch import Penalty, constrain, penalty  # noqa: E402

BALL = nc.MaxNorm(0.3, axis="unit")
RULES = nc.Rules({"*.weight": BALL})


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def by_hand(*weights: Any) -> float:
    """Half the squared excess of the norms over the radius, without the library."""
    excess = [(w.detach().double().norm(dim=1) - 0.3).clamp(min=0) for w in weights]
    return sum(float(e.square().sum()) for e in excess) / 2


def test_it_is_half_the_squared_distance_and_its_gradient_the_way_back() -> None:
    model = network()
    term = penalty(model, RULES)
    assert term.shape == ()
    assert float(term.detach()) == pytest.approx(by_hand(model[0].weight, model[2].weight))
    term.backward()
    for layer in (model[0], model[2]):
        weight = layer.weight.detach()
        assert torch.allclose(layer.weight.grad, weight - nc.MaxNorm(0.3, axis=1)(weight))
        assert layer.weight.grad.any()
        assert layer.bias.grad is None


def test_it_pulls_towards_the_set_and_comes_to_rest_outside() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        pull = -3.0 * layer.weight[0, 0]  # out of the ball, for ever
        (pull + 10 * penalty(layer, {"weight": BALL})).backward()
        optimizer.step()
    assert layer.weight.detach()[0].tolist() == pytest.approx([0.3 + 3.0 / 10, 0], abs=1e-5)


def test_tied_weights_count_once_and_frozen_ones_not_at_all() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4))
    model[1].weight = model[0].weight
    rules = {"*.weight": nc.MaxNorm(0.3, axis=1)}
    assert float(penalty(model, rules).detach()) == pytest.approx(by_hand(model[0].weight))
    model = network()
    model[0].weight.requires_grad_(False)
    assert float(penalty(model, RULES).detach()) == pytest.approx(by_hand(model[2].weight))
    term = penalty(model.requires_grad_(False), RULES)
    assert float(term) == 0
    assert not term.requires_grad


def test_schedules_are_taken_at_the_step() -> None:
    layer = torch.nn.Linear(6, 5)
    harder = nc.Scheduled(
        nc.MaxNorm(9.0, axis="unit"), {"max_value": Linear(9.0, 0.3, steps=2)}, every=2, start=2
    )
    at = [float(penalty(layer, {"weight": harder}, step=i).detach()) for i in range(6)]
    full = by_hand(layer.weight)
    assert at == pytest.approx([0, 0, full, 0, full, 0])
    term = Penalty(layer, {"weight": harder})
    assert [float(term(i).detach()) for i in range(6)] == pytest.approx(at)


def test_half_precision_is_summed_in_single_and_double_stays() -> None:
    model = network().to(torch.bfloat16)
    with torch.no_grad():
        model[0].weight.mul_(1e18)  # the square of it is beyond the range of half precision
    term = penalty(model, {"0.weight": BALL})
    assert term.dtype == torch.float32
    assert float(term.detach()) == pytest.approx(by_hand(model[0].weight), rel=1e-2)
    term = penalty(network().to(torch.float16), RULES)
    assert term.dtype == torch.float32
    term.backward()
    assert penalty(network().double(), RULES).dtype == torch.float64
    model = network()
    expected = float(penalty(model, RULES).detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = penalty(model, RULES)
    assert (term.dtype, float(term.detach())) == (torch.float32, pytest.approx(expected, rel=1e-6))


def test_weights_on_two_devices_meet_on_the_first() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 5).to("meta"), torch.nn.Linear(5, 3))
    assert penalty(model, RULES).device.type == "meta"
    assert penalty(model, {"1.weight": BALL}).device.type == "cpu"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_bound_once_it_compiles_to_one_graph(backend: str) -> None:
    model = network()
    term = Penalty(model, RULES)

    def loss(x: Any) -> Any:
        return model(x).square().mean() + 0.5 * term()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    x = torch.randn(4, 6)
    for _ in range(2):
        model.zero_grad()
        compiled(x).backward()
        own = model[0].weight.grad.clone()
        model.zero_grad()
        loss(x).backward()
        assert torch.allclose(own, model[0].weight.grad, atol=1e-6)
        assert torch.allclose(compiled(x), loss(x))
        with torch.no_grad():
            model[0].weight.mul_(2)


def test_bound_once_it_sees_weights_that_were_replaced() -> None:
    model = network()
    term = Penalty(model, RULES)
    model.load_state_dict({n: 3 * p for n, p in network().state_dict().items()}, assign=True)
    model.requires_grad_(True)
    assert float(term().detach()) == pytest.approx(by_hand(model[0].weight, model[2].weight))


def test_what_cannot_be_constrained_is_refused_with_the_same_words() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for rules in (
        {"head.weight": BALL},
        {"0.bias": BALL},
        {"0.weight": nc.Mask((0.0, 1.0))},
    ):
        with pytest.raises(ValueError, match=r"must|cannot") as by_constrain:
            constrain(model, rules, optimizer)
        with pytest.raises(ValueError, match=r"must|cannot") as by_penalty:
            penalty(model, rules)
        assert str(by_penalty.value) == str(by_constrain.value)
        assert getattr(by_penalty.value, "__notes__", 0) == getattr(
            by_constrain.value, "__notes__", 0
        )
    with pytest.raises(ValueError, match=r"'weight' must have a shape"):
        penalty(torch.nn.LazyLinear(3), {"weight": nc.NonNeg()})
    assert float(penalty(model, {"*": None})) == 0
