"""The door to the array libraries.

Nothing else in the core imports array_api_compat or asks which library an array belongs to. What
is here: the namespace of an array, what its dtype can hold, sums that stay accurate, writing in
place, and whether an array is plain host memory (then `_host` works on it).
"""

from __future__ import annotations

import math
import sys
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of any library that follows the array API standard (it has no common static type)."""

Namespace: TypeAlias = Any
"""The module that holds the functions of the standard for one library."""

_namespaces: dict[type, Namespace] = {}
_precisions: dict[tuple[Any, ...], Precision] = {}
# torch, once one of its tensors was here. In traced code this name stands for sys.modules, through
# which Dynamo would walk while modules are still imported.
_torch: Any = None
_sharded: set[type] = set()
"""The types whose arrays several processes hold in parts."""
_hosts: dict[type, str] = {}
"""The types whose arrays always are plain host memory: NumPy's own array, no subclass of it."""

_CONVERT = "convert it first, for example with numpy.asarray(w, dtype=float)"


def namespace(w: Array, owner: str) -> Namespace:
    """The array API namespace of `w`; a TypeError in the name of `owner` if it is no array."""
    # The question costs a microsecond through array_api_compat and makes torch.compile warn; the
    # answer depends on the type alone.
    xp = _namespaces.get(type(w))
    return _admit(w, owner) if xp is None else xp


