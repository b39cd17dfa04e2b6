"""Every refusal is read: it names the class, the parameter, the value and the remedy."""

from __future__ import annotations

import json
from typing import Any

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import normconstraints as nc

C = nc.MaxNorm(1.0, axis=0)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (np.ones(3, dtype=int), r"MaxNorm: w must have a floating point dtype of numpy, got int64"),
        (np.ones(3, dtype=bool), r"MaxNorm: w must have a floating point dtype .*, got bool"),
        (np.ones(3, dtype=object), r"MaxNorm: w must have a floating point dtype .*, got object"),
        (np.array(["a"]), r"MaxNorm: w must have a floating point dtype .*, got <U1"),
        ([1.0, 2.0], r"MaxNorm: w must be an array .*, got list; convert it first"),
        ((1.0, 2.0), r"MaxNorm: w must be an array .*, got tuple"),
        (None, r"MaxNorm: w must be an array .*, got NoneType"),
        (1.0, r"MaxNorm: w must be an array .*, got float"),
        (np.float64(1.0), r"MaxNorm: w must be an array, got the scalar .*numpy.asarray\(w\)"),
        (np.ma.masked_array([1.0], [True]), r"MaxNorm: .* MaskedArray; the mask would be lost"),
        (torch.ones(3, dtype=torch.int32), r"MaxNorm: .* dtype of torch, got torch.int32"),
        (jnp.ones(3, dtype=bool), r"MaxNorm: .* dtype of jax, got bool"),
        (array_api_strict.ones(3, dtype=array_api_strict.int64), r"MaxNorm: .* array_api_strict"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["project", "project_", "violation"])
def test_what_is_no_array_of_floats(w: Any, message: str, method: str) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(C, method)(w)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix() -> None:
    with pytest.raises(TypeError, match=r"MaxNorm: .* numpy.matrix; pass numpy.asarray\(w\)"):
        C(np.asmatrix([[1.0]]))


def test_bfloat16_of_ml_dtypes_is_refused_with_the_remedy() -> None:
    import ml_dtypes

    with pytest.raises(TypeError, match=r"MaxNorm: .* got bfloat16; cast it to float32"):
        C(np.ones(3, dtype=ml_dtypes.bfloat16))


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-17, reason="longdouble is float64 here")
@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_more_digits_than_float64_are_refused_with_the_remedy(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"MaxNorm: .* no wider than float64, .* cast it to that"):
        C(np.ones(3, dtype=dtype))


def test_axis_left_out_teaches() -> None:
    for build in (
        lambda: nc.MaxNorm(3.0),  # type: ignore[call-arg]
        lambda: nc.MaxNorm(3.0, 0),  # type: ignore[call-arg,misc]
        lambda: nc.UnitNorm(),  # type: ignore[call-arg]
        lambda: nc.LInfBall(1.0),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match=r"axis must be given by keyword.*axis=1.*\(out, in\)"):
            build()


def test_axis_unit_says_what_to_write() -> None:
    c = nc.MaxNorm(3.0, axis="unit")
    with pytest.raises(ValueError, match=r'MaxNorm: axis="unit" depends on .* write axis=1'):
        c(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [
        (
            True,
            TypeError,
            "MaxNorm: axis must be an int, a tuple of ints, None or 'unit', got True",
        ),
        (1.0, TypeError, "got 1.0"),
        ("units", TypeError, "got 'units'"),
        ((0, "a"), TypeError, r"got \(0, 'a'\)"),
        ((), ValueError, "got an empty tuple"),
    ],
)
def test_axis_of_a_wrong_kind(axis: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nc.MaxNorm(1.0, axis=axis)


@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3)])
def test_axis_out_of_range(axis: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"MaxNorm: axis must exist, got axis=.* 2 dimensions"):
        nc.MaxNorm(1.0, axis=axis)(np.ones(shape))


@pytest.mark.parametrize("axis", [(0, 0), (0, -2)])
def test_axis_twice(axis: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"MaxNorm: axis must name each axis once"):
        nc.MaxNorm(1.0, axis=axis)(np.ones((2, 3)))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -1])
