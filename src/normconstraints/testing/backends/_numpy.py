"""NumPy, also with inputs that must not be written to."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from normconstraints.testing.backends._base import Array, Backend


class Numpy(Backend):
    name = "numpy"
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32", "float64", "complex64", "complex128")
    quick = True
    modes = True

    def asarray(self, data: Any, dtype: str) -> Array:
        return np.array(data, dtype=dtype)

    def strided(self, data: Any, dtype: str) -> Array | None:
        store = np.zeros(tuple(2 * s for s in data.shape)[::-1], dtype=dtype).T
        view = store[tuple(slice(None, None, 2) for _ in data.shape)]
        view[...] = data
        return view

    def numpy(self, w: Array) -> Any:
        return w.astype(np.complex128 if np.iscomplexobj(w) else np.float64)

    def read_only(self, w: Array) -> Array | None:
        w = w.copy()
        w.flags.writeable = False
        return w


class NumpyReadOnly(Numpy):
    name = "numpy read-only"
    mutable = False
    quick = False
    modes = False

    def asarray(self, data: Any, dtype: str) -> Array:
        w = np.array(data, dtype=dtype)
        w.flags.writeable = False
        return w

    def strided(self, data: Any, dtype: str) -> Array | None:
        w = super().strided(data, dtype)
        assert w is not None
        w.flags.writeable = False
        return w
