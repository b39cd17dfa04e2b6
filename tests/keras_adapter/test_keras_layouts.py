"""The layouts of Keras' layers, by what their outputs depend on, and that none is missing."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
from influence import check_influence
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

import normconstraints as nc
import normconstraints_keras  # noqa: F401 - to import it is to register
from normconstraints.layout import LayoutError
from normconstraints.weights import Weight, weights_of

L = keras.layers
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return 0.5 * RNG.normal(size=shape).astype("float32")  # not so much that gates saturate


def as_numpy(tensor: Any) -> np.ndarray:
    """A copy. Not by keras.ops.convert_to_numpy, of which NumPy warns on PyTorch."""
    return np.array(tensor.detach().numpy() if hasattr(tensor, "detach") else tensor)


def eye(*shape: int) -> np.ndarray:
    """The last two axes an identity: what comes out is what went in, so that it can be seen."""
    return np.eye(shape[-1], dtype="float32").reshape(shape)


# ------------------------------------------------------------------------------ influence


@dataclass
class Case:
    """A layer, its input, the axes of its output that count units, and the weights to look at."""

    cls: type
    arguments: dict[str, Any]
    inputs: Any
    units: tuple[int, ...] = (-1,)
    weights: dict[str, int] = field(default_factory=lambda: {"kernel": 1})
    """Names with the number of groups that a unit has."""
    holder: type | None = None
    """The class of the layer that holds the weights, where that is inside `cls`."""
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    lora: int = 0
    state: list[np.ndarray] | None = None
    """Of a recurrent layer, of whose cell one step is looked at."""

    def __str__(self) -> str:
        shown = [f"{k}={v}" for k, v in self.arguments.items() if k not in ("filters", "units")]
        return "-".join([self.cls.__name__, *shown, *self.weights, *map(str, self.call)])


def conv(cls: type, spatial: tuple[int, ...], channels: int, **more: Any) -> Case:
    case = {k: more.pop(k) for k in ("weights", "fixed", "lora") if k in more}
    first = more.get("data_format") == "channels_first"
    shape = (1, channels, *spatial) if first else (1, *spatial, channels)
    arguments = {"kernel_size": 2, **more}
    return Case(cls, arguments, normal(*shape), units=(1,) if first else (-1,), **case)


def recurrent(cls: type, holder: type, gates: int, states: int) -> Case:
    weights = {"kernel": gates, "recurrent_kernel": gates}
    state = [normal(1, 3) for _ in range(states)]
    return Case(cls, {"units": 3}, normal(1, 1, 2), weights=weights, holder=holder, state=state)


def conv_lstm(cls: type, *spatial: int, first: bool = False) -> Case:
    def shape(channels: int, sizes: Iterable[int]) -> tuple[int, ...]:
        return (channels, *sizes) if first else (*sizes, channels)

    # Small, for each entry costs a step. The kernel is 2 along the first axis, 1 along the others.
    out = [spatial[0] - 1, *spatial[1:]]
    return Case(
        cls,
        {
            "filters": 2,
            "kernel_size": (2, *(1 for _ in spatial[1:])),
            "data_format": "channels_first" if first else "channels_last",
            # Its default is flat where it is saturated, and nothing depends on anything there.
            "recurrent_activation": "sigmoid",
        },
        normal(1, 1, *shape(1, spatial)),
        units=(1,) if first else (-1,),
        weights={"kernel": 4, "recurrent_kernel": 4},
        holder=ConvLSTMCell,
        state=[normal(1, *shape(2, out)) for _ in range(2)],
    )


def einsum(equation: str, shape: tuple[int, ...], out: Any, units: tuple[int, ...]) -> Case:
    return Case(
        L.EinsumDense, {"equation": equation, "output_shape": out}, normal(*shape), units=units
    )


def einsum_lora(
    equation: str, last: int, units: tuple[int, ...], weight: str, **fixed: np.ndarray
) -> Case:
    out = (None, 3, 4) if equation.endswith("de") else 4
    return Case(
        L.EinsumDense,
        {"equation": equation, "output_shape": out},
        normal(2, 3, 5) if equation.endswith("de") else normal(2, 3),
        units=units,
        weights={weight: 1},
        lora=last,
        fixed=fixed,
    )


TOKENS = np.arange(4)

CASES = [
    Case(L.Dense, {"units": 3}, normal(2, 4)),
    Case(L.Dense, {"units": 3}, normal(2, 4), weights={"lora_kernel_b": 1}, lora=2),
    Case(
        L.Dense,
        {"units": 3},
        normal(2, 4),
        weights={"lora_kernel_a": 1},
        lora=3,
        fixed={"lora_kernel_b": eye(3, 3)},
    ),
    einsum("ab,bc->ac", (2, 3), 4, (-1,)),
    einsum("ab,cb->ac", (2, 3), 4, (-1,)),
    einsum("...x,xy->...y", (2, 3, 5), 4, (-1,)),
    einsum("xy...,yz->xz...", (2, 3, 2), (4, None), (1,)),
    einsum("abc,cde->abde", (2, 3, 5), (None, 3, 4), (2, 3)),
    einsum("abcd,cde->abe", (2, 3, 2, 3), (None, 4), (2,)),
    einsum("abc,dc->adb", (2, 3, 5), (4, None), (1,)),
    # Axis b is in all three: each of its entries has a matrix of its own.
    einsum("abc,bcd->abd", (2, 3, 5), (3, 4), (1, 2)),
    einsum("abc,dbc->abd", (2, 3, 5), (3, 4), (1, 2)),
    einsum_lora("abc,cde->abde", 4, (2, 3), "lora_kernel_a", lora_kernel_b=eye(4, 4)),
    einsum_lora("abc,cde->abde", 2, (3,), "lora_kernel_b"),
    einsum_lora("ab,cb->ac", 2, (1,), "lora_kernel_a"),
    einsum_lora("ab,cb->ac", 4, (1,), "lora_kernel_b", lora_kernel_a=eye(4, 4)),
    conv(L.Conv1D, (6,), 3, filters=4),
    conv(L.Conv1D, (8,), 3, filters=4, padding="causal", dilation_rate=2),
    conv(L.Conv2D, (5, 5), 3, filters=4),
    conv(L.Conv2D, (5, 5), 3, filters=4, strides=2, padding="same"),
    conv(L.Conv2D, (5, 5), 4, filters=6, groups=2),
    conv(L.Conv2D, (5, 5), 3, filters=4, data_format="channels_first"),
    conv(L.Conv2D, (5, 5), 3, filters=4, weights={"lora_kernel_b": 1}, lora=2),
    conv(
        L.Conv2D,
        (5, 5),
        4,
        filters=4,
        groups=2,
        weights={"lora_kernel_a": 1},
        lora=4,
        fixed={"lora_kernel_b": eye(4, 4)},
    ),
    conv(L.Conv3D, (3, 3, 3), 2, filters=3),
    conv(L.Conv3D, (3, 3, 3), 4, filters=4, groups=2),
    conv(L.Conv1DTranspose, (4,), 3, filters=4, strides=2),
    conv(L.Conv2DTranspose, (3, 3), 3, filters=4),
    conv(L.Conv2DTranspose, (3, 3), 3, filters=4, strides=2, padding="same"),
    conv(L.Conv2DTranspose, (3, 3), 3, filters=4, data_format="channels_first"),
    conv(L.Conv3DTranspose, (2, 2, 2), 2, filters=3),
    conv(L.DepthwiseConv1D, (5,), 3, depth_multiplier=2),
    conv(L.DepthwiseConv2D, (4, 4), 3),
    conv(L.DepthwiseConv2D, (4, 4), 3, depth_multiplier=2, strides=2),
    conv(L.DepthwiseConv2D, (4, 4), 3, depth_multiplier=2, data_format="channels_first"),
    *(
        conv(
            cls,
            spatial,
            3,
            filters=6,
            depth_multiplier=2,
            weights={weight: 1},
            fixed={"pointwise_kernel": one} if weight == "depthwise_kernel" else {},
        )
        for cls, spatial, one in (
            (L.SeparableConv1D, (5,), eye(1, 6, 6)),
            (L.SeparableConv2D, (4, 4), eye(1, 1, 6, 6)),
        )
        for weight in ("depthwise_kernel", "pointwise_kernel")
    ),
    recurrent(L.SimpleRNN, L.SimpleRNNCell, 1, 1),
    recurrent(L.LSTM, L.LSTMCell, 4, 2),
    # With reset_after=False a unit depends on the reset gates of all, in the same kernels.
    recurrent(L.GRU, L.GRUCell, 3, 1),
    conv_lstm(L.ConvLSTM1D, 4),
    conv_lstm(L.ConvLSTM2D, 3, 2),
    conv_lstm(L.ConvLSTM2D, 3, 2, first=True),
    conv_lstm(L.ConvLSTM3D, 3, 2, 2),
    # The units of an embedding are the tokens, the first axis of what comes out here.
    Case(
        L.Embedding,
        {"input_dim": 4, "output_dim": 3},
        TOKENS,
        units=(0,),
        weights={"embeddings": 1},
    ),
    Case(
        L.Embedding,
        {"input_dim": 4, "output_dim": 3},
        TOKENS,
        units=(0,),
        weights={"lora_embeddings_a": 1},
        lora=2,
    ),
    Case(
        L.Embedding,
        {"input_dim": 4, "output_dim": 3},
        TOKENS,
        weights={"lora_embeddings_b": 1},
        lora=2,
    ),
    Case(
        L.ReversibleEmbedding,
        {"input_dim": 4, "output_dim": 3},
        TOKENS,
        units=(0,),
        weights={"embeddings": 1},
    ),
    Case(
        L.ReversibleEmbedding,
        {"input_dim": 4, "output_dim": 3},
        normal(2, 3),
        weights={"embeddings": 1},
        call={"reverse": True},
    ),
    Case(
        L.ReversibleEmbedding,
        {"input_dim": 4, "output_dim": 3, "tie_weights": False},
        normal(2, 3),
        weights={"reverse_embeddings": 1},
        call={"reverse": True},
    ),
    # One score, of the one query and key that there are: no axis of the output counts units.
    Case(
        L.AdditiveAttention,
        {},
        [normal(1, 2, 3), normal(1, 2, 3)],
        units=(),
        weights={"scale": 1},
    ),
    *(
        Case(
            L.STFTSpectrogram,
            {"mode": mode, "frame_length": 4, "frame_step": 4, "fft_length": 4},
            normal(1, 16, 1),
            weights={f"{mode}_kernel": 1},
        )
        for mode in ("real", "imag")
    ),
]


def depends(
    forward: Callable[[], Any], variable: keras.Variable, units: tuple[int, ...]
) -> np.ndarray:
    """Which units of an output change when an entry of a weight does: (units, *weight)."""

    def seen() -> np.ndarray:
        out = as_numpy(forward())
        moved = np.moveaxis(out, units, range(len(units)))
        return moved.reshape(int(np.prod(moved.shape[: len(units)])), -1)

    before, start = as_numpy(variable.value), seen()
    found = np.empty((len(start), before.size))
    for i in range(before.size):
        changed = before.copy()
        changed.flat[i] += 0.5
        variable.assign(changed)
        found[:, i] = np.abs(seen() - start).max(axis=1)
    variable.assign(before)
    # Entries that count move an output by some thousandths, others by what rounding does at most.
    return (found > 2e-6).reshape(-1, *before.shape)


def set_up(layer: keras.Layer, fixed: dict[str, np.ndarray]) -> dict[str, keras.Variable]:
    """Every weight random, or as given, by name."""
    found = {}
    for variable in layer.weights:
        variable.assign(fixed.get(variable.name, normal(*variable.shape)))
        found[variable.name] = variable
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_unit_depends_on_its_own_groups_alone(case: Case) -> None:
    layer = case.cls(**case.arguments)
    # Not by a call: a ReversibleEmbedding would be built for the other way round.
    layer(case.inputs, **case.call)
    if case.lora:
        layer.enable_lora(case.lora)
    variables = set_up(layer, case.fixed)

    def forward() -> Any:
        if case.state is None:
            return layer(case.inputs, **case.call)
        return layer.cell(case.inputs[:, 0], case.state)[0]

    places = {w.place.attribute: w.place for w in weights_of(layer)}
    for name, groups in case.weights.items():
        assert type(places[name].layer) is (case.holder or case.cls)
        touched = depends(forward, variables[name], case.units)
        check_influence(places[name].layout(), touched, groups_of_unit=groups)


ATTENTION = [
    (L.MultiHeadAttention, {"num_heads": 2, "key_dim": 3}),
    (L.MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "use_gate": True}),
    (L.GroupQueryAttention, {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}),
]


@pytest.mark.parametrize(("cls", "arguments"), ATTENTION)
def test_the_layers_inside_of_attention(cls: type, arguments: dict[str, Any]) -> None:
    """Units of queries, keys and values are numbers of a head, of the output those of the model."""
    layer, x = cls(**arguments), normal(1, 3, 4)
    layer(x, x)
    kernels = [w for w in weights_of(layer) if w.place.attribute == "kernel"]
    for weight in kernels:
        inner = weight.place.layer
        assert isinstance(inner, L.EinsumDense)
        out = weight.name.startswith("attention_output")
        units, shape = ((2,), weight.shape[:2]) if out else ((2, 3), (4,))
        assert weight.place.layout().axes("unit", 3) == ((0, 1) if out else (0,))
        given = normal(1, 3, *shape)
        touched = depends(lambda: inner(given), set_up(inner, {})["kernel"], units)  # noqa: B023
        check_influence(weight.place.layout(), touched)
    gate = ["gate.kernel"] if "use_gate" in arguments else []
    names = ["query.kernel", "key.kernel", "value.kernel", *gate, "attention_output.kernel"]
    assert sorted(w.name for w in kernels) == sorted(names)


# ------------------------------------------------------------------------------ inventory

TESTED = {case.holder or case.cls for case in CASES}

NO_INCOMING = {
    L.Attention: "scalars",
    L.BatchNormalization: "scales and offsets",
    L.GroupNormalization: "scales and offsets",
    L.LayerNormalization: "scales and offsets",
    L.RMSNormalization: "scales",
    L.PReLU: "slopes",
    L.SpectralNormalization: "overwrites the weight of another layer, and is refused",
}

WITHOUT_OWN_WEIGHTS = {
    "The weights belong to layers inside of them, or are the user's": """
    Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D FlaxLayer GRU GroupQueryAttention JaxLayer LSTM
    Layer MultiHeadAttention Pipeline RNN SimpleRNN StackedRNNCells TFSMLayer TimeDistributed
    TorchModuleWrapper Wrapper
