"""What a training loop in PyTorch does to its optimizer, weights and graphs behind one's back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.utils import counters  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_torch import constrain  # noqa: E402

BOUND = 0.5
RULES = {"*.weight": nc.MaxNorm(BOUND, axis="unit")}
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
Y = torch.randint(3, (8,), generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(X), Y)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def largest(model: torch.nn.Module) -> float:
    """The largest norm of a unit, without the library's help."""
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    return max(float(w.detach().double().norm(dim=1).max()) for w in weights)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --------------------------------------------------------------------------------- the optimizers


KINDS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD, one by one": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, foreach=False),
    "SGD, foreach": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, foreach=True),
    "SGD, fused": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, fused=True),
    "Adam, foreach": lambda p: torch.optim.Adam(p, 0.1, foreach=True),
    "Adam, fused": lambda p: torch.optim.Adam(p, 0.1, fused=True),
    "AdamW, capturable": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9),
    "Adagrad, fused": lambda p: torch.optim.Adagrad(p, 0.3, fused=True),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, 0.5),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_optimizer_ends_its_steps_inside_with_its_state_left_alone(
    make: Callable[[Any], torch.optim.Optimizer],
) -> None:
    model = network()
    optimizer = make(model.parameters())
    before: list[Any] = []
    outside = 0

    def look(*_: Any) -> None:
        nonlocal outside
        outside += largest(model) > BOUND
        before.append(copy.deepcopy(optimizer.state_dict()))

    def compare(*_: Any) -> None:
        after, expected = optimizer.state_dict(), before.pop()
        assert after["param_groups"] == expected["param_groups"]
        for key, state in expected["state"].items():
            for name, value in state.items():
                now = after["state"][key][name]
                assert torch.equal(now, value) if torch.is_tensor(value) else now == value
        assert largest(model) <= BOUND

    # Hooks run in the order in which they were registered: around the one of the constraints.
    optimizer.register_step_post_hook(look)
    handle = constrain(model, RULES, optimizer)
    optimizer.register_step_post_hook(compare)
    for _ in range(8):
        step(model, optimizer)
    assert handle.step == 8
    assert outside >= 4  # or the projection had nothing to do
    assert not before


def test_momentum_that_points_out_of_the_ball_is_not_turned() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    constrain(model, RULES, optimizer)
    expected: torch.Tensor | None = None
    weight = model[2].weight
    for _ in range(30):
        step(model, optimizer)
        gradient = weight.grad.clone()
        expected = gradient if expected is None else 0.9 * expected + gradient
        assert torch.equal(optimizer.state[weight]["momentum_buffer"], expected)
        assert float(weight.detach().double().norm(dim=1).max()) <= BOUND
    # The next step moves along minus the buffer, which is outwards for each unit at the bound.
    outwards = -(optimizer.state[weight]["momentum_buffer"] * weight.detach()).sum(dim=1)
    held = weight.detach().norm(dim=1) > 0.999 * BOUND
    assert held.any()
    assert (outwards[held] > 0).all()


def test_the_trial_points_of_lbfgs_are_free_and_its_step_ends_inside() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=8)
    handle = constrain(model, RULES, optimizer)
    seen = []

    def closure() -> torch.Tensor:
        seen.append(largest(model))
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for count in range(1, 4):
        seen.clear()
        optimizer.step(closure)
        assert len(seen) > 2
        assert seen[0] <= BOUND  # where the step before ended
        assert max(seen) > BOUND
        assert largest(model) <= BOUND
        assert handle.step == count


def test_an_accumulated_gradient_is_one_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    handle = constrain(model, RULES, optimizer)
    for batch in range(8):
        before = [p.detach().clone() for p in model.parameters()]
        (loss_of(model) / 2).backward()
        if batch % 2:
            optimizer.step()
            optimizer.zero_grad()
        else:
            assert all(map(torch.equal, before, model.parameters()))
    assert handle.step == 4
    assert 0.99 * BOUND < largest(model) <= BOUND


