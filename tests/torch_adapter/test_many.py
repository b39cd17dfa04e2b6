"""Several optimizers under one handle, frozen weights, and many small weights at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_torch import constrain, project_  # noqa: E402

UNIT = nc.MaxNorm(0.5, axis="unit")


def layers(count: int, size: int = 6) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(*[torch.nn.Linear(size, size, bias=False) for _ in range(count)])


def still(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.0)


def grow(model: Any, factor: float = 10.0) -> None:
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.normal_(generator=torch.Generator().manual_seed(i)).mul_(factor)


def norms(model: Any) -> list[float]:
    return [float(p.detach().norm(dim=1).max()) for p in model.parameters()]


# ------------------------------------------------------------------------- several optimizers


def test_each_weight_is_projected_after_the_steps_of_its_own_optimizer() -> None:
    model = layers(3)
    first, second = still(model[0].parameters()), still(model[1].parameters())
    handle = constrain(model, {"*": UNIT}, [first, second])
    grow(model)
    second.step()
    assert [n <= 0.5 for n in norms(model)] == [False, True, False]
    assert (handle.step, handle.steps) == (1, (0, 1))
    first.step()  # and with it the one that none of them updates
    assert [n <= 0.5 for n in norms(model)] == [True, True, True]
    grow(model)
    handle.project_()
    assert max(norms(model)) <= 0.5
    handle.remove()
    grow(model)
    first.step(), second.step()
    assert min(norms(model)) > 0.5
    assert "removed" in repr(handle)


def test_each_optimizer_counts_its_own_steps() -> None:
    model = layers(2)
    shrinking = nc.Scheduled(UNIT, {"max_value": Linear(1.0, 0.2, steps=4)})
    optimizers = [still(layer.parameters()) for layer in model]
    handle = constrain(model, {"*": shrinking}, optimizers, step=[0, 2])
    for _ in range(3):
        optimizers[0].step()
    optimizers[1].step()
    assert handle.steps == (3, 3)
    grow(model)
    handle.project_()
    assert norms(model) == pytest.approx([0.6, 0.6])  # as at step 2
    handle.step = 10
    assert handle.steps == (10, 10)


def test_the_optimizers_of_a_backward_pass_are_several() -> None:
    model = layers(3)
    optimizers = {p: torch.optim.SGD([p], lr=0.5) for p in model.parameters()}
    for parameter in model.parameters():

        def update(p: Any) -> None:
            optimizers[p].step()
            p.grad = None

        parameter.register_post_accumulate_grad_hook(update)
    handle = constrain(model, {"*": UNIT}, optimizers.values())
    for _ in range(4):
        model(torch.randn(8, 6)).square().sum().backward()
        assert max(norms(model)) <= 0.5
    assert handle.steps == (4, 4, 4)


def test_a_handle_on_one_of_the_optimizers_replaces_the_one_on_all() -> None:
    model = layers(2)
    both = [still(layer.parameters()) for layer in model]
    former = constrain(model, {"*": UNIT}, both)
    later = constrain(model, {"1.weight": UNIT}, both[1])
    assert "removed" in repr(former)
    assert "attached" in repr(later)
    grow(model)
    both[0].step(), both[1].step()
    assert [n <= 0.5 for n in norms(model)] == [False, True]


@pytest.mark.parametrize(
    ("optimizers", "options", "error", "match"),
    [
        (lambda m: [], {}, ValueError, "optimizer must be one at least, got none"),
        (lambda m: [m], {}, TypeError, "optimizer must be a torch.optim.Optimizer or several"),
        (lambda m: "sgd", {}, TypeError, "several, got str"),
        (lambda m: still(m.parameters()), {"step": [1, 2]}, ValueError, "one for each of 1 optim"),
        (lambda m: still(m.parameters()), {"step": [True]}, TypeError, "must be an integer"),
    ],
)
def test_optimizers_that_are_none(
    optimizers: Callable[[Any], Any], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    model = layers(1)
    grow(model)
    before = norms(model)
    with pytest.raises(error, match=match):
        constrain(model, {"*": UNIT}, optimizers(model), **options)
    assert norms(model) == before


# ------------------------------------------------------------------------------ frozen weights


def test_frozen_weights_are_projected_if_asked() -> None:
    model = layers(2)
    model[0].weight.requires_grad_(False)
    grow(model)
    optimizer = still([model[1].weight])
    handle = constrain(model, {"*": UNIT}, optimizer, frozen=True)
    assert max(norms(model)) <= 0.5
    assert list(handle.violation()) == ["0.weight", "1.weight"]
    grow(model)
    optimizer.step()
    assert max(norms(model)) <= 0.5
    grow(model)
    project_(model, {"*": UNIT})
    assert [n <= 0.5 for n in norms(model)] == [False, True]
    project_(model, {"*": UNIT}, frozen=True)
    assert max(norms(model)) <= 0.5


# ------------------------------------------------------------------------- many small weights


class Counted(TorchDispatchMode):
    """How many operations torch is asked for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


