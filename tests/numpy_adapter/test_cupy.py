"""The whole adapter on CuPy's double, and without a value that visits the host.

What this shows and what not is in docs/numpy.md: names, signatures, dtypes and transfers are those
of CuPy, the kernels are not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import array_api_strict
import numpy as np
import pytest
from array_api_strict._array_object import Array as Strict

import normconstraints as nc
from normconstraints.optimize import frank_wolfe, projected_gradient
from normconstraints.schedules import Linear
from normconstraints.testing.backends import _cupy_double as double
from normconstraints.testing.backends._cupy import CupyDouble
from normconstraints.testing.backends._strict import guard
from normconstraints_numpy import Projector

RULES = {
    "layers.*.kernel": nc.MaxNorm(0.5, axis=0),
    "layers.*.bias": nc.Box(-0.1, 0.1),
    "mix": nc.Simplex(axis=1),
    "atoms": nc.NonNegUnitNorm(axis=0),
    "plan": nc.Scheduled(nc.L1Ball(4.0, axis=0), {"radius": Linear(4.0, 1.0, steps=3)}),
    "views.*": nc.NonNeg(),
}


class Layer:
    def __init__(self, kernel: Any, bias: Any) -> None:
        self.kernel, self.bias, self.rate = kernel, bias, 0.1


def structure(convert: Any) -> Any:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return convert(rng.standard_normal(shape).astype(np.float32))

    whole = array(6, 8)
    return {
        "layers": [Layer(array(6, 5), array(5)), Layer(array(5, 3), array(3))],
        "mix": array(7, 4),
        "atoms": array(6, 9),
        "plan": array(10),
        "views": (whole[::2, :4], whole[1::2, 4:].T, array(2, 3)[::-1, :]),
    }


def arrays(weights: Any) -> dict[str, Any]:
    found = {"mix": weights["mix"], "atoms": weights["atoms"], "plan": weights["plan"]}
    for i, layer in enumerate(weights["layers"]):
        found |= {f"layers.{i}.kernel": layer.kernel, f"layers.{i}.bias": layer.bias}
    return found | {f"views.{i}": w for i, w in enumerate(weights["views"])}


@pytest.fixture
def cupy() -> Iterator[None]:
    with CupyDouble().session():
        double.clear_log()
        yield


def test_the_same_object_on_numpy_and_cupy(cupy: None) -> None:
    projector = Projector(RULES)
    for step in range(3):
        here, there = structure(np.array), structure(double.from_numpy)
        before = arrays(there)
        projector(here, step=step)
        with double.forbid_host_sync():
            assert projector(there, step=step) is there
            violations = projector.violation(there)
        after = arrays(there)
        for name, w in arrays(here).items():
            assert after[name] is before[name]
            assert type(violations[name]) is double.ndarray
            np.testing.assert_array_equal(double.to_numpy(after[name]), w, err_msg=name)
            assert not double.to_numpy(violations[name]).any(), name


def test_what_is_refused_is_refused_without_a_transfer(cupy: None) -> None:
    weights = structure(double.from_numpy)
    with double.forbid_host_sync():
        with pytest.raises(ValueError, match="must match a weight"):
            Projector({"kernels": nc.NonNeg()})(weights)
        with pytest.raises(ValueError, match=r"cannot serve 'plan'"):
            Projector({"plan": nc.MaxNorm(1.0, axis=1)})(weights)
        with pytest.raises(TypeError, match="floating"):
            Projector({"w": nc.NonNeg()})({"w": double.from_numpy(np.arange(3))})


def test_a_broadcast_array_is_refused_though_cupy_would_write_to_it(cupy: None) -> None:
    import cupy as cp

    w = cp.broadcast_to(double.from_numpy(np.full(3, 2.0)), (4, 3))
    w._host.flags.writeable = True  # as it is in CuPy, which has no such flag
    with pytest.raises(ValueError, match="have each their own memory"):
        Projector({"w": nc.NonNeg()})({"w": w})


def test_a_loop_on_the_device(cupy: None) -> None:
    """The gradient steps of docs/numpy.md, of which nothing is read before the end."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
    results = []
    for convert in (np.array, double.from_numpy):
        a, b, w = convert(x), convert(y), {"w": convert(np.zeros((6, 3)))}
        projector = Projector({"w": nc.Simplex(axis=0)})
        with double.forbid_host_sync():
            for _ in range(30):
                w["w"] -= 0.01 * (a.T @ (a @ w["w"] - b))
                projector(w)
        results.append(w["w"])
    np.testing.assert_allclose(double.to_numpy(results[1]), results[0], atol=1e-14)


def test_the_report_and_the_plan_read_and_say_so(cupy: None) -> None:
    projector = Projector(RULES, report_every=2)
    for _ in range(3):
        projector(structure(double.from_numpy))
    read = len(double.host_syncs())
    assert read > 0
    assert [e.step for e in projector.report.entries] == [0] * 10 + [2] * 10
    projector(structure(double.from_numpy))  # step 3 is not reported
    assert len(double.host_syncs()) == read
    assert "MaxNorm" in str(Projector(RULES).plan(structure(double.from_numpy)))


@pytest.mark.parametrize("search", [projected_gradient, frank_wolfe])
def test_the_searches_read_numbers_only(cupy: None, search: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 6)), rng.standard_normal(20)

    def solve(convert: Any) -> Any:
        here, there = convert(a), convert(b)

        def f(x: Any) -> Any:
            r = here @ x - there
            return (r @ r) / 2, here.T @ r

        return search(f, convert(np.zeros(6)), nc.Simplex(axis=0), tol=1e-4, max_iter=30)

    found, expected = solve(double.from_numpy), solve(np.array)
    np.testing.assert_allclose(double.to_numpy(found.x), expected.x, atol=1e-12)
    assert found.nit == expected.nit
    assert set(double.host_syncs()) == {"ndarray.__float__"}  # of 0-d arrays, or it would raise


def test_on_a_device_that_is_not_the_default_with_the_ways_to_the_host_closed() -> None:
    device = array_api_strict.Device("device1")
    write = Strict.__setitem__

    def convert(x: Any) -> Any:
        return array_api_strict.asarray(x, device=device)

    projector, here, there = Projector(RULES), structure(np.array), structure(convert)
    projector(here, step=2)
    # The guard forbids to change arrays, as for a pure projection; this one is in place.
    with guard(), patch.object(Strict, "__setitem__", write):
        projector(there, step=2)
        violations = projector.violation(there)
        with pytest.raises(RuntimeError, match="takes a value to the host"):
            bool(there["mix"][0, 0] > 0)
    for name, w in arrays(here).items():
        found = arrays(there)[name]
        assert found.device == violations[name].device == device
        np.testing.assert_allclose(found._array, w, rtol=1e-6, atol=1e-7, err_msg=name)
        assert not violations[name]._array.any(), name


def test_objects_can_be_copied_with_their_projector(cupy: None) -> None:
    weights, projector = structure(double.from_numpy), Projector(RULES)
    projector(weights)
    again, twin = copy.deepcopy((weights, projector))
    twin(again)
    assert twin.step == 2
    for name, w in arrays(again).items():
        if name != "plan":  # its radius shrinks
            np.testing.assert_array_equal(
                double.to_numpy(w), double.to_numpy(arrays(weights)[name])
            )
