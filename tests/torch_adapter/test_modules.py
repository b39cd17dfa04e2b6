"""What rules see of a torch model: names, layers, ties, and what they must not choose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from influence import check_influence

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints_torch import constrain, project_  # noqa: E402

BOUND = 0.4
UNIT = nc.MaxNorm(BOUND, axis="unit")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def sgd(model: nn.Module, lr: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def names(model: nn.Module) -> list[str]:
    return [weight.name for weight in nc.weights.weights_of(model)]


def refused(model: nn.Module, rules: Any, match: str) -> None:
    """By all that could change a weight, and nothing is changed, bit for bit."""
    optimizer = sgd(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = len(optimizer._optimizer_step_post_hooks)
    with pytest.raises(ValueError, match=match):
        constrain(model, rules, optimizer)
    with pytest.raises(ValueError, match=match):
        project_(model, rules)
    assert len(optimizer._optimizer_step_post_hooks) == hooks
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


# ------------------------------------------------------------------------------ whole models


class Everything(nn.Module):
    """A little of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.conv = nn.Conv2d(2, 4, 3, groups=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(self.embed(tokens))
        x, _ = self.attention(x, x, x, need_weights=False)
        x = self.conv(self.norm(x).reshape(len(x), 2, -1, 8))
        return self.head(self.up(x).mean(dim=(2, 3)))


def unit_norms(model: Everything) -> dict[str, torch.Tensor]:
    """Written down layer by layer, without the library."""
    rows = {
        "embed.weight": model.embed.weight,
        "lstm.weight_ih_l0": model.lstm.weight_ih_l0,
        "lstm.weight_hh_l0": model.lstm.weight_hh_l0,
        "attention.in_proj_weight": model.attention.in_proj_weight,
        "attention.out_proj.weight": model.attention.out_proj.weight,
        "conv.weight": model.conv.weight.flatten(1),
        "head.weight": model.head.weight,
    }
    norms = {name: weight.detach().double().norm(dim=1) for name, weight in rows.items()}
    up = model.up.weight.detach().double()  # 4 inputs in 2 groups, 3 outputs of each
    norms["up.weight"] = torch.stack(
        [up[2 * g : 2 * g + 2, o].norm() for g in range(2) for o in range(3)]
    )
    return norms


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    out = model(torch.randint(16, (8, 6)))
    nn.functional.cross_entropy(5 * out, torch.randint(3, (8,))).backward()
    optimizer.step()


@pytest.mark.parametrize("pattern", ["*weight*", nn.Module], ids=["by name", "by layer"])
def test_units_of_all_kinds_of_layers_stay_inside(pattern: Any) -> None:
    model = Everything()
    free = copy.deepcopy(model)
    rules = {"norm.*": None, pattern: UNIT}
    optimizer, free_optimizer = sgd(model), sgd(free)
    handle = constrain(model, rules, optimizer)
    assert handle.violation().keys() == unit_norms(model).keys()
    for _ in range(5):
        take_step(model, optimizer)
        take_step(free, free_optimizer)
        norms = unit_norms(model)
        assert all(float(found.max()) <= BOUND for found in norms.values())
        violation = handle.violation()
        assert {n: v.numel() for n, v in violation.items()} == {
            n: v.numel() for n, v in norms.items()
        }
    bound_somewhere = [float(found.max()) > 0.99 * BOUND for found in unit_norms(model).values()]
    assert all(bound_somewhere)
    assert max(float(found.max()) for found in unit_norms(free).values()) > 2 * BOUND


def test_the_plan_of_a_model_reads_it_and_changes_nothing() -> None:
    model = Everything()
    before = copy.deepcopy(model.state_dict())
    plan = nc.Rules({"*.weight": UNIT, "norm.*": None}).plan(model)
    assert [row.name for row in plan.rows] == [name for name, _ in model.named_parameters()]
    rows = {row.name: row for row in plan.rows}
    assert (rows["up.weight"].roles, rows["up.weight"].groups) == ("(gi)os..", 6)
    assert (rows["conv.weight"].roles, rows["conv.weight"].groups) == ("(go)is..", 4)
    assert rows["norm.weight"].roles == "o"
    norms = unit_norms(model)["up.weight"]
    expected = (float(norms.min()), float(norms.max()))
    assert rows["up.weight"].norms is not None
    assert (rows["up.weight"].norms[0], rows["up.weight"].norms[2]) == pytest.approx(expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_bias_has_no_unit_norm() -> None:
    refused(network(), {"0.bias": UNIT}, r"cannot serve '0\.bias'.*incoming weights of one unit")


# ------------------------------------------------------------------------------------- names


def _checkpointed(model: nn.Sequential) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return nn.Sequential(checkpoint_wrapper(model[0]), *model[1:])


WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "compiled in part": lambda m: nn.Sequential(torch.compile(m[0], backend="eager"), *m[1:]),
    "parallel": nn.DataParallel,
    "parallel in part": lambda m: nn.Sequential(nn.DataParallel(m[0]), *m[1:]),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "checkpointed": _checkpointed,
    "all": lambda m: nn.DataParallel(torch.compile(_checkpointed(m), backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_names_and_layers_are_those_without_wrappers(
    wrap: Callable[[nn.Sequential], nn.Module],
) -> None:
    model = wrap(network())
    assert names(model) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for weight in nc.weights.weights_of(model):
        assert type(weight.place.layer) is nn.Linear
        assert weight.place.layer.get_parameter(weight.place.attribute) is weight.array
    project_(model, {nn.Linear: UNIT})
    found = [w.array for w in nc.weights.weights_of(model) if w.name.endswith("weight")]
    assert max(float(w.detach().norm(dim=1).max()) for w in found) <= BOUND * (1 + 1e-6)


def test_an_own_layer_called_module_keeps_its_name() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(3, 2)

    assert names(Own()) == ["module.weight", "module.bias"]


class Mixture(nn.Module):
    """A layer with its weights in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ParameterList(torch.randn(4, 3) for _ in range(2))


def test_weights_in_a_list_belong_to_its_owner() -> None:
    model = nn.Sequential(Mixture())
    assert names(model) == ["0.experts.0", "0.experts.1"]
    nc.layout.declare(Mixture, {"experts.*": "oi"})
    optimizer = sgd(model)
    constrain(model, {(Mixture, "experts.*"): UNIT}, optimizer)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 9
    optimizer.step()
    assert all(float(w.detach().norm(dim=1).max()) <= BOUND for w in model.parameters())


def test_an_unknown_layer_comes_with_the_line_to_write() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(3, 2))

    model = nn.Sequential(Own())
    line = r'normconstraints\.layout\.declare\(.*Own, kernel="oi"\)'
    refused(model, {"*.kernel": UNIT}, rf"cannot serve '0\.kernel'.*{line}")
    project_(model, {"*.kernel": nc.MaxNorm(2.0, axis=0)})  # a number needs no roles
    nc.layout.declare(Own, kernel="io")
    project_(model, {"*.kernel": UNIT})
    assert model[0].kernel.detach().norm(dim=0).tolist() == pytest.approx([BOUND, BOUND])


# -------------------------------------------------------------------------------------- ties


class Language(nn.Module):
    """An embedding and a decoder with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.decoder = nn.Linear(4, 7)
        self.decoder.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.embed(tokens))


@pytest.mark.parametrize("pattern", ["embed.weight", "decoder.weight", nn.Linear])
def test_a_tied_weight_is_one_weight_whichever_place_is_named(pattern: Any) -> None:
    model = Language()
    assert names(model) == ["embed.weight", "decoder.bias"]
    optimizer = sgd(model)
    handle = constrain(model, {pattern: UNIT}, optimizer)
    for _ in range(3):
        tokens = torch.randint(7, (9,))
        nn.functional.cross_entropy(model(tokens), tokens).backward()
        optimizer.step()
        assert model.decoder.weight is model.embed.weight
        assert float(model.embed.weight.detach().norm(dim=1).max()) <= BOUND
    assert list(handle.violation()) == ["embed.weight"]
    # Replaced weights are two: both stay constrained.
    bigger = {name: 9 * tensor for name, tensor in model.state_dict().items()}
    model.load_state_dict(bigger, assign=True)
    assert model.decoder.weight is not model.embed.weight
    optimizer.step()
    for layer in (model.embed, model.decoder):
        assert float(layer.weight.detach().norm(dim=1).max()) <= BOUND
    assert list(handle.violation()) == ["embed.weight", "decoder.weight"]


def test_tied_layers_that_disagree_are_refused() -> None:
    model = nn.ModuleDict({"encode": nn.Conv1d(4, 4, 3), "decode": nn.ConvTranspose1d(4, 4, 3)})
    model["decode"].weight = model["encode"].weight
    refused(model, {"encode.weight": UNIT}, "'encode.weight' and 'decode.weight' are one weight")
    project_(model, {"encode.weight": nc.MaxNorm(BOUND, axis=(1, 2))})
    assert float(model["encode"].weight.detach().flatten(1).norm(dim=1).max()) <= BOUND * 1.001


# --------------------------------------------------------------- weights that are out of reach


def _old(name: str) -> Callable[[nn.Module], object]:
    return lambda layer: getattr(nn.utils, name)(layer)


COMPUTED: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "weight_norm": (nn.utils.parametrizations.weight_norm, "remove_parametrizations"),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm, "remove_parametrizations"),
    "orthogonal": (nn.utils.parametrizations.orthogonal, "remove_parametrizations"),
    "old weight_norm": (_old("weight_norm"), "remove_weight_norm"),
    "old spectral_norm": (_old("spectral_norm"), "remove_spectral_norm"),
    "pruned": (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "prune.remove"),
}


# nn.utils.weight_norm warns that the parametrization takes its place.
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize(("compute", "remedy"), COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize(
    "rules",
    [
        {"*.weight": UNIT},
        {"0.weight": nc.MaxNorm(BOUND, axis=1)},
        {nn.Linear: UNIT},
        {"0.weight": nc.NonNeg()},
    ],
    ids=["unit", "axis", "layer", "entries"],
)
def test_a_computed_weight_is_refused_if_chosen(
    compute: Callable[[nn.Module], object], remedy: str, rules: Any
) -> None:
    model = network()
    compute(model[0])
    assert sorted(names(model)) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    refused(model, rules, rf"'0\.weight' must be a parameter .*{remedy}")
    with pytest.raises(ValueError, match=remedy) as caught:
        nc.Rules(rules).plan(model)
    assert "chosen by" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("compute", [c for c, _ in COMPUTED.values()], ids=COMPUTED)
@pytest.mark.parametrize("rules", [{"2.weight": UNIT}, {"0.*": None, nn.Linear: UNIT}])
def test_a_computed_weight_is_left_alone_if_not_chosen(
    compute: Callable[[nn.Module], object], rules: Any
) -> None:
    model = network()
    compute(model[0])
    first = {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("2.")}
    plan = {row.name: row for row in nc.Rules(rules).plan(model).rows}
    assert (plan["0.weight"].shape, plan["0.weight"].roles) == ((5, 6), "oi")
    constrain(model, rules, sgd(model))
    assert float(model[2].weight.detach().norm(dim=1).max()) <= BOUND
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in first.items())


def test_the_parameters_of_a_parametrization_have_their_own_names() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor([2.0]))

        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return self.factor * w

    layer = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scale())
    assert names(layer) == ["bias", "weight", "parametrizations.weight.0.factor"]
    project_(layer, {"*.factor": nc.Box(0.0, 1.0)})
    assert layer.parametrizations.weight[0].factor.tolist() == [1.0]


