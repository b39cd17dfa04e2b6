"""Projection in place of nested NumPy arrays."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import normconstraints as nc
from normconstraints_numpy import Projector

BOUND = 0.5
RULES = nc.Rules({"*kernel": nc.MaxNorm(BOUND, axis=0)})


def network() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "layers": [
            {"kernel": rng.normal(size=(6, 5)).astype(np.float32), "bias": np.full(5, 7.0)},
            {"kernel": rng.normal(size=(5, 3)), "bias": np.full(3, 7.0)},
        ]
    }


def equal(one: dict[str, Any], two: dict[str, Any]) -> bool:
    pairs = zip(one["layers"], two["layers"], strict=True)
    return all(np.array_equal(a[key], b[key]) for a, b in pairs for key in ("kernel", "bias"))


def test_in_place_and_the_same_containers() -> None:
    weights = network()
    before = copy.deepcopy(weights)
    kernels = [layer["kernel"] for layer in weights["layers"]]
    assert Projector(RULES)(weights) is weights
    for layer, kernel, old in zip(weights["layers"], kernels, before["layers"], strict=True):
        assert layer["kernel"] is kernel
        assert np.linalg.norm(kernel.astype(np.float64), axis=0).max() <= BOUND
        np.testing.assert_array_equal(kernel, nc.MaxNorm(BOUND, axis=0)(old["kernel"]))
        np.testing.assert_array_equal(layer["bias"], old["bias"])


def test_the_violation_has_the_names_and_one_number_for_each_unit() -> None:
    weights, projector = network(), Projector({"layers.1.kernel": nc.MaxNorm(BOUND, axis=0)})
    norms = np.linalg.norm(weights["layers"][1]["kernel"], axis=0)
    (found,) = projector.violation(weights).items()
    assert found[0] == "layers.1.kernel"
    np.testing.assert_allclose(found[1], norms - BOUND)
    assert not projector.violation(projector(weights))["layers.1.kernel"].any()


def test_lists_and_tuples_have_indices_for_names() -> None:
    weights = [np.full((2, 2), 3.0), (np.full((2, 2), 3.0), np.array(-1.0))]
    Projector({"1.0": nc.UnitNorm(axis=0), "1.1": nc.NonNeg()})(weights)
    assert weights[0].tolist() == [[3, 3], [3, 3]]
    assert weights[1][0][0].tolist() == pytest.approx([0.5**0.5] * 2)
    assert weights[1][1] == 0


def test_it_holds_after_every_step_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    weights, projector = {"w": rng.normal(size=(6, 3))}, Projector({"w": nc.MaxNorm(1.0, axis=0)})
    free = {"w": weights["w"].copy()}
    x, y = rng.normal(size=(20, 6)), 5 * rng.normal(size=(20, 3))
    for _ in range(20):
        for params in (weights, free):
            params["w"] -= 0.02 * x.T @ (x @ params["w"] - y)
        projector(weights)
        assert np.linalg.norm(weights["w"], axis=0).max() <= 1
    assert np.linalg.norm(free["w"], axis=0).max() > 1.5


def test_a_read_only_array_is_refused_and_nothing_is_written() -> None:
    weights = network()
    weights["layers"][1]["kernel"].setflags(write=False)
    before = copy.deepcopy(weights)
    with pytest.raises(ValueError, match=r"'layers\.1\.kernel' .* read-only"):
        Projector(RULES)(weights)
    assert equal(weights, before)
    assert Projector(RULES).violation(weights)["layers.1.kernel"].any()


def test_a_read_only_array_without_a_rule_is_none_of_its_business() -> None:
    weights = network()
    weights["layers"][1]["bias"].setflags(write=False)
    Projector(RULES)(weights)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"layers.1.bias": nc.MaxNorm(1.0, axis=1)},
            r"cannot serve 'layers\.1\.bias'.*axis must exist",
        ),
        ({"layers.1.kernal": nc.NonNeg()}, r"did you mean 'layers\.1\.kernel'"),
        ({"layers.1.*": nc.NonNeg(), "layers.1.bias": nc.NonNeg()}, "must have one constraint"),
    ],
)
def test_a_wrong_rule_is_refused_before_any_weight_is_touched(
    rules: dict[str, nc.Constraint], message: str
) -> None:
    weights = network()
    before = copy.deepcopy(weights)
    with pytest.raises(ValueError, match=message):
        Projector({"layers.0.kernel": nc.MaxNorm(0.1, axis=0), **rules})(weights)
    assert equal(weights, before)


def test_what_is_no_floating_point_array_is_refused_before_any_weight_is_touched() -> None:
    for wrong in (np.ones(3, int), [], 1.0, np.ma.masked_array([1.0])):
        weights = {"a": np.full(3, 2.0), "b": wrong}
        rules = {"a": nc.MaxNorm(1.0, axis=0), "b*": nc.NonNeg()}
        with pytest.raises((TypeError, ValueError), match="'b"):
            Projector(rules)(weights)
        assert weights["a"].tolist() == [2, 2, 2]


def test_two_arrays_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"its own name, got 'a\.b' twice"):
        Projector({"a.b": nc.NonNeg()})({"a": {"b": np.ones(2)}, "a.b": np.ones(2)})


def test_immutable_arrays_are_refused() -> None:
    jnp = pytest.importorskip("jax.numpy")
    weights = {"a": np.full(3, 2.0), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match="'b' must be an array that can be changed"):
        Projector({"*": nc.MaxNorm(1.0, axis=0)})(weights)
    assert weights["a"].tolist() == [2, 2, 2]


def test_importing_it_loads_no_array_library() -> None:
    code = (
        "import sys, normconstraints_numpy as a; "
        "print([m for m in ('numpy', 'cupy', 'torch', 'jax') if m in sys.modules], a.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['Projector']"