""",
    "They have none, but Normalization the mean and variance of data, not trained": """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AlphaDropout AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Cropping1D
    Cropping2D Cropping3D CutMix Discretization Dot Dropout ELU Equalization Flatten
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D HashedCrossing
    Hashing Identity InputLayer IntegerLookup Lambda LeakyReLU Masking MaxNumBoundingBoxes
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp Multiply
    Normalization Permute RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
    RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector
    Rescaling Reshape Resizing Softmax Solarization SpatialDropout1D SpatialDropout2D
    SpatialDropout3D StringLookup Subtract TextVectorization UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
""",
}
CONTAINERS, WEIGHTLESS = ([getattr(L, n) for n in x.split()] for x in WITHOUT_OWN_WEIGHTS.values())


def unaccounted(classes: Iterable[type]) -> list[str]:
    """Layers that nobody looked at: a new version of Keras brings them."""
    known = TESTED | set(NO_INCOMING) | {*CONTAINERS, *WEIGHTLESS}
    return sorted(cls.__name__ for cls in classes if cls not in known)


def public_layers() -> set[type]:
    found = {value for value in vars(L).values() if isinstance(value, type)}
    return {cls for cls in found if issubclass(cls, keras.Layer)}


def test_every_layer_of_keras_is_accounted_for() -> None:
    classes = public_layers()
    assert {*CONTAINERS, *WEIGHTLESS} <= classes
    assert unaccounted(classes) == []
    for cls in classes:
        asked = cls in TESTED or cls in NO_INCOMING
        assert nc.layout.declared(cls) == asked, cls


def test_a_new_layer_is_found() -> None:
    class Convolution9D(keras.Layer):
        pass

    class Bitlinear(L.Dense):
        """Inherits a declaration, and may hold more than was declared."""

    assert unaccounted([*public_layers(), Convolution9D, Bitlinear]) == [
        "Bitlinear",
        "Convolution9D",
    ]


def test_what_has_no_weights_makes_none() -> None:
    for cls in public_layers():
        if cls in WEIGHTLESS and cls is not L.Normalization:
            assert "add_weight(" not in inspect.getsource(cls), cls


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.BatchNormalization(), (2, 3)),
        (L.GroupNormalization(3), (2, 3)),
        (L.LayerNormalization(axis=(1, 2)), (2, 3, 4)),
        (L.LayerNormalization(), (2, 3)),
        (L.RMSNormalization(), (2, 3)),
        (L.PReLU(shared_axes=[1]), (2, 3, 4)),
        (L.Attention(use_scale=True, score_mode="concat"), (2, 3, 4)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_scales_and_offsets_have_no_unit(layer: keras.Layer, shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    layer([x, x] if isinstance(layer, L.Attention) else x)
    weights = weights_of(layer)
    assert weights
    for weight in weights:
        assert weight.place.layout().fit(len(weight.shape)) == ("o",) * len(weight.shape)
        with pytest.raises(ValueError, match="does not have"):
            nc.Rules({weight.name: nc.MaxNorm(1.0, axis="unit")}).match(layer)


def test_biases_have_no_unit() -> None:
    layers = [
        (L.Dense(2), (2, 3)),
        (L.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de"), (2, 3, 5)),
        (L.GRU(2), (1, 2, 3)),
        (L.ConvLSTM1D(2, 2), (1, 2, 4, 2)),
        (L.Conv2DTranspose(2, 2), (1, 3, 3, 2)),
        (L.SeparableConv1D(2, 2), (1, 4, 2)),
    ]
    for layer, shape in layers:
        layer(normal(*shape))
        (bias,) = [w for w in weights_of(layer) if w.place.attribute == "bias"]
        assert set(bias.place.layout().fit(len(bias.shape))) == {"o"}


def test_outgoing_weights_of_an_input_of_a_grouped_convolution() -> None:
    layer = L.Conv2D(6, 2, groups=2)
    layer(normal(1, 4, 4, 4))
    (weight, _) = weights_of(layer)
    layer.weights[0].assign(normal(*weight.shape))
    (found,) = nc.Rules({"kernel": nc.UnitNorm(axis="input")}).bind(layer)
    kernel = as_numpy(found.at(0).project(weights_of(layer)[0].array))
    norms = [
        np.linalg.norm(kernel[:, :, i, 3 * group : 3 * group + 3])
        for group in range(2)
        for i in range(2)
    ]
    assert norms == pytest.approx([1.0] * 4, rel=1e-5)


def test_an_axis_of_an_equation_that_only_stacks_is_kept() -> None:
    layer = L.EinsumDense("abc,bcd->abd", (3, 4))
    layer.build((2, 3, 5))
    layout = nc.layout.of(layer, "kernel")
    assert (layout.axes("unit", 3), layout.axes("input", 3)) == ((1,), (2,))


# -------------------------------------------------------------------------------- weights


def names(model: Any) -> list[str]:
    return [place.name for weight in weights_of(model) for place in weight.places]


def test_names_are_paths_of_names_without_that_of_the_model() -> None:
    inputs = keras.Input((6, 6, 2))
    inner = keras.Sequential([L.Conv2D(3, 2, name="conv")], name="encoder")
    x = L.Flatten()(inner(inputs))
    x = L.Dense(4, name="head")(L.Dropout(0.5)(x))
    model = keras.Model(inputs, x)
    assert names(model) == ["encoder.conv.kernel", "encoder.conv.bias", "head.kernel", "head.bias"]
    found = nc.Rules({L.Conv2D: nc.MaxNorm(1.0, axis="unit")}).match(model)
    assert found == {"encoder.conv.kernel": nc.MaxNorm(1.0, axis=(0, 1, 2))}
    assert [w.name for w in weights_of(model.get_layer("head"))] == ["kernel", "bias"]


def test_layers_inside_of_layers() -> None:
    cells = [L.LSTMCell(2, name="a"), L.SimpleRNNCell(2, name="b", use_bias=False)]
    layer = L.Bidirectional(L.RNN(L.StackedRNNCells(cells, name="cells"), name="deep"))
    layer(normal(1, 2, 3))
    inner = ["a.kernel", "a.recurrent_kernel", "a.bias", "b.kernel", "b.recurrent_kernel"]
    assert names(layer) == [
        f"{way}_deep.cells.{name}" for way in ("forward", "backward") for name in inner
    ]


class Twice(keras.Model):
    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.one, self.two = L.Dense(3, name=first), L.Dense(3, name=second)

    def call(self, x: Any) -> Any:
        return self.two(self.one(x))


def test_two_layers_of_one_name_are_refused() -> None:
    model = Twice("a", "a")
    model(normal(1, 3))
    with pytest.raises(ValueError, match=r"own name, and two are 'a\.kernel'; give"):
        weights_of(model)
    model = Twice("a", "b")
    model(normal(1, 3))
    assert names(model) == ["a.kernel", "a.bias", "b.kernel", "b.bias"]


def test_a_shared_layer_is_one_weight_with_ties() -> None:
    shared, inputs = L.Dense(3, name="shared"), keras.Input((3,))
    blocks = [keras.Sequential([keras.Input((3,)), shared], name=name) for name in ("a", "b")]
    model = keras.Model(inputs, shared(blocks[1](blocks[0](inputs))))
    kernel, _ = weights_of(model)
    assert {p.name for p in kernel.places} == {
        "a.shared.kernel",
        "b.shared.kernel",
        "shared.kernel",
    }
    assert nc.Rules({L.Dense: nc.MaxNorm(1.0, axis="unit")}).plan(model).rows[0].groups == 3


def test_what_is_not_trained_is_no_weight_and_what_is_frozen_is() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), L.BatchNormalization(name="n"), L.Dense(2, name="d"), L.Dropout(0.5)]
    )
    model.trainable = False
    assert names(model) == ["n.gamma", "n.beta", "d.kernel", "d.bias"]
    layer = L.Dense(2)
    layer.build((None, 3))
    layer.quantize("float8")
    assert names(layer) == ["kernel", "bias"]


def test_a_weight_without_a_name_has_that_of_its_attribute() -> None:
    class Mine(keras.Layer):
        def build(self, shape: Any) -> None:
            self.mixing = self.add_weight(shape=(shape[-1], 2))
            self.other = self.add_weight(shape=(2,), name="given")

        def call(self, x: Any) -> Any:
            return x @ self.mixing + self.other

    layer = Mine()
    layer(normal(1, 3))
    assert names(layer) == ["mixing", "given"]
    rules = nc.Rules({"mixing": nc.MaxNorm(1.0, axis="unit")})
    with pytest.raises(LayoutError, match=r'declare\(.*Mine, mixing="oi"\)'):
        rules.match(layer)
    nc.layout.declare(Mine, mixing="io")
    assert rules.match(layer) == {"mixing": nc.MaxNorm(1.0, axis=0)}


def test_what_is_not_built_is_refused() -> None:
    for model in (keras.Sequential([L.Dense(2)]), Twice("a", "b"), L.Dense(2)):
        with pytest.raises(ValueError, match="must be built, and has no weights before; run"):
            weights_of(model)


def test_spectral_normalization_is_refused_by_words_and_not_by_numbers() -> None:
    for inner, x in ((L.Dense(2), normal(1, 3)), (L.Embedding(4, 2), np.ones((1, 1), "int32"))):
        layer = L.SpectralNormalization(inner)
        layer(x)
        weight = "embeddings" if isinstance(inner, L.Embedding) else "kernel"
        for pattern in (weight, type(inner)):
            with pytest.raises(LayoutError, match="SpectralNormalization divides the weight"):
                nc.Rules({pattern: nc.MaxNorm(1.0, axis="unit")}).match(layer)
        found = nc.Rules({weight: nc.MaxNorm(1.0, axis=0)}).match(layer)
        assert found == {weight: nc.MaxNorm(1.0, axis=0)}


def test_a_plan_reads_the_tensors_of_the_backend() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, kernel_initializer="ones", name="d")])
    rows = nc.Rules({"d.kernel": nc.MaxNorm(1.0, axis="unit")}).plan(model).rows
    assert [(r.name, r.shape, r.roles, r.groups, r.outside) for r in rows] == [
        ("d.kernel", (3, 2), "io", 2, 1.0),
        ("d.bias", (2,), "o", None, None),
    ]
    (kernel, _) = weights_of(model)
    assert isinstance(kernel, Weight)
    if keras.backend.backend() == "torch":
        assert kernel.array is model.layers[0].kernel.value


def test_modules_of_pytorch_inside_of_keras() -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("Keras wraps modules of PyTorch on that backend alone")
    import torch

    layer = L.TorchModuleWrapper(torch.nn.Sequential(torch.nn.Linear(3, 2)), name="wrapped")
    model = keras.Sequential([keras.Input((3,)), layer])
    weight, _ = weights_of(model)
    assert weight.name == "wrapped.0.weight"
    assert weight.place.layer is layer.module[0]
    assert weight.place.attribute == "weight"


# -------------------------------------------------------------------------------- imports


def test_without_keras_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['keras'] = None; import normconstraints_keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'ImportError: normconstraints_keras needs Keras; run: pip install "norm' in done.stderr


def test_a_missing_backend_is_not_called_a_missing_keras() -> None:
    code = "import sys; sys.modules['jax'] = None; import normconstraints_keras"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert done.returncode == 1
    assert "jax" in done.stderr.splitlines()[-1]
    assert "pip install" not in done.stderr