SETS = (
    UNIT,
    nc.UnitNorm(axis="unit"),
    nc.L1Ball(1.0, axis="unit"),
    nc.MaxNorm(1.0, axis=None),
    nc.MaxNorm((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), axis="unit"),
    nc.Box(-0.1, 0.2),
    nc.Monotone(axis="unit"),
    nc.NonNeg() & nc.MaxNorm(1.0, axis="unit"),
    nc.Scheduled(UNIT, {"max_value": Linear(1.0, 0.2, steps=3)}, every=2),
    nc.MaxNorm(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), axis="unit"),
)


@pytest.mark.parametrize("constraint", SETS, ids=repr)
def test_weights_that_are_alike_are_projected_as_each_of_them(constraint: Any) -> None:
    model, alone = layers(5), layers(5)
    optimizer = still(model.parameters())
    constrain(model, {"*": constraint}, optimizer)
    singles = [still(layer.parameters()) for layer in alone]
    for layer, one in zip(alone, singles, strict=True):
        constrain(layer, {"weight": constraint}, one)
    for _ in range(3):
        grow(model), grow(alone)
        optimizer.step()
        for one in singles:
            one.step()
        for found, expected in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(found, expected)


def test_many_weights_take_the_calls_of_one() -> None:
    counts = []
    for count in (1, 2, 50):
        model = layers(count)
        optimizer = still(model.parameters())
        constrain(model, {"*": UNIT}, optimizer)
        grow(model)
        optimizer.step()
        with Counted() as operations:
            optimizer.step()
        counts.append(operations.count)
    assert counts[2] - counts[1] < 0.2 * 48 * counts[0]


def test_where_nothing_has_to_move_no_weight_is_written() -> None:
    model = layers(4, size=64)  # large enough together for the path of host memory
    optimizer = still(model.parameters())
    constrain(model, {"*": nc.MaxNorm(5.0, axis="unit")}, optimizer)
    versions = [p._version for p in model.parameters()]
    optimizer.step()
    assert [p._version for p in model.parameters()] == versions
    grow(model)
    optimizer.step()
    assert [p._version for p in model.parameters()] != versions
    assert max(norms(model)) <= 5.0


def _half(model: Any) -> None:
    model[1].half()


def _freeze(model: Any) -> None:
    model[1].weight.requires_grad_(False)


def _replace(model: Any) -> None:
    model[1].weight = torch.nn.Parameter(torch.full((6, 6), 9.0))


def _resize(model: Any) -> None:
    model[1].weight = torch.nn.Parameter(torch.full((4, 6), 9.0))


def _tie(model: Any) -> None:
    model[1].weight = model[0].weight


def _new_data(model: Any) -> None:
    model[1].weight.data = torch.full((3, 6), 9.0)


@pytest.mark.parametrize("change", [_half, _freeze, _replace, _resize, _tie, _new_data])
def test_alike_weights_may_become_unlike(change: Callable[[Any], None]) -> None:
    model = layers(4)
    optimizer = still(model.parameters())
    handle = constrain(model, {"*": UNIT}, optimizer)
    grow(model)
    optimizer.step()
    change(model)
    grow(model)
    before = copy.deepcopy(model)
    optimizer.step()
    for i, (new, old) in enumerate(zip(model, before, strict=True)):
        expected = nc.MaxNorm(0.5, axis=1)(old.weight.detach())
        if i == 1 and change is _freeze:
            expected = old.weight.detach()
        assert torch.equal(new.weight.detach(), expected), i
    assert not any(v.any() for v in handle.violation().values())


def test_a_stack_of_weights_with_other_axes_is_another_stack() -> None:
    model, whole = layers(3), nc.MaxNorm(0.5, axis=None)
    optimizer = still(model.parameters())
    constrain(model, {"*": whole}, optimizer)
    optimizer.step()
    for layer in model:
        layer.weight = torch.nn.Parameter(torch.randn(6, 3, 2))
    optimizer.step()
    for layer in model:
        assert float(layer.weight.detach().norm()) == pytest.approx(0.5)
