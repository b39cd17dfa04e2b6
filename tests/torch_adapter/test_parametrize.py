"""Weights that are the projection of a raw one, in every forward pass of real models."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints_torch import constrain, parametrize, recenter, recenter_  # noqa: E402

BOUND = 0.4
BALL = nc.MaxNorm(BOUND, axis="unit")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def loss(model: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,)))


def raw_of(layer: Any, name: str = "weight") -> Any:
    return layer.get_parameter(f"parametrizations.{name}.original")


def norms(w: Any) -> Any:
    return w.detach().double().flatten(1).norm(dim=1)


def push_out(layer: Any, factor: float = 9.0) -> None:
    with torch.no_grad():
        raw_of(layer).mul_(factor)


def train(model: Any, optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def test_the_weight_is_in_the_set_after_every_step_and_the_raw_one_is_not() -> None:
    model = network()
    assert parametrize(model, "0.weight", BALL) is model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    train(model, optimizer, 10)
    assert 0 < norms(model[0].weight).max() <= BOUND
    assert norms(raw_of(model[0])).max() > 2 * BOUND
    assert norms(model[2].weight).max() > BOUND  # it was not asked for


def test_a_weight_inside_is_read_bit_for_bit_as_it_was() -> None:
    layer = torch.nn.Linear(6, 5)
    parameter, before = layer.weight, layer.weight.detach().clone()
    parametrize(layer, "weight", nc.MaxNorm(10.0, axis=1))
    assert torch.equal(layer.weight, before)
    assert raw_of(layer) is parameter  # an optimizer that has it keeps it


def test_a_weight_outside_is_projected_once_with_its_raw_one() -> None:
    layer = torch.nn.Linear(6, 5)
    expected = nc.MaxNorm(BOUND, axis=1)(layer.weight.detach())
    assert not torch.equal(layer.weight, expected)
    parametrize(layer, "weight", BALL)
    assert torch.equal(layer.weight, expected)
    assert torch.equal(raw_of(layer), expected)


@pytest.mark.parametrize(
    "constraint",
    [BALL, nc.UnitNorm(axis="unit"), nc.Simplex(axis=1), nc.TopK(2, axis=1), nc.Monotone(axis=1)],
)
def test_assigning_a_weight_and_reading_it_projects_it_once(constraint: nc.Constraint) -> None:
    layer = parametrize(torch.nn.Linear(6, 5), "weight", constraint)
    value = torch.randn(5, 6)
    kept = value.clone()
    layer.weight = value
    read = layer.weight.detach().clone()
    assert torch.equal(read, layer.parametrizations.weight[0].constraint(kept))
    layer.weight = read
    assert torch.equal(layer.weight, read)
    assert torch.equal(raw_of(layer), read)
    with torch.no_grad():
        raw_of(layer).add_(1.0)
    assert torch.equal(value, kept)  # the raw weight has memory of its own


def test_the_gradient_is_that_of_the_constraint() -> None:
    layer = parametrize(torch.nn.Linear(4, 3, bias=False).double(), "weight", BALL)
    push_out(layer)
    x = torch.randn(2, 4).double()
    layer(x).pow(2).sum().backward()
    raw = raw_of(layer).detach().clone().requires_grad_()
    (x @ nc.MaxNorm(BOUND, axis=1)(raw).T).pow(2).sum().backward()
    assert torch.allclose(raw_of(layer).grad, raw.grad)
    # Outside there is no way back in: the gradient is orthogonal to the raw row.
    along = (raw_of(layer) * raw_of(layer).grad).sum(dim=1)
    assert along.abs().max() < 1e-12 < raw.grad.abs().max()


@pytest.mark.parametrize(
    ("layer", "name", "axes"),
    [
        (torch.nn.Conv2d(2, 4, 3), "weight", (1, 2, 3)),
        (torch.nn.ConvTranspose2d(4, 2, 3), "weight", (0, 2, 3)),
        (torch.nn.Embedding(7, 3), "weight", 1),
        (torch.nn.MultiheadAttention(4, 2), "in_proj_weight", 1),
    ],
)
def test_the_units_of_a_layer_are_known(layer: Any, name: str, axes: Any) -> None:
    parametrize(layer, name, BALL)
    assert layer.parametrizations[name][0].constraint == nc.MaxNorm(BOUND, axis=axes)


def test_a_recurrent_layer_reads_the_projection() -> None:
    layer = parametrize(torch.nn.LSTM(3, 2), "weight_ih_l0", nc.MaxNorm(0.1, axis="unit"))
    x = torch.randn(4, 1, 3)
    layer(x)[0].sum().backward()
    with torch.no_grad():
        raw_of(layer, "weight_ih_l0").add_(1.0)
    bare = torch.nn.LSTM(3, 2)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(bare, name).copy_(getattr(layer, name))
        assert torch.equal(layer(x)[0], bare(x)[0])
        assert torch.equal(copy.deepcopy(layer)(x)[0], bare(x)[0])


def test_a_list_of_parameters_holds_one() -> None:
    model = torch.nn.Module()
    model.factors = torch.nn.ParameterList([torch.ones(2, 3), torch.ones(2, 3)])
    parametrize(model, "factors.1", nc.MaxNorm(1.0, axis=1))
    assert norms(model.factors[1]).tolist() == pytest.approx([1, 1])
    assert norms(model.factors[0]).tolist() == pytest.approx([3**0.5] * 2)


# ------------------------------------------------------------------------------- recentring


def test_recentring_projects_the_raw_weight_every_so_many_steps() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parametrize(model, "0.weight", BALL, recenter_every=3, optimizer=optimizer)
    outside = []
    for _ in range(6):
        push_out(model[0])
        train(model, optimizer, 1)
        outside.append(bool(norms(raw_of(model[0])).max() > BOUND))
        assert norms(model[0].weight).max() <= BOUND
    assert outside == [True, True, False] * 2


def test_recentring_does_not_change_what_is_read() -> None:
    layer = parametrize(torch.nn.Linear(6, 5), "weight", nc.UnitNorm(axis="unit"))
    push_out(layer)
    before = layer.weight.detach().clone()
    recenter_(layer)
    assert torch.equal(layer.weight, before)
    assert torch.equal(raw_of(layer), before)
    with pytest.raises(ValueError, match="recenter_: model must hold a weight that parametrize"):
        recenter_(network())


def test_two_forward_passes_before_one_backward_pass_are_right() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    parametrize(model, "0.weight", BALL, recenter_every=1, optimizer=optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        first, second = loss(model), loss(model)
        first.backward()
        second.backward()
        optimizer.step()
        assert norms(raw_of(model[0])).max() <= BOUND
    push_out(model[0])
    (loss(model) + loss(model)).backward()


def test_the_steps_are_those_of_the_optimizer_not_forward_passes() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    parametrize(model, "0.weight", BALL, recenter_every=2, optimizer=optimizer)
    push_out(model[0])
    for _ in range(5):
        loss(model).backward()
    assert norms(raw_of(model[0])).max() > BOUND
    optimizer.step()
    assert norms(raw_of(model[0])).max() > BOUND
    optimizer.step()
    assert norms(raw_of(model[0])).max() <= BOUND


def test_a_copy_recentres_when_it_is_told_its_optimizer_and_counts_on() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    parametrize(model, "0.weight", BALL, recenter_every=3, optimizer=optimizer)
    train(model, optimizer, 2)
    twin = copy.deepcopy(model)
    assert torch.equal(twin[0].weight, model[0].weight)
    assert raw_of(twin[0]) is not raw_of(model[0])
    other = torch.optim.SGD(twin.parameters(), lr=0.0)
    handle = recenter(twin, other)
    assert recenter(twin, other) is handle
    assert "attached" in repr(handle) and "weight" in repr(handle)
    push_out(twin[0])
    push_out(model[0])
    train(twin, other, 1)  # the third step
    assert norms(raw_of(twin[0])).max() <= BOUND
    assert norms(raw_of(model[0])).max() > BOUND  # its own optimizer took no step
    handle.remove()
    push_out(twin[0])
    train(twin, other, 3)
    assert norms(raw_of(twin[0])).max() > BOUND


def test_the_steps_so_far_are_saved() -> None:
    models = [network(), network()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.0) for m in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        parametrize(model, "0.weight", BALL, recenter_every=3, optimizer=optimizer)
    train(models[0], optimizers[0], 2)
    state = models[0].state_dict()
    models[1].load_state_dict(state)
    push_out(models[1][0])
    train(models[1], optimizers[1], 1)
    assert norms(raw_of(models[1][0])).max() <= BOUND
    without = parametrize(network(), "0.weight", BALL)
    without.load_state_dict(state)
    models[1].load_state_dict(without.state_dict())


def test_a_parametrization_that_was_taken_off_is_let_go() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    parametrize(model, "0.weight", BALL, recenter_every=1, optimizer=optimizer)
    push_out(model[0])
    remove_parametrizations(model[0], "weight", leave_parametrized=False)
    far = model[0].weight.detach().clone()
    train(model, optimizer, 1)
    assert torch.equal(model[0].weight, far)


def test_frozen_weights_are_read_as_their_projection_and_stay_as_they_are() -> None:
    layer = torch.nn.Linear(6, 5).requires_grad_(False)
    parametrize(layer, "weight", BALL)
    push_out(layer)
    far = raw_of(layer).clone()
    assert norms(layer.weight).max() <= BOUND
    recenter_(layer)
    assert torch.equal(raw_of(layer), far)


def test_a_dropped_optimizer_and_its_model_are_freed() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    parametrize(model, "0.weight", BALL, recenter_every=2, optimizer=optimizer)
    alive = weakref.ref(model), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


# ------------------------------------------------------------------- what torch does with it


@pytest.mark.parametrize("leave", [True, False])
def test_it_comes_off(leave: bool) -> None:
    layer = torch.nn.Linear(6, 5)
    parameter = layer.weight
    parametrize(layer, "weight", BALL)
    push_out(layer)
    raw, read = raw_of(layer).detach().clone(), layer.weight.detach().clone()
    remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert not is_parametrized(layer)
    assert torch.equal(layer.weight, read if leave else raw)
    assert layer.weight is parameter
    constrain(layer, {"weight": BALL}, torch.optim.SGD(layer.parameters(), lr=1.0))
    assert norms(layer.weight).max() <= BOUND


def test_state_dicts_go_there_and_back() -> None:
    model, other = (parametrize(network(), "0.weight", BALL) for _ in range(2))
    push_out(model[0])
    state = model.state_dict()
    assert "0.parametrizations.weight.original" in state
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert torch.equal(raw_of(other[0]), raw_of(model[0]))  # outside, as it was
    assert torch.equal(other[0].weight, model[0].weight)
    other.load_state_dict({k: 2 * v for k, v in state.items()}, assign=True)
    assert norms(other[0].weight).max() <= BOUND
    with pytest.raises(RuntimeError, match=r"only supported through state_dict"):
        pickle.dumps(model)
    assert "MaxNorm" in repr(pickle.loads(pickle.dumps(model[0].parametrizations.weight[0])))


@pytest.mark.parametrize("training", [True, False])
def test_an_exported_program_gives_the_same_numbers(training: bool) -> None:
    model = parametrize(network(), "0.weight", BALL).train(training)
    push_out(model[0])
    x = torch.randn(2, 6)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_to_one_graph(backend: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    parametrize(model, "0.weight", BALL, recenter_every=2, optimizer=optimizer)
    push_out(model[0])
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(3):
        x = torch.randn(4, 6)
        assert torch.allclose(compiled(x), model(x), atol=1e-6)
        optimizer.zero_grad()
        compiled(x).square().sum().backward()
        own = raw_of(model[0]).grad.clone()
        optimizer.zero_grad()
        model(x).square().sum().backward()
        assert torch.allclose(own, raw_of(model[0]).grad, atol=1e-6)
        optimizer.step()


def test_half_precision_and_autocast_keep_the_dtype_of_the_raw_weight() -> None:
    layer = parametrize(torch.nn.Linear(6, 5).to(torch.bfloat16), "weight", BALL)
    push_out(layer)
    assert layer.weight.dtype == torch.bfloat16
    assert norms(layer.weight).max() <= BOUND
    layer = parametrize(torch.nn.Linear(6, 5), "weight", BALL)
    push_out(layer)
    expected = layer.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, expected)
        assert layer(torch.randn(2, 6)).dtype == torch.bfloat16


# ------------------------------------------------------------------------------------ refusals


def sequence_of_ties() -> Any:
    model = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4))
    model[1].weight = model[0].weight
    return model


def integers() -> Any:
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.int64), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("model", "name", "constraint", "error", "message"),
    [
        (network, "0.wieght", BALL, ValueError, r"'0\.wieght' .* did you mean '0\.weight'"),
        (network, "*.weight", BALL, ValueError, r"name must be that of one weight"),
        (network, 0, BALL, TypeError, r"name must be a str, got 0"),
        (network, "0.bias", BALL, ValueError, r"cannot serve '0\.bias'"),
        (network, "0.weight", "MaxNorm", TypeError, r"constraint of '0\.weight' must be a"),
        (network, "0.weight", nc.Scheduled(BALL), TypeError, r"a forward pass has no step"),
        (
            network,
            "0.weight",
            nc.Relaxed(BALL, rate=0.5),
            ValueError,
            r"must arrive at once, got rate=0\.5",
        ),
        (network, "0.weight", nc.Mask((0.0, 1.0)), ValueError, r"must broadcast against w"),
        (sequence_of_ties, "1.weight", BALL, ValueError, r"is tied to '0\.weight'"),
        (sequence_of_ties, "0.weight", BALL, ValueError, r"is tied to '1\.weight'"),
        (lambda: torch.nn.LazyLinear(3), "weight", nc.NonNeg(), ValueError, r"lazy module"),
        (lambda: torch.nn.LazyLinear(3), "weight", BALL, ValueError, r"lazy module"),
        (integers, "weight", nc.NonNeg(), TypeError, r"must have a floating point dtype"),
        (
            lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)),
            "weight",
            BALL,
            ValueError,
            r"'weight' must not be parametrized already",
        ),
        (
            lambda: parametrize(torch.nn.Linear(3, 2), "weight", BALL),
            "weight",
            BALL,
            ValueError,
            r"combine constraints by a & b",
        ),
    ],
)
def test_what_cannot_be_parametrized_is_refused_and_left_alone(
    model: Any, name: Any, constraint: Any, error: type[Exception], message: str
) -> None:
    made = model()
    before = {
        n: (p, None if torch.nn.parameter.is_lazy(p) else p.detach().clone())
        for n, p in made.named_parameters()
    }
    with pytest.raises(error, match=message):
        parametrize(made, name, constraint)
    after = dict(made.named_parameters())
    assert list(after) == list(before)
    for n, (parameter, value) in before.items():
        assert after[n] is parameter
        assert value is None or torch.equal(after[n], value)


def test_one_layer_under_two_names_is_one_weight() -> None:
    layer = torch.nn.Linear(3, 3)
    model = torch.nn.Sequential(layer, layer)
    parametrize(model, "1.weight", BALL)
    assert norms(model[0].weight).max() <= BOUND


def test_recentring_asks_for_an_optimizer_that_has_the_weight() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"recenter_every must be given with optimizer"):
        parametrize(model, "0.weight", BALL, recenter_every=3)
    with pytest.raises(ValueError, match=r"recenter_every must be given with optimizer"):
        parametrize(model, "0.weight", BALL, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"recenter_every must be >= 1, got 0"):
        parametrize(model, "0.weight", BALL, recenter_every=0, optimizer=optimizer)
    with pytest.raises(TypeError, match=r"recenter_every must be an integer, got 1\.5"):
        parametrize(model, "0.weight", BALL, recenter_every=1.5, optimizer=optimizer)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got Seq"):
        parametrize(model, "0.weight", BALL, recenter_every=3, optimizer=model)
    stranger = torch.optim.SGD(network().parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"optimizer must update '0\.weight'"):
        parametrize(model, "0.weight", BALL, recenter_every=3, optimizer=stranger)
    assert not is_parametrized(model[0])
    parametrize(model, "0.weight", BALL)
    with pytest.raises(ValueError, match=r"parametrized with recenter_every"):
        recenter(model, optimizer)
    with pytest.raises(TypeError, match=r"recenter: optimizer must be"):
        recenter(model, model)


def test_a_sharded_weight_is_refused() -> None:
    distributed = torch.distributed
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import distribute_tensor

        layer = torch.nn.Linear(4, 3)
        sharded = distribute_tensor(layer.weight.detach(), init_device_mesh("cpu", (1,)))
        layer.weight = torch.nn.Parameter(sharded)
        with pytest.raises(ValueError, match=r"'weight' must not be sharded yet"):
            parametrize(layer, "weight", nc.NonNeg())
    finally:
        distributed.destroy_process_group()


ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
def test_the_one_way_door_is_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    door = importlib.import_module("torch_one_way_door")
    ways = {
        "project after the step": door.project,
        "parametrize": door.in_forward(None),
        "parametrize, recenter_every=10": door.in_forward(10),
        "parametrize, raw weight projected at first": door.in_forward(None, outside=False),
        "penalty": door.penalise,
    }
    page = (ROOT / "docs/pytorch_forward.md").read_text(encoding="utf-8")
    for name, way in ways.items():
        norm, raw, lost = door.regression(way)
        assert f"{name:<44}{norm:>8.3f}{raw:>10.3f}" in page
        if name == "parametrize":
            assert f"{lost:>10.1e}" in page and lost > 0.3
        else:
            assert lost < 1e-14
    (long, slow), (short, fast) = door.drift(None), door.drift(10)
    assert long > 1.9 > 1.1 > short > 1
    assert fast > 2 * slow
