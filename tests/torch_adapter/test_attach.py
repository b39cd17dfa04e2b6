"""Constraints kept by a torch optimizer, on real models."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

import normconstraints as nc  # noqa: E402
from normconstraints_torch import constrain, project_  # noqa: E402

BOUND = 0.5
RULES = nc.Rules({"*.weight": nc.MaxNorm(BOUND, axis=1)})


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def adam(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.1)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,)))
    loss.backward()
    optimizer.step()


def largest(model: torch.nn.Module) -> float:
    """The largest norm of a unit, without the library's help."""
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    return max(float(w.detach().double().norm(dim=1).max()) for w in weights)


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def unchanged(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [sgd, adam])
def test_the_constraint_holds_after_every_step(
    make: Callable[[torch.nn.Module], torch.optim.Optimizer],
) -> None:
    model = network()
    optimizer = make(model)
    free = copy.deepcopy(model)
    free_optimizer = make(free)
    handle = constrain(model, RULES, optimizer)
    assert 0 < largest(model) <= BOUND
    for _ in range(20):
        step(model, optimizer)
        step(free, free_optimizer)
        assert 0 < largest(model) <= BOUND
        assert all(not v.any() for v in handle.violation().values())
    assert largest(free) > 2 * BOUND  # or the test above says nothing
    assert float(model[0].bias.detach().norm()) > 0


def test_the_violation_has_the_names_and_one_number_for_each_unit() -> None:
    model = network()
    handle = constrain(model, RULES, sgd(model))
    with torch.no_grad():
        model[2].weight[1] *= 3 * BOUND / model[2].weight[1].norm()
    violation = handle.violation()
    assert {name: tuple(v.shape) for name, v in violation.items()} == {
        "0.weight": (5,),
        "2.weight": (3,),
    }
    assert violation["2.weight"].tolist() == pytest.approx([0, 2 * BOUND, 0])
    handle.project_()
    assert not handle.violation()["2.weight"].any()


def test_attaching_twice_leaves_one_hook() -> None:
    model = network()
    optimizer = sgd(model)
    hooks = len(optimizer._optimizer_step_post_hooks)
    first = constrain(model, RULES, optimizer)
    second = constrain(model, {"0.weight": nc.MaxNorm(0.1, axis=1)}, optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == hooks + 1
    assert "removed" in repr(first)
    assert "0.weight" in repr(second)
    step(model, optimizer)
    assert float(model[0].weight.detach().norm(dim=1).max()) <= 0.1
    assert float(model[2].weight.detach().norm(dim=1).max()) > BOUND


def test_a_second_model_under_one_optimizer_keeps_its_handle() -> None:
    one, two = network(), network()
    optimizer = torch.optim.SGD([*one.parameters(), *two.parameters()], lr=5.0)
    constrain(one, RULES, optimizer)
    constrain(two, RULES, optimizer)
    optimizer.zero_grad()
    x = torch.randn(8, 6)
    (one(x) - two(x)).square().sum().backward()
    optimizer.step()
    assert max(largest(one), largest(two)) <= BOUND


def test_removed_means_free() -> None:
    model = network()
    optimizer = sgd(model)
    handle = constrain(model, RULES, optimizer)
    handle.remove()
    handle.remove()
    for _ in range(5):
        step(model, optimizer)
    assert largest(model) > BOUND
    with constrain(model, RULES, optimizer) as inside:
        step(model, optimizer)
        assert largest(model) <= BOUND
        assert "attached" in repr(inside)
    for _ in range(5):
        step(model, optimizer)
    assert largest(model) > BOUND


def test_a_dropped_optimizer_and_its_model_are_freed() -> None:
    model = network()
    optimizer = sgd(model)
    constrain(model, RULES, optimizer)
    alive = weakref.ref(model), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_parameters_may_be_replaced() -> None:
    model = network()
    optimizer = sgd(model)
    handle = constrain(model, RULES, optimizer)
    old = model[0].weight
    model.load_state_dict({n: 9 * p for n, p in network().state_dict().items()}, assign=True)
    assert model[0].weight is not old
    assert largest(model) > BOUND
    step(model, optimizer)
    assert largest(model) <= BOUND
    model.load_state_dict({n: 9 * p for n, p in network().state_dict().items()}, assign=True)
    handle.project_()
    assert largest(model) <= BOUND


def test_a_weight_that_became_a_parametrization_is_reported() -> None:
    model = network()
    handle = constrain(model, RULES, sgd(model))
    torch.nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match=r"'0\.weight' must be a parameter of its module"):
        handle.project_()


