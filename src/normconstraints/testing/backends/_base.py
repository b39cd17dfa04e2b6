"""What the suite needs to know of an array library, and of a way to run it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from normconstraints.constraint import Constraint

Array = Any
HALF, SINGLE, DOUBLE = ("float16", "bfloat16"), ("float32", "complex64"), ("float64", "complex128")
BY_XLA = ("bfloat16", *SINGLE, *DOUBLE)
"""The dtypes whose subnormal numbers are zero for what XLA compiles for the CPU."""


class Backend(ABC):
    """An array library, run in one way: eagerly, compiled, batched, on another device, watched.

    Numbers come in and go out as NumPy arrays of float64 or complex128, which hold every number of
    the other dtypes.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]
    wide: ClassVar[tuple[str, ...]] = (*HALF, *SINGLE)
    """The dtypes for which a wider accumulator exists."""
    has_values: ClassVar[bool] = True
    """False where only shapes and dtypes exist."""
    mutable: ClassVar[bool] = True
    """Whether `project_` is to work; False with `immutable` means that it must refuse."""
    immutable: ClassVar[bool] = False
    flushed: ClassVar[tuple[str, ...]] = ()
    """The dtypes whose subnormal numbers count as zero."""
    quick: ClassVar[bool] = False
    """Whether large groups are tried too."""
    compiles: ClassVar[bool] = False
    """Whether each shape and dtype costs a compilation: few shapes are tried then."""
    differentiable: ClassVar[bool] = False
    modes: ClassVar[bool] = False
    """Whether linear minimisers, dual norms, tangents and samples are tried too."""
    draws: ClassVar[bool] = True
    """Whether it has random numbers."""
    extended: ClassVar[bool] = False
    """Whether it is run only when it is named."""
    lacks: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Functions of the standard, such as "svd", by the dtypes of weights for which the library has
    none that is right: sets that need them are skipped there, and that is said."""
    gpu: ClassVar[bool] = False
    """Whether it wants a GPU, without which it is missing."""

    def missing(self) -> str | None:
        """Why the backend cannot be run here, or None."""
        return None

    def session(self) -> AbstractContextManager[Any]:
        """Entered around all work with the backend."""
        return nullcontext()

    def start(self, constraint: Constraint) -> None:  # noqa: B027 - most need no preparation
        """Prepare for the cases of a constraint."""

    @abstractmethod
    def asarray(self, data: Any, dtype: str) -> Array:
        """The numbers as an array of the library that shares no memory with `data`."""

    def strided(self, data: Any, dtype: str) -> Array | None:
        """The same as a view that is not contiguous, if the library has such."""
        return None

    @abstractmethod
    def numpy(self, w: Array) -> Any:
        """The numbers of an array."""

    def project(self, constraint: Constraint, w: Array) -> Array:
        """``constraint.project(w)`` in the way of this backend."""
        return constraint.project(w)

    def violation(self, constraint: Constraint, w: Array) -> Array:
        """``constraint.violation(w)`` in the way of this backend."""
        return constraint.violation(w)

    def call(self, function: functools.partial[Array], *arrays: Array) -> Array:
        """Any function of arrays in the way of this backend."""
        return function(*arrays)

    def kept(self, w: Array) -> tuple[Any, ...]:
        """All that a projection must not change: type, dtype, shape, device."""
        return (type(w), w.dtype, tuple(w.shape), getattr(w, "device", None))

    def pullback(self, constraint: Constraint, w: Array, cotangent: Array) -> Array:
        """The vector-Jacobian product of the projection at `w`."""
        raise TypeError(f"{self.name} has no derivatives")  # asked only of differentiable ones

    def read_only(self, w: Array) -> Array | None:
        """An array that must not be written to, if the library has such."""
        return None
