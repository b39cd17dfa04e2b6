"""The CuPy double itself: what it refuses, what it notes, and that it leaves no trace."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np
import pytest

from normconstraints.testing.backends import _cupy_double as double

X = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]], dtype=np.float32)


@pytest.fixture
def cupy() -> Iterator[Any]:
    with double.install() as module:
        double.clear_log()
        yield module


@pytest.fixture
def x(cupy: Any) -> Any:
    return double.from_numpy(X)


def equal(mine: Any, numpys: Any) -> bool:
    """Values, shape and data type all equal, and the result is a device array."""
    host = double.to_numpy(mine)
    expected = np.asarray(numpys)
    return (
        isinstance(mine, double.ndarray)
        and host.dtype == expected.dtype
        and host.shape == expected.shape
        and bool(np.array_equal(host, expected, equal_nan=host.dtype.kind in "fc"))
    )


def compat_cupy() -> Any:
    return importlib.import_module("array_api_compat.cupy")


# Signatures and types


def test_arguments_that_numpy_has_and_cupy_lacks_are_refused(cupy: Any, x: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        cupy.sum(x, where=x > 0)
    with pytest.raises(TypeError, match="Wrong arguments"):
        cupy.sqrt(x, where=x > 0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'keepdims'"):
        cupy.count_nonzero(x, keepdims=True)
    with pytest.raises(TypeError, match="missing a required argument"):
        cupy.clip(x, 0.0)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        x.sum(initial=0.0)


def test_names_cupy_lacks_are_absent(cupy: Any, x: Any) -> None:
    assert not hasattr(cupy, "unstack")
    assert not hasattr(cupy.linalg, "vector_norm")
    assert not hasattr(x, "__array_namespace__")
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        range(cupy.asarray(3))  # CuPy's arrays have no __index__


def test_names_numpy_lacks_say_so_when_called(cupy: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"cupy\.asfarray exists in CuPy"):
        cupy.asfarray(double.from_numpy(X))
    with pytest.raises(NotImplementedError, match="RawKernel"):
        cupy.RawKernel("", "")


def test_array_class_has_exactly_the_attributes_of_the_snapshot() -> None:
    listed = {n for n in double._NAMES["cupy.ndarray"] if not n.startswith("_")}
    assert {n for n in dir(double.ndarray) if not n.startswith("_")} == listed
    slots = {n for n in double._NAMES["cupy.ndarray"] if n.startswith("__")}
    operators = {n for n in vars(double.ndarray) if n.startswith(("__r", "__i")) and len(n) > 6}
    assert operators - slots <= {"__repr__", "__init__"}


@pytest.mark.parametrize(
    "call",
    [
        "xp.sum(host)",
        "xp.add(x, host)",
        "xp.sqrt([1.0])",
        "xp.stack([x, host])",
        "xp.stack([1.0, 2.0])",
        "xp.where(True, x, x)",
        "xp.where(x > 0, x, host)",
        "xp.max(1.0)",
        "xp.matmul(x, [1.0, 2.0, 3.0])",
        "xp.linalg.norm(host)",
        "x + host",
        "host + x",
        "x @ host.T",
        "x == host",
        "x + [1.0, 2.0, 3.0]",
        "x.__setitem__(0, host[0])",
        "x.__iadd__(host)",
        "np.asarray(x)",
        "np.add(x, host)",
    ],
)
def test_host_operands_are_refused(call: str, cupy: Any, x: Any) -> None:
    with pytest.raises(TypeError):
        eval(call, {"xp": cupy, "x": x, "host": X, "np": np})


def test_data_types_without_a_loop_are_refused(cupy: Any, x: Any) -> None:
    with pytest.raises(TypeError, match="not supported for the input types"):
        cupy.logical_and(x.astype(cupy.complex64), True)  # NumPy has this loop, CuPy has not
    with pytest.raises(TypeError, match="not supported"):
        cupy.bitwise_and(x, x)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.asarray(["text"])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float16", "float32", "complex64"])
def test_python_scalars_are_weak_as_in_numpy(dtype: str, cupy: Any) -> None:
    host = np.arange(6).reshape(2, 3).astype(dtype)
    mine = double.from_numpy(host)
    for scalar in (True, 2, 0.5, 1j):
        assert equal(mine * scalar, host * scalar)
        assert equal(scalar + mine, scalar + host)
    assert equal(cupy.maximum(mine, 2), np.maximum(host, 2))
    assert equal(mine / 2, host / 2)
    assert equal(np.float64(2) * mine, np.float64(2) * host)


def test_results_are_always_arrays(cupy: Any, x: Any) -> None:
    assert equal(x[0, 0], X[0, 0])
    assert equal(x.sum(), X.sum())
    assert equal(cupy.max(x), X.max())
    assert equal(cupy.count_nonzero(x), np.int64(6))
    assert isinstance(cupy.array_equal(x, x), cupy.ndarray)


def test_arrays_are_mutable_and_indexing_gives_views(cupy: Any, x: Any) -> None:
    row, item = x[0], x[1, 2]
    row += 1
    x[1, 2] = 7.0
    x[:, 0] = cupy.zeros(2, dtype=cupy.float32)
    assert equal(item, np.float32(7))
    assert equal(x, np.array([[0, -1, 4], [0, 5, 7]], dtype=np.float32))
    copied = copy.deepcopy(x)
    x -= x
    assert not equal(copied, x._host)
    with pytest.raises(TypeError):
        cupy.zeros(2, dtype=cupy.int32).__iadd__(0.5)  # same_kind casting, as in NumPy


def test_out_is_returned_itself(cupy: Any, x: Any) -> None:
    out = cupy.empty_like(x)
    assert cupy.sqrt(cupy.abs(x), out=out) is out
    assert cupy.add(x, x, out) is out
    assert equal(out, X + X)
    total = cupy.empty((), dtype=cupy.float32)
    assert cupy.sum(x, out=total) is total
    assert cupy.asarray(x) is x
    assert x.astype(cupy.float32, copy=False) is x


# Transfers


@pytest.mark.parametrize(
    "call",
    [
        "bool(x[0, 0])",
        "float(x[0, 0])",
        "int(x[0, 0])",
        "complex(x[0, 0])",
        "repr(x)",
        "f'{x[0, 0]:.3f}'",
        "x.get()",
        "x.item()",
        "x.tolist()",
        "xp.asnumpy(x)",
        "x[x > 0]",
        "x.__setitem__(x > 0, 0.0)",
        "x.nonzero()",
        "xp.nonzero(x)",
        "xp.where(x > 0)",
        "xp.unique(x)",
        "xp.any(x > 0) and None",
    ],
)
def test_host_syncs_are_noted_and_can_be_forbidden(call: str, cupy: Any, x: Any) -> None:
    x = x[:1, :1]
    names = {"xp": cupy, "x": x}
    eval(call, names)
    assert len(double.host_syncs()) == 1
    with double.forbid_host_sync(), pytest.raises(double.HostSync):
        eval(call, names)
    eval(call, names)  # the ban ends with its block


def test_device_work_is_not_a_sync(cupy: Any, x: Any) -> None:
    with double.forbid_host_sync():
        y = cupy.where(x > 0, cupy.sqrt(cupy.abs(x)), 0.0) / (cupy.max(x) + 1)
        y[0] = 0.0
        assert y.shape == (2, 3) and y.flags.c_contiguous and y.device == cupy.cuda.Device(0)
        assert len(list(y)) == 2
    assert double.transfers == []


def test_copies_to_the_device_are_noted_and_allowed(cupy: Any) -> None:
    with double.forbid_host_sync():
        assert equal(cupy.asarray(X), X)
        assert equal(cupy.array(2.0), np.float64(2))
    assert double.transfers == [double.Transfer("to device", "asarray")]


def test_copies_from_numpy_do_not_share_memory(cupy: Any) -> None:
    host = X.copy()
    for mine in (cupy.asarray(host), double.from_numpy(host)):
        mine[0] = 0
    double.to_numpy(mine)[...] = 9
    assert np.array_equal(host, X)
    assert equal(mine[1], X[1])


# Installation


def replaced_modules() -> dict[str, Any]:
    roots = ("cupy", "array_api_compat.cupy")
    return {
        n: m
        for n, m in sys.modules.items()
        if n in roots or n.startswith(("cupy.", "array_api_compat.cupy."))
    }


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    other, compat = type(sys)("cupy"), type(sys)("array_api_compat.cupy")
    for name in replaced_modules():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cupy", other)
    monkeypatch.setitem(sys.modules, "cupy.linalg", other)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
    monkeypatch.setattr(array_api_compat, "cupy", compat, raising=False)
    before = replaced_modules()
    try:
        with double.install() as fake:
            inside = compat_cupy()
            assert sys.modules["cupy"] is fake
            assert inside is not compat and inside.sqrt is fake.sqrt
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert replaced_modules() == before
    assert vars(array_api_compat)["cupy"] is compat


def test_nothing_is_left_behind_where_there_was_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in replaced_modules():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(array_api_compat, "cupy", raising=False)
    with double.install():
        array_api_compat.array_namespace(double.from_numpy(X))
    assert replaced_modules() == {}
    assert not hasattr(array_api_compat, "cupy")


def test_namespace_is_found_in_every_installation() -> None:
    x = double.from_numpy(X)
    assert not array_api_compat.is_cupy_array(x)
    for _ in range(2):
        with double.install():
            xp = compat_cupy()
            # array_api_compat caches its answer; it must be this installation's module.
            assert array_api_compat.array_namespace(x) is xp
            assert array_api_compat.is_cupy_array(x)
            assert array_api_compat.is_cupy_namespace(xp)
            assert array_api_compat.device(x) == xp.__array_namespace_info__().default_device()
    assert not array_api_compat.is_cupy_array(x)


# A program through array_api_compat.cupy


def program(xp: Any, x: Any) -> dict[str, Any]:
    norm = xp.sqrt(xp.sum(x * x, axis=1, keepdims=True))
    scale = xp.where(norm > 2, 2 / xp.maximum(norm, xp.asarray(1e-6, dtype=x.dtype)), 1.0)
    z = xp.astype(x, xp.complex64) * 1j
    copied = xp.asarray(x, copy=True)
    copied[0, ...] = -1
    return {
        "scaled": x * scale,
        "norm": xp.linalg.vector_norm(x, axis=-1),
        "whole norm": xp.linalg.vector_norm(x),
        "3-norm": xp.linalg.vector_norm(x, ord=3, axis=1, keepdims=True),
        "max": xp.max(xp.abs(x), axis=0),
        "clipped": xp.minimum(xp.maximum(x, xp.asarray(-1.0, dtype=x.dtype)), xp.ones_like(x)),
        "real": xp.real(z),
        "imag": xp.imag(z),
        "finite": xp.all(xp.isfinite(x)),
        "stack": xp.stack([x, xp.zeros_like(x)], axis=-1),
        "double": xp.astype(x, xp.float64),
        "device": xp.zeros((2,), dtype=x.dtype, device=array_api_compat.device(x)),
        "copied": copied,
        "reshaped": xp.reshape(x, (-1,)),
        "moved": xp.permute_dims(x, (1, 0)),
        "sorted": xp.sort(x, axis=1, descending=True),
        "cumulative": xp.cumulative_sum(x, axis=1),
        "matmul": x @ xp.matrix_transpose(x),
        "mean": xp.mean(x, axis=0),
        "linspace": xp.linspace(0.0, 1.0, 5, dtype=x.dtype),
        "arange": xp.arange(4),
        "full": xp.full((2,), 3.0, dtype=x.dtype),
        "searched": xp.searchsorted(xp.arange(4), xp.asarray([1, 3])),
        "taken": xp.take(x, xp.asarray([0, 2]), axis=1),
    }


def test_a_program_runs_and_equals_numpy(cupy: Any, x: Any) -> None:
    xp = array_api_compat.array_namespace(x)
    with double.forbid_host_sync():
        mine = program(xp, x)
    expected = program(array_api_compat.array_namespace(X), X)
    for name, value in expected.items():
        if "norm" in name:
            # NumPy's and CuPy's own formulae differ in rounding where the namespace has a norm.
            assert np.allclose(double.to_numpy(mine[name]), value)
        else:
            assert equal(mine[name], value), name
    assert {t.direction for t in double.transfers} <= {"to device"}
    info = xp.__array_namespace_info__()
    assert info.dtypes()["float32"] == np.float32
    assert xp.isdtype(x.dtype, "real floating")
    assert xp.finfo(x.dtype).eps == np.finfo(np.float32).eps


def test_the_wrapped_clip_is_correct_and_waits_for_the_device(cupy: Any, x: Any) -> None:
    # array_api_compat clips with boolean masks, whose sizes the host has to learn.
    xp = compat_cupy()
    assert equal(xp.clip(x, -1.0, 2.0), np.clip(X, -1, 2))
    assert set(double.host_syncs()) == {"boolean mask"}
    double.clear_log()
    assert equal(cupy.clip(x, -1.0, 2.0), np.clip(X, -1, 2))
    assert double.host_syncs() == []


def test_snapshot_is_of_the_installed_wheel() -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy wheel is installed")
    real = pytest.importorskip("cupy", reason="the CuPy wheel cannot be imported")
    if real.__version__ != double.SNAPSHOT_VERSION:
        pytest.skip(f"the snapshot is of CuPy {double.SNAPSHOT_VERSION}, not {real.__version__}")
    for name, entry in double._NAMES["cupy"].items():
        if "ufunc" in entry:
            found = getattr(real, name)
            assert [found.name, found.nin, found.nout] == entry["ufunc"]
            assert " ".join(found.types) == entry["types"]
