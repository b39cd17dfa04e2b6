"""Layouts of Flax Linen, by the derivatives of its layers, and constraints on its parameters."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax.linen")

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.linen.recurrent import DenseParams
from jax_layers import check_weights, filled, unaccounted, values

import normconstraints as nc
from normconstraints.layout import Layout
from normconstraints_jax import project
from normconstraints_jax.linen import layouts

KEY = jax.random.key(0)
Options = dict[str, Any]


def carry(cell: Any, *shape: int) -> Any:
    state = jax.eval_shape(lambda: cell.initialize_carry(KEY, (2, *shape)))
    return jax.tree.map(lambda x: values(*x.shape, seed=98), state)


def one_step(cell: Any, *shape: int) -> tuple[Any, ...]:
    return cell, (carry(cell, *shape), values(2, *shape, seed=99)), lambda out: out[1]


def on(layer: Any, *shape: int) -> tuple[Any, ...]:
    return layer, (values(*shape, seed=99),), lambda out: out


TWO = {"units": (-2, -1)}
# A layer, what it is called with and which of its results; how its units lie.
CASES: dict[str, tuple[Callable[[], tuple[Any, ...]], Options]] = {
    "Dense": (lambda: on(nn.Dense(4), 5, 3), {}),
    "DenseGeneral, two inputs": (lambda: on(nn.DenseGeneral(4, axis=(-2, -1)), 5, 3, 2), {}),
    "DenseGeneral, two outputs": (lambda: on(nn.DenseGeneral((4, 2)), 5, 3), TWO),
    "DenseGeneral, batch": (
        lambda: on(nn.DenseGeneral(4, batch_dims=(0,)), 2, 5, 3),
        {"units": (0, -1)},
    ),
    "Einsum": (lambda: on(nn.Einsum((2, 3, 4), "nta,hab->nthb"), 2, 5, 3), TWO),
    "Einsum, batch": (
        lambda: on(nn.Einsum((2, 3, 4), "...ha,hab->...hb", use_bias=False), 5, 2, 3),
        TWO,
    ),
    "Einsum, called": (
        lambda: (nn.Einsum((3, 4)), (values(5, 3), "na,ab->nb"), lambda out: out),
        {},
    ),
    "Conv": (lambda: on(nn.Conv(6, (3,)), 2, 9, 4), {}),
    "Conv, 2d": (
        lambda: on(nn.Conv(6, (3, 2), strides=2, kernel_dilation=2), 2, 9, 8, 4),
        {},
    ),
    "Conv, grouped": (lambda: on(nn.Conv(6, (3,), feature_group_count=2), 2, 9, 4), {}),
    "Conv, depthwise": (lambda: on(nn.Conv(6, (3, 3), feature_group_count=3), 1, 7, 7, 3), {}),
    "ConvLocal": (lambda: on(nn.ConvLocal(3, (2,), padding="VALID"), 2, 5, 2), TWO),
    "ConvLocal, 2d": (
        lambda: on(nn.ConvLocal(2, (2, 2), padding="VALID"), 2, 3, 4, 2),
        {"units": (-3, -2, -1)},
    ),
    "ConvTranspose": (lambda: on(nn.ConvTranspose(6, (3, 2), strides=(2, 2)), 1, 6, 6, 4), {}),
    "ConvTranspose, transposed kernel": (
        lambda: on(nn.ConvTranspose(6, (3,), strides=(2,), transpose_kernel=True), 1, 6, 4),
        {},
    ),
    "Embed": (
        lambda: (nn.Embed(5, 3), (jnp.arange(5),), lambda out: out),
        {"units": (0,)},
    ),
    "DenseParams, LSTMCell": (lambda: one_step(nn.OptimizedLSTMCell(4), 3), {}),
    "LSTMCell": (lambda: one_step(nn.LSTMCell(4), 3), {}),
    "GRUCell": (lambda: one_step(nn.GRUCell(4), 3), {}),
    "MGUCell": (lambda: one_step(nn.MGUCell(4), 3), {}),
    "SimpleCell": (lambda: one_step(nn.SimpleCell(4), 3), {}),
    "ConvLSTMCell": (lambda: one_step(nn.ConvLSTMCell(3, (2, 2)), 4, 4, 2), {"gates": 4}),
}
SCALES: dict[Any, Callable[[], Any]] = {
    nn.BatchNorm: lambda: nn.BatchNorm(use_running_average=False),
    nn.LayerNorm: lambda: nn.LayerNorm(feature_axes=(-2, -1)),
    nn.GroupNorm: lambda: nn.GroupNorm(2),
    nn.InstanceNorm: nn.InstanceNorm,
    nn.RMSNorm: nn.RMSNorm,
    nn.PReLU: nn.PReLU,
    nn.WeightNorm: lambda: nn.WeightNorm(nn.Dense(3)),
}
WITHOUT = {
    *(nn.Module, nn.Dropout, nn.Sequential, nn.RNN, nn.Bidirectional, nn.RNNCellBase),
    *(nn.SpectralNorm, nn.MultiHeadAttention, nn.MultiHeadDotProductAttention, nn.SelfAttention),
    *(nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell, nn.SimpleCell, nn.ConvLSTMCell),
    *(nn.Fp8DirectDotGeneralOp, nn.Fp8DotGeneral, nn.Fp8DotGeneralOp, nn.Fp8Einsum),
    nn.NANOOFp8DotGeneralOp,
}
TESTED = {
    *(nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Embed)
}


def shapes(module: Any, *args: Any) -> Any:
    """Generic parameters of a module."""
    abstract = jax.eval_shape(lambda: module.init(KEY, *args))
    return {"params": filled(abstract["params"])}


@pytest.mark.parametrize("case", CASES)
def test_a_unit_depends_on_its_own_incoming_weights(case: str) -> None:
    make, options = CASES[case]
    layer, args, pick = make()
    assert case.startswith("DenseParams") or type(layer).__name__ == case.partition(",")[0]
    found = layouts(layer, *args)
    checked = check_weights(
        shapes(layer, *args)["params"],
        lambda params: pick(layer.apply({"params": params}, *args)),
        lambda place: found[place.name],
        **options,
    )
    assert checked


# Flax itself says that its class will go, when it is called; as long as it is there, it counts.
@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated soon:DeprecationWarning")
@pytest.mark.parametrize("cls", [nn.MultiHeadDotProductAttention, nn.SelfAttention])
def test_a_projection_of_attention_is_the_layer_that_it_is(cls: Any) -> None:
    layer, x = cls(num_heads=2, qkv_features=8), values(1, 5, 6)
    found, params = layouts(layer, x), shapes(layer, x)["params"]

    for name in ("query", "key", "value", "out"):

        def projection(params: Any, name: str = name) -> Any:
            _, seen = layer.apply({"params": params}, x, capture_intermediates=True)
            return seen["intermediates"][name]["__call__"][0]

        assert check_weights(
            params,
            projection,
            lambda place: found[place.name],
            units=(-1,) if name == "out" else (-2, -1),
            only=f"{name}.kernel",
        )


def inventory(namespace: Any) -> dict[str, list[str]]:
    return unaccounted(namespace, nn.Module, tested=TESTED, without=WITHOUT | set(SCALES))


def test_every_layer_class_is_accounted_for() -> None:
    assert inventory(nn) == {}
    assert {cls.__name__ for cls in TESTED} <= {case.partition(",")[0] for case in CASES}
    assert nc.layout.declared(DenseParams)


def test_a_new_layer_class_would_be_found() -> None:
    class Novel(nn.Module):
        pass

    class Derived(nn.Dense):
        pass

    found = inventory(types.SimpleNamespace(**vars(nn), Novel=Novel, Derived=Derived))
    assert sorted(found.values()) == [["Derived"], ["Novel"]]


@pytest.mark.parametrize("cls", SCALES, ids=lambda cls: cls.__name__)
def test_scales_have_no_incoming_weights(cls: Any) -> None:
    layer, x = SCALES[cls](), values(2, 5, 4)
    params, found = shapes(layer, x)["params"], layouts(layer, x)
    names = [name for name in found if not name.startswith("layer_instance.")]
    assert names
    for name in names:
        rules = nc.Rules({name: nc.MaxNorm(1.0, axis="unit")}, layouts={name: found[name]})
        with pytest.raises(ValueError, match="is the incoming weights of one unit, which a weight"):
            rules.bind(params)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return jnp.tanh(nn.Dense(6, name="mix")(x)), None


class Net(nn.Module):
    length: int = 3

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(7, 6)(tokens)
        x = nn.remat(nn.Conv)(6, (3,))(x)
        stack = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.length
        )
        x, _ = stack(name="stack")(x, None)
        heads = nn.vmap(
            nn.Dense,
            in_axes=None,
            out_axes=-1,
            variable_axes={"params": 1},
            split_rngs={"params": True},
            axis_size=2,
        )
        return heads(7, name="heads")(nn.LayerNorm()(x)).sum(-1)


NEARLY = 0.5 * (1 + 4 * 2.0**-23)
TOKENS = jnp.asarray(np.random.default_rng(3).integers(0, 7, size=(4, 9)))
PATTERNS = {"*.kernel": nc.MaxNorm(0.5, axis="unit"), "*.embedding": nc.UnitNorm(axis="row")}


def test_the_layouts_of_a_model_and_of_stacks_in_it() -> None:
    found = layouts(Net(), jax.ShapeDtypeStruct((4, 9), jnp.int32))
    assert {name: roles.roles for name, roles in found.items()} == {
        "CheckpointConv_0.bias": "o",
        "CheckpointConv_0.kernel": "sio",
        "Embed_0.embedding": "te",
        "LayerNorm_0.bias": "o",
        "LayerNorm_0.scale": "o",
        "heads.bias": "ol",
        "heads.kernel": "ilo",
        "stack.mix.bias": "lo",
        "stack.mix.kernel": "lio",
    }
    assert layouts(nn.Dense(3), TOKENS, prefix="params.")["params.kernel"] == Layout("io")


def test_a_stack_that_cannot_be_told_is_left_out() -> None:
    found = layouts(Net(length=6), TOKENS)  # as many layers as inputs
    assert "stack.mix.kernel" not in found
    params = shapes(Net(length=6), TOKENS)["params"]
    with pytest.raises(ValueError, match=r"layouts=\{'stack\.mix\.kernel': \"oi\"\}"):
        nc.Rules(PATTERNS, layouts=found).bind(params)
    nc.Rules(PATTERNS, layouts={**found, "stack.mix.kernel": "lio"}).bind(params)


def test_training_with_donation() -> None:
    module, tx = Net(), optax.sgd(0.5)
    params = shapes(module, TOKENS)["params"]
    rules = nc.Rules(PATTERNS, layouts=layouts(module, TOKENS))

    def loss(params: Any) -> Any:
        y = module.apply({"params": params}, TOKENS)
        cost = optax.softmax_cross_entropy_with_integer_labels(y, TOKENS).mean()
        return cost - 0.1 * (y**2).mean()

    def train(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state)
        return project(optax.apply_updates(params, updates), rules), state

    train, state = jax.jit(train, donate_argnums=(0, 1)), tx.init(params)
    for _ in range(3):
        params, state = train(params, state)
        conv = np.asarray(params["CheckpointConv_0"]["kernel"], np.float64)
        heads = np.asarray(params["heads"]["kernel"], np.float64)
        stack = np.asarray(params["stack"]["mix"]["kernel"], np.float64)
        norms = [
            np.linalg.norm(conv.reshape(-1, 6), axis=0),
            np.linalg.norm(stack, axis=1),
            np.linalg.norm(heads, axis=0),
        ]
        assert [n.shape for n in norms] == [(6,), (3, 6), (2, 7)]
        assert all(0.1 < n.max() <= NEARLY for n in norms)
        rows = np.linalg.norm(np.asarray(params["Embed_0"]["embedding"], np.float64), axis=1)
        np.testing.assert_allclose(rows, 1, rtol=1e-6)


def test_the_plan_has_the_roles() -> None:
    rules = nc.Rules(PATTERNS, layouts=layouts(Net(), TOKENS))
    plan = rules.plan(shapes(Net(), TOKENS)["params"])
    rows = {row.name: row for row in plan.rows}
    assert rows["stack.mix.kernel"].roles == "lio" and rows["stack.mix.kernel"].groups == 18
    assert rows["CheckpointConv_0.kernel"].roles == "sio" and len(rows) == 9


class Own(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x @ self.param("w", nn.initializers.lecun_normal(), (x.shape[-1], 3))


def test_an_unknown_layer_is_refused_until_it_is_declared() -> None:
    class Other(Own):
        pass

    x = values(4, 2)
    params, kind = shapes(Other(), x)["params"], {"w": nc.MaxNorm(0.5, axis="unit")}
    assert layouts(Other(), x) == {}
    with pytest.raises(ValueError, match=r"layouts=\{'w': \"oi\"\}"):
        project(params, nc.Rules(kind, layouts=layouts(Other(), x)))
    nc.layout.declare(Other, w="io")
    done = project(params, nc.Rules(kind, layouts=layouts(Other(), x)))
    assert np.linalg.norm(done["w"], axis=0).max() <= NEARLY


def test_a_wrong_name_comes_with_the_nearest() -> None:
    params, found = shapes(Net(), TOKENS)["params"], layouts(Net(), TOKENS)
    with pytest.raises(ValueError, match=r"did you mean 'stack\.mix\.kernel'"):
        project(params, nc.Rules({"stack.mix.kernal": nc.NonNeg()}, layouts=found))


def test_partitioned_parameters_have_their_plain_names() -> None:
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None))
    layer, x = nn.Dense(3, kernel_init=init), values(4, 2)
    params = layer.init(KEY, x)["params"]
    assert isinstance(params["kernel"], nn.Partitioned)
    rules = nc.Rules({"kernel": nc.MaxNorm(0.1, axis="unit")}, layouts=layouts(layer, x))
    done = project(params, rules)
    assert isinstance(done["kernel"], nn.Partitioned)
    np.testing.assert_allclose(np.linalg.norm(done["kernel"].value, axis=0), 0.1, rtol=1e-6)
