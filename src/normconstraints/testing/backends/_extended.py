"""Libraries of the extended job: lazy, exported, on a queue of their own, or in 50 digits."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from normconstraints.constraint import Constraint
from normconstraints.testing.backends._base import HALF, SINGLE, Array, Backend

_ALGEBRA = ("svd", "eigh", "slogdet", "solve")
_ALL_OF_NUMPY = ("float16", "float32", "float64", "complex64", "complex128")


def _to_double(x: Any) -> Any:
    return np.array(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)


def _absent(*modules: str) -> str | None:
    gone = [m for m in modules if not find_spec(m)]
    return f"{' and '.join(gone)} not installed" if gone else None


class Dask(Backend):
    """Lazy arrays in several chunks: nothing is computed while a projection is described."""

    name = "dask"
    dtypes = _ALL_OF_NUMPY
    # To describe a projection takes 1,000 times what it takes to compute it.
    compiles = True
    extended = True
    # It decomposes one tall matrix in row blocks, and solves one system.
    lacks: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_ALGEBRA, _ALL_OF_NUMPY)

    def missing(self) -> str | None:
        return _absent("dask")

    def session(self) -> AbstractContextManager[Any]:
        return _complex_places()

    def asarray(self, data: Any, dtype: str) -> Array:
        da: Any = import_module("dask.array")  # partly typed
        # Halves that are not equal: 8 rows become 5 and 3.
        chunks = tuple(s if s < 2 else s // 2 + 1 for s in data.shape)
        return da.from_array(np.array(data, dtype=dtype), chunks=chunks)

    def numpy(self, w: Array) -> Any:
        # NumPy's settings for warnings hold in this thread only. Who computes decides them; the
        # library could at most silence the description.
        with np.errstate(all="ignore"):
            return _to_double(w.compute(scheduler="synchronous", optimize_graph=False))

    def project(self, constraint: Constraint, w: Array) -> Array:
        with _lazily():
            return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        with _lazily():
            return constraint.violation(w)

    def kept(self, w: Array) -> tuple[Any, ...]:
        return (type(w), w.dtype, w.shape, w.chunks)


@contextmanager
def _complex_places() -> Iterator[None]:
    # Dask warns of an empty array that it casts itself where complex numbers are taken by places.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Casting complex values to real")
        yield


def _lazily() -> AbstractContextManager[Any]:
    dask: Any = import_module("dask")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a lazy array was computed")

    managed: AbstractContextManager[Any] = dask.config.set(scheduler=refuse)
    return managed


class Mlx(Backend):
    """Apple's library on the CPU, which alone has float64 there; MLX has no complex128 at all."""

    name = "mlx"
    dtypes = (*HALF, *SINGLE, "float64")
    # Without complex128 complex64 has nothing to be measured in.
    wide = (*HALF, "float32")
    extended = True

    def missing(self) -> str | None:
        return _absent("mlx")

    def session(self) -> AbstractContextManager[Any]:
        return _mlx_on_cpu()

    def asarray(self, data: Any, dtype: str) -> Array:
        import mlx.core as mx

        x = np.array(data, dtype="float32" if dtype == "bfloat16" else dtype)
        return mx.array(x, dtype=getattr(mx, "bool_" if dtype == "bool" else dtype))

    def numpy(self, w: Array) -> Any:
        import mlx.core as mx

        return _to_double(np.array(w.astype(mx.float32) if w.dtype == mx.bfloat16 else w))


@contextmanager
def _mlx_on_cpu() -> Iterator[None]:
    import mlx.core as mx

    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        yield
    finally:
        mx.set_default_device(before)


