"""The declared roles of every layer of torch.nn, by derivatives of what the layers compute."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from influence import check_influence

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

import normconstraints as nc  # noqa: E402
import normconstraints_torch  # noqa: E402, F401


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@dataclass
class Case:
    """A layer, one of its weights, and what the units compute, one tensor for each."""

    cls: type
    args: tuple[Any, ...]
    weight: str
    units: Callable[[Any], Iterable[torch.Tensor]]
    options: dict[str, Any] = field(default_factory=dict)
    groups: int = 1

    def __str__(self) -> str:
        options = "-".join(f"{name}={value}" for name, value in self.options.items())
        return "-".join(filter(None, [self.cls.__name__, self.weight, options]))

    def make(self) -> Any:
        return self.cls(*self.args, **self.options).double()


def generic(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def derivative(units: Iterable[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """For each unit the derivative of a random sum of its outputs: 0 where none depends on it."""
    rows = []
    for outputs in units:
        total = (generic(*outputs.shape) * outputs).sum()
        (row,) = torch.autograd.grad(total, weight, retain_graph=True)
        rows.append(row)
    return torch.stack(rows).numpy()


def check(case: Case, layer: Any) -> None:
    units = case.units(layer)
    if "Lazy" in case.cls.__name__:
        units = list(units)  # the first batch makes the weights
    weights = {w.name: w for w in nc.weights.weights_of(layer)}
    found = weights[case.weight]
    check_influence(
        found.place.layout(), derivative(units, found.array), groups_of_unit=case.groups
    )


# ------------------------------------------------------------------------------- the layers


def last(*shape: int) -> Callable[[Any], Iterable[torch.Tensor]]:
    """Units on the last axis of the output, for inputs of those shapes."""
    return lambda layer: layer(generic(*shape)).movedim(-1, 0)


def channels(*shape: int) -> Callable[[Any], Iterable[torch.Tensor]]:
    """Units on the second axis of the output."""
    return lambda layer: layer(generic(*shape)).movedim(1, 0)


LINEAR = [
    Case(nn.Linear, (5, 3), "weight", last(2, 5)),
    Case(nn.modules.linear.NonDynamicallyQuantizableLinear, (5, 3), "weight", last(2, 5)),
    Case(nn.LazyLinear, (3,), "weight", last(2, 5)),
    Case(
        nn.Bilinear,
        (4, 5, 3),
        "weight",
        lambda layer: layer(generic(2, 4), generic(2, 5)).movedim(-1, 0),
    ),
]


def _convolutions() -> Iterator[Case]:
    for n, size in {1: 9, 2: 7, 3: 5}.items():
        plain = getattr(nn, f"Conv{n}d")
        for options in (
            {},
            {"stride": 2},
            {"dilation": 2},
            {"bias": False, "groups": 2},
            {"groups": 4},
            {"groups": 2, "stride": 2, "dilation": 2, "padding": 1},
            {"padding": "same"},
            *({"padding": 1, "padding_mode": m} for m in ("reflect", "replicate", "circular")),
        ):
            yield Case(plain, (4, 8, 3), "weight", channels(1, 4, *[size] * n), options)
        lazy = getattr(nn, f"LazyConv{n}d")
        yield Case(lazy, (8, 3), "weight", channels(1, 4, *[size] * n), {"groups": 2})
        transposed = getattr(nn, f"ConvTranspose{n}d")
        for options in (
            {},
            {"stride": 2},
            {"dilation": 2},
            {"groups": 2},
            {"groups": 4},
            {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
        ):
            yield Case(transposed, (4, 8, 3), "weight", channels(1, 4, *[3] * n), options)
        lazy = getattr(nn, f"LazyConvTranspose{n}d")
        yield Case(lazy, (8, 3), "weight", channels(1, 4, *[3] * n), {"groups": 2})


EMBEDDINGS = [
    Case(nn.Embedding, (6, 4), "weight", lambda layer: layer(torch.arange(6))),
    Case(nn.Embedding, (6, 4), "weight", lambda layer: layer(torch.arange(6)), {"max_norm": 9.0}),
    *(
        Case(
            nn.EmbeddingBag,
            (6, 4),
            "weight",
            # A bag for each token, which it holds twice.
            lambda layer: layer(torch.arange(6).repeat_interleave(2), torch.arange(0, 12, 2)),
            {"mode": mode},
        )
        for mode in ("sum", "mean", "max")
    ),
]

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
IN, HIDDEN = 3, 4


def _cell(layer: Any) -> Iterable[torch.Tensor]:
    state = generic(2, HIDDEN)
    if isinstance(layer, nn.LSTMCell):
        return layer(generic(2, IN), (state, generic(2, HIDDEN)))[0].T
    return layer(generic(2, IN), state).T


def _state(at: int) -> Callable[[Any], Iterable[torch.Tensor]]:
    """The hidden state after one step, of one layer in one direction."""

    def units(layer: Any) -> Iterable[torch.Tensor]:
        count = layer.num_layers * (1 + layer.bidirectional)
        state = generic(count, 2, layer.proj_size or HIDDEN)
        if isinstance(layer, nn.LSTM):
            _, (after, _) = layer(generic(1, 2, IN), (state, generic(count, 2, HIDDEN)))
        else:
            _, after = layer(generic(1, 2, IN), state)
        return after[at].T

    return units


def _before_projection(layer: nn.LSTM) -> Iterable[torch.Tensor]:
    """What the projection of an LSTM gets, one unit after the other."""
    for unit in range(HIDDEN):
        with torch.no_grad():
            layer.weight_hr_l0.zero_()[0, unit] = 1
        yield next(iter(_state(0)(layer)))


def _recurrent() -> Iterator[Case]:
    for kind, gates in GATES.items():
        for weight in ("weight_ih", "weight_hh"):
            yield Case(getattr(nn, f"{kind}Cell"), (IN, HIDDEN), weight, _cell, groups=gates)
            for at, end in enumerate(("l0", "l0_reverse", "l1", "l1_reverse")):
                yield Case(
                    getattr(nn, kind),
                    (IN, HIDDEN, 2),
                    f"{weight}_{end}",
                    _state(at),
                    {"bidirectional": True},
                    gates,
                )
    projected = {"proj_size": 2}
    yield Case(nn.LSTM, (IN, HIDDEN), "weight_hr_l0", _state(0), projected)
    for weight in ("weight_ih_l0", "weight_hh_l0"):
        yield Case(nn.LSTM, (IN, HIDDEN), weight, _before_projection, projected, groups=4)


@contextmanager
def _watched() -> Iterator[list[torch.Tensor]]:
    """The queries, keys and values that come to attention."""
    seen: list[torch.Tensor] = []
    attend = nn.functional.scaled_dot_product_attention

    def watch(q: Any, k: Any, v: Any, *args: Any, **options: Any) -> Any:
        seen.extend([q, k, v])
        return attend(q, k, v, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", watch)
        yield seen


def _attended(*parts: int) -> Callable[[Any], Iterable[torch.Tensor]]:
    """Units of the queries (0), keys (1) and values (2): heads by entries of a head."""

    def units(layer: Any) -> Iterable[torch.Tensor]:
        with _watched() as seen:
            x = generic(3, 2, 4), generic(5, 2, layer.kdim), generic(5, 2, layer.vdim)
            layer(*x, need_weights=False)
        assert len(seen) == 3
        for part in parts:
            # batch, heads, length, entries
            yield from seen[part].permute(1, 3, 0, 2).flatten(0, 1)

    return units


ATTENTION = [
    Case(nn.MultiheadAttention, (4, 2), "in_proj_weight", _attended(0, 1, 2)),
    Case(
        nn.MultiheadAttention,
        (4, 2),
        "in_proj_weight",
        _attended(0, 1, 2),
        {"add_bias_kv": True, "bias": False},
    ),
    *(
        Case(
            nn.MultiheadAttention,
            (4, 2),
            f"{name}_proj_weight",
            _attended(part),
            {"kdim": 3, "vdim": 5},
        )
        for part, name in enumerate("qkv")
    ),
    Case(
        nn.MultiheadAttention,
        (4, 2),
        "out_proj.weight",
        lambda layer: layer(*[generic(3, 2, 4)] * 3)[0].movedim(-1, 0),
    ),
]

CASES = [*LINEAR, *_convolutions(), *EMBEDDINGS, *_recurrent(), *ATTENTION]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_unit_depends_on_its_group_and_on_no_other(case: Case) -> None:
    check(case, case.make())


# The first compiled function makes torch import what uses its own deprecated functions.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", [LINEAR[0], CASES[len(LINEAR)]], ids=str)
def test_a_compiled_layer_keeps_its_roles(case: Case) -> None:
    check(case, torch.compile(case.make(), backend="aot_eager"))
    torch._dynamo.reset()


@pytest.mark.parametrize("norm", ["weight_norm", "orthogonal"])
def test_a_parametrized_weight_has_the_roles_of_its_layer(norm: str) -> None:
    layer = getattr(nn.utils.parametrizations, norm)(nn.Linear(5, 3).double())
    (weight,) = (w for w in nc.weights.weights_of(layer) if w.name == "weight")
    assert weight.shape == (3, 5)
    with parametrize.cached():
        found = derivative(layer(generic(2, 5)).T, layer.weight)
    check_influence(weight.place.layout(), found)


# ------------------------------------------------------------------- nothing is incoming here

NORMS: list[tuple[type, tuple[Any, ...], dict[str, Any]]] = [
    *((getattr(nn, f"BatchNorm{n}d"), (4,), {}) for n in (1, 2, 3)),
    *((getattr(nn, f"LazyBatchNorm{n}d"), (), {}) for n in (1, 2, 3)),
    *((getattr(nn, f"InstanceNorm{n}d"), (4,), {"affine": True}) for n in (1, 2, 3)),
    *((getattr(nn, f"LazyInstanceNorm{n}d"), (), {"affine": True}) for n in (1, 2, 3)),
    (nn.SyncBatchNorm, (4,), {}),
    (nn.GroupNorm, (2, 4), {}),
    (nn.LayerNorm, (4,), {}),
    (nn.LayerNorm, ((2, 3, 4),), {}),
    (nn.RMSNorm, ((3, 4),), {}),
    (nn.PReLU, (4,), {}),
]


def _materialised(layer: Any) -> Any:
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        dims = int(type(layer).__name__[-2])
        layer(generic(2, 4, *[3] * dims).float())
    return layer


@pytest.mark.parametrize(("cls", "args", "options"), NORMS)
def test_scales_have_no_unit_norm(
    cls: type, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    weights = nc.weights.weights_of(_materialised(cls(*args, **options)))
    assert weights
    for weight in weights:
        with pytest.raises(nc.layout.LayoutError, match="the incoming weights of one unit, which"):
            nc.Rules({weight.name: nc.MaxNorm(1.0, axis="unit")}).bind([weight])
        ndim = len(weight.shape)
        (bound,) = nc.Rules({weight.name: nc.MaxNorm(1.0, axis="tensor")}).bind([weight])
        assert bound.constraint == nc.MaxNorm(1.0, axis=tuple(range(ndim)) if ndim > 1 else 0)


@pytest.mark.parametrize(
    "case", {case.cls: case for case in CASES if "Lazy" not in case.cls.__name__}.values(), ids=str
)
def test_every_other_weight_of_a_layer_is_a_bias(case: Case) -> None:
    weights = {w.name: w for w in nc.weights.weights_of(case.make())}
    tested = {other.weight for other in CASES if other.cls is case.cls}
    for name in weights.keys() - tested:
        assert "bias" in name or name.startswith("weight_"), name
        # Deeper weights of recurrent nets are tested by another configuration.
        if "bias" in name:
            with pytest.raises(nc.layout.LayoutError, match="the incoming weights of one unit"):
                nc.Rules({name: nc.MaxNorm(1.0, axis="unit")}).bind([weights[name]])


@pytest.mark.parametrize(
    ("layer", "split", "outgoing"),
    [
        # Outputs stand with the groups, or inputs do: 4 inputs, 6 outputs, 2 groups.
        (nn.Conv2d(4, 6, 3, groups=2), (2, 3, 2, 3, 3), (1, 3, 4)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 2, 3, 3, 3), (2, 3, 4)),
    ],
    ids=["Conv2d", "ConvTranspose2d"],
)
def test_the_outgoing_weights_of_an_input_of_a_grouped_convolution(
    layer: Any, split: tuple[int, ...], outgoing: tuple[int, ...]
) -> None:
    roles, weight = nc.layout.of(layer, "weight"), layer.weight.detach()
    constraint = nc.layout.resolve(nc.UnitNorm(axis="input"), roles, tuple(weight.shape))
    norms = constraint.project(weight).reshape(split).square().sum(dim=outgoing)
    assert norms.flatten().tolist() == pytest.approx([1.0] * 4)
    assert roles.axes("kernel", 4) == (2, 3)


# ---------------------------------------------------------------------------------- inventory

WEIGHTLESS = """
    CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish
    RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh
    Tanhshrink Threshold
    AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout
    ChannelShuffle CosineSimilarity PairwiseDistance Flatten Unflatten Fold Unfold Identity
    CrossMapLRN2d LocalResponseNorm PixelShuffle PixelUnshuffle
    Upsample UpsamplingBilinear2d UpsamplingNearest2d
    BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss
    HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss MultiLabelMarginLoss
    MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss NLLLoss2d PoissonNLLLoss SmoothL1Loss
    SoftMarginLoss TripletMarginLoss TripletMarginWithDistanceLoss
    CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
    ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
    ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d
    AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d
    LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
