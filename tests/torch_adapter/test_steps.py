"""Constraints that change with the steps of an optimizer, and reports of what they did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Cosine, Linear  # noqa: E402
from normconstraints_torch import Handle, constrain, project_  # noqa: E402

FREE = 10.0
HARDER = nc.Scheduled(
    nc.MaxNorm(3.0, axis="unit"), {"max_value": Linear(3.0, 1.0, steps=4)}, every=2, start=1
)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def layer() -> torch.nn.Linear:
    return torch.nn.Linear(4, 3, bias=False)


def grow(model: torch.nn.Linear) -> None:
    """All units to one norm, far outside."""
    with torch.no_grad():
        model.weight *= FREE / model.weight.norm(dim=1, keepdim=True)


def norm(model: torch.nn.Linear) -> float:
    norms = model.weight.detach().norm(dim=1)
    assert float(norms.max() - norms.min()) < 1e-5
    return float(norms.max())


def still(model: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer whose steps change nothing."""
    return torch.optim.SGD(model.parameters(), lr=0.0)


def norms_after(
    model: torch.nn.Linear, optimizer: torch.optim.Optimizer, count: int
) -> list[float]:
    found = []
    for _ in range(count):
        grow(model)
        model(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        found.append(norm(model))
    return found


def attached(
    value: Any, model: torch.nn.Linear, **options: Any
) -> tuple[Handle, torch.optim.Optimizer]:
    optimizer = still(model)
    return constrain(model, {"weight": value}, optimizer, **options), optimizer


def test_the_first_step_of_an_optimizer_is_step_0() -> None:
    model = layer()
    grow(model)
    handle, optimizer = attached(HARDER, model)
    assert (handle.step, norm(model)) == (0, pytest.approx(FREE))  # it starts at 1
    # Radius 3, 2.5, 2, 1.5, 1, 1; it acts at 1, 3, 5.
    expected = [FREE, 2.5, FREE, 1.5, FREE, 1.0]
    assert norms_after(model, optimizer, 6) == pytest.approx(expected)
    assert handle.step == 6


def test_what_holds_from_the_start_holds_when_attached() -> None:
    radius = nc.Scheduled(
        nc.MaxNorm(3.0, axis="unit"), {"max_value": Cosine(3.0, 1.0, steps=2)}, every=3
    )
    model = layer()
    grow(model)
    handle, optimizer = attached(radius, model)
    assert norm(model) == pytest.approx(3.0)
    assert norms_after(model, optimizer, 4) == pytest.approx([3.0, FREE, FREE, 1.0])
    # By hand it acts between the steps too, as it was at the last one.
    grow(model)
    assert handle.violation()["weight"].tolist() == pytest.approx([FREE - 1.0] * 3)
    handle.project_()
    assert norm(model) == pytest.approx(1.0)


def test_before_the_start_there_is_nothing_to_violate() -> None:
    model = layer()
    handle, optimizer = attached(HARDER, model)
    grow(model)
    assert handle.violation() == {}
    handle.project_()
    assert norm(model) == pytest.approx(FREE)
    norms_after(model, optimizer, 1)
    assert handle.violation() == {}  # step 0 is done, 1 is not
    optimizer.step()
    assert list(handle.violation()) == ["weight"]
    project_(model, {"weight": HARDER}, step=3)
    assert norm(model) == pytest.approx(1.5)
    grow(model)
    project_(model, {"weight": HARDER})
    assert norm(model) == pytest.approx(FREE)


def test_training_goes_on_from_a_step() -> None:
    model = layer()
    handle, optimizer = attached(HARDER, model, step=3)
    assert norms_after(model, optimizer, 3) == pytest.approx([1.5, FREE, 1.0])
    assert handle.step == 6
    grow(model)
    attached(HARDER, model, step=4)  # the last was step 3
    assert norm(model) == pytest.approx(1.5)


def test_what_starts_later_is_checked_when_attached() -> None:
    late = nc.Scheduled(nc.MaxNorm((1.0, 2.0), axis="unit"), start=5)
    model = layer()
    with pytest.raises(ValueError, match="max_value must broadcast") as caught:
        attached(late, model)
    assert "'weight', chosen by 'weight'" in caught.value.__notes__[0]


def test_a_removed_handle_does_not_count() -> None:
    model = layer()
    handle, optimizer = attached(HARDER, model)
    norms_after(model, optimizer, 2)
    handle.remove()
    norms_after(model, optimizer, 2)
    assert handle.step == 2


def test_the_bound_of_each_step_holds_while_a_model_learns() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    radius = Linear(0.5, 0.1, steps=8)
    rule = nc.Scheduled(nc.MaxNorm(0.5, axis="unit"), {"max_value": radius})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    constrain(model, {torch.nn.Linear: rule}, optimizer)
    for step in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,)))
        loss.backward()
        optimizer.step()
        largest = max(float(model[i].weight.detach().norm(dim=1).max()) for i in (0, 2))
        assert 0.99 * radius(step) <= largest <= radius(step) * (1 + 1e-6)


# The first compiled optimizer makes torch import what uses its own deprecated functions.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_step_counts_too() -> None:
    model = layer()
    handle, optimizer = attached(HARDER, model)
    take = torch.compile(lambda: norms_before(model, optimizer), backend="eager")
    found = []
    for _ in range(6):
        grow(model)
        take()
        found.append(norm(model))
    assert found == pytest.approx([FREE, 2.5, FREE, 1.5, FREE, 1.0])
    assert handle.step == 6


