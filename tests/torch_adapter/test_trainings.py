"""Whole trainings on real images: a network of each kind, under sets of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from thin import thin

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

from torch import nn  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints_torch import Handle, constrain  # noqa: E402

STEPS = 200
TRAIN = 1500


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, and tiny matrices are faster so
    yield
    torch.set_num_threads(threads)
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The images of scikit-learn's digits, 8 by 8, and their classes, in a fixed order."""
    images, classes = datasets.load_digits(return_X_y=True)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 8, 8) / 16
    return x[order], torch.as_tensor(classes)[order]


class Convolutions(nn.Module):
    """Two convolutions, the second in groups, and a linear head."""

    rules: ClassVar[dict[str, Any]] = {
        "first.weight": nc.MaxNorm(0.8, axis="unit"),
        "second.weight": nc.UnitNorm(axis="unit"),
        "norm.weight": nc.Box(0.5, 1.0),
        "norm.bias": nc.NonNeg(),
        "head.weight": nc.L1Ball(3.0, axis="unit"),
        "head.bias": nc.ZeroMean(axis=0),
    }

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, groups=2)
        self.head = nn.Linear(16 * 9, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x[:, None])))
        return self.head(torch.relu(self.second(x)).flatten(1))


class Recurrence(nn.Module):
    """An LSTM that reads the rows of an image."""

    rules: ClassVar[dict[str, Any]] = {
        "lstm.weight_ih_l0": nc.MaxNorm(0.7, axis="unit"),
        "lstm.weight_hh_l0": nc.Box(-0.2, 0.2),
        "lstm.bias_*": nc.LInfBall(0.2, axis=0),
        "head.weight": nc.TopK(8, axis="unit"),
        "head.bias": nc.L1Ball(0.3, axis=0),
    }

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """A layer of a transformer on the rows of an image, averaged by learned weights."""

    rules: ClassVar[dict[str, Any]] = {
        "embed.weight": nc.MaxNorm(1.0, axis="unit"),
        "place": nc.GroupL1Ball(4.0, axis=None, group_axis=1),
        "layer.self_attn.in_proj_weight": nc.MaxNorm(0.9, axis="unit"),
        "layer.self_attn.out_proj.weight": nc.ZeroMean(axis="unit"),
        "layer.linear1.weight": nc.FixedNorm(0.9, axis="unit"),
        "layer.linear2.weight": nc.L1Ball(2.0, axis="unit"),
        "layer.norm*.weight": nc.Box(0.8, 1.2),
        "average": nc.Simplex(1.0, axis=0),
        "head.weight": nc.MinMaxNorm(0.5, 1.5, axis="unit"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.place = nn.Parameter(0.1 * torch.randn(8, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.average = nn.Parameter(torch.zeros(8))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.embed(x) + self.place)
        return self.head(torch.einsum("bte,t->be", x, self.average))


NETWORKS = [Convolutions, Recurrence, Attention]


def made(network: Any) -> Any:
    torch.manual_seed(0)
    return network()


def train(
    model: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    rules: Any = None,
    *,
    steps: int = STEPS,
    run: Callable[[torch.Tensor], torch.Tensor] | None = None,
    after: Callable[[Any], None] = lambda _: None,
    autocast: bool = False,
) -> float:
    """The training, with a look after every step; the accuracy on other images."""
    x, y = data
    run = model if run is None else run
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    handle = constrain(model, rules, optimizer) if rules else None
    for step in range(steps):
        batch = slice(step * 64 % (TRAIN - 64), step * 64 % (TRAIN - 64) + 64)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(run(x[batch].to(dtype)).float(), y[batch])
        loss.backward()
        optimizer.step()
        after(handle)
    with torch.no_grad():
        return float((model(x[TRAIN:].to(dtype)).argmax(1) == y[TRAIN:]).float().mean())


def excess(model: Any) -> dict[str, torch.Tensor]:
    """How far some weights are outside, relative to the bound, without the library's help."""
    w = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    if isinstance(model, Convolutions):
        return {
            "first.weight": w["first.weight"].flatten(1).norm(dim=1) / 0.8 - 1,
            "second.weight": (w["second.weight"].flatten(1).norm(dim=1) - 1).abs(),
            "norm.weight": torch.maximum(0.5 - w["norm.weight"], w["norm.weight"] - 1),
            "norm.bias": -w["norm.bias"],
            "head.weight": w["head.weight"].abs().sum(dim=1) / 3 - 1,
            "head.bias": w["head.bias"].sum().abs() / w["head.bias"].abs().max(),
        }
    if isinstance(model, Recurrence):
        return {
            "lstm.weight_ih_l0": w["lstm.weight_ih_l0"].norm(dim=1) / 0.7 - 1,
            "lstm.weight_hh_l0": w["lstm.weight_hh_l0"].abs().max() / 0.2 - 1,
            "lstm.bias_ih_l0": w["lstm.bias_ih_l0"].abs().max() / 0.2 - 1,
            "head.weight": (w["head.weight"] != 0).sum(dim=1) - 8,
            "head.bias": w["head.bias"].abs().sum() / 0.3 - 1,
        }
    norms = w["head.weight"].norm(dim=1)
    sums = w["layer.self_attn.out_proj.weight"].sum(dim=1).abs()
    return {
        "embed.weight": w["embed.weight"].norm(dim=1) - 1,
        "place": w["place"].norm(dim=1).sum() / 4 - 1,
        "layer.self_attn.in_proj_weight": w["layer.self_attn.in_proj_weight"].norm(dim=1) / 0.9 - 1,
        "layer.self_attn.out_proj.weight": sums / w["layer.self_attn.out_proj.weight"].abs().max(),
        "layer.linear1.weight": (w["layer.linear1.weight"].norm(dim=1) / 0.9 - 1).abs(),
        "layer.linear2.weight": w["layer.linear2.weight"].abs().sum(dim=1) / 2 - 1,
        "average": torch.maximum((w["average"].sum() - 1).abs(), -w["average"].min()),
        "head.weight": torch.maximum(1 - norms / 0.5, norms / 1.5 - 1),
    }


def check(model: Any) -> Callable[[Any], None]:
    """Nothing is outside: nothing at all as the library measures it, a rounding by hand."""

    def look(handle: Handle) -> None:
        violation = {name: float(v.max()) for name, v in handle.violation().items()}
        assert violation == dict.fromkeys(violation, 0.0)
        assert violation.keys() >= excess(model).keys()
        for name, outside in excess(model).items():
            weight = model.get_parameter(name).detach()
            limit = nc.tolerance(weight, weight.numel())
            # A sum is as exact as its terms, of which there are many.
            limit *= weight.shape[-1] if "out_proj" in name or "head.bias" in name else 1
            assert float(outside.max()) <= limit, name

    return look


@pytest.mark.parametrize("network", NETWORKS)
def test_a_free_training_leaves_the_sets(network: Any, digits: Any) -> None:
    model = made(network)
    train(model, digits)
    outside = {name for name, value in excess(model).items() if float(value.max()) > 0.01}
    assert len(outside) >= 5, outside  # or the tests below say nothing


@pytest.mark.parametrize("half", ["no", "weights", "autocast"])
@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_is_outside_after_any_step(network: Any, half: str, digits: Any) -> None:
    model = made(network)
    if half == "weights":
        model = model.to(torch.bfloat16)
    accuracy = train(model, digits, network.rules, after=check(model), autocast=half == "autocast")
    assert accuracy > 0.8  # it learns; a guess is right once in ten times


# torch does not compile an LSTM and runs it as it is, in between.
@pytest.mark.parametrize("network", thin(NETWORKS, 2))
def test_a_compiled_network_is_trained_to_the_same_weights_bit_for_bit(
    network: Any, digits: Any
) -> None:
    plain, model = made(network), made(network)
    train(plain, digits, network.rules)
    run = torch.compile(model, backend="aot_eager", fullgraph=network is not Recurrence)
    train(model, digits, network.rules, run=run, after=check(model))
    assert all(map(torch.equal, plain.parameters(), model.parameters()))


# Inductor makes torch import what uses its own deprecated functions.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_a_network_in_c_is_trained_to_the_same_weights_up_to_rounding(digits: Any) -> None:
    plain, model = made(Convolutions), made(Convolutions)
    train(plain, digits, plain.rules, steps=20)
    run = torch.compile(model, backend="inductor")
    train(model, digits, plain.rules, steps=20, run=run, after=check(model))
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
