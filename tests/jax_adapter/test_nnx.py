"""Flax NNX: constraints in the metadata of parameters, and steps by its own optimizer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax.nnx")
pytest.importorskip("optax")

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import normconstraints as nc
from normconstraints.layout import LayoutError
from normconstraints.schedules import Linear
from normconstraints_jax import penalty, project, violation
from normconstraints_jax.nnx import project_, rules_of
from normconstraints_jax.optax import constrained

UNIT = nc.MaxNorm(0.4, axis="unit")
NEARLY = 0.4 * (1 + 4 * 2.0**-23)


class Net(nnx.Module):
    """Three layers, two of which say what holds of their weights."""

    def __init__(self, first: Any = UNIT) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 3, (2, 2), kernel_metadata={"constraint": first}, rngs=rngs)
        self.layers = nnx.List(
            [
                nnx.Linear(
                    12,
                    6,
                    kernel_metadata={"constraint": UNIT},
                    bias_metadata={"constraint": nc.Scheduled(nc.Box(-0.01, 0.01), start=2)},
                    rngs=rngs,
                ),
                nnx.Linear(6, 4, rngs=rngs),
            ]
        )

    def __call__(self, x: Any) -> Any:
        x = jax.nn.relu(self.conv(x)).reshape(x.shape[0], -1)[:, :12]
        return self.layers[1](jnp.tanh(self.layers[0](x)))


OWN = ["conv.kernel", "layers.0.bias", "layers.0.kernel"]


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, 2, 2, 2)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, 4, size=16))


def loss(model: Any, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


def norms(model: Any) -> dict[str, Any]:
    """Of each unit, by hand."""
    found = {}
    for name, kernel in (("conv", model.conv.kernel), ("0", model.layers[0].kernel)):
        w = np.asarray(kernel[...], np.float64)
        found[name] = np.linalg.norm(w.reshape(-1, w.shape[-1]), axis=0)
    return found


def said(model: Any) -> dict[str, Any]:
    return {
        "conv.kernel": model.conv.kernel.get_metadata("constraint", None),
        "layers.0.kernel": model.layers[0].kernel.get_metadata("constraint", None),
    }


# ---------------------------------------------------------------------------- in the metadata


def test_metadata_are_enough_in_a_compiled_step() -> None:
    model = Net()
    optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)
    before = norms(model)
    assert min(n.max() for n in before.values()) > 0.5
    traced = []

    @nnx.jit
    def train(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        traced.append(1)
        optimizer.update(model, nnx.grad(loss)(model, x, y))
        project_(model, step=optimizer.step)
        return violation(model, {}, step=optimizer.step[...])

    for step in range(1, 5):
        violations = train(model, optimizer, *data())
        found = norms(model)
        assert [len(n) for n in found.values()] == [3, 6]
        assert all(n.max() <= NEARLY for n in found.values())
        assert list(violations) == OWN
        assert not violations["conv.kernel"].any()
        assert not violations["layers.0.kernel"].any()
        # The bias is due from the second step on, by the count of the optimizer.
        assert bool(violations["layers.0.bias"].any()) == (step < 2)
    assert len(traced) == 1


def test_every_function_of_a_model_sees_metadata() -> None:
    model = Net()
    assert list(violation(model, {}, step=0)) == OWN
    assert float(penalty(model, {}, step=0)) > 0
    done = project(model, {}, step=0)
    assert norms(done)["conv"].max() <= NEARLY < norms(model)["conv"].max()
    assert said(done) == said(model)
    assert nc.Rules({}).plan(model).unconstrained == [
        "conv.bias",
        "layers.1.bias",
        "layers.1.kernel",
    ]


def test_rules_come_beside_metadata_and_not_over_them() -> None:
    model = Net()
    head = {"layers.1.kernel": nc.UnitNorm(axis="unit")}
    assert list(rules_of(model, head).match(model_state(model))) == [*OWN, "layers.1.kernel"]
    with pytest.raises(
        ValueError,
        match=r"'conv\.kernel' must have one constraint, got those of the model itself and 'c",
    ):
        project_(model, {"conv.kernel": nc.NonNeg()}, step=0)
    before = model.conv.kernel[...]
    project_(model, {"conv.*": None, "layers.0.*": None, **head}, step=0)
    assert (model.conv.kernel[...] == before).all()
    assert norms(model)["0"].max() > NEARLY


def model_state(model: Any) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.mark.parametrize(
    ("constraint", "kind", "message"),
    [
        (
            "max_norm",
            TypeError,
            r"metadata of 'conv\.kernel': constraint must be a constraint or None, got 'max_norm'",
        ),
        (
            nc.MaxNorm(1.0, axis=4),
            ValueError,
            r"the model itself cannot serve 'conv\.kernel' .*axis must exist",
        ),
    ],
)
def test_wrong_metadata(constraint: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        project_(Net(constraint), step=0)


def test_without_any_constraint_it_says_where_one_belongs() -> None:
    model = nnx.Linear(3, 2, kernel_metadata={"constraint": None}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no parameter of the Linear .*kernel_metadata=\{\"cons"):
        project_(model)
    project_(model, {"kernel": nc.NonNeg()})
    assert (model.kernel[...] >= 0).all()
    assert rules_of(model) == nc.Rules({})


def test_a_stack_with_metadata_needs_its_layout() -> None:
    make = nnx.vmap(lambda r: nnx.Linear(2, 3, kernel_metadata={"constraint": UNIT}, rngs=r))
    model = make(nnx.Rngs(0).split(4))
    with pytest.raises(LayoutError, match=r"the model itself .*layouts=\{'kernel': 'lio'\}"):
        project_(model)
    project_(model, nc.Rules({}, layouts={"kernel": "lio"}))
    assert (np.linalg.norm(model.kernel[...], axis=1) <= NEARLY).all()


def test_arrays_in_metadata_do_not_compile_twice_and_a_new_radius_does() -> None:
    traced = []

    @nnx.jit
    def apply(model: Any) -> None:
        traced.append(1)
        project_(model, step=0)

    def net(radius: Any) -> Any:
        return Net(nc.MaxNorm(radius, axis=(0, 1, 2)))

    for make in (jnp.asarray, lambda radius: radius):
        traced.clear()
        for radius in ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3), (0.1, 0.2, 0.4)):
            model = net(make(radius))
            apply(model)
            assert (norms(model)["conv"] <= np.asarray(radius) * (1 + 2.0**-20)).all()
        assert len(traced) == 2


def test_an_array_made_inside_of_jit_is_refused() -> None:
    made = nnx.jit(lambda: Net(nc.MaxNorm(jnp.full(3, 0.5), axis=(0, 1, 2))))()
    scheduled = nnx.jit(
        lambda: Net(nc.Scheduled(nc.MaxNorm(jnp.full(3, 0.5), axis=(0, 1, 2)), every=2))
    )()
    for model in (made, scheduled):
        with pytest.raises(ValueError, match=r"metadata of 'conv\.kernel': constraint must hold n"):
            project_(model, step=0)


def scanned(model: Any) -> Any:
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def body(model: Any, x: Any) -> Any:
        model.conv.kernel[...] = model.conv.kernel[...] + x
        return model

    return body(model, jnp.ones(3))


def from_checkpoint(model: Any) -> Any:
    """As one restores arrays into a model that was never made."""
    graph, state = nnx.split(nnx.eval_shape(Net))
    nnx.replace_by_pure_dict(state, nnx.to_pure_dict(nnx.state(model)))
    return nnx.merge(graph, state)


def updated(model: Any) -> Any:
    other = Net()
    nnx.update(other, nnx.to_pure_dict(nnx.state(model)))
    return other


TRIPS: dict[str, Callable[[Any], Any]] = {
    "split, merge": lambda m: nnx.merge(*nnx.split(m)),
    "split by kind": lambda m: nnx.merge(*nnx.split(m, nnx.Param, ...)),
    "pure arrays": lambda m: nnx.merge(nnx.graphdef(m), nnx.as_pure(nnx.state(m))),
    "clone": nnx.clone,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "jit": nnx.jit(lambda m: m),
    "jax.tree": lambda m: jax.tree.map(lambda x: x + 0, m),
    "scan": scanned,
    "a checkpoint": from_checkpoint,
    "update by a pure dict": updated,
}


@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_metadata_stay(trip: Callable[[Any], Any]) -> None:
    there = trip(Net())
    assert said(there) == dict.fromkeys(said(there), UNIT)
    project_(there, step=0)
    assert all(n.max() <= NEARLY for n in norms(there).values())


def test_where_metadata_are_lost() -> None:
    """What the documentation warns of; rules that were taken before still hold."""
    model, free = Net(), nnx.Linear(12, 6, rngs=nnx.Rngs(0))
    rules = rules_of(model)
    merged = nnx.merge(nnx.graphdef(model.layers[0]), nnx.state(free))
    assert merged.kernel.get_metadata("constraint", None) is None
    nnx.update(model.layers[0], nnx.state(free))
    model.conv.kernel = nnx.Param(model.conv.kernel[...])
    assert said(model) == dict.fromkeys(said(model))
    with pytest.raises(ValueError, match="no parameter of the Net has a constraint"):
        project_(model)
    project_(model, rules, step=0)
    assert all(n.max() <= NEARLY for n in norms(model).values())


# ------------------------------------------------------------------------- by its optimizer


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
def test_hooks_of_variables_are_not_called_by_the_optimizer() -> None:
    """Why constraints are no hooks. Should Flax call them one day, this says so."""
    called = []

    def hook(variable: Any, value: Any) -> Any:
        called.append(variable)
        return value

    model = nnx.Linear(3, 2, kernel_metadata={"on_set_value": hook}, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 3))).sum())(model))
    assert not called
    project_(model, {"kernel": nc.Box(-0.1, 0.1)})
    assert called


def test_rules_of_a_model_serve_its_optimizer() -> None:
    """Layers, words for axes, lists and tied weights, none of which an optimizer sees."""
    model = Net()
    model.again = nnx.Linear(6, 4, rngs=nnx.Rngs(1))
    model.again.kernel = model.layers[1].kernel
    layers = {(nnx.Linear, "bias"): None, nnx.Linear: nc.UnitNorm(axis="unit")}
    with pytest.raises(ValueError, match=r"'layers\.0\.kernel' must have one constraint"):
        rules_of(model, layers)
    rules = rules_of(model, {**layers, "layers.0.kernel": None})
    assert rules == nc.Rules(
        {"again.kernel": nc.UnitNorm(axis=0), "conv.kernel": nc.MaxNorm(0.4, axis=(0, 1, 2))}
    )
    optimizer = nnx.Optimizer(model, constrained(optax.adam(0.1), rules), wrt=nnx.Param)

    @nnx.jit
    def train(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        optimizer.update(model, nnx.grad(loss)(model, x, y))

    for _ in range(4):
        train(model, optimizer, *data())
        assert model.again.kernel is model.layers[1].kernel
        assert norms(model)["conv"].max() <= NEARLY
        tied = np.linalg.norm(np.asarray(model.layers[1].kernel[...], np.float64), axis=0)
        np.testing.assert_allclose(tied, 1, rtol=1e-6)
    assert norms(model)["0"].max() > 0.5


def test_the_step_of_the_optimizer_serves_schedules() -> None:
    radius = nc.Scheduled(
        nc.MaxNorm(1.0, axis="unit"), {"max_value": Linear(0.5, 0.1, steps=4)}, every=2
    )
    for exact in (True, False):
        model = Net(radius)
        rules = rules_of(model, {"layers.*": None})
        tx = optax.sgd(0.0) if exact else constrained(optax.sgd(0.0), rules)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        grads = nnx.grad(loss)(model, *data())
        for step in range(1, 5):
            if exact:
                optimizer.update(model, grads)
                project_(model, {"layers.*": None}, step=optimizer.step)
            else:
                optimizer.update(model, grads, step=optimizer.step[...] + 1)
            bound = {1: 1.0, 2: 0.3, 3: 0.3, 4: 0.1}[step]
            assert norms(model)["conv"].max() == pytest.approx(bound, rel=1e-6) or step == 1
    assert norms(Net())["conv"].max() > 0.5


def test_rules_of_names_match_nothing_else() -> None:
    model = nnx.Dict(**{name: nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for name in ("a*", "ab")})
    rules = rules_of(model, {"a[*].kernel": nc.NonNeg()})
    assert list(rules.match(model_state(model))) == ["a*.kernel"]


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_both_modes_of_nnx(graph: bool) -> None:
    with nnx.set_graph_mode(graph), nnx.set_graph_updates(graph):
        model = nnx.Linear(3, 2, kernel_metadata={"constraint": UNIT}, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)

        @nnx.jit
        def train(model: Any, optimizer: Any) -> None:
            optimizer.update(model, nnx.grad(lambda m: -m(jnp.ones((1, 3))).sum())(model))
            project_(model)

        train(model, optimizer)
    norms = np.linalg.norm(np.asarray(model.kernel[...], np.float64), axis=0)
    assert 0.399 < norms.min() <= norms.max() <= NEARLY
