"""Averaged copies of a model: what leaves its set, and how it is brought back."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim.swa_utils import (  # noqa: E402
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    update_bn,
)

import normconstraints as nc  # noqa: E402
from normconstraints_torch import (  # noqa: E402
    constrain,
    parametrize,
    project_,
    project_averaged,
    projected,
)

SPHERE = nc.Rules({"*.weight": nc.UnitNorm(axis="unit")})
KINDS = {
    "swa": {},
    "ema": {"avg_fn": get_ema_avg_fn(0.9)},
    "ema, many at once": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def norms(model: Any) -> Any:
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    return torch.cat([w.detach().double().norm(dim=1) for w in weights])


def averaged(rules: Any, steps: int = 60, **kind: Any) -> Any:
    """The average of a model that trains fast on noise, under rules."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    constrain(model, rules, optimizer)
    average = AveragedModel(model, **kind)
    for _ in range(steps):
        optimizer.zero_grad()
        target = torch.randint(3, (16,))
        torch.nn.functional.cross_entropy(model(torch.randn(16, 20)), target).backward()
        optimizer.step()
        average.update_parameters(model)
    return average


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_averages_of_unit_vectors_are_short_until_they_are_projected(kind: Any) -> None:
    average = averaged(SPHERE, **kind)
    assert norms(average).min() < 0.8
    assert norms(average).max() < 1 - 1e-3
    before = [p.detach().clone() for p in average.parameters()]
    project_averaged(average, SPHERE)
    assert norms(average).tolist() == pytest.approx([1.0] * 11)
    # Each unit kept its direction: nothing but the length has changed.
    weight, old = average.module[0].weight.detach(), before[0]
    assert torch.allclose(weight, old / old.norm(dim=1, keepdim=True), atol=1e-6)
    assert torch.equal(average.module[0].bias, before[1])


def test_independent_unit_vectors_average_to_about_one_over_the_root_of_their_number() -> None:
    average = AveragedModel(torch.nn.Linear(500, 40))
    for _ in range(4):
        layer = torch.nn.Linear(500, 40)
        project_(layer, {"weight": nc.UnitNorm(axis=1)})
        average.update_parameters(layer)
    assert norms(average).tolist() == pytest.approx([0.5] * 40, abs=0.06)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_averages_of_a_ball_stay_inside_but_for_rounding(kind: Any) -> None:
    rules = {"*.weight": nc.MaxNorm(0.5, axis="unit")}
    average = averaged(rules, **kind)
    assert norms(average).max() <= 0.5 * (1 + 1e-6)
    project_averaged(average, rules)
    assert 0 < norms(average).max() <= 0.5


def test_averages_of_sparse_weights_are_not_sparse_until_they_are_projected() -> None:
    rules = {"0.weight": nc.TopK(3, axis=1)}
    average = averaged(rules, steps=20)
    assert (average.module[0].weight != 0).sum(dim=1).max() > 3
    project_averaged(average, rules)
    assert (average.module[0].weight != 0).sum(dim=1).max() <= 3


def test_averaged_weights_that_require_no_gradient_are_projected_too() -> None:
    average = averaged(SPHERE).requires_grad_(False)
    project_averaged(average, SPHERE)
    assert norms(average).tolist() == pytest.approx([1.0] * 11)


def test_for_a_while_leaves_the_average_as_it_is() -> None:
    model = network()
    average = averaged(SPHERE, avg_fn=get_ema_avg_fn(0.9))
    twin = AveragedModel(average.module, avg_fn=get_ema_avg_fn(0.9))
    twin.n_averaged.copy_(average.n_averaged)
    before = [p.detach().clone() for p in average.parameters()]
    with projected(average, SPHERE):
        assert norms(average).tolist() == pytest.approx([1.0] * 11)
        saved = {name: value.clone() for name, value in average.state_dict().items()}
    assert norms(saved_model(saved)).tolist() == pytest.approx([1.0] * 11)
    assert all(torch.equal(p, old) for p, old in zip(average.parameters(), before, strict=True))
    with pytest.raises(RuntimeError, match="inside"), projected(average, SPHERE):
        raise RuntimeError("inside")
    assert all(torch.equal(p, old) for p, old in zip(average.parameters(), before, strict=True))
    # Later averages are those of an average that was never projected, bit for bit.
    average.update_parameters(model)
    twin.update_parameters(model)
    assert all(
        torch.equal(p, q) for p, q in zip(average.parameters(), twin.parameters(), strict=True)
    )


def saved_model(state: dict[str, Any]) -> Any:
    average = AveragedModel(network())
    average.load_state_dict(state)
    return average


def test_in_place_between_updates_it_is_another_average() -> None:
    one = AveragedModel(torch.nn.Linear(20, 1), avg_fn=get_ema_avg_fn(0.5))
    two = AveragedModel(torch.nn.Linear(20, 1), avg_fn=get_ema_avg_fn(0.5))
    rules = {"weight": nc.UnitNorm(axis=1)}
    for _ in range(10):
        layer = torch.nn.Linear(20, 1)
        project_(layer, rules)
        one.update_parameters(layer)
        two.update_parameters(layer)
        project_averaged(two, rules)
    project_averaged(one, rules)
    assert (one.module.weight - two.module.weight).detach().norm() > 0.05


def test_buffers_are_averaged_and_left_alone_and_batch_norms_follow() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.BatchNorm1d(8))
    average = AveragedModel(model, use_buffers=True)
    for _ in range(3):
        model(torch.randn(32, 20))
        average.update_parameters(model)
    statistics = average.module[1].running_var.clone()
    assert statistics.var() > 0
    project_averaged(average, {"0.weight": nc.UnitNorm(axis="unit")})
    assert torch.equal(average.module[1].running_var, statistics)
    update_bn([torch.randn(4000, 20)], average)
    # Unit vectors on white noise: a variance of 1.
    assert average.module[1].running_var.tolist() == pytest.approx([1.0] * 8, abs=0.15)


def test_an_average_of_parametrized_models_is_in_the_set_when_it_is_read() -> None:
    model = parametrize(network(), "0.weight", nc.UnitNorm(axis="unit"))
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    average = AveragedModel(model)
    for _ in range(10):
        model(torch.randn(16, 20)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
    length = average.module[0].weight.detach().norm(dim=1)
    assert length.tolist() == pytest.approx([1.0] * 8)
    with pytest.raises(ValueError, match="is computed by a parametrization"):
        project_averaged(average, {"0.weight": nc.UnitNorm(axis="unit")})


def test_schedules_are_taken_at_the_step_and_do_nothing_before_they_start() -> None:
    average = AveragedModel(network())
    late = {"*.weight": nc.Scheduled(nc.MaxNorm(0.1, axis="unit"), start=5)}
    before = norms(average)
    project_averaged(average, late)
    assert torch.equal(norms(average), before)
    with projected(average, late, step=5):
        assert norms(average).max() <= 0.1
    project_averaged(average, late, step=7)
    assert norms(average).max() <= 0.1


def test_a_wrong_name_or_shape_changes_nothing() -> None:
    average = AveragedModel(network())
    before = norms(average)
    wrong = {"0.weight": nc.MaxNorm(0.1, axis=1), "2.weight": nc.Mask((0.0, 1.0))}
    for rules in (wrong, {"0.wieght": nc.MaxNorm(0.1, axis=1)}):
        with pytest.raises(ValueError, match=r"must (broadcast|match)"):
            project_averaged(average, rules)
        with pytest.raises(ValueError, match=r"must (broadcast|match)"), projected(average, rules):
            pass
        assert torch.equal(norms(average), before)
