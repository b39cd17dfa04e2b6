"""axis="unit" inside layers: each weight of each layer has its own axes, in training too."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from keras_models import L, dense, fill, fit, largest, norms, numpy_of, sgd
from thin import thin

import normconstraints as nc
from normconstraints.layout import LayoutError
from normconstraints_keras import (
    KernelConstraint,
    MaxNorm,
    UnitNorm,
    _owners,
    apply_constraints,
    violation,
)

UNIT = KernelConstraint(nc.MaxNorm(0.5, axis="unit"))
BOTH = {"kernel_constraint": UNIT, "recurrent_constraint": UNIT}
KERNEL = {"kernel_constraint": UNIT}

# The axes are written down here once more, and not asked of the library.
LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "Dense": (lambda: L.Dense(4, **KERNEL), (5,), {"kernel": 0}),
    "Conv1D": (lambda: L.Conv1D(4, 2, **KERNEL), (5, 3), {"kernel": (0, 1)}),
    "Conv2D": (lambda: L.Conv2D(4, (2, 3), **KERNEL), (5, 5, 3), {"kernel": (0, 1, 2)}),
    "Conv3D": (lambda: L.Conv3D(4, 2, **KERNEL), (3, 3, 3, 2), {"kernel": (0, 1, 2, 3)}),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(4, 2, **KERNEL), (5, 3), {"kernel": (0, 2)}),
    "Conv2DTranspose": (
        lambda: L.Conv2DTranspose(4, 2, **KERNEL),
        (3, 3, 3),
        {"kernel": (0, 1, 3)},
    ),
    "DepthwiseConv2D": (
        lambda: L.DepthwiseConv2D(2, depth_multiplier=2, depthwise_constraint=UNIT),
        (4, 4, 3),
        {"kernel": (0, 1)},
    ),
    "SeparableConv2D": (
        lambda: L.SeparableConv2D(4, 2, depthwise_constraint=UNIT, pointwise_constraint=UNIT),
        (4, 4, 3),
        {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)},
    ),
    "EinsumDense": (
        lambda: L.EinsumDense("abc,cde->abde", (2, 3, 4), **KERNEL),
        (2, 5),
        {"kernel": 0},
    ),
    "EinsumDense of heads": (
        lambda: L.EinsumDense("abcd,cde->abe", (2, 4), **KERNEL),
        (2, 3, 5),
        {"kernel": (0, 1)},
    ),
    "LSTM": (
        lambda: L.LSTM(3, **BOTH),
        (2, 4),
        {"lstm_cell.kernel": 0, "lstm_cell.recurrent_kernel": 0},
    ),
    "GRU": (
        lambda: L.GRU(3, **BOTH),
        (2, 4),
        {"gru_cell.kernel": 0, "gru_cell.recurrent_kernel": 0},
    ),
    "Bidirectional": (
        lambda: L.Bidirectional(L.SimpleRNN(3, kernel_constraint=UNIT)),
        (2, 4),
        {
            "forward_simple_rnn.simple_rnn_cell.kernel": 0,
            "backward_simple_rnn.simple_rnn_cell.kernel": 0,
        },
    ),
}


@pytest.mark.parametrize("title", thin(LAYERS, 5))
def test_the_axes_of_layers(title: str) -> None:
    make, shape, axes = LAYERS[title]
    keras.utils.clear_session()  # names count on from model to model
    layer = make()
    x = keras.Input(shape)
    model = keras.Model(x, layer(x))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    weights = {w.name: w for w in nc.weights.weights_of(layer)}
    for name in axes:
        variable = _variable(model, name)
        fill(variable, 10)
        assert weights[name].shape == tuple(variable.shape)
    fit(model)  # in steps that move nothing: what was long ends on the bound
    for name, axis in axes.items():
        lengths = norms(_variable(model, name), axis)
        np.testing.assert_allclose(lengths, 0.5, rtol=1e-6, err_msg=name)
    assert len(violation(model)) == len(axes)
    assert largest(violation(model)) == 0


def _variable(model: Any, name: str) -> Any:
    (found,) = [
        v for v in model.trainable_variables if v.path.replace("/", ".").endswith(f".{name}")
    ]
    return found


def test_attention_has_other_axes_for_its_output() -> None:
    keras.utils.clear_session()
    # One object for four kernels.
    attention = L.MultiHeadAttention(2, 3, kernel_constraint=UNIT)
    x = keras.Input((5, 6))
    model = keras.Model(x, attention(x, x))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    dense = {
        "query": attention.query_dense,
        "key": attention.key_dense,
        "value": attention.value_dense,
        "attention_output": attention.output_dense,
    }
    assert {id(layer.kernel.constraint) for layer in dense.values()} == {id(UNIT)}
    for layer in dense.values():
        fill(layer.kernel, 10)
    fit(model)
    for name, layer in dense.items():
        axis = (0, 1) if name == "attention_output" else 0
        np.testing.assert_allclose(norms(layer.kernel, axis), 0.5, rtol=1e-6, err_msg=name)


def test_rows_of_an_embedding() -> None:
    embedding = L.Embedding(7, 4, embeddings_constraint=KernelConstraint(nc.UnitNorm(axis="row")))
    model = keras.Sequential([keras.Input((3,)), embedding])
    model.compile(sgd(), "mse")
    x = np.arange(21).reshape(7, 3) % 7
    model.fit(x, np.ones((7, 3, 4), "float32"), verbose=0)
    np.testing.assert_allclose(norms(embedding.embeddings, 1), 1.0, rtol=1e-6)


def test_a_loop_that_applies_gradients_by_hand() -> None:
    layer = L.Conv2D(4, 2, kernel_constraint=UNIT)
    layer.build((None, 5, 5, 3))
    optimizer = sgd()
    gradients = [-100 * ops.ones(v.shape) for v in layer.trainable_variables]
    optimizer.apply(gradients, layer.trainable_variables)
    np.testing.assert_allclose(norms(layer.kernel, (0, 1, 2)), 0.5, rtol=1e-6)


class Mixing(keras.Layer):
    """A layer of somebody else: (out, in), against the habit of Keras."""

    def build(self, shape: Any) -> None:
        self.mix = self.add_weight(shape=(2, shape[-1]), constraint=UNIT, name="mix")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.mix))


class Declared(Mixing):
    pass


nc.layout.declare(Declared, mix="oi")


def test_a_layer_of_ones_own() -> None:
    model = keras.Sequential([keras.Input((4,)), Declared()])
    mix = model.layers[0].mix
    fill(mix, 10)
    fit(model, keras.optimizers.SGD(0.0))
    np.testing.assert_allclose(norms(mix, 1), 0.5, rtol=1e-6)
    other = keras.Sequential([keras.Input((4,)), Mixing()])
    with pytest.raises(LayoutError, match="Mixing"):
        apply_constraints(other)


# -------------------------------------------------------------------- which layer it is


def test_a_variable_of_no_layer() -> None:
    alone = keras.Variable(np.ones((3, 2), "float32"), name="alone")
    with pytest.raises(LayoutError, match="'alone', and no layer has this variable; give the axes"):
        UNIT(alone)
    # Axes that are numbers need no layer.
    assert norms(MaxNorm(0.5)(alone)).max() == pytest.approx(0.5)


class Tied(keras.Layer):
    """The kernel of another layer, transposed."""

    def __init__(self, other: Any) -> None:
        super().__init__(name=other.name)
        self.kernel = other.kernel


class TiedAsItIs(Tied):
    pass


nc.layout.declare(Tied, kernel="oi")
nc.layout.declare(TiedAsItIs, kernel="io")


@pytest.mark.parametrize("cls", [Tied, TiedAsItIs])
def test_two_layers_of_one_variable_must_agree(cls: type) -> None:
    layer = L.Dense(3, kernel_constraint=UNIT)
    layer.build((None, 4))
    _other = cls(layer)
    fill(layer.kernel, 9)
    if cls is Tied:
        with pytest.raises(
            LayoutError, match=r"dense.*are one weight, and their layers use its axes"
        ):
            apply_constraints(layer)
    else:
        apply_constraints(layer)
        np.testing.assert_allclose(norms(layer.kernel), 0.5, rtol=1e-6)


def test_a_shared_layer() -> None:
    layer = L.Dense(4, kernel_constraint=UNIT, name="shared")
    x = keras.Input((4,))
    model = keras.Model(x, layer(layer(x)))
    fit(model, sgd())
    assert list(violation(model)) == ["shared.kernel"]
    assert largest(violation(model)) == 0


def test_many_models_at_once() -> None:
    """The layers of all of them are known, and those that come later too."""
    models = []
    for _ in range(3):
        model = dense(UNIT)
        convolution = keras.Sequential(
            [keras.Input((4, 4, 2)), L.Conv2D(3, 2, kernel_constraint=UNIT)]
        )
        models += [model, convolution]
        fit(model, sgd())
        fit(convolution, sgd())
    for model in models:
        kernel = model.layers[0].kernel
        fill(kernel, 10)
        apply_constraints(model)
        axes = tuple(range(len(kernel.shape) - 1))
        np.testing.assert_allclose(norms(kernel, axes), 0.5, rtol=1e-6)


def test_layers_that_are_gone_are_forgotten() -> None:
    layer = L.Dense(3, kernel_constraint=UNIT)
    layer.build((None, 4))
    apply_constraints(layer)
    gone, variable = weakref.ref(layer), weakref.ref(layer.kernel)
    assert id(layer.kernel) in _owners._known
    del layer
    gc.collect()
    assert gone() is None and variable() is None
    # What is found next clears what was known of it.
    other = L.Dense(3, kernel_constraint=UNIT)
    other.build((None, 4))
    apply_constraints(other)
    known = [place() for _, places in _owners._known.values() for place, _ in places]
    assert known and None not in known


def test_an_identity_that_another_variable_had() -> None:
    layer, other = L.Dense(3, kernel_constraint=UNIT), L.Conv1DTranspose(3, 2)
    layer.build((None, 4))
    other.build((None, 5, 4))
    place = weakref.ref(other), "kernel"
    _owners._known[id(layer.kernel)] = weakref.ref(other.kernel), [place]
    assert UNIT.of(layer.kernel) == nc.MaxNorm(0.5, axis=0)


FROZEN = """
import gc
import keras
import normconstraints as nc
from normconstraints_keras import KernelConstraint
layer = keras.layers.Dense(3, kernel_constraint=KernelConstraint(nc.MaxNorm(1.0, axis="unit")))
layer.build((None, 4))
gc.freeze()
try:
    layer.kernel.constraint(layer.kernel)
except ValueError as error:
    print(error)
"""


def test_layers_that_the_collector_was_told_to_forget() -> None:
    """In a process of its own, whose collector it spoils."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FROZEN], capture_output=True, text=True, check=True
    )
    assert "gc.unfreeze()" in done.stdout


def test_a_search_is_made_once_for_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    found = _owners._look_around
    monkeypatch.setattr(_owners, "_look_around", lambda: (searches.append(1), found()))
    model = dense(UnitNorm(axis="unit"))
    fit(model, sgd(), epochs=3)
    apply_constraints(model)
    assert len(searches) == 1
    assert numpy_of(model.layers[0].kernel).any()
