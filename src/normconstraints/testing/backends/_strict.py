"""array-api-strict on a device that is not the default, with all ways to the host closed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

from normconstraints.constraint import Constraint
from normconstraints.testing.backends._base import Array, Backend

_CLOSED = [
    f"__{name}__"
    for name in (
        *("bool", "float", "int", "index", "complex", "iter", "array", "buffer", "setitem"),
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul"),
    )
]


@contextmanager
def guard() -> Iterator[None]:
    """Arrays of array-api-strict raise where a value would reach Python, or where they are changed.

    Without the patches ``float()`` and ``bool()`` work on every device.
    """
    import array_api_strict
    from array_api_strict._array_object import Array as Strict

    def closed(name: str) -> Any:
        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{name} takes a value to the host or changes an array")

        return refuse

    flags = array_api_strict.ArrayAPIStrictFlags(
        boolean_indexing=False, data_dependent_shapes=False
    )
    patches = [patch.object(Strict, n, closed(n)) for n in _CLOSED if hasattr(Strict, n)]
    with flags:
        for p in patches:
            p.start()
        try:
            yield
        finally:
            for p in patches:
                p.stop()


class Strict(Backend):
    name = "strict"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "complex64", "complex128")
    mutable = False
    modes = True
    device = "device1"

    def missing(self) -> str | None:
        return None if find_spec("array_api_strict") else "array-api-strict is not installed"

    def session(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")  # it computes with NumPy, but stands for other libraries

    def asarray(self, data: Any, dtype: str) -> Array:
        import array_api_strict as xp

        return xp.asarray(np.array(data, dtype=dtype), device=xp.Device(self.device))

    def numpy(self, w: Array) -> Any:
        x = w._array
        return np.array(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)

    def project(self, constraint: Constraint, w: Array) -> Array:
        with guard():
            return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        with guard():
            return constraint.violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        with guard():
            return function(*arrays)


class StrictNoX64(Strict):
    """A device without float64, as Apple's GPUs are, with subnormal numbers as they should be."""

    name = "strict no x64"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "complex64")
    wide: ClassVar[tuple[str, ...]] = ()
    device = "no_x64"