def _admit(w: Array, owner: str) -> Namespace:
    kind = type(w)
    names: list[str] = []
    for base in kind.__mro__:
        names.append(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if names[-1] == "torch.Tensor":
            break  # what is below is written in C, and torch 2.11's Dynamo cannot ask its module
    if "numpy.MaskedArray" in names:
        raise TypeError(
            f"{owner}: w must be a plain array, got a {kind.__name__}; the mask would be lost, so "
            "pass w.filled(value) or w.data"
        )
    if "numpy.matrix" in names:
        raise TypeError(
            f"{owner}: w must be a plain array, got a numpy.matrix; pass numpy.asarray(w)"
        )
    if "numpy.generic" in names:
        raise TypeError(f"{owner}: w must be an array, got the scalar {w!r}; pass numpy.asarray(w)")
    if "torch.Tensor" in names:
        import array_api_compat.torch as xp

        global _torch
        _torch = sys.modules["torch"]
        if "torch.DTensor" in names:
            _sharded.add(kind)
    else:
        from array_api_compat import array_namespace

        try:
            xp = array_namespace(w)
        except TypeError:
            raise TypeError(
                f"{owner}: w must be an array of a library that follows the array API standard "
                f"(NumPy, PyTorch, JAX, CuPy, ...), got {_kind(w)}; {_CONVERT}"
            ) from None
        if xp is None:
            raise TypeError(f"{owner}: w must be an array, got {_kind(w)}; {_CONVERT}")
    _namespaces[kind] = xp
    if f"{kind.__module__}.{kind.__qualname__}" == "numpy.ndarray":
        _hosts[kind] = "numpy"
    return xp


def is_sharded(w: Array) -> bool:
    """Whether `w` is an array that several processes hold in parts, after `namespace` saw it."""
    return type(w) in _sharded


def forget(kind: type) -> None:
    """Forget the namespace of a type that goes away, as that of a stand-in for a library does."""
    _namespaces.pop(kind, None)


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


@dataclass(frozen=True)
class Precision:
    """What the dtype of an array can hold, and what its norms are to be computed in."""

    dtype: Any
    real: Any
    """The real dtype with the same precision: `dtype` itself unless that is complex."""
    is_complex: bool
    eps: float
    """Distance from 1 to the next larger number."""
    smallest: float
    """The smallest positive normal number."""
    exponent: int
    """The largest power of two is ``2 ** (exponent - 1)``."""
    wide: Any | None
    """A real dtype with at least twice the digits and range, if the library has one."""
    wide_complex: Any | None
    scaled: bool
    """Whether squares can overflow where norms are taken: nothing wider, or bfloat16 in float32."""
    by_factor: bool
    """Single precision beside double: one multiplication by a rounded factor is exact enough."""

    @property
    def unit(self) -> float:
        """The largest relative error of one rounding."""
        return self.eps / 2

    @property
    def accumulator(self) -> Any:
        return self.real if self.wide is None else self.wide


def precision(w: Array, xp: Namespace, owner: str, *, allow_complex: bool = True) -> Precision:
    """The precision of `w`; a TypeError in the name of `owner` if it is not floating point."""
    kind = type(w)
    # The device can make a difference, but not for plain NumPy; a flag does for JAX, whose tracers
    # have no device and take long to say so; CuPy's devices have no hash.
    if kind in _hosts or "cupy" in xp.__name__:
        key: tuple[Any, ...] = (kind, w.dtype)
    elif is_jax(xp):
        key = (xp, w.dtype, _jax_x64())
    else:
        key = (kind, w.dtype, getattr(w, "device", None))
    found = _precisions.get(key)
    if found is None:
        found = _precisions[key] = _measure_precision(w, xp, owner)
    if found.is_complex and not allow_complex:
        raise TypeError(
            f"{owner}: w must be real, got {w.dtype}; the set has no meaning for complex numbers"
        )
    return found


def _measure_precision(w: Array, xp: Namespace, owner: str) -> Precision:
    try:
        is_complex = bool(xp.isdtype(w.dtype, "complex floating"))
        is_float = is_complex or bool(xp.isdtype(w.dtype, "real floating"))
    except TypeError:  # dtypes that NumPy does not know as its own: ml_dtypes' bfloat16
        is_complex = is_float = False
    if not is_float:
        raise TypeError(
            f"{owner}: w must have a floating point dtype of {name_of(xp)}, got {w.dtype}; "
            "cast it to float32 or float64 first"
        )
    info = xp.finfo(w.dtype)
    eps, smallest = float(info.eps), float(info.smallest_normal)
    if not smallest:  # NumPy's longdouble, whose range no Python number has
        raise TypeError(
            f"{owner}: w must have a dtype no wider than float64, or complex128, got {w.dtype}; "
            "cast it to that first"
        )
    exponent = 2 - round(math.log2(smallest))
    real = w.dtype
    if is_complex:
        real = xp.float32 if eps > 1e-10 else xp.float64
    doubles = eps > 1e-10 and _has_float64(w, xp)
    if is_complex and not hasattr(xp, "complex128"):  # MLX
        doubles = False
    wide = xp.float64 if doubles else xp.float32 if eps > 1e-6 else None
    return Precision(
        dtype=w.dtype,
        real=real,
        is_complex=is_complex,
        eps=eps,
        smallest=smallest,
        exponent=exponent,
        wide=wide,
        wide_complex=xp.complex128 if doubles and is_complex else None,
        scaled=wide is None or (not doubles and exponent == 128),
        by_factor=doubles and eps < 1e-6,
    )


def _has_float64(w: Array, xp: Namespace) -> bool:
    device = None if is_jax(xp) else getattr(w, "device", None)
    if "torch" in xp.__name__:
        return getattr(device, "type", None) != "mps"
    try:
        names = xp.__array_namespace_info__().dtypes(device=device)
    except (AttributeError, TypeError, ValueError):  # no inspection, or not for this device
        return hasattr(xp, "float64")
    return "float64" in names


def fuses(xp: Namespace) -> bool:
    """Whether the library compiles chains of operations into one pass over memory."""
    return is_jax(xp)


def is_jax(xp: Namespace) -> bool:
    """Whether the library is JAX, which has its own control flow where it traces."""
    return bool(xp.__name__ == "jax.numpy")


def _jax_x64() -> bool:
    return bool(sys.modules["jax"].config.jax_enable_x64)


def name_of(xp: Namespace) -> str:
    """The name of a library as its users write it."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def boolean(xp: Namespace) -> Any:
    """The dtype of truth values, which MLX writes as NumPy once did."""
    return xp.bool_ if name_of(xp) == "mlx" else xp.bool


def trues_like(x: Array, xp: Namespace) -> Array:
    """True for every entry of `x`."""
    return xp.ones_like(x, dtype=boolean(xp))


def tally(mask: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """How many entries are true over `axes`, which are kept with length 1."""
    # Integers: in single precision a count is exact to 2**24 only.
    count = xp.astype(mask, xp.int32)
    if not axes:
        return count
    if name_of(xp) == "mlx":  # where a sum takes no dtype, for it keeps that of what it adds
        return xp.sum(count, axis=axes, keepdims=True)
    return xp.sum(count, axis=axes, keepdims=True, dtype=xp.int32)


def tolerance(eps: float, size: int, *, wide: bool, decomposed: bool = False) -> float:
    """How far, relative to its bound, a group of `size` entries may be out and count as inside.

    This is the only tolerance: the sets use it to decide what they leave alone, the tests to decide
    what is right. Four units of the last place cover the rounding of the bound, of the quotient and
    of the product. Where no wider dtype measures, the sum of a group is rounded too: pairwise,
    hence an eighth of a unit for every doubling of the group. A matrix that is `decomposed` is then
    rounded by more: singular values were seen 10 units off for 100 columns, 14 for 256.
    """
    if wide:
        return eps * 4
    return eps * (2 * (8 + size**0.25) if decomposed else 4 + math.log2(max(size, 1)) / 8)


# ---------------------------------------------------------------------------------------- axes


def normalise_axis(
    axis: int | tuple[int, ...] | str | None, ndim: int, owner: str
) -> tuple[int, ...]:
    """The axes as sorted non-negative integers."""
    if type(axis) is int and -ndim <= axis < ndim:  # nearly always
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, str):
        raise ValueError(
            f'{owner}: axis="{axis}" depends on the layer, and a bare array does not say which '
            'axes are meant; for the incoming weights of one unit ("unit") write axis=1 for a '
            "weight of shape (out, in), axis=0 for (in, out), axis=(1, 2, 3) for (out, in, height, "
            "width), or attach the constraint through an adapter, which knows the layer"
        )
    axes = (axis,) if isinstance(axis, int) else axis
    for a in axes:
        if not -ndim <= a < ndim:
            raise ValueError(
                f"{owner}: axis must exist, got axis={axis!r} for an array with {ndim} dimension"
                f"{'' if ndim == 1 else 's'}; "
                + (f"use {-ndim} to {ndim - 1}, or None for all" if ndim else "use axis=None")
            )
    found = tuple(sorted(a % ndim for a in axes))
    if len(set(found)) < len(found):
        raise ValueError(f"{owner}: axis must name each axis once, got axis={axis!r}")
    return found


def group_size(w: Array, axes: tuple[int, ...]) -> int:
    """Number of entries in a group."""
    size: int = math.prod([w.shape[a] for a in axes])  # a list: Dynamo does not trace the generator
    if _exchanging and (parts := _parts.get()) is not None:
        return size * parts.count
    return size


def groupwise(
    value: Any, w: Array, axes: tuple[int, ...], xp: Namespace, dtype: Any, name: str
) -> Any:
    """A parameter of the groups in a form that combines with reductions that keep their axes.

    `name` is "Class: parameter", for the error where the shape or the library does not fit.
    """
    if isinstance(value, float):
        return value
    given = like(value, w, xp, dtype, name)
    shape = tuple(s for i, s in enumerate(w.shape) if i not in axes)
    fitted = _broadcast(given, shape, xp, f"{name} must broadcast against the groups", "axis")
    return xp.reshape(fitted, tuple(1 if i in axes else s for i, s in enumerate(w.shape)))


def entrywise(value: Any, w: Array, xp: Namespace, dtype: Any, name: str) -> Any:
    """A parameter of the entries of `w`: a number, or an array of the shape of `w`."""
    if isinstance(value, float):
        return value
    given = like(value, w, xp, dtype, name)
    return _broadcast(given, tuple(w.shape), xp, f"{name} must broadcast against w", "shape")


def _broadcast(given: Array, shape: tuple[int, ...], xp: Namespace, what: str, hint: str) -> Array:
    own = tuple(given.shape)
    fits = len(own) <= len(shape) and all(
        s in (1, t) for s, t in zip(own[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(
            f"{what}, got shape {own} against {shape}; give one number, or mend {hint}"
        )
    return given if own == shape else xp.broadcast_to(given, shape)


def like(value: Any, w: Array, xp: Namespace, dtype: Any, name: str) -> Array:
    """A parameter (number, nested tuples of numbers, array) as an array beside `w`."""
    if isinstance(value, float | tuple):
        if _on_cuda(w):
            return _sent(value, w, dtype)
        device = None if is_jax(xp) else getattr(w, "device", None)
        where = {} if device is None else {"device": device}  # MLX has no such argument
        return beside(xp.asarray(value, dtype=dtype, **where), w)
    if namespace(value, name) is not xp:
        raise TypeError(
            f"{name} must be of the library of w ({name_of(xp)}), got {_kind(value)}; convert "
            "it, or give nested tuples of numbers, which fit every library"
        )
    return beside(cast(value, dtype, xp), w)


def _on_cuda(w: Array) -> bool:
    """Whether `w` is a tensor with values on a CUDA device, in code that is not compiled."""
    kind, torch = type(w), _torch
    if torch is None or kind not in (torch.Tensor, torch.nn.Parameter):
        return False
    return not torch.compiler.is_compiling() and w.device.type == "cuda"


def _sent(value: Any, w: Array, dtype: Any) -> Array:
    """Numbers as a tensor beside `w`, copied by the device when it gets there.

    From ordinary memory the host would wait for all that the device has still to do.
    """
    return _torch.tensor(value, dtype=dtype, pin_memory=True).to(w.device, non_blocking=True)


def held(
    numbers: tuple[Any, ...], w: Array, xp: Namespace, dtype: Any, name: str, kept: dict[Any, Array]
) -> Array:
    """Numbers that stay the same as an array beside `w`, which is made once where that is safe."""
    # To make an array of Python's numbers takes longer than most that is done with it. What a
    # tracer, a mode or a transformation has made belongs to it, and must not be met outside.
    if not _is_plain(w):
        return like(numbers, w, xp, dtype, name)
    key = (type(w), str(dtype), str(getattr(w, "device", None)))
    found = kept.get(key)
    if found is None:
        found = like(numbers, w, xp, dtype, name)
        # What torch makes in its inference mode cannot be saved for a backward pass.
        if not getattr(found, "is_inference", bool)():
            kept[key] = found
    return found


def _is_plain(w: Array) -> bool:
    """Whether `w` is an array of NumPy, CuPy or torch, on whatever device, that nobody watches."""
    if type(w) in _hosts:
        return True
    torch = _torch
    if torch is None or type(w) not in (torch.Tensor, torch.nn.Parameter):
        return type(w).__module__.partition(".")[0] == "cupy"
    if torch.compiler.is_compiling() or w.device.type == "meta":
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(w)
    return not (wrapped or torch._C._len_torch_dispatch_stack())


def beside(x: Array, w: Array) -> Array:
    """An array that each process has whole, in a form that combines with `w`."""
    if not is_sharded(w) or is_sharded(x):
        return x
    everywhere = sys.modules["torch.distributed.tensor"].Replicate()
    return type(w).from_local(x, w.device_mesh, [everywhere] * w.device_mesh.ndim, run_check=False)


def cast(x: Array, dtype: Any, xp: Namespace) -> Array:
    """`x` in that dtype, itself if it has it (MLX' astype has no argument for that)."""
    return x if x.dtype == dtype else xp.astype(x, dtype)


def conjugate(x: Array, xp: Namespace) -> Array:
    """The complex conjugates."""
    # torch.vmap has no rule for the operation behind torch's conj, and warns.
    if "torch" in xp.__name__:
        return _torch.complex(_torch.real(x), -_torch.imag(x))
    return xp.conj(x)


def is_real_number(value: Array) -> bool:
    """Whether a parameter is an array of real numbers."""
    xp = namespace(value, "parameter")
    return bool(xp.isdtype(value.dtype, ("real floating", "integral")))


def is_traced(value: Any) -> bool:
    """Whether the values of a parameter cannot be looked at: a tracer, a fake or a meta tensor."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(value, torch.Tensor):
        return type(value) not in (torch.Tensor, torch.nn.Parameter) or value.device.type == "meta"
    return jax is not None and isinstance(value, jax.core.Tracer)


def looked_at(w: Array) -> Array:
    """`w` as it is best looked at from Python: without autograd, and in host memory if it is."""
    # Eager torch and JAX take 5 to 50 times as long for small arrays as NumPy on the same memory.
    if _torch is not None and isinstance(w, _torch.Tensor):
        w = w.detach()
        w = w.full_tensor() if hasattr(w, "full_tensor") else w  # DTensor: all shards, everywhere
        easy = w.device.type == "cpu" and w.dtype in (_torch.float32, _torch.float64)
        return w.numpy() if easy and type(w) in (_torch.Tensor, _torch.nn.Parameter) else w
    if "jax" in sys.modules and isinstance(w, sys.modules["jax"].Array) and not is_traced(w):
        easy = w.is_fully_addressable and str(w.dtype) in ("float32", "float64", "float16")
        return sys.modules["numpy"].asarray(w) if easy else w
    return w


def to_list(value: Array) -> Any:
    """The entries as nested lists of Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [to_list(value[i, ...]) for i in range(value.shape[0])] if value.ndim else float(value)


# ---------------------------------------------------------------------------------------- sums

# Libraries that sum in a tree or cascade by themselves, along every axis (measured: at most 2 units
# of the last place over 10^6 entries). NumPy does so along the contiguous axis only.
_ACCURATE_SUMS = ("array_api_compat.torch", "jax.numpy", "array_api_compat.cupy")
_PLAIN_RUN = 32


def accurate_sum(x: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """Sum over `axes`, which are kept with length 1; the error grows with log(size) at most."""
    # XLA adds complex numbers one after the other, and merges sums over axes into one.
    serial = is_jax(xp) and bool(xp.isdtype(x.dtype, "complex floating"))
    if xp.__name__ in _ACCURATE_SUMS and not serial:
        return exchanged(xp.sum(x, axis=axes, keepdims=True), xp) if axes else x
    for axis in axes:
        x = xp.sum(fold(x, axis, xp), axis=axis, keepdims=True)
    return exchanged(x, xp) if axes else x


@dataclass(frozen=True)
class Parts:
    """Groups of which an array that does not know it holds a part: how parts are put together."""

    count: int
    """Of equal parts of each group."""
    total: Callable[[Array], Array]
    """From the sums over the parts to those over the groups."""
    largest: Callable[[Array], Array]


_parts: ContextVar[Parts | None] = ContextVar("parts", default=None)
# How many contexts have set it. Dynamo reads this number, and would not read the variable.
_exchanging = 0
_counting = allocate_lock()


class exchanging:  # noqa: N801 - used like a function
    """A context in which what is reduced over groups is exchanged with the other parts of them."""

    def __init__(self, parts: Parts) -> None:
        self._mine = parts

    def __enter__(self) -> None:
        global _exchanging
        self._before = _parts.set(self._mine)
        with _counting:
            _exchanging += 1

    def __exit__(self, *_: object) -> None:
        global _exchanging
        with _counting:  # a count that is lost would be sums that are not exchanged
            _exchanging -= 1
        _parts.reset(self._before)


def exchanged(x: Array, xp: Namespace, *, largest: bool = False) -> Array:
    """What was reduced over an axis that several processes hold: exchanged now, and only once.

    A torch DTensor would exchange the parts anew at each use of the result, and knows what it was
    that reduced them. Of other arrays in parts `largest` says that it was no sum.
    """
    if _exchanging and (parts := _parts.get()) is not None:
        return parts.largest(x) if largest else parts.total(x)
    placements = getattr(x, "placements", None) if "torch" in xp.__name__ else None
    if placements is None or not any(p.is_partial() for p in placements):
        return x
    whole = sys.modules["torch.distributed.tensor"].Replicate()
    return x.redistribute(placements=[whole if p.is_partial() else p for p in placements])


def fold(x: Array, axis: int, xp: Namespace) -> Array:
    """Add the second half of an axis to the first until a short run is left."""
    before: tuple[Any, ...] = (slice(None),) * axis
    while (length := x.shape[axis]) > _PLAIN_RUN:
        half = length // 2
        folded = x[(*before, slice(0, half), ...)] + x[(*before, slice(half, 2 * half), ...)]
        if length % 2:
            folded = xp.concat([folded, x[(*before, slice(2 * half, length), ...)]], axis=axis)
        x = folded
    return x


def running_sum(x: Array, axis: int, xp: Namespace) -> Array:
    """The sum along an axis up to each entry, in the dtype of `x`."""
    # array_api_compat's asks for the namespace once more, of which torch.compile warns.
    if "torch" in xp.__name__:
        return _torch.cumsum(x, dim=axis, dtype=x.dtype)
    return xp.cumulative_sum(x, axis=axis, dtype=x.dtype)


def places(ones: Array, axis: int, xp: Namespace) -> Array:
    """The place of each entry along an axis, counted from 1, as an array beside `ones`."""
    return running_sum(xp.astype(ones, xp.int32), axis, xp)


def take(x: Array, places: Array, xp: Namespace) -> Array:
    """The entries at places along the last axis, which are of int32: some devices have no more."""
    if name_of(xp) == "ndonnx":  # which has no less
        places = xp.astype(places, xp.int64)
    return xp.take(x, places, axis=-1)


def settled(x: Array, xp: Namespace) -> Array:
    """`x` as numbers that are the same wherever they are used, and a constant to autodiff.

    XLA may compute anew what is used twice, for a GPU in another order or with other roundings: a
    norm was then not equal to the largest norm that it was itself.
    """
    if not (is_jax(xp) and is_traced(x)):
        return x
    lax = sys.modules["jax"].lax
    return lax.optimization_barrier(lax.stop_gradient(x))


def repeat(
    turn: Callable[[Any], Any],
    state: Any,
    count: int,
    xp: Namespace,
    over: Callable[[Any], Array] | None = None,
    library: str | None = None,
) -> Any:
    """`turn` so many times; where JAX traces, one of them is compiled and not each.

    Once `over` holds turns change nothing: JAX leaves them out, and so does Python for a `library`
    of host memory.
    """
    if is_jax(xp) and any(is_traced(leaf) for leaf in _leaves(state)):
        lax = sys.modules["jax"].lax

        def step(s: Any, _: Any) -> Any:
            return (turn(s) if over is None else lax.cond(over(s), lambda s: s, turn, s)), None

        return lax.scan(step, state, None, length=count)[0]
    for _ in range(count):
        if library is not None and over is not None and bool(over(state)):
            break
        state = turn(state)
    return state


# From so many entries on a reading is worth what it takes to compile the loop.
_LARGE = 2**18


def can_choose(w: Array, xp: Namespace) -> bool:
    """Whether code that is compiled for `w` may choose as it runs what to compute.

    The choice is one for all groups, which parts of an array would have to exchange.
    """
    if not is_jax(xp) or _exchanging or not all(isinstance(n, int) for n in w.shape):
        return False  # a dimension of what is exported may be a symbol
    if math.prod(w.shape) < _LARGE:
        return False
    # What is traced and not compiled, a derivative or a batch, would compile anew at each call.
    # Where JAX has no such class any more, nothing is chosen.
    compiled = getattr(sys.modules["jax"].interpreters.partial_eval, "DynamicJaxprTracer", ())
    return isinstance(w, compiled) and bool(w.aval.sharding.mesh.empty)


def on_cpu(there: Callable[..., Array], elsewhere: Callable[..., Array], *operands: Any) -> Array:
    """``there(*operands)`` where JAX compiles for a CPU, else ``elsewhere(*operands)``.

    Both compute the same, and `elsewhere` is what derivatives are taken of.
    """
    jax = sys.modules["jax"]
    both = jax.custom_jvp(
        lambda *given: jax.lax.platform_dependent(*given, cpu=there, default=elsewhere)
    )
    both.defjvp(lambda primals, tangents: jax.jvp(elsewhere, primals, tangents))
    result: Array = both(*operands)
    return result


def loop(condition: Callable[[Any], Array], turn: Callable[[Any], Any], state: Any) -> Any:
    """`turn` as long as the condition holds, in code that JAX compiles."""
    return sys.modules["jax"].lax.while_loop(condition, turn, state)


def _leaves(state: Any) -> list[Any]:
    """The arrays in nested lists and tuples."""
    if not isinstance(state, list | tuple):
        return [state]
    return [leaf for part in state for leaf in _leaves(part)]


# ------------------------------------------------------------------------------------- writing


def write(w: Array, value: Array) -> None:
    """Overwrite the entries of `w`, which `check_writable` has passed, inside `unrecorded`."""
    # On torch this is copy_, which moves the version counter; .data would not, and a backward pass
    # through the old value would be silently wrong.
    w[...] = value


def write_rows(w: Array, rows: Array, value: Array) -> None:
    """Overwrite some rows of a torch tensor, likewise."""
    w.index_copy_(0, rows, value)


def unrecorded(xp: Namespace) -> AbstractContextManager[Any]:
    """A context in which torch's autograd does not record."""
    return _torch.no_grad() if "torch" in xp.__name__ else nullcontext()


def quiet(xp: Namespace) -> AbstractContextManager[Any]:
    """A context in which NumPy does not warn of infinities and NaN that masks take out again.

    The arrays of mparray are made of NumPy's.
    """
    if ("numpy" in xp.__name__ and not is_jax(xp)) or xp.__name__ == "mparray":
        context: AbstractContextManager[Any] = sys.modules["numpy"].errstate(all="ignore")
        return context
    return nullcontext()


def check_writable(w: Array, xp: Namespace, owner: str) -> None:
    """Refuse what cannot be changed in place, before anything is computed."""
    if is_jax(xp):
        raise TypeError(
            f"{owner}: project_ needs an array that can be changed, and JAX arrays cannot; write "
            "w = constraint(w)"
        )
    if "torch" in xp.__name__:
        if w.requires_grad and _torch.is_grad_enabled():
            raise ValueError(
                f"{owner}: project_ must not be recorded by autograd, and w requires a gradient; "
                "call it inside `with torch.no_grad():`"
            )
    elif not getattr(getattr(w, "flags", None), "writeable", True):
        raise ValueError(
            f"{owner}: project_ needs an array that can be changed, got a read-only one; write "
            "w = constraint(w), or pass w.copy()"
        )


def copy(w: Array, xp: Namespace) -> Array:
    """A new array with the entries of `w`."""
    # torch.asarray warns of what it does about requires_grad.
    return w.clone() if "torch" in xp.__name__ else xp.asarray(w, copy=True)


def as_array(result: Any, w: Array, xp: Namespace) -> Array:
    """NumPy turns 0-d results into scalars: give back an array where an array came in.

    Dask cuts what is reshaped and put beside the weight into smaller parts than that has.
    """
    if w.ndim == 0 and type(result) is not type(w):
        return xp.asarray(result)
    if "dask" in xp.__name__ and result.shape == w.shape:
        return result.rechunk(w.chunks)
    return result


# ---------------------------------------------------------------------------------- host memory


def host_library(w: Array) -> str | None:
    """The library, "numpy" or "torch", if `w` is plain memory of this machine; else None.

    Only then may Python look at values. Tracers, fake and meta tensors, functorch's and other
    wrappers, subclasses, other devices and tensors that autograd follows get None.
    """
    if _exchanging and _parts.get() is not None:  # what is exchanged is reduced in one piece
        return None
    if _hosts.get(type(w)) == "numpy":
        return "numpy"
    return "torch" if _is_unfollowed(w, "cpu") else None


def _is_unfollowed(w: Array, device: str) -> bool:
    """Whether `w` is a tensor of such a device of which nothing wants to see the operations."""
    torch = _torch
    if torch is None or type(w) not in (torch.Tensor, torch.nn.Parameter):
        return False
    if torch.compiler.is_compiling() or w.device.type != device or w.layout is not torch.strided:
        return False
    if w.requires_grad and torch.is_grad_enabled():
        return False
    # vmap and grad wrap tensors without a type of their own, a dispatch mode watches every call:
    # both must see the ordinary operations. torch has no public question for either.
    return not (
        torch._C._functorch.is_functorch_wrapped_tensor(w) or torch._C._len_torch_dispatch_stack()
    )


# --------------------------------------------------------------------------------- CUDA devices


def is_plain_cuda(w: Array) -> bool:
    """Whether `w` is a CUDA tensor of which nothing wants to see the operations."""
    if _exchanging and _parts.get() is not None:  # what is exchanged is reduced in one piece
        return False
    return _is_unfollowed(w, "cuda")


def norms_in(dtype: Any, w: Array, axes: tuple[int, ...]) -> Array:
    """The Euclidean norms of a torch tensor over axes, that are kept, computed in `dtype`."""
    return _torch.linalg.vector_norm(w, dim=axes, keepdim=True, dtype=dtype)


def rounded_product(w: Array, factor: Array, out: Array | None) -> Array:
    """A torch tensor times wider factors, rounded to its own dtype as each product is written."""
    return _torch.mul(w, factor, out=_torch.empty_like(w) if out is None else out)


# ------------------------------------------------------------------------------------- rounding


def representable(value: float, precision: Precision, *, inward: bool = False) -> float:
    """The number of the dtype nearest to `value`, or the nearest that is not further from 0.

    Libraries disagree about comparing a float16 array with a Python number that float16 does not
    hold; with this one there is nothing to disagree about.
    """
    if value == 0:
        return value
    size = abs(value)
    largest = (2 - precision.eps) * 2.0 ** (precision.exponent - 1)
    if size >= largest:
        return math.copysign(largest, value)
    digits = 1 - round(math.log2(precision.eps))
    last = round(math.log2(precision.smallest * precision.eps))
    quantum = max(math.frexp(size)[1] - digits, last)
    steps = math.ldexp(size, -quantum)
    count = math.floor(steps) if inward else round(steps)
    return math.copysign(math.ldexp(float(count), quantum), value)
