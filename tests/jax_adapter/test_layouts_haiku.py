"""Layouts of Haiku, by the derivatives of its layers, and constraints on its parameters."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("haiku")

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from jax_layers import check_weights, filled, unaccounted, values

import normconstraints as nc
from normconstraints.layout import Layout
from normconstraints_jax import project
from normconstraints_jax.haiku import layouts

KEY = jax.random.key(0)
Function = Callable[[], Any]


def on(make: Callable[[], Any], *shape: int) -> Function:
    return lambda: make()(values(*shape, seed=99))


def step(make: Callable[[], Any], *shape: int) -> Function:
    """One step from a state that is not zero."""

    def run() -> Any:
        cell = make()
        state = jax.tree.map(lambda x: values(*x.shape, seed=98), cell.initial_state(2))
        return cell(values(2, *shape, seed=99), state)[0]

    return run


def quantized() -> Any:
    layer = hk.nets.VectorQuantizer(3, 5, 0.25)
    return layer.quantize(jnp.arange(5))


CHANNELS_FIRST = {"units": (1,)}
GATES = {"gates": 4}
CASES: dict[str, tuple[type, Function, dict[str, Any]]] = {
    "Linear": (hk.Linear, on(lambda: hk.Linear(4), 5, 3), {}),
    "ConvND": (hk.ConvND, on(lambda: hk.ConvND(1, 6, 3), 2, 9, 4), {}),
    "Conv1D": (hk.Conv1D, on(lambda: hk.Conv1D(6, 3, feature_group_count=2), 2, 9, 4), {}),
    "Conv2D": (hk.Conv2D, on(lambda: hk.Conv2D(6, (3, 2), stride=2), 2, 7, 8, 4), {}),
    "Conv2D, channels first": (
        hk.Conv2D,
        on(lambda: hk.Conv2D(6, 3, rate=2, data_format="NCHW"), 2, 4, 7, 8),
        CHANNELS_FIRST,
    ),
    "Conv3D": (hk.Conv3D, on(lambda: hk.Conv3D(3, 2), 1, 4, 4, 4, 2), {}),
    "ConvNDTranspose": (
        hk.ConvNDTranspose,
        on(lambda: hk.ConvNDTranspose(1, 6, 3), 2, 6, 4),
        {},
    ),
    "Conv1DTranspose": (
        hk.Conv1DTranspose,
        on(lambda: hk.Conv1DTranspose(6, 3, stride=2), 2, 6, 4),
        {},
    ),
    "Conv2DTranspose": (
        hk.Conv2DTranspose,
        on(lambda: hk.Conv2DTranspose(6, (3, 2), stride=2, data_format="NCHW"), 1, 4, 5, 5),
        CHANNELS_FIRST,
    ),
    "Conv3DTranspose": (
        hk.Conv3DTranspose,
        on(lambda: hk.Conv3DTranspose(3, 2), 1, 3, 3, 3, 2),
        {},
    ),
    "DepthwiseConv1D": (
        hk.DepthwiseConv1D,
        on(lambda: hk.DepthwiseConv1D(2, 3), 2, 9, 3),
        {},
    ),
    "DepthwiseConv2D": (
        hk.DepthwiseConv2D,
        on(lambda: hk.DepthwiseConv2D(2, (3, 2), stride=2), 2, 7, 8, 3),
        {},
    ),
    "DepthwiseConv3D": (
        hk.DepthwiseConv3D,
        on(lambda: hk.DepthwiseConv3D(1, 2), 1, 4, 4, 4, 3),
        {},
    ),
    "SeparableDepthwiseConv2D": (
        hk.SeparableDepthwiseConv2D,
        on(lambda: hk.SeparableDepthwiseConv2D(1, 3), 2, 7, 8, 3),
        {},
    ),
    "Embed": (hk.Embed, lambda: hk.Embed(5, 3)(jnp.arange(5)), {"units": (0,)}),
    "VectorQuantizer": (hk.nets.VectorQuantizer, quantized, {"units": (0,)}),
    "VanillaRNN": (hk.VanillaRNN, step(lambda: hk.VanillaRNN(4), 3), {}),
    "LSTM": (hk.LSTM, step(lambda: hk.LSTM(4), 3), GATES),
    "GRU": (hk.GRU, step(lambda: hk.GRU(4), 3), {"gates": 3}),
    "Conv1DLSTM": (hk.Conv1DLSTM, step(lambda: hk.Conv1DLSTM((5,), 3, 2), 5, 2), GATES),
    "Conv2DLSTM": (hk.Conv2DLSTM, step(lambda: hk.Conv2DLSTM((3, 3), 2, 2), 3, 3, 2), GATES),
    "Conv3DLSTM": (
        hk.Conv3DLSTM,
        step(lambda: hk.Conv3DLSTM((3, 3, 2), 2, 2), 3, 3, 2, 1),
        GATES,
    ),
}
SCALES: dict[Any, Function] = {
    hk.BatchNorm: lambda: hk.BatchNorm(True, True, 0.9)(values(2, 5, 4), True),
    hk.LayerNorm: on(lambda: hk.LayerNorm((-2, -1), True, True, param_axis=(-2, -1)), 2, 5, 4),
    hk.InstanceNorm: on(lambda: hk.InstanceNorm(True, True), 2, 5, 4),
    hk.GroupNorm: on(lambda: hk.GroupNorm(2), 2, 5, 4),
    hk.RMSNorm: on(lambda: hk.RMSNorm(-1), 2, 5, 4),
    hk.Bias: on(hk.Bias, 2, 5, 4),
}
WITHOUT = {
    *(hk.Module, hk.Sequential, hk.Flatten, hk.Reshape, hk.AvgPool, hk.MaxPool, hk.RNNCore),
    *(hk.DeepRNN, hk.IdentityCore, hk.ResetCore, hk.ExponentialMovingAverage, hk.EMAParamsTree),
    *(hk.SpectralNorm, hk.SNParamsTree, hk.MultiHeadAttention, hk.LSTM, hk.VanillaRNN),
    *(hk.Conv1DLSTM, hk.Conv2DLSTM, hk.Conv3DLSTM, hk.SeparableDepthwiseConv2D),
    *(hk.nets.MLP, hk.nets.MobileNetV1, hk.nets.ResNet, hk.nets.VectorQuantizerEMA),
    *(getattr(hk.nets, f"ResNet{n}") for n in (18, 34, 50, 101, 152, 200)),
}
TESTED = {cls for cls, *_ in CASES.values()}
ALL = types.SimpleNamespace(**{**vars(hk.nets), **vars(hk)})


def parameters(function: Any, *args: Any) -> Any:
    """Generic parameters of a function that is transformed with state."""
    return filled(jax.eval_shape(lambda: function.init(KEY, *args))[0])


def applied(function: Any, *args: Any) -> Callable[[Any], Any]:
    state = jax.eval_shape(lambda: function.init(KEY, *args))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    return lambda params: function.apply(params, zeros, KEY, *args)[0]


@pytest.mark.parametrize("case", CASES)
def test_a_unit_depends_on_its_own_incoming_weights(case: str) -> None:
    cls, function, options = CASES[case]
    transformed = hk.transform_with_state(function)
    params, found = parameters(transformed), layouts(transformed)
    if cls is hk.GRU:  # its reset gate acts before the matrix, so let that mix no units
        w_h = params["gru"]["w_h"]
        params["gru"]["w_h"] = w_h.at[:, 8:].set(jnp.eye(4))
    if cls is hk.VanillaRNN:  # its rectifier must let every unit through
        params = {name: {**p, "b": p["b"] + 10} for name, p in params.items()}
    if cls is hk.SeparableDepthwiseConv2D:
        assert [name[-1] for name in found].count("w") == 2
    assert check_weights(params, applied(transformed), lambda place: found[place.name], **options)


def test_a_projection_of_attention_is_the_layer_that_it_is() -> None:
    def attention(x: Any) -> Any:
        return hk.MultiHeadAttention(2, 4, w_init=jnp.ones, model_size=6)(x, x, x)

    seen: dict[str, Any] = {}

    def look(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if isinstance(context.module, hk.Linear) and context.method_name == "__call__":
            seen[context.module.module_name] = result
        return result

    transformed, x = hk.transform_with_state(attention), values(5, 6)
    params, found = parameters(transformed, x), layouts(transformed, x)
    assert len(params) == 4
    for name in params:

        def projection(params: Any, name: str = name) -> Any:
            with hk.intercept_methods(look):
                applied(transformed, x)(params)
            return seen.pop(name)

        only = f"{name}.w"
        assert check_weights(params, projection, lambda place: found[place.name], only=only)


def inventory(namespace: Any) -> dict[str, list[str]]:
    return unaccounted(namespace, hk.Module, tested=TESTED, without=WITHOUT | set(SCALES))


def test_every_layer_class_is_accounted_for() -> None:
    assert inventory(ALL) == {}


def test_a_new_layer_class_would_be_found() -> None:
    class Novel(hk.Module):
        pass

    class Derived(hk.Linear):
        pass

    found = inventory(types.SimpleNamespace(**vars(ALL), Novel=Novel, Derived=Derived))
    assert sorted(found.values()) == [["Derived"], ["Novel"]]


@pytest.mark.parametrize("cls", SCALES, ids=lambda cls: cls.__name__)
def test_scales_have_no_incoming_weights(cls: Any) -> None:
    transformed = hk.transform_with_state(SCALES[cls])
    params, found = parameters(transformed), layouts(transformed)
    assert found
    for name, roles in found.items():
        rules = nc.Rules({name: nc.MaxNorm(1.0, axis="unit")}, layouts={name: roles})
        with pytest.raises(ValueError, match="is the incoming weights of one unit, which a weight"):
            rules.bind(params)


def net(tokens: Any) -> Any:
    x = hk.Embed(7, 6)(tokens)
    x = jnp.tanh(hk.Conv1D(6, 3)(x))
    x = hk.experimental.layer_stack(3)(lambda x: jnp.tanh(hk.Linear(6, name="mix")(x)))(x)
    return hk.nets.MLP([5, 7])(x)


NEARLY = 0.5 * (1 + 4 * 2.0**-23)
TOKENS = jnp.asarray(np.random.default_rng(3).integers(0, 7, size=(4, 9)))
PATTERNS = {"*.w": nc.MaxNorm(0.5, axis="unit"), "*.embeddings": nc.UnitNorm(axis="row")}
STACK = "__layer_stack_no_per_layer/mix"


def test_the_layouts_of_a_function_and_of_a_stack_in_it() -> None:
    found = layouts(net, jax.ShapeDtypeStruct((4, 9), jnp.int32))
    assert found == layouts(hk.without_apply_rng(hk.transform(net)), TOKENS)
    assert {name: roles.roles for name, roles in found.items()} == {
        f"{STACK}.w": "lio",
        f"{STACK}.b": "lo",
        "conv1_d.w": "sio",
        "conv1_d.b": "o",
        "embed.embeddings": "te",
        "mlp/~/linear_0.w": "io",
        "mlp/~/linear_0.b": "o",
        "mlp/~/linear_1.w": "io",
        "mlp/~/linear_1.b": "o",
    }


def test_training_with_donation() -> None:
    function, tx = hk.transform_with_state(net), optax.sgd(0.5)
    params, forward = parameters(function, TOKENS), applied(function, TOKENS)
    rules = nc.Rules(PATTERNS, layouts=layouts(function, TOKENS))

    def loss(params: Any) -> Any:
        y = forward(params)
        cost = optax.softmax_cross_entropy_with_integer_labels(y, TOKENS).mean()
        return cost - 0.1 * (y**2).mean()

    def train(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state)
        return project(optax.apply_updates(params, updates), rules), state

    train, state = jax.jit(train, donate_argnums=(0, 1)), tx.init(params)
    for _ in range(3):
        params, state = train(params, state)
        norms = [
            np.linalg.norm(np.asarray(params[name]["w"], np.float64), axis=axes)
            for name, axes in [(STACK, 1), ("mlp/~/linear_0", 0), ("mlp/~/linear_1", 0)]
        ]
        conv = np.asarray(params["conv1_d"]["w"], np.float64)
        norms.append(np.linalg.norm(conv.reshape(-1, 6), axis=0))
        assert [n.shape for n in norms] == [(3, 6), (5,), (7,), (6,)]
        assert all(0.1 < n.max() <= NEARLY for n in norms)
        rows = np.linalg.norm(np.asarray(params["embed"]["embeddings"], np.float64), axis=1)
        np.testing.assert_allclose(rows, 1, rtol=1e-6)


def test_the_plan_has_the_roles() -> None:
    params = parameters(hk.transform_with_state(net), TOKENS)
    plan = nc.Rules(PATTERNS, layouts=layouts(net, TOKENS)).plan(params)
    rows = {row.name: row for row in plan.rows}
    assert rows["mlp/~/linear_1.w"].roles == "io" and rows[f"{STACK}.w"].groups == 18
    assert len(rows) == 9


class Own(hk.Module):
    def __call__(self, x: Any) -> Any:
        return x @ hk.get_parameter("w", (x.shape[-1], 3), init=jnp.ones)


def test_an_unknown_layer_is_refused_until_it_is_declared() -> None:
    class Other(Own):
        pass

    def function(x: Any) -> Any:
        return Other(name="own")(x) + hk.get_parameter("top", (3,), init=jnp.ones)

    x, kind = values(4, 2), {"own.w": nc.MaxNorm(0.5, axis="unit")}
    params = parameters(hk.transform_with_state(function), x)
    assert layouts(function, x) == {}
    with pytest.raises(ValueError, match=r"layouts=\{'own\.w': \"oi\"\}"):
        project(params, nc.Rules(kind, layouts=layouts(function, x)))
    nc.layout.declare(Other, w="io")
    done = project(params, nc.Rules(kind, layouts=layouts(function, x)))
    assert np.linalg.norm(done["own"]["w"], axis=0).max() <= NEARLY


def test_a_wrong_name_comes_with_the_nearest() -> None:
    params = parameters(hk.transform_with_state(net), TOKENS)
    with pytest.raises(ValueError, match=r"did you mean 'mlp/~/linear_0\.w'"):
        project(params, {"mlp/linear_0.w": nc.NonNeg()})


def test_wildcards_in_a_name_stand_for_themselves() -> None:
    def function(x: Any) -> Any:
        other = hk.Linear(3, name="a0")(x)
        return other + x @ Odd(name="odd")()

    class Odd(hk.Module):
        def __call__(self) -> Any:
            return hk.get_parameter("w[0]*", (2, 3), init=jnp.ones)

    nc.layout.declare(Odd, {"w[[]0]*": "oi"})
    found = layouts(function, values(4, 2))
    assert found["odd.w[[]0][*]"] == Layout("oi")
    params = parameters(hk.transform_with_state(function), values(4, 2))
    rules = nc.Rules({"odd.*": nc.MaxNorm(0.1, axis="unit")}, layouts=found)
    done = project(params, rules)["odd"]["w[0]*"]
    np.testing.assert_allclose(np.linalg.norm(done, axis=1), 0.1, rtol=1e-6)
