"""Constraints of whole models: by rules, by hand, and where no Keras optimizer is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from keras_models import L, dense, fill, fit, largest, norms, numpy_of, only_on, sgd

import normconstraints as nc
from normconstraints_keras import (
    KernelConstraint,
    MaxNorm,
    NonNeg,
    apply_constraints,
    constrain,
    projected,
    violation,
)

UNIT = nc.MaxNorm(0.5, axis="unit")
RULES = {"*.kernel": UNIT}


def network(**more: Any) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(5, name="first", **more),
            L.Dense(3, name="second"),
        ]
    )


def long_ones(model: Any) -> None:
    for variable in model.trainable_variables:
        fill(variable, 10)


def state(model: Any) -> list[Any]:
    return [(numpy_of(v).tolist(), v.constraint) for v in model.variables]


# ---------------------------------------------------------------------------- constrain


def test_it_projects_at_once_and_in_training() -> None:
    model = network()
    long_ones(model)
    constrain(model, RULES)
    assert list(violation(model)) == ["first.kernel", "second.kernel"]
    np.testing.assert_allclose(norms(model.layers[0].kernel), 0.5, rtol=1e-6)
    assert numpy_of(model.layers[0].bias).min() == 10  # not chosen
    fit(model, sgd(), epochs=2)
    assert largest(violation(model)) == 0
    assert norms(model.layers[1].kernel).max() == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("jit", [True, False, "auto"])
def test_a_training_function_that_is_compiled_is_compiled_anew(jit: Any) -> None:
    if keras.backend.backend() == "torch" and jit is True:
        pytest.skip("torch.compile of a training by Keras is not what constraints are about")
    model = network()
    model.compile(sgd(), "mse", jit_compile=jit)
    fit(model)
    assert norms(model.layers[0].kernel).max() > 0.6
    constrain(model, RULES)
    fit(model)
    assert largest(violation(model)) == 0
    # And others, and none.
    constrain(model, {"*.kernel": nc.MaxNorm(0.25, axis="unit")})
    fit(model)
    assert largest(violation(model)) == 0
    assert norms(model.layers[1].kernel).max() == pytest.approx(0.25, rel=1e-6)
    constrain(model, {})
    assert violation(model) == {}
    fit(model)
    assert norms(model.layers[1].kernel).max() > 0.26


def test_again_is_the_same() -> None:
    model = network()
    constrain(model, RULES)
    before = state(model)
    constrain(model, RULES)
    assert state(model) == before


def test_what_a_layer_was_built_with_stays() -> None:
    own = MaxNorm(0.75)
    model = network(kernel_constraint=own, bias_constraint=NonNeg())
    constrain(model, {"second.kernel": UNIT})
    first, second = model.layers
    assert first.kernel.constraint is own and first.bias.constraint == NonNeg()
    fit(model, sgd(), epochs=2)
    assert largest(violation(model)) == 0
    assert norms(first.kernel).max() > 0.5
    # An empty one takes back what rules have set. That of the layer is the layer's.
    constrain(model, {})
    assert first.kernel.constraint is own and second.kernel.constraint is None


def test_none_exempts_also_from_the_constraint_of_the_layer() -> None:
    model = network(kernel_constraint=MaxNorm(0.5))
    constrain(model, {"first.kernel": None, "second.kernel": UNIT})
    assert model.layers[0].kernel.constraint is None
    fit(model, sgd(), epochs=2)
    assert norms(model.layers[0].kernel).max() > 0.6
    assert largest(violation(model)) == 0


Make = Callable[[], Any]
REFUSED: dict[str, tuple[Make, Any, str]] = {
    "no match": (network, {"*.kernel": UNIT, "third.kernel": UNIT}, "third.kernel"),
    "two rules": (network, {"*.kernel": UNIT, "first.*": nc.NonNeg()}, "first.kernel"),
    "two constraints": (
        lambda: network(kernel_constraint=MaxNorm(2)),
        RULES,
        "first.kernel",
    ),
    "a constraint of Keras": (
        lambda: network(kernel_constraint=keras.constraints.MaxNorm(2)),
        {"second.kernel": UNIT, "first.kernel": UNIT},
        r"'first.kernel' must have one constraint, and has .*; set its `constraint` to None",
    ),
    "scheduled": (
        network,
        {"first.kernel": UNIT, "second.kernel": nc.Scheduled(UNIT, every=2)},
        "'second.kernel' must not be scheduled, for Keras does not tell a constraint the step",
    ),
    "no such axis": (network, {"*.kernel": UNIT, "*.bias": nc.MaxNorm(1.0, axis=1)}, "bias"),
    "no such shape": (
        network,
        {"second.kernel": UNIT, "first.kernel": nc.MaxNorm((1.0, 2.0), axis=0)},
        "MaxNorm: max_value",
    ),
    "not built": (
        lambda: keras.Sequential([L.Dense(3)]),
        RULES,
        "must be built, and has no weights before",
    ),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_is_refused_changes_nothing(title: str) -> None:
    make, rules, words = REFUSED[title]
    model = make()
    if model.built:
        long_ones(model)
    before = state(model)
    with pytest.raises((TypeError, ValueError), match=words):
        constrain(model, rules)
    assert state(model) == before


def test_constraints_of_keras_stay_where_no_rule_is() -> None:
    theirs = keras.constraints.MaxNorm(0.5)
    model = network(kernel_constraint=theirs)
    constrain(model, {"second.kernel": UNIT})
    assert model.layers[0].kernel.constraint is theirs
    assert list(violation(model)) == ["second.kernel"]
    long_ones(model)
    apply_constraints(model)
    np.testing.assert_allclose(norms(model.layers[0].kernel), 0.5, rtol=1e-6)


@only_on("torch")
def test_modules_of_torch_are_refused_by_name() -> None:
    import torch

    import normconstraints_torch  # noqa: F401 - their layouts

    wrapped = L.TorchModuleWrapper(torch.nn.Linear(4, 3), name="wrapped")
    model = keras.Sequential([keras.Input((4,)), wrapped, L.Dense(2, name="last")])
    model(np.ones((2, 4), "float32"))
    before = numpy_of(wrapped.module.weight).tolist()
    with pytest.raises(ValueError, match=r"'wrapped.weight' must be a variable of Keras.*_torch"):
        constrain(model, {"wrapped.weight": UNIT})
    assert numpy_of(wrapped.module.weight).tolist() == before
    constrain(model, {"last.kernel": UNIT})  # beside it


def test_attention_by_a_rule() -> None:
    x = keras.Input((5, 6))
    model = keras.Model(x, L.MultiHeadAttention(2, 3, name="attention")(x, x))
    constrain(model, {"attention.*.kernel": UNIT})
    assert len(violation(model)) == 4
    fit(model, sgd(), epochs=2)
    assert largest(violation(model)) == 0
    output = model.layers[1].output_dense.kernel
    assert violation(model)["attention.attention_output.kernel"].shape == output.shape[-1:]


def test_frozen_layers_are_constrained_once_they_are_trained() -> None:
    model = network()
    model.layers[0].trainable = False
    constrain(model, RULES)
    first = model.layers[0].kernel
    fill(first, 10)
    fit(model, sgd())
    assert norms(first).min() == 20  # as Keras leaves it
    model.layers[0].trainable = True
    fit(model, sgd())
    assert largest(violation(model)) == 0


def test_a_model_that_was_loaded_is_constrained_again(tmp_path: Path) -> None:
    model = network()
    constrain(model, RULES)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert violation(again) == {} and violation(keras.models.clone_model(model)) == {}
    constrain(again, RULES)
    assert list(violation(again)) == ["first.kernel", "second.kernel"]


def test_the_plan_of_rules() -> None:
    plan = nc.Rules(RULES).plan(network())
    assert list(plan.unconstrained) == ["first.bias", "second.bias"]


# ------------------------------------------------------------------- apply_constraints


def test_weights_that_were_set_or_loaded(tmp_path: Path) -> None:
    model = dense(MaxNorm(0.5))
    large = [9 * np.ones((4, 3), "float32"), np.zeros(3, "float32")]
    model.set_weights(large)
    assert norms(model.layers[0].kernel).min() == 18
    apply_constraints(model)
    np.testing.assert_allclose(norms(model.layers[0].kernel), 0.5, rtol=1e-6)
    other = dense()
    other.set_weights(large)
    other.save_weights(tmp_path / "some.weights.h5")
    model.load_weights(tmp_path / "some.weights.h5")
    apply_constraints(model)
    assert largest(violation(model)) == 0


def test_frozen_ones_are_left_alone_unless_asked() -> None:
    model = network(kernel_constraint=MaxNorm(0.5))
    long_ones(model)
    model.layers[0].trainable = False
    apply_constraints(model)
    assert norms(model.layers[0].kernel).min() == 20
    apply_constraints(model, frozen=True)
    assert norms(model.layers[0].kernel).max() == pytest.approx(0.5, rel=1e-6)


def test_apply_writes_all_or_nothing() -> None:
    model = network(kernel_constraint=MaxNorm(0.5))
    model.layers[1].kernel.constraint = KernelConstraint(nc.MaxNorm((1.0, 2.0), axis=0))
    long_ones(model)
    before = state(model)
    with pytest.raises(ValueError, match="MaxNorm: max_value"):
        apply_constraints(model)
    assert state(model) == before
    with pytest.raises(ValueError, match="must be built"):
        apply_constraints(keras.Sequential([L.Dense(2)]))


@only_on("torch")
def test_a_keras_model_in_a_loop_of_torch() -> None:
    import torch

    model = dense(MaxNorm(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.ones(16, 4), 9 * torch.ones(16, 3)
    for _ in range(5):
        model.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        assert largest(violation(model)) > 0  # PyTorch knows of no constraint
        apply_constraints(model)
        assert largest(violation(model)) == 0
    assert norms(model.layers[0].kernel).max() == pytest.approx(0.5, rel=1e-6)
    assert all(v.value.requires_grad for v in model.trainable_variables)


# ------------------------------------------------------------------------------ projected


def test_values_in_the_order_of_the_variables() -> None:
    model = network(kernel_constraint=MaxNorm(0.5, axis="unit"))
    values = [10 * ops.ones(v.shape) for v in model.trainable_variables]
    before = state(model)
    kernel, *others = projected(model, values)
    np.testing.assert_allclose(norms(kernel), 0.5, rtol=1e-6)
    assert all(a is b for a, b in zip(others, values[1:], strict=True))
    assert state(model) == before
    with pytest.raises(ValueError, match="those of the 4 trainable variables, got 1; pass them"):
        projected(model, values[:1])


def test_constraints_of_keras_in_projected() -> None:
    model = network(kernel_constraint=keras.constraints.NonNeg())
    kernel, *_ = projected(model, [-ops.ones(v.shape) for v in model.trainable_variables])
    assert numpy_of(kernel).max() == 0


@only_on("jax")
def test_a_keras_model_in_a_compiled_step_with_optax() -> None:
    import jax
    import optax

    model = network(kernel_constraint=KernelConstraint(UNIT))
    constrain(model, {"second.kernel": UNIT})
    optimizer = optax.sgd(0.1)
    x, y = np.ones((16, 4), "float32"), 9 * np.ones((16, 3), "float32")
    values = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    opt_state = optimizer.init(values)

    def loss(values: Any) -> Any:
        out, _ = model.stateless_call(values, others, x)
        return ((out - y) ** 2).mean()

    @jax.jit
    def step(values: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(jax.grad(loss)(values), opt_state)
        values = optax.apply_updates(values, updates)
        return projected(model, values), opt_state

    for _ in range(5):
        values, opt_state = step(values, opt_state)
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)
    assert len(violation(model)) == 2 and largest(violation(model)) == 0
    assert norms(model.layers[1].kernel).max() == pytest.approx(0.5, rel=1e-6)


@only_on("tensorflow")
def test_a_loop_with_a_tape_in_a_function(recwarn: pytest.WarningsRecorder, capfd: Any) -> None:
    """AutoGraph reads what is called in a function, and must leave the core alone."""
    import tensorflow as tf

    model = network(kernel_constraint=KernelConstraint(UNIT))
    optimizer = sgd()
    optimizer.build(model.trainable_variables)
    x, y = tf.ones((16, 4)), 9 * tf.ones((16, 3))

    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables))

    for jit in (False, True):
        long_ones(model)
        run = tf.function(step, jit_compile=jit)
        run()
        assert largest(violation(model)) == 0
    assert "AutoGraph" not in capfd.readouterr().err
    assert not [w for w in recwarn if "AutoGraph" in str(w.message)]
