"""Constraint objects: Keras' own where they are right, and what they are as objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from keras_models import BACKEND, L, dense, fit, largest, norms, numpy_of, sgd

import normconstraints as nc
import normconstraints_keras as ours
from normconstraints_keras import KernelConstraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, violation

theirs = keras.constraints


def weights(*shape: int, axis: Any = 0) -> Any:
    """Norms from 0.3 to 3: on both sides of the bounds, and far from 0."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape)
    length = np.sqrt((w**2).sum(axis=axis, keepdims=True))
    return ops.convert_to_tensor(
        (w / length * rng.uniform(0.3, 3, size=length.shape)).astype("float32")
    )


# ---------------------------------------------------------------------------- agreement


AXES = [((40, 7), 0), ((40, 7), 1), ((3, 3, 4, 8), [0, 1, 2]), ((3, 3, 4, 8), 0), ((40, 7), -1)]


@pytest.mark.parametrize(("shape", "axis"), [*AXES, ((5, 6), None)], ids=str)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MaxNorm", {}),
        ("MaxNorm", {"max_value": 0.7}),
        ("UnitNorm", {}),
        ("MinMaxNorm", {}),
        ("MinMaxNorm", {"min_value": 0.5, "max_value": 1.5}),
        ("MinMaxNorm", {"min_value": 0.5, "max_value": 1.5, "rate": 0.25}),
        ("MinMaxNorm", {"min_value": 2.0, "max_value": 2.0, "rate": 0.9}),
        ("NonNeg", {}),
    ],
    ids=str,
)
def test_where_keras_is_right_ours_says_the_same(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], axis: Any
) -> None:
    if name != "NonNeg":
        arguments = {**arguments, "axis": axis}
    w = weights(*shape, axis=tuple(axis) if isinstance(axis, list) else axis)
    expected = numpy_of(getattr(theirs, name)(**arguments)(w))
    for given in (getattr(ours, name)(**arguments), getattr(ours, name).from_config(arguments)):
        result = given(w)
        assert type(result) is type(w)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        assert abs(numpy_of(result) - expected).max() <= 1e-6


def test_the_defaults_are_those_of_keras() -> None:
    for name in ("MaxNorm", "UnitNorm", "MinMaxNorm", "NonNeg"):
        their = getattr(theirs, name)().get_config()
        our = getattr(ours, name)().get_config()
        assert our == their, name
    assert (ours.max_norm, ours.unit_norm) == (MaxNorm, UnitNorm)
    assert (ours.min_max_norm, ours.non_neg) == (MinMaxNorm, NonNeg)
    # By place, as they are written in tutorials.
    assert MaxNorm(3, 1) == MaxNorm(max_value=3, axis=1)
    assert MinMaxNorm(0.5, 1.5, 0.1, 1) == MinMaxNorm(
        min_value=0.5, max_value=1.5, rate=0.1, axis=1
    )


def test_the_parameters_are_attributes_as_in_keras() -> None:
    c = MinMaxNorm(0.5, 1.5, 0.1, [0, 1])
    assert (c.min_value, c.max_value, c.rate, c.axis) == (0.5, 1.5, 0.1, (0, 1))
    assert (MaxNorm(3).max_value, UnitNorm(1).axis) == (3.0, 1)


def test_rate_goes_a_part_of_the_way_in_each_call() -> None:
    """As Keras documents it: (1 - rate) * norm + rate * clip(norm, min, max)."""
    w = weights(30, 8)
    before, bounded = norms(w), np.clip(norms(w), 1.0, 1.5)
    assert (before < 1.0).any() and (before > 1.5).any()
    constraint = MinMaxNorm(1.0, 1.5, rate=0.25)
    once = constraint(w)
    np.testing.assert_allclose(norms(once), 0.75 * before + 0.25 * bounded, rtol=1e-6)
    np.testing.assert_allclose(
        norms(constraint(once)), bounded + 0.75**2 * (before - bounded), rtol=1e-6
    )


# ------------------------------------------------------------------------- as objects


ALL = [
    MaxNorm(3),
    MaxNorm(1.5, axis=[0, 1, 2]),
    MaxNorm((0.5, 1.0, 2.0)),
    MaxNorm(np.array([0.5, 1.0, 2.0])),
    MaxNorm(np.float32(2.5), axis="unit"),
    UnitNorm(axis="unit"),
    UnitNorm(axis=None),
    MinMaxNorm(0.5, 1.5, 0.25, 1),
    NonNeg(),
    KernelConstraint(nc.MaxNorm(3.0, axis="unit")),
    KernelConstraint(nc.Simplex(axis=0)),
    KernelConstraint(nc.NonNeg() & nc.MaxNorm(1.0, axis="unit")),
    KernelConstraint(nc.Sequence(nc.NonNeg(), nc.UnitNorm(axis="unit"))),
    KernelConstraint(nc.Masked(nc.MaxNorm(0.3, axis=0), ((0, 2, None),))),
]


@pytest.mark.parametrize("constraint", ALL, ids=repr)
def test_round_trips(constraint: Any) -> None:
    config = json.loads(json.dumps(constraint.get_config()))
    assert type(constraint).from_config(config) == constraint
    data = json.loads(json.dumps(keras.constraints.serialize(constraint)))
    assert data["registered_name"] == f"normconstraints>{type(constraint).__name__}"
    again = keras.constraints.get(data)
    assert type(again) is type(constraint) and again == constraint
    assert keras.constraints.get(constraint) is constraint