class Dpnp(Backend):
    """Intel's device library on a queue of a second sub-device of the CPU.

    Constants that are made without a device land on the default queue, and arrays of two queues do
    not combine.
    """

    name = "dpnp"
    dtypes = _ALL_OF_NUMPY
    extended = True

    def missing(self) -> str | None:
        if (reason := _absent("dpnp", "dpctl")) is not None:
            return reason
        # Read once, when dpctl starts. The wheels bring the driver but do not announce it.
        driver = Path(sys.prefix, "lib", "libintelocl.so")
        if driver.exists():
            os.environ.setdefault("OCL_ICD_FILENAMES", str(driver))
        import dpctl

        try:
            self._queue = dpctl.SyclQueue(
                dpctl.SyclDevice("cpu").create_sub_devices(partition=1)[1]
            )
        except (
            dpctl.SyclDeviceCreationError,
            dpctl.SyclSubDeviceCreationError,
            IndexError,
        ) as error:
            return f"no OpenCL CPU with two sub-devices: {type(error).__name__}: {error}"
        return None

    def asarray(self, data: Any, dtype: str) -> Array:
        import dpnp

        return dpnp.asarray(np.array(data, dtype=dtype), sycl_queue=self._queue)

    def numpy(self, w: Array) -> Any:
        return _to_double(w.asnumpy())

    def kept(self, w: Array) -> tuple[Any, ...]:
        # The device of a sub-device cannot be printed, as a message would have to.
        return (type(w), w.dtype, w.shape, w.sycl_queue == self._queue)


class Ndonnx(Backend):
    """Exported as an ONNX model for each shape and dtype, and run by onnxruntime."""

    name = "ndonnx"
    # ONNX has bfloat16 and complex numbers, ndonnx has neither.
    dtypes = ("float16", "float32", "float64")
    # ONNX has no decompositions.
    lacks: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_ALGEBRA, dtypes)
    # A model returns a new array.
    mutable = False
    compiles = True
    extended = True

    def missing(self) -> str | None:
        return _absent("ndonnx", "onnxruntime")

    def start(self, constraint: Constraint) -> None:
        self._models: dict[Any, Any] = {}

    def asarray(self, data: Any, dtype: str) -> Array:
        import ndonnx

        return ndonnx.asarray(np.array(data, dtype=dtype))

    def numpy(self, w: Array) -> Any:
        return _to_double(w.unwrap_numpy())

    def project(self, constraint: Constraint, w: Array) -> Array:
        return self._run(constraint.project, w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        return self._run(constraint.violation, w)

    def _run(self, method: Callable[[Array], Array], w: Array) -> Array:
        import ndonnx

        # Not the constraint: it is the same until `start`, and has no hash if it holds arrays.
        key = (method.__name__, str(w.dtype), tuple(w.shape))
        if key not in self._models:
            self._models[key] = _export(method, w.dtype, tuple(w.shape))
        (result,) = self._models[key].run(None, {"w": w.unwrap_numpy()})
        return ndonnx.asarray(result)


def _export(method: Callable[[Array], Array], dtype: Any, shape: tuple[int, ...]) -> Any:
    import ndonnx
    import onnxruntime

    # The sizes of groups must be known: the sums are folded so many times.
    w = ndonnx.argument(shape=shape, dtype=dtype)
    model = ndonnx.build({"w": w}, {"result": method(w)})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        # onnxruntime 1.32 drops factors that float32 takes for 1, in float64 too: with w of shape
        # (1, 1) and dtype float64, the model of sqrt(w) * (1 + 2.0**-51) gives 2.0 for w = 4.0.
        disabled_optimizers=["NoopElimination"],
    )


class Mparray(Backend):
    """The same code in 50 digits: a second oracle, which shares the algorithm but not its rounding.

    The law "agreement" holds NumPy's float64 against it. mpmath has no negative zero.
    """

    name = "mparray"
    # The dtypes are only names: the numbers have 50 digits and any exponent.
    dtypes = ("float64", "complex128")
    # It has mpmath's for one matrix, and none in the form of the standard.
    lacks: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_ALGEBRA, dtypes)
    wide = ()
    extended = True

    def missing(self) -> str | None:
        return _absent("mparray", "mpmath")

    def session(self) -> AbstractContextManager[Any]:
        digits: AbstractContextManager[Any] = import_module("mpmath").workdps(50)
        return digits

    def asarray(self, data: Any, dtype: str) -> Array:
        import mparray

        return mparray.asarray(np.array(data, dtype=dtype))

    def numpy(self, w: Array) -> Any:
        kind = np.complex128 if "complex" in str(w.dtype) else np.float64
        return np.array(w._data, dtype=kind)  # mparray has no public way out
