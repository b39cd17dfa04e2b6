"""CuPy where there is a GPU, and its double, which has CuPy's names and refusals, where not."""

# pyright: reportMissingImports=false

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from normconstraints.constraint import Constraint
from normconstraints.testing.backends._base import SINGLE, Array, Backend


class CupyDouble(Backend):
    """Proves names, signatures, dtypes and transfers against CuPy's namespace, not kernels."""

    name = "cupy double"
    modes = True
    draws = False
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32", "float64", "complex64", "complex128")

    def session(self) -> AbstractContextManager[Any]:
        return _double()

    def asarray(self, data: Any, dtype: str) -> Array:
        from normconstraints.testing.backends import _cupy_double

        return _cupy_double.from_numpy(np.array(data, dtype=dtype))

    def numpy(self, w: Array) -> Any:
        from normconstraints.testing.backends import _cupy_double

        x = _cupy_double.to_numpy(w)
        return np.array(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)

    def project(self, constraint: Constraint, w: Array) -> Array:
        from normconstraints.testing.backends import _cupy_double

        with _cupy_double.forbid_host_sync():
            return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        from normconstraints.testing.backends import _cupy_double

        with _cupy_double.forbid_host_sync():
            return constraint.violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        from normconstraints.testing.backends import _cupy_double

        with _cupy_double.forbid_host_sync():
            return function(*arrays)


@contextmanager
def _double() -> Iterator[None]:
    from normconstraints import _array
    from normconstraints.testing.backends import _cupy_double

    try:
        # It computes with NumPy, whose warnings CuPy does not give.
        with _cupy_double.install(), np.errstate(all="ignore"):
            yield
    finally:
        _array.forget(_cupy_double.ndarray)


class Cupy(Backend):
    name = "cupy"
    gpu = True
    # CuPy compiles its kernels with -ftz=true, which is about float32 alone.
    flushed: ClassVar[tuple[str, ...]] = SINGLE
    modes = True
    quick = True
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32", "float64", "complex64", "complex128")

    def missing(self) -> str | None:
        if not find_spec("cupy"):
            return "cupy is not installed"
        import cupy

        try:
            cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"no GPU: {error}"
        return None

    def asarray(self, data: Any, dtype: str) -> Array:
        import cupy

        return cupy.asarray(np.array(data, dtype=dtype))

    def strided(self, data: Any, dtype: str) -> Array | None:
        import cupy

        store = cupy.zeros(tuple(2 * s for s in data.shape)[::-1], dtype=dtype).T
        view = store[tuple(slice(None, None, 2) for _ in data.shape)]
        view[...] = self.asarray(data, dtype)
        return view

    def numpy(self, w: Array) -> Any:
        x = w.get()
        return np.array(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)