"""

# All their weights are those of layers inside.
CONTAINERS = """
    AdaptiveLogSoftmaxWithLoss Container DataParallel LinearCrossEntropyLoss Module ModuleDict
    ModuleList Sequential Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder
    TransformerEncoderLayer
"""

# Hold weights of which only their owner knows the meaning.
LISTS = ["ParameterDict", "ParameterList"]

# What the layers that are tested have in common.
BASES = ["RNNBase", "RNNCellBase"]


def public_modules() -> dict[str, type]:
    """All classes of modules with a public name in torch.nn."""
    places = [nn]
    for found in pkgutil.iter_modules(nn.modules.__path__):
        places.append(importlib.import_module(f"torch.nn.modules.{found.name}"))
    return {
        name: value
        for place in places
        for name, value in vars(place).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not name.startswith("_")
    }


def unknown(classes: dict[str, type]) -> list[str]:
    """Neither declared nor known to have no weights of their own."""
    listed = {*WEIGHTLESS.split(), *CONTAINERS.split(), *LISTS}
    return [n for n, cls in classes.items() if not nc.layout.declared(cls) and n not in listed]


def untested(classes: dict[str, type]) -> list[str]:
    """Declared, perhaps only by what they inherit from, and not tested here."""
    tested = {case.cls for case in CASES} | {cls for cls, _, _ in NORMS}
    return [
        n
        for n, cls in classes.items()
        if nc.layout.declared(cls) and cls not in tested and n not in BASES
    ]


def test_every_class_of_torch_nn_is_declared_and_tested() -> None:
    classes = public_modules()
    assert len(classes) > 150
    assert unknown(classes) == []
    assert untested(classes) == []


def test_a_new_class_of_torch_nn_would_be_noticed() -> None:
    class Fresh(nn.Module):
        pass

    class FreshLinear(nn.Linear):
        pass

    new = {"Fresh": Fresh, "FreshLinear": FreshLinear}
    assert unknown({**public_modules(), **new}) == ["Fresh"]
    assert untested({**public_modules(), **new}) == ["FreshLinear"]


def uses_of_parameters(cls: type) -> set[str]:
    """What the code of a class and of its bases uses of what makes a weight."""
    used: set[str] = set()
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for function in filter(inspect.isfunction, vars(base).values()):
            used |= {"Parameter", "register_parameter"} & set(function.__code__.co_names)
    return used


def test_the_classes_that_are_listed_as_weightless_are() -> None:
    classes = public_modules()
    assert uses_of_parameters(nn.Linear) == {"Parameter", "register_parameter"}
    for name in (*WEIGHTLESS.split(), *CONTAINERS.split()):
        assert not nc.layout.declared(classes[name]), name
        assert not uses_of_parameters(classes[name]), name
