"""The array API standard over `keras.ops`, so that the core takes tensors of TensorFlow.

Tensors of PyTorch and JAX need none of this. What is here is what the sets use and no more: `Array`
wraps a tensor for the time of a projection, `namespace` has the functions for it. Dtypes are Keras'
strings. Complex numbers are left out, for Keras does not say what dtype their sums have.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import ml_dtypes
from keras import ops

_FLOATS = ("bfloat16", "float16", "float32", "float64")
_SIGNED = ("int8", "int16", "int32", "int64")
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
_KINDS = {
    "bool": ("bool",),
    "signed integer": _SIGNED,
    "unsigned integer": _UNSIGNED,
    "integral": _SIGNED + _UNSIGNED,
    "real floating": _FLOATS,
    "numeric": _SIGNED + _UNSIGNED + _FLOATS,
}


def _add(x: Any, y: Any) -> Any:
    # TensorFlow adds what looks like a bias by a kernel that refuses arrays without entries.
    return ops.subtract(x, ops.negative(y)) if 0 in x.shape else ops.add(x, y)


def _extreme(function: Callable[..., Any]) -> Any:
    """A reduction that Keras refuses for arrays without entries, also where no group is empty."""
    return staticmethod(
        lambda x, **kwargs: Array((ops.sum if 0 in x.shape else function)(x.tensor, **kwargs))
    )


def _operator(function: Callable[[Any, Any], Any]) -> Any:
    # Not the tensor's own operator: TensorFlow's refuses operands of two dtypes.
    return lambda self, other: Array(function(self.tensor, _beside(other, self)))


def _reflected(function: Callable[[Any, Any], Any]) -> Any:
    return lambda self, other: Array(function(_beside(other, self), self.tensor))


class Array:
    """A tensor of Keras' backend with the operators of the standard."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        """Wrap a tensor, without a copy."""
        self.tensor = tensor

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The functions for it."""
        return namespace

    def __repr__(self) -> str:
        return f"Array({self.tensor!r})"

    @property
    def dtype(self) -> str:
        """The dtype by its name in Keras."""
        return str(keras.backend.standardize_dtype(self.tensor.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.tensor.shape)

    def __getitem__(self, key: Any) -> Array:
        return Array(self.tensor[key])

    def tolist(self) -> Any:
        """The entries as nested lists of Python numbers."""
        numbers: Any = ops.convert_to_numpy(self.tensor)
        return numbers.tolist()

    def __neg__(self) -> Array:
        return Array(ops.negative(self.tensor))

    def __abs__(self) -> Array:
        return Array(ops.abs(self.tensor))

    def __invert__(self) -> Array:
        return Array(ops.logical_not(self.tensor))

    __add__, __radd__ = _operator(_add), _reflected(_add)
    __sub__, __rsub__ = _operator(ops.subtract), _reflected(ops.subtract)
    __mul__, __rmul__ = _operator(ops.multiply), _reflected(ops.multiply)
    __truediv__, __rtruediv__ = _operator(ops.true_divide), _reflected(ops.true_divide)
    __pow__, __matmul__ = _operator(ops.power), _operator(ops.matmul)
    __and__, __rand__ = _operator(ops.logical_and), _reflected(ops.logical_and)
    __or__, __ror__ = _operator(ops.logical_or), _reflected(ops.logical_or)
    __lt__, __le__ = _operator(ops.less), _operator(ops.less_equal)
    __gt__, __ge__ = _operator(ops.greater), _operator(ops.greater_equal)
    __eq__, __ne__ = _operator(ops.equal), _operator(ops.not_equal)


def _beside(value: Any, array: Array) -> Any:
    """The tensor of an array, or a number as one of the dtype of the array beside it."""
    if isinstance(value, Array):
        return value.tensor
    # Keras would take a float for one of its floatx, and an int beside floats for an integer.
    return ops.convert_to_tensor(value, dtype=array.dtype)


def _of_one(function: Callable[..., Any]) -> Any:
    return staticmethod(lambda x, **kwargs: Array(function(x.tensor, **kwargs)))


def _of_two(function: Callable[[Any, Any], Any]) -> Any:
    def of_two(x: Any, y: Any) -> Array:
        array = x if isinstance(x, Array) else y
        return Array(function(_beside(x, array), _beside(y, array)))

    return staticmethod(of_two)


def _shaped(function: Callable[..., Any]) -> Any:
    return staticmethod(lambda x, shape: Array(function(x.tensor, shape)))


class _Linalg:
    """The extension for linear algebra."""

    solve = _of_two(ops.solve)

    def svd(self, x: Array, *, full_matrices: builtins.bool) -> tuple[Array, ...]:
        found: Any = ops.svd(x.tensor, full_matrices=full_matrices)
        return tuple(map(Array, found))

    def svdvals(self, x: Array) -> Array:
        return Array(ops.svd(x.tensor, compute_uv=False))

    def eigh(self, x: Array) -> tuple[Array, Array]:
        values, vectors = cast(Any, ops.eigh(x.tensor))
        return Array(values), Array(vectors)

    def eigvalsh(self, x: Array) -> Array:
        return self.eigh(x)[0]  # Keras has no values alone

    def slogdet(self, x: Array) -> tuple[Array, Array]:
        sign, logarithm = cast(Any, ops.slogdet(x.tensor))
        return Array(sign), Array(logarithm)


class _Namespace:
    """The functions of the standard, as far as the sets call them."""

    __name__ = "keras"
    linalg = _Linalg()

    bool, int32, int64 = "bool", "int32", "int64"
    float32, float64 = "float32", "float64"

    abs, sqrt, sin = _of_one(ops.abs), _of_one(ops.sqrt), _of_one(ops.sin)
    exp, log = _of_one(ops.exp), _of_one(ops.log)
    isfinite, logical_not = _of_one(ops.isfinite), _of_one(ops.logical_not)
    max, min, mean = _extreme(ops.max), _extreme(ops.min), _of_one(ops.mean)
    all, any = _of_one(ops.all), _of_one(ops.any)
    sort, flip = _of_one(ops.sort), _of_one(ops.flip)
    squeeze, expand_dims = _of_one(ops.squeeze), _of_one(ops.expand_dims)
    maximum, minimum = _of_two(ops.maximum), _of_two(ops.minimum)
    matmul = _of_two(ops.matmul)
    reshape, broadcast_to = _shaped(ops.reshape), _shaped(ops.broadcast_to)
    permute_dims = _shaped(ops.transpose)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        array = x if isinstance(x, Array) else y
        return Array(ops.where(condition.tensor, _beside(x, array), _beside(y, array)))

    def isdtype(self, dtype: str, kind: str | tuple[str, ...]) -> builtins.bool:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        return builtins.any(dtype in _KINDS.get(k, (k,)) for k in kinds)

    def finfo(self, dtype: str) -> Any:
        return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # untyped

    def __array_namespace_info__(self) -> _Namespace:
        return self

    def dtypes(self, *, device: object = None) -> dict[str, str]:
        """What there is. For float64 Keras computes in less on PyTorch, and so does JAX."""
        names = [name for kind in ("bool", "numeric") for name in _KINDS[kind]]
        if keras.backend.result_type("float64", "float64") != "float64":
            names.remove("float64")
        return dict(zip(names, names, strict=True))

    def asarray(self, x: Any, *, dtype: str | None = None, copy: object = None) -> Array:
        return Array(ops.convert_to_tensor(x.tensor if isinstance(x, Array) else x, dtype=dtype))

    def astype(self, x: Array, dtype: str) -> Array:
        return Array(ops.cast(x.tensor, dtype))

    def zeros_like(self, x: Array, *, dtype: str | None = None) -> Array:
        return Array(ops.zeros_like(x.tensor, dtype=dtype))

    def ones_like(self, x: Array, *, dtype: str | None = None) -> Array:
        return Array(ops.ones_like(x.tensor, dtype=dtype))

    def full_like(self, x: Array, value: Any, *, dtype: str | None = None) -> Array:
        return Array(ops.full_like(x.tensor, value, dtype=dtype))

    def sum(self, x: Array, *, dtype: str | None = None, **kwargs: Any) -> Array:
        return Array(ops.sum(x.tensor if dtype is None else ops.cast(x.tensor, dtype), **kwargs))

    def cumulative_sum(self, x: Array, *, axis: int, dtype: str) -> Array:
        return Array(ops.cumsum(x.tensor, axis=axis, dtype=dtype))

    def clip(self, x: Array, low: Any, high: Any) -> Array:
        return Array(ops.clip(x.tensor, _beside(low, x), _beside(high, x)))

    def concat(self, arrays: Sequence[Array], *, axis: int = 0) -> Array:
        return Array(ops.concatenate([a.tensor for a in arrays], axis=axis))

    def stack(self, arrays: Sequence[Array], *, axis: int) -> Array:
        return Array(ops.stack([a.tensor for a in arrays], axis=axis))

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        return Array(ops.take(x.tensor, indices.tensor, axis=axis))

    def matrix_transpose(self, x: Array) -> Array:
        return Array(ops.swapaxes(x.tensor, -1, -2))


namespace = _Namespace()
