"""Layouts of Equinox, by the derivatives of its layers, and constraints on its models."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("equinox")

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from equinox import nn
from jax_layers import check_weights, filled, unaccounted, values

import normconstraints as nc
import normconstraints_jax.equinox
from normconstraints.layout import LayoutError
from normconstraints.weights import Place, weights_of
from normconstraints_jax import project

Call = Callable[[Any], Any]
KEY = jax.random.key(0)


def on(*shape: int) -> Call:
    return lambda layer: layer(values(*shape, seed=99))


def batch(*shape: int) -> Call:
    return lambda layer: jax.vmap(layer)(values(*shape, seed=99))


def gru(cell: Any) -> Any:
    return cell(values(3, seed=98), values(4, seed=99))


def lstm(cell: Any) -> Any:
    return cell(values(3, seed=97), (values(4, seed=98), values(4, seed=99)))[0]


Case = tuple[type, tuple[Any, ...], dict[str, Any], Call, dict[str, Any]]
FIRST = {"units": (0,)}
# The layer with its arguments, what it is called with, and how its units lie.
CASES: dict[str, Case] = {
    "Linear": (nn.Linear, (3, 4), {}, batch(5, 3), {}),
    "Linear, scalar": (nn.Linear, ("scalar", 4), {}, batch(5), {}),
    "Conv": (nn.Conv, (1, 4, 6, 3), {"stride": 2}, on(4, 9), FIRST),
    "Conv1d": (nn.Conv1d, (4, 6, 3), {"groups": 2, "dilation": 2}, on(4, 9), FIRST),
    "Conv2d": (nn.Conv2d, (4, 6, (3, 2)), {"padding": 1}, on(4, 7, 6), FIRST),
    "Conv2d, depthwise": (nn.Conv2d, (3, 6, 3), {"groups": 3, "stride": 2}, on(3, 7, 7), FIRST),
    "Conv3d": (nn.Conv3d, (2, 3, 2), {}, on(2, 4, 4, 4), FIRST),
    "ConvTranspose": (nn.ConvTranspose, (1, 4, 6, 3), {"stride": 2}, on(4, 6), FIRST),
    "ConvTranspose1d": (nn.ConvTranspose1d, (4, 6, 3), {"groups": 2}, on(4, 6), FIRST),
    "ConvTranspose2d": (
        nn.ConvTranspose2d,
        (4, 6, (3, 2)),
        {"stride": 2, "output_padding": 1, "dilation": 2},
        on(4, 5, 5),
        FIRST,
    ),
    "ConvTranspose3d": (nn.ConvTranspose3d, (2, 3, 2), {}, on(2, 3, 3, 3), FIRST),
    "Embedding": (nn.Embedding, (5, 3), {}, lambda e: jax.vmap(e)(jnp.arange(5)), FIRST),
    "GRUCell": (nn.GRUCell, (3, 4), {}, gru, {"gates": 3}),
    "LSTMCell": (nn.LSTMCell, (3, 4), {}, lstm, {"gates": 4}),
    **{
        f"MultiheadAttention, {name}_proj": (
            nn.MultiheadAttention,
            (2, 6),
            {},
            lambda layer, name=name: jax.vmap(getattr(layer, f"{name}_proj"))(values(5, 6)),
            {"only": f"{name}_proj.weight"},
        )
        for name in ("query", "key", "value", "output")
    },
}
SCALES = {
    nn.LayerNorm: lambda: nn.LayerNorm((3, 4)),
    nn.RMSNorm: lambda: nn.RMSNorm(4),
    nn.GroupNorm: lambda: nn.GroupNorm(2, 4),
    nn.BatchNorm: lambda: nn.BatchNorm(4, "batch", mode="ema"),
    nn.PReLU: lambda: nn.PReLU(),
    nn.WeightNorm: lambda: nn.WeightNorm(nn.Linear(3, 4, key=KEY)),
}
WITHOUT = {
    *(nn.Pool, nn.AdaptivePool, nn.Dropout, nn.Identity, nn.Lambda, nn.MLP, nn.Sequential),
    *(nn.MultiheadAttention, nn.RotaryPositionalEmbedding, nn.Shared, nn.SpectralNorm),
    *(nn.StateIndex, nn.StatefulLayer),
    *(getattr(nn, f"{kind}Pool{n}d") for kind in ("Avg", "Max") for n in (1, 2, 3)),
    *(getattr(nn, f"Adaptive{kind}Pool{n}d") for kind in ("Avg", "Max") for n in (1, 2, 3)),
}
TESTED = {cls for cls, *_ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_a_unit_depends_on_its_own_incoming_weights(case: str) -> None:
    cls, args, kwargs, call, options = CASES[case]
    layer = eqx.filter_eval_shape(lambda: cls(*args, **kwargs, key=KEY))
    assert check_weights(filled(layer), call, Place.layout, **options)


def inventory(namespace: Any) -> dict[str, list[str]]:
    return unaccounted(namespace, eqx.Module, tested=TESTED, without=WITHOUT | set(SCALES))


def test_every_layer_class_is_accounted_for() -> None:
    assert inventory(nn) == {}


def test_a_new_layer_class_would_be_found() -> None:
    class Novel(eqx.Module):
        pass

    class Derived(nn.Linear):
        pass

    found = inventory(types.SimpleNamespace(**vars(nn), Novel=Novel, Derived=Derived))
    assert sorted(found.values()) == [["Derived"], ["Novel"]]


@pytest.mark.parametrize("cls", SCALES, ids=lambda cls: cls.__name__)
def test_scales_have_no_incoming_weights(cls: Any) -> None:
    layer = SCALES[cls]()
    own = [w for w in weights_of(layer) if type(w.place.layer) is cls]
    assert own
    for weight in own:
        with pytest.raises(ValueError, match="is the incoming weights of one unit, which a weight"):
            nc.Rules({weight.name: nc.MaxNorm(1.0, axis="unit")}).bind(layer)


class Net(eqx.Module):
    embed: nn.Embedding
    conv: nn.Conv1d
    layers: list[nn.Linear]
    head: nn.MLP

    def __init__(self) -> None:
        self.embed = nn.Embedding(7, 6, key=KEY)
        self.conv = nn.Conv1d(6, 8, 3, padding=1, key=KEY)
        self.layers = [nn.Linear(8, 6, key=KEY), nn.Linear(6, 6, key=KEY)]
        self.head = nn.MLP(6, 7, 5, 1, key=KEY)

    def __call__(self, tokens: Any) -> Any:
        x = self.conv(jax.vmap(self.embed)(tokens).T).T
        for layer in self.layers:
            x = jnp.tanh(jax.vmap(layer)(x))
        return jax.vmap(self.head)(x)


def net() -> Any:
    return filled(eqx.filter_eval_shape(Net))


RULES = nc.Rules(
    {
        nn.Linear: nc.MaxNorm(0.5, axis="unit"),
        nn.Conv: nc.MaxNorm(0.5, axis="unit"),
        nn.Embedding: nc.UnitNorm(axis="row"),
    }
)
NEARLY = 0.5 * (1 + 4 * 2.0**-23)
TOKENS = jnp.asarray(np.random.default_rng(3).integers(0, 7, size=(4, 9)))


def assert_held(model: Any) -> None:
    kernels = [model.conv.weight, *(x.weight for x in (*model.layers, *model.head.layers))]
    norms = [np.linalg.norm(np.asarray(w, np.float64).reshape(len(w), -1), axis=1) for w in kernels]
    assert [len(n) for n in norms] == [8, 6, 6, 5, 7]
    assert all(0.1 < n.max() <= NEARLY for n in norms)
    rows = np.linalg.norm(np.asarray(model.embed.weight, np.float64), axis=1)
    np.testing.assert_allclose(rows, 1, rtol=1e-6)


def loss(model: Any) -> Any:
    y = jax.vmap(model)(TOKENS)
    return optax.softmax_cross_entropy_with_integer_labels(y, TOKENS).mean() - 0.1 * (y**2).mean()


def test_training_with_donation() -> None:
    model, tx = net(), optax.sgd(0.5)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit(donate="all")
    def train(model: Any, state: Any) -> Any:
        updates, state = tx.update(eqx.filter_grad(loss)(model), state)
        return project(eqx.apply_updates(model, updates), RULES), state

    for _ in range(3):
        before = model
        model, state = train(model, state)
        assert before.conv.weight.is_deleted()
        assert_held(model)
        assert model.head.activation is before.head.activation


def test_the_plan_has_the_roles() -> None:
    plan = RULES.plan(net())
    assert {row.name: row.roles for row in plan.rows if row.name.endswith("weight")} == {
        "embed.weight": "te",
        "conv.weight": "ois",
        "layers.0.weight": "oi",
        "layers.1.weight": "oi",
        "head.layers.0.weight": "oi",
        "head.layers.1.weight": "oi",
    }
    assert len(plan.rows) == 11  # no activation functions
    assert {row.name for row in plan.rows if row.constraint} == {
        row.name for row in plan.rows if row.name.endswith("weight")
    }


def test_models_in_a_dict() -> None:
    models = {"a": nn.Linear(2, 3, key=KEY), "b": [nn.Embedding(4, 3, key=KEY)]}
    rules = nc.Rules({nn.Linear: nc.MaxNorm(0.1, axis="unit")})
    done = jax.jit(lambda m: project(m, rules))(models)
    np.testing.assert_allclose(np.linalg.norm(done["a"].weight, axis=1), 0.1, rtol=1e-6)
    names = [row.name for row in rules.plan(normconstraints_jax.weights(models)).rows]
    assert names == ["a.weight", "a.bias", "b.0.weight"]


class Own(eqx.Module):
    w: Any


def test_an_unknown_layer_is_refused_until_it_is_declared() -> None:
    class Other(Own):
        pass

    model, rules = Other(values(2, 3)), nc.Rules({"w": nc.MaxNorm(0.5, axis="unit")})
    with pytest.raises(LayoutError, match=r'layout\.declare\(.*Other, w="oi"\)'):
        project(model, rules)
    nc.layout.declare(Other, w="io")
    assert np.linalg.norm(project(model, rules).w, axis=0).max() <= NEARLY


def test_a_wrong_name_comes_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'layers\.0\.weight'"):
        project(net(), {"layers.0.weigth": nc.NonNeg()})


def test_an_ensemble_is_not_guessed() -> None:
    make = eqx.filter_vmap(lambda k: (nn.Linear(2, 3, key=k), nn.Conv1d(2, 3, 2, key=k)))
    model = filled(eqx.filter_eval_shape(make, jax.random.split(KEY, 4)))
    kinds = {nn.Linear: nc.MaxNorm(0.5, axis="unit"), nn.Conv1d: nc.MaxNorm(0.5, axis="unit")}
    with pytest.raises(LayoutError, match=r"layouts=\{'0\.weight': 'loi'\}\), with l for the lay"):
        project(model, nc.Rules(kinds))
    rules = nc.Rules(kinds, layouts={"0.weight": "loi", "1.weight": "lois"})
    done = jax.jit(lambda arrays: project(eqx.combine(arrays, model), rules))(model)
    for w in (done[0].weight, done[1].weight):
        norms = np.linalg.norm(w.reshape(4, 3, -1), axis=2)
        assert norms.max() <= NEARLY and (norms > 0.1).all()


def test_state_is_no_weight() -> None:
    layer = nn.SpectralNorm(nn.Linear(2, 3, key=KEY), "weight", key=KEY)
    assert [w.name for w in weights_of(layer)] == ["layer.weight", "layer.bias"]