def test_optimizers_in_the_backward_pass_project_each_its_own_weight() -> None:
    model, plain = network(), network()
    optimizers = {p: torch.optim.SGD([p], lr=0.5) for p in model.parameters()}
    handle = constrain(model, RULES, optimizers.values())

    def update(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    # The same with one optimizer after the backward pass.
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    constrain(plain, RULES, optimizer)
    for _ in range(6):
        loss_of(model).backward()
        step(plain, optimizer)
        assert largest(model) <= BOUND
        assert same(model, plain)
    assert handle.steps == (6, 6, 6, 6)


def test_a_weight_of_two_optimizers_is_projected_after_both_if_constrained_under_each() -> None:
    model = network()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for _ in range(2)]
    for optimizer in optimizers:
        constrain(model, RULES, optimizer)
    for _ in range(3):
        for optimizer in optimizers:
            step(model, optimizer)
            assert 0.99 * BOUND < largest(model) <= BOUND


# ------------------------------------------------------------------------------------ the scaler


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_a_scaler_skips_changes_nothing(fused: bool) -> None:
    model = network()
    # Not SGD with momentum: its fused kernel leaves the momentum without a value if the first step
    # is skipped.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    handle = constrain(model, RULES, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    counts = []
    for count in range(8):
        before = [p.detach().clone() for p in model.parameters()]
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        overflow = count in (0, 1, 5)
        if overflow:
            model[0].bias.grad[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        counts.append(handle.step)
        assert all(map(torch.equal, before, model.parameters())) == overflow
        assert largest(model) <= BOUND
    # A fused optimizer skips by itself, and torch calls its hooks all the same: there the steps of
    # a schedule run on.
    assert counts == ([1, 2, 3, 4, 5, 6, 7, 8] if fused else [0, 0, 1, 2, 3, 3, 4, 5])
    assert largest(model) > 0.99 * BOUND


# ------------------------------------------------------------------------- weights that come late


def test_a_model_may_go_to_the_meta_device_and_come_back() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    handle = constrain(model, RULES, optimizer)
    saved = {name: 9 * tensor for name, tensor in network().state_dict().items()}
    old = model[0].weight
    model.to("meta")
    handle.project_()  # nothing to change, and no error
    assert model[0].weight.is_meta
    model.to_empty(device="cpu")
    model.load_state_dict(saved)
    assert model[0].weight is not old
    assert largest(model) > BOUND
    handle.project_()
    assert largest(model) <= BOUND
    # New parameters need a new optimizer, in PyTorch as here.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    constrain(model, RULES, optimizer)
    step(model, optimizer)
    assert largest(model) <= BOUND


def test_a_model_may_be_constrained_before_its_weights_are_there() -> None:
    with torch.device("meta"):
        model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    handle = constrain(model, RULES, optimizer)
    assert handle.violation()["0.weight"].is_meta
    model.load_state_dict(network().state_dict(), assign=True)
    handle.project_()
    assert 0.99 * BOUND < largest(model) <= BOUND


def test_a_lazy_model_is_constrained_after_its_first_batch() -> None:
    model = torch.nn.Sequential(torch.nn.LazyLinear(5), torch.nn.ReLU(), torch.nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(ValueError, match=r"'0\.weight' must have a shape.*first batch"):
        constrain(model, RULES, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    model(X)
    constrain(model, RULES, optimizer)
    assert largest(model) <= BOUND
    for _ in range(4):
        step(model, optimizer)
        assert 0.99 * BOUND < largest(model) <= BOUND


def _deep(model: Any, optimizer: Any) -> Any:
    return copy.deepcopy((model, optimizer))


def _pickled(model: Any, optimizer: Any) -> Any:
    return pickle.loads(pickle.dumps((model, optimizer)))


@pytest.mark.parametrize("duplicate", [_deep, _pickled])
def test_a_copy_of_the_optimizer_is_free_until_it_is_constrained_again(
    duplicate: Callable[[Any, Any], Any],
) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    constrain(model, RULES, optimizer)
    for _ in range(3):
        step(model, optimizer)
    free, free_optimizer = duplicate(model, optimizer)
    again, again_optimizer = duplicate(model, optimizer)
    assert free_optimizer.param_groups[0]["params"][0] is free[0].weight
    constrain(again, RULES, again_optimizer)
    for _ in range(3):
        step(model, optimizer)
        step(free, free_optimizer)
        step(again, again_optimizer)
    assert largest(free) > BOUND
    assert same(model, again)


# ------------------------------------------------------------------------------ graphs and guards


def compiled_model(model: Any, optimizer: Any) -> Callable[[], None]:
    run = torch.compile(model, backend="aot_eager", fullgraph=True)
    return lambda: step(run, optimizer)


def compiled_update(model: Any, optimizer: Any) -> Callable[[], None]:
    update = torch.compile(optimizer.step, backend="aot_eager")

    def take() -> None:
        optimizer.zero_grad()
        loss_of(model).backward()
        update()

    return take


def compiled_all(model: Any, optimizer: Any) -> Callable[[], None]:
    return torch.compile(lambda: step(model, optimizer), backend="aot_eager")


def graphs(
    compiled: Callable[[Any, Any], Callable[[], None]], rules: Any
) -> tuple[int, dict[str, int]]:
    """How many graphs a training step becomes and why they end; later steps must add none."""
    torch._dynamo.reset()
    counters.clear()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    if rules:
        constrain(model, rules, optimizer)
    take = compiled(model, optimizer)
    for _ in range(3):
        take()
    found = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(5):
            take()
            assert not rules or largest(model) <= BOUND
    assert counters["stats"]["unique_graphs"] == found[0]
    return found


SCHEDULED = {
    "*.weight": nc.Scheduled(
        nc.MaxNorm(BOUND, axis="unit"), {"max_value": Linear(BOUND, 0.1, steps=20)}
    )
}


# The first compiled optimizer makes torch import what uses its own deprecated functions.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("rules", [RULES, SCHEDULED], ids=["constant", "scheduled"])
@pytest.mark.parametrize("compiled", [compiled_model, compiled_update, compiled_all])
def test_constraints_add_no_graph_and_no_break_and_are_not_compiled_again(
    compiled: Callable[[Any, Any], Callable[[], None]], rules: Any
) -> None:
    without, constrained = graphs(compiled, None), graphs(compiled, rules)
    assert constrained == without
    assert without[0] >= 1


# ------------------------------------------------------------------------------------- the resume


def check_resume(scheduled: nc.Scheduled, broken_after: int) -> None:
    def make() -> Any:
        model = network()
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    rules = {"*.weight": scheduled}
    model, optimizer = make()
    constrain(model, rules, optimizer)
    for count in range(8):
        if count == broken_after:
            saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        step(model, optimizer)
    resumed, resumed_optimizer = make()
    resumed.load_state_dict(saved[0])
    resumed_optimizer.load_state_dict(saved[1])
    constrain(resumed, rules, resumed_optimizer, step=broken_after)
    for _ in range(8 - broken_after):
        step(resumed, resumed_optimizer)
    assert same(model, resumed)


@pytest.mark.parametrize(
    "scheduled",
    [
        nc.Scheduled(nc.MaxNorm(0.5, axis="unit"), {"max_value": Linear(0.5, 0.1, steps=20)}),
        nc.Scheduled(nc.MaxNorm(0.1, axis="unit"), {"max_value": Linear(0.1, 0.5, steps=20)}),
        nc.Scheduled(nc.MaxNorm(0.3, axis="unit"), start=3),
    ],
    ids=["shrinking", "growing", "late"],
)
@pytest.mark.parametrize("broken_after", [1, 4, 5])
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(
    scheduled: nc.Scheduled, broken_after: int
) -> None:
    check_resume(scheduled, broken_after)


def test_a_training_resumed_between_the_steps_of_a_schedule_is_the_unbroken_one() -> None:
    check_resume(nc.Scheduled(nc.MaxNorm(0.3, axis="unit"), every=3), 5)