def test_partitioned_weights_of_zero_3_are_refused_if_chosen() -> None:
    model = network()
    weight = model[0].weight
    # What deepspeed.zero.Init leaves of a parameter.
    weight.ds_id, weight.ds_shape = 0, weight.shape
    weight.data = torch.empty(0)
    refused(model, {"*.weight": UNIT}, r"'0\.weight' must be there .*ZeRO-3.*fully_shard")
    project_(model, {"2.weight": UNIT})
    plan = nc.Rules({"2.weight": UNIT}).plan(model)
    assert (plan.rows[0].name, plan.rows[0].shape, plan.rows[0].roles) == ("0.weight", (5, 6), "oi")


def test_lazy_entries_are_refused_too() -> None:
    refused_model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"'0\.weight' must have a shape.*first batch"):
        project_(refused_model, {"0.weight": nc.NonNeg()})


# ---------------------------------------------------------------------------------- sharded


@pytest.fixture
def two_ranks() -> Iterator[None]:
    """The first of two processes, the second of which does nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/store"
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.filterwarnings("ignore:.*FSDP.*:FutureWarning", "ignore:.*deprecated")
@pytest.mark.parametrize("original", [False, True])
def test_weights_that_fsdp1_flattened_are_refused_if_chosen(original: bool) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    outside = nn.Linear(3, 3)
    inner = FullyShardedDataParallel(
        network(), use_orig_params=original, device_id=torch.device("cpu")
    )
    model = nn.Sequential(inner, outside)
    shapes = {w.name: w.shape for w in nc.weights.weights_of(model)}
    assert shapes["0.0.weight"] == (5, 6)
    assert shapes.keys() == {
        *("0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"),
        *("1.weight", "1.bias"),
    }
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for rules in ({"*.weight": UNIT}, {"0.0.weight": nc.NonNeg()}, {nn.Linear: UNIT}):
        with pytest.raises(ValueError, match=r"'0\.0\.weight' must .*FSDP1.*fully_shard"):
            constrain(model, rules, sgd(model))
    assert all(torch.equal(t, before[name]) for name, t in model.named_parameters())
    project_(model, {"0.*": None, nn.Linear: UNIT})
    assert float(outside.weight.detach().norm(dim=1).max()) <= BOUND * 1.001


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_ties_that_fsdp1_flattened_stay_ties() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(Language(), device_id=torch.device("cpu"))
    (tied,) = [w for w in nc.weights.weights_of(model) if w.ties]
    assert {place.name for place in tied.places} == {"embed.weight", "decoder.weight"}


def _sharded(layer: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(layer, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: nn.Linear(5, 3), (2, 5)), (lambda: nn.Conv2d(2, 4, 3, groups=2), (2, 2, 4, 4))],
    ids=["Linear", "Conv2d"],
)
def test_a_layer_sharded_by_fsdp2_keeps_its_roles(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    layer = make().double()
    kind = type(layer)
    layer = _sharded(layer)
    assert type(layer) is not kind
    (weight, _) = nc.weights.weights_of(layer)
    x, rows = torch.randn(*shape, dtype=torch.float64), []
    for unit in range(weight.shape[0]):  # each with its own pass, for the shards go and come
        layer.zero_grad()
        out = layer(x).movedim(1, 0)
        (torch.randn(out.shape[1:], dtype=torch.float64) * out[unit]).sum().backward()
        rows.append(layer.weight.grad.full_tensor())
    check_influence(weight.place.layout(), torch.stack(rows).numpy())


@pytest.mark.usefixtures("one_rank")
def test_a_model_sharded_by_fsdp2_is_projected_as_the_whole_one() -> None:
    model = network()
    whole = copy.deepcopy(model)
    _sharded(model[0])
    _sharded(model)
    rules = nc.Rules({nn.Linear: UNIT})
    optimizer, whole_optimizer = sgd(model), sgd(whole)
    handle = constrain(model, rules, optimizer, report_every=1)
    constrain(whole, rules, whole_optimizer)
    for _ in range(3):
        x, y = torch.randn(8, 6), torch.randint(3, (8,))
        for net, opt in ((model, optimizer), (whole, whole_optimizer)):
            opt.zero_grad()
            nn.functional.cross_entropy(5 * net(x), y).backward()
            opt.step()
        for (name, sharded), plain in zip(
            model.named_parameters(), whole.parameters(), strict=True
        ):
            assert torch.allclose(sharded.full_tensor(), plain), name
    assert all(not v.full_tensor().any() for v in handle.violation().values())
    assert [(e.step, e.name) for e in handle.report.entries[:2]] == [
        (0, "0.weight"),
        (0, "2.weight"),
    ]


@pytest.mark.usefixtures("one_rank")
def test_a_model_sharded_by_fsdp2_has_the_plan_of_the_whole_one() -> None:
    rules, model = nc.Rules({nn.Linear: UNIT}), network()
    plan = rules.plan(model)
    _sharded(model)
    assert str(rules.plan(model)) == str(plan)


@pytest.mark.usefixtures("two_ranks")
def test_the_shards_of_fsdp2_have_the_shape_of_the_whole() -> None:
    model = network()
    _sharded(model)
    assert model[0].weight.to_local().shape == (3, 6)
    bound = nc.Rules({nn.Linear: UNIT}).bind(model)
    assert [(b.name, b.weight.shape) for b in bound] == [("0.weight", (5, 6)), ("2.weight", (3, 5))]
    assert bound[0].constraint == nc.MaxNorm(BOUND, axis=1)