def test_frozen_weights_are_skipped_while_they_are_frozen() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        model[0].weight *= 9
    frozen = model[0].weight.clone()
    optimizer = sgd(model)
    handle = constrain(model, RULES, optimizer)
    step(model, optimizer)
    assert torch.equal(model[0].weight, frozen)
    assert list(handle.violation()) == ["2.weight"]
    model[0].weight.requires_grad_(True)
    step(model, optimizer)
    assert largest(model) <= BOUND


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(model, backend="eager", fullgraph=True)


def compiled_in_part(model: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.Sequential(compiled(model[0]), model[1], model[2])


@pytest.mark.parametrize("wrap", [compiled, compiled_in_part, torch.nn.DataParallel])
def test_wrapped_models_keep_the_names_of_their_weights(
    wrap: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    model = network()
    wrapped = wrap(model)
    optimizer = adam(wrapped)
    handle = constrain(wrapped, RULES, optimizer)
    assert list(handle.violation()) == ["0.weight", "2.weight"]
    for _ in range(3):
        step(wrapped, optimizer)
        assert largest(model) <= BOUND


def test_a_compiled_model_and_the_model_itself_are_one() -> None:
    model = network()
    optimizer = sgd(model)
    hooks = len(optimizer._optimizer_step_post_hooks)
    constrain(model, RULES, optimizer)
    constrain(compiled(model), RULES, optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == hooks + 1


# The first compiled optimizer makes torch import what uses its own deprecated functions.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_step_projects_too() -> None:
    model = network()
    optimizer = adam(model)
    constrain(model, RULES, optimizer)
    take = torch.compile(lambda: step(model, optimizer), backend="eager")
    for _ in range(3):
        take()
        assert largest(model) <= BOUND


def test_an_own_submodule_called_module_is_no_wrapper() -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = torch.nn.Linear(3, 2)
            self.weight = torch.nn.Parameter(torch.ones(2, 2))

    model = Own()
    project_(model, {"module.weight": nc.UnitNorm(axis=1)})
    assert torch.equal(model.weight.detach(), torch.ones(2, 2))
    assert model.module.weight.detach().norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_wrong_name_comes_with_a_suggestion_and_changes_nothing() -> None:
    model = network()
    before = snapshot(model)
    optimizer = sgd(model)
    rules = {"0.weight": nc.MaxNorm(0.1, axis=1), "2.wieght": nc.MaxNorm(0.1, axis=1)}
    with pytest.raises(ValueError, match=r"'2\.wieght' .* did you mean '2\.weight'"):
        constrain(model, rules, optimizer)
    assert unchanged(model, before)


def test_a_wrong_shape_is_refused_before_any_weight_is_touched() -> None:
    model = network()
    before = snapshot(model)
    optimizer = sgd(model)
    hooks = len(optimizer._optimizer_step_post_hooks)
    rules = {"0.weight": nc.MaxNorm(0.1, axis=1), "2.bias": nc.MaxNorm(0.1, axis=1)}
    message = r"cannot serve '2\.bias'.*axis must exist, got axis=1"
    with pytest.raises(ValueError, match=message):
        constrain(model, rules, optimizer)
    with pytest.raises(ValueError, match=message):
        project_(model, rules)
    assert unchanged(model, before)
    assert len(optimizer._optimizer_step_post_hooks) == hooks


def test_a_refusal_leaves_the_handle_from_before() -> None:
    model = network()
    optimizer = sgd(model)
    handle = constrain(model, RULES, optimizer)
    with pytest.raises(ValueError, match="must match a weight"):
        constrain(model, {"head": nc.NonNeg()}, optimizer)
    step(model, optimizer)
    assert "attached" in repr(handle)
    assert largest(model) <= BOUND


def test_a_lazy_weight_is_refused_with_the_way_out() -> None:
    model = torch.nn.LazyLinear(3)
    with pytest.raises(ValueError, match=r"'weight' must have a shape.*first batch"):
        project_(model, {"weight": nc.UnitNorm(axis=1)})


def test_arguments_in_the_wrong_order_are_refused() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        constrain(model, RULES, model)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        project_(sgd(model), RULES)


def test_the_projection_is_no_part_of_the_graph() -> None:
    layer = torch.nn.Linear(3, 2)
    loss = layer(torch.ones(1, 3)).sum()
    project_(layer, {"weight": nc.MaxNorm(0.01, axis=1)})
    assert layer.weight.is_leaf
    assert layer.weight.requires_grad
    loss.backward()
    assert layer.weight.grad is not None


def test_without_torch_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; import normconstraints_torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        'ImportError: normconstraints_torch needs PyTorch; run: pip install "normconstraints['
        in (done.stderr)
    )
