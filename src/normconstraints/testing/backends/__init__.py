"""The array libraries and ways of running them that the suite knows."""

from __future__ import annotations

from collections.abc import Iterable

from normconstraints.testing.backends._base import Array, Backend
from normconstraints.testing.backends._cupy import Cupy, CupyDouble
from normconstraints.testing.backends._extended import Dask, Dpnp, Mlx, Mparray, Ndonnx
from normconstraints.testing.backends._jax import (
    Jax,
    JaxGpu,
    JaxGpuX64,
    JaxGrad,
    JaxGradX64,
    JaxJit,
    JaxJitX64,
    JaxSharded,
    JaxVmap,
    JaxX64,
)
from normconstraints.testing.backends._numpy import Numpy, NumpyReadOnly
from normconstraints.testing.backends._strict import Strict, StrictNoX64
from normconstraints.testing.backends._torch import (
    Torch,
    TorchCompile,
    TorchCuda,
    TorchFake,
    TorchGrad,
    TorchMeta,
    TorchNoSync,
    TorchVmap,
)

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Numpy(),
        NumpyReadOnly(),
        Torch(),
        TorchCompile(),
        TorchVmap(),
        TorchGrad(),
        TorchMeta(),
        TorchFake(),
        TorchNoSync(),
        Jax(),
        JaxX64(),
        JaxJit(),
        JaxJitX64(),
        JaxVmap(),
        JaxGrad(),
        JaxGradX64(),
        JaxSharded(),
        Strict(),
        StrictNoX64(),
        CupyDouble(),
        Cupy(),
        TorchCuda(),
        JaxGpu(),
        JaxGpuX64(),
        Dask(),
        Mlx(),
        Dpnp(),
        Ndonnx(),
        Mparray(),
    )
}
"""Every backend by its name."""


def find_backends(chosen: Iterable[str | Backend] | None) -> list[Backend]:
    """The backends of that name or of that library ("torch" is one, "torch*" all of torch's).

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    if chosen is None:
        return [b for b in BACKENDS.values() if not b.extended]
    found: list[Backend] = []
    for item in chosen:
        if isinstance(item, Backend):
            found.append(item)
            continue
        hits = [
            b
            for b in BACKENDS.values()
            if b.name == item or (item.endswith("*") and b.name.startswith(item[:-1]))
        ]
        if not hits:
            raise ValueError(
                f"check_constraint: a backend must be among {', '.join(BACKENDS)}, got {item!r}"
            )
        found += [b for b in hits if b not in found]
    return found


__all__ = ["BACKENDS", "Array", "Backend", "find_backends"]