def test_equality_and_repr_go_by_the_parameters() -> None:
    assert MaxNorm(2) == MaxNorm(2.0) and hash(MaxNorm(2)) == hash(MaxNorm(2.0))
    assert MaxNorm(2) != MaxNorm(3) and MaxNorm(2) != MaxNorm(2, axis=1)
    assert MaxNorm(2) != KernelConstraint(nc.MaxNorm(2.0, axis=0))
    assert MaxNorm(2) != theirs.MaxNorm(2) and NonNeg() != "non_neg"
    assert repr(MinMaxNorm(0.5)) == "MinMaxNorm(min_value=0.5, max_value=1.0, rate=1.0, axis=0)"
    assert repr(KernelConstraint(nc.NonNeg())) == "KernelConstraint(NonNeg())"


def test_what_is_refused() -> None:
    for make, words in {
        lambda: MaxNorm(-1): "MaxNorm: max_value must be a finite number >= 0, got -1",
        lambda: MinMaxNorm(2.0, 1.0): "MinMaxNorm: ",
        lambda: MinMaxNorm(rate=0.0): "MinMaxNorm: rate must be",
        lambda: MaxNorm(1, axis=1.5): "MaxNorm: axis",
    }.items():
        with pytest.raises((TypeError, ValueError), match="^" + words):
            make()
    for wrong in (3.0, theirs.MaxNorm(3), MaxNorm(3), nc.MaxNorm, "max_norm"):
        with pytest.raises(TypeError, match=r"^KernelConstraint: constraint must be"):
            KernelConstraint(wrong)
    scheduled = nc.Scheduled(nc.NonNeg(), every=2)
    with pytest.raises(TypeError, match="Keras does not tell a constraint the step"):
        KernelConstraint(scheduled)


def test_a_tensor_has_no_layer() -> None:
    with pytest.raises(ValueError, match=r"axis=\"unit\" depends on the layer.*axis=0 for"):
        MaxNorm(1, axis="unit")(ops.ones((3, 2)))


# ------------------------------------------------------------------- save, load, clone


def two_layers() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(3, 3, kernel_constraint=MaxNorm(0.8, axis="unit"), bias_constraint=NonNeg()),
            L.Flatten(),
            L.Dense(
                2,
                kernel_constraint=KernelConstraint(nc.NonNeg() & nc.MaxNorm(0.5, axis="unit")),
            ),
        ]
    )


FRESH = """
import json, sys
import normconstraints_keras
from keras import saving
model = saving.load_model(sys.argv[1])
_, _, dense = model.layers
found = [repr(v.constraint) for v in model.trainable_variables]
print(json.dumps([found, [m for m in sys.modules if m in ("keras_models", "pytest")]]))
"""


def test_a_file_loads_where_only_the_adapter_is_imported(tmp_path: Path) -> None:
    model = two_layers()
    fit(model, sgd())
    assert largest(violation(model)) == 0
    path = tmp_path / "model.keras"
    model.save(path)
    expected = [repr(v.constraint) for v in model.trainable_variables]
    assert sum("None" not in e for e in expected) == 3
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, []]

    # And trains on inside.
    again = keras.saving.load_model(path)
    fit(again)
    assert largest(violation(again)) == 0
    assert len(violation(again)) == 3


def test_a_clone_has_them_too() -> None:
    model = two_layers()
    clone = keras.models.clone_model(model)
    pairs = zip(model.trainable_variables, clone.trainable_variables, strict=True)
    assert all(a.constraint == b.constraint and a is not b for a, b in pairs)
    fit(clone, sgd())
    assert largest(violation(clone)) == 0 and len(violation(clone)) == 3
    layer = type(model.layers[0]).from_config(model.layers[0].get_config())
    assert layer.kernel_constraint == model.layers[0].kernel_constraint


# ------------------------------------------------------------- in training, in any dtype


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "constraint",
    [MaxNorm(0.5), UnitNorm(), MinMaxNorm(0.5, 0.75), KernelConstraint(nc.Simplex(axis="unit"))],
    ids=repr,
)
def test_policies(policy: str, constraint: Any) -> None:
    model = dense(constraint, dtype=policy)
    kernel = model.layers[0].kernel
    fit(model, sgd())
    kind = "float32" if policy.startswith("mixed") else policy
    assert keras.backend.standardize_dtype(kernel.dtype) == kind
    assert np.isfinite(numpy_of(kernel)).all()
    assert largest(violation(model)) == 0


def test_a_loss_scale_that_skips_steps_leaves_the_constraint_alone() -> None:
    model = dense(MaxNorm(0.5), dtype="mixed_float16")
    # So large a scale makes infinite gradients: the first steps are skipped.
    fit(model, keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**20), epochs=3)
    assert largest(violation(model)) == 0
    assert float(numpy_of(model.optimizer.dynamic_scale)) < 2.0**20


COMPOSED = {
    "several": nc.NonNeg() & nc.MaxNorm(0.5, axis="unit"),
    "in order": nc.Sequence(nc.NonNeg(), nc.UnitNorm(axis="unit")),
    "a part": nc.Masked(nc.MaxNorm(0.3, axis=0), ((0, 2, None),)),
    "slowly": nc.Relaxed(nc.MaxNorm(0.5, axis="unit"), 0.5),
}


@pytest.mark.parametrize("title", COMPOSED)
def test_several_on_one_weight_and_on_a_part_of_it(title: str) -> None:
    constraint = COMPOSED[title]
    model = dense(KernelConstraint(constraint), bias_constraint=NonNeg())
    fit(model, sgd(), epochs=2)
    kernel = numpy_of(model.layers[0].kernel)
    if title == "a part":
        assert np.sqrt((kernel[:2] ** 2).sum(axis=0)).max() <= 0.3 * (1 + 1e-6)
        assert abs(kernel[2:]).max() > 0.3
    if title in ("several", "in order"):
        assert kernel.min() >= 0
    if title != "slowly":
        assert largest(violation(model)) == 0