def test_radius_out_of_range(value: float) -> None:
    for build, name in (
        (lambda v: nc.MaxNorm(v, axis=0), "MaxNorm: max_value"),
        (lambda v: nc.FixedNorm(v, axis=0), "FixedNorm: value"),
        (lambda v: nc.MinNorm(v, axis=0), "MinNorm: value"),
        (lambda v: nc.UnitRMS(v, axis=0), "UnitRMS: value"),
        (lambda v: nc.LInfBall(v, axis=0), "LInfBall: radius"),
        (lambda v: nc.MinMaxNorm(v, 1.0, axis=0), "MinMaxNorm: min_value"),
        (lambda v: nc.MinMaxNorm(0.0, v, axis=0), "MinMaxNorm: max_value"),
        (lambda v: nc.GlobalNorm(v), "GlobalNorm: max_value"),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be a finite number >=? 0.*, got"):
            build(value)


@pytest.mark.parametrize("value", ["1", None, True, 1j, {}, [1.0, "a"], [[1.0], [1.0, 2.0]]])
def test_radius_that_is_no_number(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="MaxNorm: max_value must be a finite number"):
        nc.MaxNorm(value, axis=0)


def test_radius_in_an_array() -> None:
    with pytest.raises(ValueError, match=r"MaxNorm: max_value .* in every entry, got"):
        nc.MaxNorm(np.array([1.0, -1.0]), axis=0)
    with pytest.raises(TypeError, match="MaxNorm: max_value must be"):
        nc.MaxNorm(np.array([True]), axis=0)
    with pytest.raises(ValueError, match=r"MaxNorm: max_value must broadcast against the groups"):
        nc.MaxNorm((1.0, 2.0), axis=0)(np.ones((2, 3)))


@pytest.mark.parametrize("value", [0.0, 1.5, -0.5, float("nan")])
def test_rate(value: float) -> None:
    with pytest.raises(ValueError, match=r"MinMaxNorm: rate must be .* > 0 and <= 1, got"):
        nc.MinMaxNorm(0.0, 1.0, rate=value, axis=0)


def test_bounds_in_the_wrong_order() -> None:
    with pytest.raises(ValueError, match=r"Box: lower must be <= upper, got lower=1.0 and upper=0"):
        nc.Box(1.0, 0.0)
    with pytest.raises(ValueError, match=r"Box: lower must be <= upper"):
        nc.Box((0.0, 2.0), 1.0)
    with pytest.raises(ValueError, match=r"Box: lower must be <= upper"):
        nc.Box(np.zeros((2, 1)), np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="Box: lower or upper must be given, got None for both"):
        nc.Box()
    with pytest.raises(ValueError, match=r"MinMaxNorm: min_value must be <= max_value"):
        nc.MinMaxNorm(2.0, 1.0, axis=0)
    with pytest.raises(ValueError, match=r"Box: upper must be"):
        nc.Box(0.0, float("nan"))
    with pytest.raises(ValueError, match=r"Box: lower must be"):
        nc.Box(float("inf"), None)


def test_libraries_are_not_mixed() -> None:
    for c in (
        nc.Box(np.zeros(3), 1.0),
        nc.MaxNorm(np.ones(3), axis=0),
        nc.LInfBall(np.ones(3), axis=0),
    ):
        with pytest.raises(TypeError, match=r"must be of the library of w \(torch\), got numpy"):
            c(torch.ones((2, 3)))
    with pytest.raises(TypeError, match="GlobalNorm: w must hold arrays of one library, got numpy"):
        nc.GlobalNorm(1.0)([np.ones(3), torch.ones(3)])


def test_complex_where_the_set_has_no_meaning() -> None:
    for c in (nc.NonNeg(), nc.NonPos(), nc.Box(0.0, 1.0)):
        with pytest.raises(TypeError, match=rf"{type(c).__name__}: w must be real, got complex64"):
            c(np.ones(3, dtype=np.complex64))


def test_project_in_place_on_jax() -> None:
    with pytest.raises(TypeError, match=r"MaxNorm: project_ .* JAX .* w = constraint\(w\)"):
        C.project_(jnp.ones(3))


def test_project_in_place_on_a_read_only_array() -> None:
    w = np.ones(3)
    w.flags.writeable = False
    with pytest.raises(ValueError, match=r"MaxNorm: .* read-only one; write w = constraint\(w\)"):
        C.project_(w)
    assert (w == 1).all()


def test_project_in_place_on_a_leaf_that_requires_grad() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"MaxNorm: .* requires a gradient; .* torch.no_grad"):
        C.project_(w)
    assert (w == 1).all()
    with torch.no_grad():
        assert C.project_(w) is w
    assert torch.linalg.vector_norm(w) <= 1


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            {"constraint": "Nothing", "parameters": {}},
            ValueError,
            "must be one of .*Box, .*'Nothing'",
        ),
        ({"constraint": print, "parameters": {}}, ValueError, "constraint must be one of"),
        ({"parameters": {}}, ValueError, "keys 'constraint' and 'parameters'"),
        ("MaxNorm", ValueError, "must be a mapping"),
        (
            {"constraint": "MaxNorm", "parameters": {"max_value": object(), "axis": 0}},
            TypeError,
            "MaxNorm: max_value must be JSON data, got <object",
        ),
        (
            {"constraint": "MaxNorm", "parameters": {"radius": 1.0, "axis": 0}},
            ValueError,
            "parameters of MaxNorm must be among max_value, axis, got radius",
        ),
        ({"constraint": "MaxNorm", "parameters": []}, ValueError, "must be a mapping, got"),
        (
            {"constraint": "MaxNorm", "parameters": {"max_value": 1.0}},
            TypeError,
            "MaxNorm: axis must be given by keyword",
        ),
    ],
)
def test_configurations(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nc.from_config(data)


def test_to_config_of_an_unregistered_class() -> None:
    class Mine(nc.Constraint):
        def _project(self, w: Any, xp: Any) -> Any:
            return w

        def _violation(self, w: Any, xp: Any) -> Any:
            return w * 0

    with pytest.raises(TypeError, match="to_config: constraint must be of a registered class"):
        nc.to_config(Mine())


def test_nothing_is_registered_twice() -> None:
    class MaxNorm(nc.Constraint):
        def _project(self, w: Any, xp: Any) -> Any:
            return w

        def _violation(self, w: Any, xp: Any) -> Any:
            return w * 0

    with pytest.raises(ValueError, match="register: the name MaxNorm is taken by normconstraints"):
        nc.register(MaxNorm)


def test_configurations_are_json() -> None:
    c = nc.Box((-np.inf, 0.0), np.array([1.0, 2.0]))
    again = nc.from_config(json.loads(json.dumps(nc.to_config(c), allow_nan=False)))
    assert again == c
    assert again == nc.Box((-np.inf, 0.0), (1.0, 2.0))
    assert hash(again) == hash(nc.Box((-np.inf, 0.0), (1.0, 2.0)))


def test_a_constraint_with_arrays_has_no_hash() -> None:
    with pytest.raises(TypeError, match="MaxNorm: max_value is an array, and arrays have no hash"):
        hash(nc.MaxNorm(np.ones(2), axis=0))


def test_rules() -> None:
    with pytest.raises(ValueError, match=r"Rules: 'wieght' must match a weight, got none; did you"):
        nc.Rules({"wieght": C}).match({"weight": np.ones(2)})
    with pytest.raises(ValueError, match=r"Rules: 'a.w' must have one constraint, got"):
        nc.Rules({"a.*": C, "*.w": C}).match({"a": {"w": np.ones(2)}})
    with pytest.raises(TypeError, match="Rules: the value for 'a' must be a constraint or None"):
        nc.Rules({"a": 3.0})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="Rules: a pattern must be a string"):
        nc.Rules({1: C})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="Rules: rules must be a mapping"):
        nc.Rules([C])  # type: ignore[arg-type]