def norms_before(model: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()


BALL = nc.MaxNorm(3.0, axis=1)


@pytest.mark.parametrize(
    "scheduled",
    [
        nc.Scheduled(BALL, {"max_value": Linear(3.0, 1.0, steps=4)}, every=2, start=1),
        nc.Scheduled(BALL, {"max_value": Cosine(3.0, 1.0, steps=4)}),
        nc.Scheduled(BALL, every=2),
        nc.Scheduled(
            nc.layout.InView(nc.MinMaxNorm(0.5, (1.0, 2.0, 3.0), axis=1), (3, 4)),
            {"min_value": Linear(0.5, 1.0, steps=4)},
        ),
    ],
    ids=["linear", "cosine", "every", "inside another"],
)
def test_a_schedule_is_compiled_into_one_graph_for_all_steps(scheduled: nc.Scheduled) -> None:
    graphs = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    project = torch.compile(
        lambda w, step: scheduled.project(w, step), backend=count, fullgraph=True
    )
    w = FREE * torch.randn(3, 4)
    # What is remembered of the types of arrays is guarded, so let it be remembered before.
    scheduled.project(w, torch.tensor(1))
    for step in range(6):
        found = project(w, torch.tensor(step))
        assert torch.equal(found, scheduled.project(w, torch.tensor(step)))
        assert torch.allclose(found, scheduled.project(w, step))
    assert len(graphs) == 1


# ------------------------------------------------------------------------------------ reports

W = [[3.0, 4.0], [0.3, 0.4]]


def two_units() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    model = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(W))
    return model, still(model)


def test_a_report_has_the_numbers_that_a_hand_computes() -> None:
    model, optimizer = two_units()
    handle = constrain(model, {"weight": nc.MaxNorm(1.0, axis="unit")}, optimizer, report_every=2)
    assert handle.report.entries == ()  # attaching is no step
    for scale in (1.0, 9.0, 0.1, 9.0, 2.0):
        with torch.no_grad():
            model.weight.copy_(scale * torch.tensor(W))
        optimizer.step()
    entries = handle.report.entries
    assert [(e.step, e.name) for e in entries] == [(0, "weight"), (2, "weight"), (4, "weight")]
    # Norms 5 and .5: the first unit becomes 1, by 4 of sqrt(25.25).
    # Norms .5 and .05: nothing to do. Norms 10 and 1: the second is at the bound.
    assert [e.at_bound for e in entries] == [0.5, 0.0, 1.0]
    assert [e.violation for e in entries] == pytest.approx([4.0, 0.0, 9.0])
    assert [e.change for e in entries] == pytest.approx([4 / 25.25**0.5, 0.0, 9 / 101**0.5])


def test_scalars_are_what_a_tensorboard_writer_takes() -> None:
    model, optimizer = two_units()
    handle = constrain(model, {"weight": nc.MaxNorm(1.0, axis="unit")}, optimizer, report_every=1)
    optimizer.step()
    scalars = list(handle.report.scalars())
    assert [tag for tag, _, _ in scalars] == [
        f"normconstraints/{quantity}/weight" for quantity in ("at_bound", "violation", "change")
    ]
    for _, value, step in scalars:
        assert (type(value), type(step), step) == (float, int, 0)


def test_a_report_holds_only_the_steps_at_which_a_constraint_acts() -> None:
    model = layer()
    handle, optimizer = attached(HARDER, model, report_every=1)
    norms_after(model, optimizer, 6)
    assert [e.step for e in handle.report.entries] == [1, 3, 5]
    assert [e.violation for e in handle.report.entries] == pytest.approx([7.5, 8.5, 9.0])


class Operations(TorchDispatchMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(report_every: int | None) -> list[list[str]]:
    model, optimizer = two_units()
    rules = {"weight": nc.MaxNorm(1.0, axis="unit")}
    handle = constrain(model, rules, optimizer, report_every=report_every)
    found = []
    for _ in range(3):
        with Operations() as operations:
            optimizer.step()
        found.append(operations.seen)
    assert len(handle.report.entries) == (0 if report_every is None else 2)
    return found


def test_between_the_reports_nothing_is_copied() -> None:
    without, sometimes = operations(None), operations(2)
    assert without[0]  # the projection is seen
    assert sometimes[1] == without[1]
    assert "aten.clone.default" in sometimes[2]
    assert "aten.clone.default" not in without[2]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"report_every": 0}, ValueError, "report_every must be >= 1, got 0"),
        ({"report_every": 2.0}, TypeError, "report_every must be an integer, got 2.0"),
        ({"step": -1}, ValueError, "step must be >= 0, got -1"),
        ({"step": True}, TypeError, "step must be an integer, got True"),
    ],
)
def test_counts_are_counts(options: dict[str, Any], error: type[Exception], match: str) -> None:
    model = layer()
    before = model.weight.detach().clone()
    optimizer = still(model)
    with pytest.raises(error, match=match):
        constrain(model, {"weight": nc.MaxNorm(0.1, axis=1)}, optimizer, **options)
    assert torch.equal(model.weight.detach(), before)
    assert not optimizer._optimizer_step_post_hooks
