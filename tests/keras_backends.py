"""The namespace over `keras.ops` for the suite: on the backend of Keras of this process."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import ml_dtypes
import numpy as np
from keras import ops

from normconstraints import Constraint
from normconstraints.testing import Backend
from normconstraints.testing.backends._base import BY_XLA
from normconstraints_keras._array import Array

BACKEND = keras.backend.backend()
# Keras computes in float32 what is float64, on all backends but TensorFlow.
WIDE = ("float32",) if BACKEND == "tensorflow" else ()
HALF = ("float16", "bfloat16")


class Keras(Backend):
    """Eager. The arrays are wrapped, as they are inside a projection of the adapter."""

    name = f"keras on {BACKEND}"
    dtypes: ClassVar[tuple[str, ...]] = (*HALF, "float32", *(["float64"] if WIDE else []))
    wide: ClassVar[tuple[str, ...]] = (*HALF, *WIDE)
    mutable = False
    # TensorFlow and XLA set what is subnormal to zero on the CPU, PyTorch does not.
    flushed = () if BACKEND == "torch" else BY_XLA
    # JAX compiles every operation for each shape and dtype.
    compiles = BACKEND == "jax"
    # Not `modes`: the adapter has no use for minimisers, tangents and samples.

    def asarray(self, data: Any, dtype: str) -> Any:
        """The numbers as a tensor, wrapped."""
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        x = np.array(data).astype(kind)
        if dtype == "bfloat16":  # PyTorch does not read NumPy's
            return Array(ops.cast(ops.convert_to_tensor(x.astype(np.float32)), dtype))
        return Array(ops.convert_to_tensor(x, dtype=dtype))

    def numpy(self, w: Any) -> Any:
        """The numbers, by way of float32 where NumPy has no such dtype."""
        tensor = ops.cast(w.tensor, "float32") if w.dtype == "bfloat16" else w.tensor
        tensor = tensor.detach() if hasattr(tensor, "detach") else tensor
        return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor).astype(np.float64)

    def kept(self, w: Any) -> tuple[Any, ...]:
        """Of the tensor inside."""
        return (type(w), type(w.tensor), w.dtype, w.shape, getattr(w.tensor, "device", None))


class _Function(Keras):
    """In a function of TensorFlow, which is traced for each shape and dtype."""

    compiles = True
    jit: ClassVar[bool] = False

    def start(self, constraint: Constraint) -> None:
        """Two functions for each constraint."""
        import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self._project, self._violation = (
            # The shapes are fixed, as those of variables are.
            # AutoGraph stays out, as it does in what Keras' own trainings call.
            tf.function(lambda x, f=f: f(Array(x)).tensor, jit_compile=self.jit, autograph=False)
            for f in (constraint.project, constraint.violation)
        )

    def project(self, constraint: Constraint, w: Any) -> Any:
        """In the graph."""
        return Array(self._project(w.tensor))

    def violation(self, constraint: Constraint, w: Any) -> Any:
        """In the graph."""
        return Array(self._violation(w.tensor))


class TensorFlowGraph(_Function):
    """A graph."""

    name = "keras on tensorflow, graph"


class TensorFlowXla(_Function):
    """A graph that XLA compiles."""

    name = "keras on tensorflow, XLA"
    jit = True
    # TensorFlow lets its Jacobi rotations stop at 1e-6 of the largest value, in double too, and has
    # no determinants for it.
    lacks: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("svd", "eigh", "slogdet"), Keras.dtypes
    )


class TensorFlowTape(Keras):
    """The derivative by a tape."""

    name = "keras on tensorflow, tape"
    differentiable = True

    def pullback(self, constraint: Constraint, w: Any, cotangent: Any) -> Any:
        """The vector-Jacobian product."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(w.tensor)
            value = constraint.project(Array(w.tensor)).tensor
        zero = tf.UnconnectedGradients.ZERO
        return Array(tape.gradient(value, w.tensor, cotangent.tensor, unconnected_gradients=zero))
