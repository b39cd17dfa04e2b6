"""Layouts of Flax NNX, by the derivatives of its layers, and constraints on its modules."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax.nnx")

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax_layers import check_weights, filled, unaccounted, values

import normconstraints as nc
import normconstraints_jax
from normconstraints.layout import Layout, LayoutError
from normconstraints.weights import Place, weights_of
from normconstraints_jax.nnx import layouts, project_

Call = Callable[[Any], Any]


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


def on(*shape: int) -> Call:
    return lambda layer: layer(values(*shape, seed=99))


def step(cell: Any) -> Any:
    """One step from a state that is not zero."""
    carry = cell.initialize_carry((2, 3), rngs())
    carry = jax.tree.map(lambda x: values(*x.shape, seed=98), carry)
    return cell(carry, values(2, 3, seed=99))[1]


Case = tuple[type, dict[str, Any], Call, dict[str, Any]]
CONV = {"in_features": 4, "out_features": 6}
LINEAR = {"in_features": 3, "out_features": 4}
CELL = {"in_features": 3, "hidden_features": 4}
TWO = {"units": (-2, -1)}


def head(name: str) -> Call:
    """A projection of an attention layer, as the layer that it is."""
    shape = (5, 2, 4) if name == "out" else (5, 6)
    return lambda layer: getattr(layer, name)(values(*shape, seed=99))


# The layer with its arguments, what it is called with, and how its units lie.
CASES: dict[str, Case] = {
    "Linear": (nnx.Linear, LINEAR, on(5, 3), {}),
    "LinearGeneral, two inputs": (
        nnx.LinearGeneral,
        {"in_features": (3, 2), "out_features": 4, "axis": (-2, -1)},
        on(5, 3, 2),
        {},
    ),
    "LinearGeneral, two outputs": (
        nnx.LinearGeneral,
        {"in_features": 3, "out_features": (4, 2)},
        on(5, 3),
        TWO,
    ),
    "LinearGeneral, batch": (
        nnx.LinearGeneral,
        {**LINEAR, "batch_axis": {0: 2}},
        on(2, 5, 3),
        {"units": (0, -1)},
    ),
    "Einsum": (
        nnx.Einsum,
        {"einsum_str": "nta,hab->nthb", "kernel_shape": (2, 3, 4), "bias_shape": (2, 4)},
        on(2, 5, 3),
        TWO,
    ),
    "Einsum, batch": (
        nnx.Einsum,
        {"einsum_str": "...ha,hab->...hb", "kernel_shape": (2, 3, 4)},
        on(5, 2, 3),
        TWO,
    ),
    "Conv": (nnx.Conv, {**CONV, "kernel_size": (3,)}, on(2, 9, 4), {}),
    "Conv, 2d": (
        nnx.Conv,
        {**CONV, "kernel_size": (3, 2), "strides": 2, "kernel_dilation": 2},
        on(2, 9, 8, 4),
        {},
    ),
    "Conv, grouped": (
        nnx.Conv,
        {**CONV, "kernel_size": (3,), "feature_group_count": 2},
        on(2, 9, 4),
        {},
    ),
    "Conv, depthwise": (
        nnx.Conv,
        {"in_features": 3, "out_features": 6, "kernel_size": (3, 3), "feature_group_count": 3},
        on(1, 7, 7, 3),
        {},
    ),
    "ConvTranspose": (
        nnx.ConvTranspose,
        {**CONV, "kernel_size": (3, 2), "strides": 2},
        on(1, 6, 6, 4),
        {},
    ),
    "ConvTranspose, transposed kernel": (
        nnx.ConvTranspose,
        {**CONV, "kernel_size": (3,), "transpose_kernel": True, "strides": 2},
        on(1, 6, 4),
        {},
    ),
    "Embed": (
        nnx.Embed,
        {"num_embeddings": 5, "features": 3},
        lambda layer: layer(jnp.arange(5)),
        {"units": (0,)},
    ),
    "LoRA": (nnx.LoRA, {**LINEAR, "lora_rank": 4}, on(5, 3), {}),
    "LoRALinear": (nnx.LoRALinear, {**LINEAR, "lora_rank": 4}, on(5, 3), {}),
    "LSTMCell": (nnx.LSTMCell, CELL, step, {}),
    "OptimizedLSTMCell": (nnx.OptimizedLSTMCell, CELL, step, {"gates": 4}),
    "GRUCell": (nnx.GRUCell, CELL, step, {"gates": 3}),
    "SimpleCell": (nnx.SimpleCell, CELL, step, {}),
    **{
        f"MultiHeadAttention, {name}": (
            nnx.MultiHeadAttention,
            {"num_heads": 2, "in_features": 6, "qkv_features": 8},
            head(name),
            {"units": (-1,) if name == "out" else (-2, -1), "only": f"{name}.kernel"},
        )
        for name in ("query", "key", "value", "out")
    },
}

SCALES = {nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm, nnx.PReLU}
WITHOUT = {
    *(nnx.Module, nnx.Dict, nnx.List, nnx.Sequential, nnx.Dropout, nnx.WeightNorm),
    *(nnx.SpectralNorm, nnx.MultiHeadAttention, nnx.RNN, nnx.Bidirectional, nnx.RNNCellBase),
    *(nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell),
}
TESTED = {cls for cls, *_ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_a_unit_depends_on_its_own_incoming_weights(case: str) -> None:
    cls, arguments, call, options = CASES[case]
    layer = filled(nnx.eval_shape(lambda: cls(**arguments, rngs=rngs())))
    lora = getattr(layer, "lora", layer)
    if isinstance(lora, nnx.LoRA):  # so that each unit of the layer is one of the rank
        lora.lora_b.set_value(jnp.eye(4))
    assert check_weights(layer, call, Place.layout, **options)


def inventory(namespace: Any) -> dict[str, list[str]]:
    return unaccounted(namespace, nnx.Module, tested=TESTED, without=WITHOUT | SCALES)


def test_every_layer_class_is_accounted_for() -> None:
    assert inventory(nnx) == {}


def test_a_new_layer_class_would_be_found() -> None:
    class Novel(nnx.Module):
        pass

    class Derived(nnx.Linear):
        pass

    found = inventory(types.SimpleNamespace(**vars(nnx), Novel=Novel, Derived=Derived))
    assert sorted(found.values()) == [["Derived"], ["Novel"]]


@pytest.mark.parametrize("cls", sorted(SCALES, key=lambda c: c.__name__))
def test_scales_have_no_incoming_weights(cls: Any) -> None:
    more = {nnx.GroupNorm: {"num_groups": 2}}.get(cls, {})
    layer = cls() if cls is nnx.PReLU else cls(4, rngs=rngs(), **more)
    assert weights_of(layer)
    for weight in weights_of(layer):
        with pytest.raises(ValueError, match="is the incoming weights of one unit, which a weight"):
            nc.Rules({weight.name: nc.MaxNorm(1.0, axis="unit")}).bind(layer)


class Net(nnx.Module):
    def __init__(self) -> None:
        r = rngs()
        self.embed = nnx.Embed(7, 6, rngs=r)
        self.conv = nnx.Conv(6, 8, (3,), rngs=r)
        self.norm = nnx.BatchNorm(8, rngs=r)
        self.layers = nnx.List([nnx.Linear(8, 6, rngs=r), nnx.Linear(6, 7, rngs=r)])

    def __call__(self, tokens: Any) -> Any:
        x = self.norm(jax.nn.relu(self.conv(self.embed(tokens))))
        return self.layers[1](jnp.tanh(self.layers[0](x)))


@functools.cache
def made() -> Any:
    graph, state = nnx.split(nnx.jit(Net)())
    return graph, jax.tree.map(np.asarray, state)


def net() -> Any:
    graph, state = made()
    return nnx.merge(graph, jax.tree.map(jnp.array, state))


def apply(model: Any, rules: nc.Rules) -> None:
    """`project_`, compiled, which is faster in a test."""
    nnx.jit(lambda m: project_(m, rules))(model)


KINDS = {nnx.Linear: nc.MaxNorm(0.5, axis="unit"), nnx.Conv: nc.MaxNorm(0.5, axis="unit")}
RULES = nc.Rules({**KINDS, nnx.Embed: nc.UnitNorm(axis="row")})
NEARLY = 0.5 * (1 + 4 * 2.0**-23)
TOKENS = jnp.asarray(np.random.default_rng(3).integers(0, 7, size=(4, 9)))


def loss(model: Any, tokens: Any) -> Any:
    y = model(tokens)
    return optax.softmax_cross_entropy_with_integer_labels(y, tokens).mean() - 0.1 * (y**2).mean()


def norms(model: Any) -> dict[str, Any]:
    """Of each unit, by hand."""
    kernels = {"conv": model.conv.kernel, "0": model.layers[0].kernel, "1": model.layers[1].kernel}
    found = {}
    for name, kernel in kernels.items():
        w = np.asarray(kernel[...], np.float64)
        found[name] = np.linalg.norm(w.reshape(-1, w.shape[-1]), axis=0)
    return found


def assert_held(model: Any) -> None:
    found = norms(model)
    assert [len(n) for n in found.values()] == [8, 6, 7]
    assert all(n.max() <= NEARLY for n in found.values())
    rows = np.linalg.norm(np.asarray(model.embed.embedding[...], np.float64), axis=1)
    np.testing.assert_allclose(rows, 1, rtol=1e-6)


def test_in_place_in_a_compiled_step() -> None:
    model = net()
    optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)
    assert max(n.max() for n in norms(model).values()) > 0.6

    @nnx.jit
    def train(model: Any, optimizer: Any, tokens: Any) -> None:
        optimizer.update(model, nnx.grad(loss)(model, tokens))
        project_(model, RULES)

    mean = model.norm.mean[...]
    for _ in range(4):
        train(model, optimizer, TOKENS)
        assert_held(model)
    assert (model.norm.mean[...] != mean).any()


def test_the_state_that_is_split_off_with_donation() -> None:
    model = net()
    rules = nc.Rules(
        {"*.kernel": nc.MaxNorm(0.5, axis="unit"), "embed.*": nc.UnitNorm(axis="row")},
        layouts=layouts(model),
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    tx = optax.sgd(0.5)
    state = tx.init(params)

    def train(params: Any, state: Any) -> Any:
        grads = jax.grad(lambda p: loss(nnx.merge(graph, p, rest, copy=True), TOKENS))(params)
        updates, state = tx.update(grads, state, params)
        return normconstraints_jax.project(optax.apply_updates(params, updates), rules), state

    train = jax.jit(train, donate_argnums=(0, 1))
    for _ in range(3):
        params, state = train(params, state)
        assert_held(nnx.merge(graph, params, rest, copy=True))
    assert [w.name for w in normconstraints_jax.weights(nnx.state(model))] == [
        w.name for w in normconstraints_jax.weights(model)
    ]


def test_out_of_place_leaves_the_module_alone() -> None:
    model = net()
    before = norms(model)
    assert_held(nnx.jit(lambda m: normconstraints_jax.project(m, RULES))(model))
    np.testing.assert_array_equal(norms(model)["conv"], before["conv"])


def test_the_plan_has_the_roles() -> None:
    roles = {row.name: row.roles for row in RULES.plan(net()).rows}
    assert roles == {
        "conv.bias": "o", "conv.kernel": "sio", "embed.embedding": "te", "layers.0.bias": "o",
        "layers.0.kernel": "io", "layers.1.bias": "o", "layers.1.kernel": "io", "norm.bias": "o",
        "norm.scale": "o",
    }  # fmt: skip


class Own(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(values(2, 3))


def test_an_unknown_layer_is_refused_until_it_is_declared() -> None:
    class Other(Own):
        pass

    rules = nc.Rules({"w": nc.MaxNorm(0.5, axis="unit")})
    with pytest.raises(ValueError, match=r'layout\.declare\(.*Other, w="oi"\)'):
        apply(Other(), rules)
    nc.layout.declare(Other, w="oi")
    model = Other()
    apply(model, rules)
    assert (np.linalg.norm(model.w[...], axis=1) <= NEARLY).all()


def test_a_wrong_name_comes_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'layers\.0\.kernel'"):
        project_(net(), nc.Rules({"layers.0.kernal": nc.NonNeg()}))


def test_a_stack_is_not_guessed() -> None:
    make = nnx.vmap(lambda r: nnx.Dict(a=nnx.Linear(2, 3, rngs=r), b=nnx.Conv(2, 3, (2,), rngs=r)))
    model = make(rngs().split(4))
    kinds = {"*.kernel": nc.MaxNorm(0.5, axis="unit")}
    with pytest.raises(LayoutError, match=r"layouts=\{'a\.kernel': 'lio'\}\), with l for the lay"):
        apply(model, nc.Rules(kinds))
    apply(model, nc.Rules(kinds, layouts={"a.kernel": "lio", "b.kernel": "lsio"}))
    for w in (model.a.kernel[...], model.b.kernel[...].reshape(4, 4, 3)):
        assert (np.linalg.norm(w, axis=1) <= NEARLY).all()
        assert np.linalg.norm(w) > 1  # each unit of each layer on its own


def test_a_parameter_in_two_places_is_one_weight() -> None:
    model = net()
    model.layers[1].kernel = model.embed.embedding
    (tied,) = [w for w in weights_of(model) if w.ties]
    assert [p.name for p in tied.places] == ["embed.embedding", "layers.1.kernel"]
    assert tied.ties[0].layout() == Layout("io")
    with pytest.raises(ValueError, match="their layers use its axes differently"):
        apply(model, nc.Rules({"layers.1.kernel": nc.MaxNorm(0.5, axis="unit")}))
    apply(model, nc.Rules({"layers.1.kernel": nc.MaxNorm(0.5, axis=1)}))
    assert model.layers[1].kernel is model.embed.embedding
    assert np.linalg.norm(model.embed.embedding[...], axis=1).max() <= NEARLY
