"""JAX: eager, compiled, batched, differentiated, with and without float64, sharded, on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from normconstraints.constraint import Constraint
from normconstraints.testing.backends._base import BY_XLA, DOUBLE, HALF, SINGLE, Array, Backend


class Jax(Backend):
    name = "jax"
    dtypes: ClassVar[tuple[str, ...]] = (*HALF, *SINGLE)
    wide: ClassVar[tuple[str, ...]] = HALF
    mutable = False
    immutable = True
    flushed: ClassVar[tuple[str, ...]] = BY_XLA
    quick = True
    compiles = True
    platform: ClassVar[str] = "cpu"
    x64: ClassVar[bool] = False

    def missing(self) -> str | None:
        return None if find_spec("jax") else "jax is not installed"

    def session(self) -> AbstractContextManager[Any]:
        import jax

        stack = ExitStack()
        stack.enter_context(jax.enable_x64(self.x64))
        # Where there is a GPU, JAX would put arrays there.
        stack.enter_context(jax.default_device(jax.local_devices(backend=self.platform)[0]))
        return stack

    def start(self, constraint: Constraint) -> None:
        import jax

        self._project = jax.jit(constraint.project)
        self._violation = jax.jit(constraint.violation)
        self._calls: dict[Any, Callable[..., Array]] = {}

    def asarray(self, data: Any, dtype: str) -> Array:
        import jax.numpy as jnp
        import ml_dtypes

        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        return jnp.asarray(np.array(data).astype(kind))

    def numpy(self, w: Array) -> Any:
        x = np.asarray(w)
        return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


class JaxX64(Jax):
    name = "jax x64"
    x64 = True
    dtypes: ClassVar[tuple[str, ...]] = (*HALF, *SINGLE, *DOUBLE)
    wide: ClassVar[tuple[str, ...]] = (*HALF, *SINGLE)


class JaxJit(Jax):
    name = "jax jit"
    quick = False
    modes = True

    def project(self, constraint: Constraint, w: Array) -> Array:
        return self._project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        return self._violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        import jax

        # Compiled once, and not for every partial of the same function anew.
        key = (function.func, *(a if isinstance(a, int) else id(a) for a in function.args))
        return self._calls.setdefault(key, jax.jit(function))(*arrays)


class JaxJitX64(JaxJit):
    name = "jax jit x64"
    x64 = True
    modes = False
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    wide: ClassVar[tuple[str, ...]] = ("float32",)


class JaxVmap(Jax):
    name = "jax vmap"
    quick = False

    def start(self, constraint: Constraint) -> None:
        import jax

        self._project = jax.jit(jax.vmap(constraint.project))
        self._violation = jax.jit(jax.vmap(constraint.violation))

    def project(self, constraint: Constraint, w: Array) -> Array:
        import jax.numpy as jnp

        return self._project(jnp.stack([w, w]))[1]

    def violation(self, constraint: Constraint, w: Array) -> Array:
        import jax.numpy as jnp

        return self._violation(jnp.stack([w, w]))[1]


class JaxGrad(Jax):
    """The value that comes along with a derivative, compiled."""

    name = "jax grad"
    quick = False
    differentiable = True

    def start(self, constraint: Constraint) -> None:
        import jax

        def both(w: Any, cotangent: Any) -> Any:
            value, pull = jax.vjp(constraint.project, w)
            return value, pull(cotangent)[0]

        self._both = jax.jit(both)

    def project(self, constraint: Constraint, w: Array) -> Array:
        return self._both(w, w)[0]

    def pullback(self, constraint: Constraint, w: Array, cotangent: Array) -> Array:
        return self._both(w, cotangent)[1]


class JaxGradX64(JaxGrad):
    name = "jax grad x64"
    x64 = True
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    wide: ClassVar[tuple[str, ...]] = ("float32",)


class JaxSharded(Jax):
    """Arrays spread over eight devices along their first axis, compiled."""

    name = "jax sharded"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    quick = False

    def missing(self) -> str | None:
        if (reason := super().missing()) is not None:
            return reason
        import jax

        found = len(jax.devices("cpu"))
        if found < 8:
            return (
                f"jax has {found} of 8 devices; set "
                "XLA_FLAGS=--xla_force_host_platform_device_count=8 before jax starts"
            )
        return None

    def asarray(self, data: Any, dtype: str) -> Array:
        import jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec

        devices = jax.devices("cpu")[:8]
        mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,), devices=devices)
        split = data.ndim > 0 and data.shape[0] % 8 == 0 and data.shape[0] > 0
        names = ("devices",) if split else ()
        spec = PartitionSpec(*names)  # type: ignore[no-untyped-call]
        return jax.device_put(super().asarray(data, dtype), NamedSharding(mesh, spec))

    def project(self, constraint: Constraint, w: Array) -> Array:
        return self._project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        return self._violation(w)

    def kept(self, w: Array) -> tuple[Any, ...]:
        # The number of rows on each device says how it is sharded, however that is written.
        shards = sorted((s.device.id, s.data.shape) for s in w.addressable_shards)
        return (type(w), w.dtype, tuple(w.shape), tuple(shards))


class JaxGpu(JaxJit):
    """Compiled for a GPU, which keeps subnormal numbers."""

    name = "jax gpu"
    gpu = True
    platform = "gpu"
    flushed: ClassVar[tuple[str, ...]] = ()
    quick = True

    def missing(self) -> str | None:
        if (reason := super().missing()) is not None:
            return reason
        import jax

        try:
            jax.devices(self.platform)
        except RuntimeError as error:
            return f"no GPU: {error}"
        return None


class JaxGpuX64(JaxGpu):
    name = "jax gpu x64"
    x64 = True
    dtypes: ClassVar[tuple[str, ...]] = (*SINGLE, *DOUBLE)
    wide: ClassVar[tuple[str, ...]] = SINGLE
