"""A stand-in for the ``cupy`` module, for machines without a GPU.

The double binds every call to the signature that CuPy itself has (``cupy_signatures.json``, a
snapshot of a real wheel), refuses what CuPy refuses (NumPy arrays, lists, data types that a ufunc
has no loop for), notes every copy between host and device, and then computes with NumPy.
`array_api_compat.cupy` runs on top of it unchanged.

What it proves: the code that ran uses names, signatures, argument types and data types that the
snapshot's CuPy has, and copies to the host only where the log says. What it does not prove: that
a kernel compiles, what it computes, how fast, in which order on which stream, or what a real
device does with memory. So say "checked against CuPy 14.2's namespace", never "tested on CuPy".

Where the two differ on purpose:

* The double is stricter: many CuPy functions only call a method of their argument and so let a
  NumPy array through by accident (``cupy.sum(numpy_array)`` is a NumPy sum). All are refused here.
* Syncs are known from CuPy's documentation ("may synchronize" counts as one), from its source
  (boolean masks) and from the conversion methods; a function that waits for the device without
  saying so goes unnoticed.
* CuPy wraps integer indices that are out of bounds; the double raises as NumPy does.
* Names without a NumPy counterpart (kernels, streams' events, pools) raise NotImplementedError.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.machinery
import inspect
import json
import operator
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

_SNAPSHOT: dict[str, Any] = json.loads(
    Path(__file__).with_name("cupy_signatures.json").read_text(encoding="utf-8")
)
SNAPSHOT_VERSION: str = _SNAPSHOT["version"]
_NAMES: dict[str, dict[str, dict[str, Any]]] = _SNAPSHOT["names"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# CuPy has no long double, object, string or time arrays.
_DTYPES = "?bBhHiIlLqQefdFD"
# Parameters, by CuPy's own names, that must be given device arrays.
_ARRAYS = _words(
    "a a1 a2 ar ar1 ar2 arr arr1 arr2 array ary b condition dst element filt m mask prototype "
    "src test_elements v val x x1 x2 y z"
)
# Functions that are meant to be given host arrays.
_CONVERT = _words("array asanyarray asarray asnumpy set")
# Functions that turn a scalar first argument into an array; the others need one to begin with.
_SCALAR_OK = _CONVERT | _words(
    "allclose angle around average imag isclose iscomplex iscomplexobj isreal isrealobj "
    "nan_to_num ndim real round round_ shape"
)
# Results that NumPy gives as a Python number and CuPy as a 0-d array.
_FORCE_ARRAY = _words("allclose angle array_equal array_equiv count_nonzero imag real")
# Waits for the device (mostly: data-dependent shapes) that CuPy's documentation does not mark.
_MORE_SYNCS = _words(
    "argwhere choose compress deviceSynchronize dump dumps intersect1d nonzero setdiff1d "
    "setxor1d tofile trim_zeros union1d unique_all unique_counts unique_inverse unique_values"
)
_CONVERSIONS = (
    "__bool__ __float__ __int__ __complex__ __repr__ __str__ __format__ item tolist tobytes"
)


class HostSync(RuntimeError):  # noqa: N818 - an event, not only an error
    """Something waited for the device inside `forbid_host_sync`."""


class Transfer(NamedTuple):
    """One copy between host and device: where to, and what asked for it."""

    direction: str  # "to host" or "to device"
    what: str


transfers: list[Transfer] = []
_bans = 0


def clear_log() -> None:
    transfers.clear()


def host_syncs() -> list[str]:
    """What has waited for the device since the log was last cleared, in order."""
    return [t.what for t in transfers if t.direction == "to host"]


@contextlib.contextmanager
def forbid_host_sync() -> Iterator[None]:
    """Raise `HostSync` for whatever needs a value from the device while the body runs."""
    global _bans
    _bans += 1
    try:
        yield
    finally:
        _bans -= 1


def _sync(what: str) -> None:
    transfers.append(Transfer("to host", what))
    if _bans:
        raise HostSync(f"{what} waits for the device")


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, list):
        return [_unwrap(v) for v in value]
    if isinstance(value, dict):
        return {k: _unwrap(v) for k, v in value.items()}
    return tuple(_unwrap(v) for v in value) if isinstance(value, tuple) else value


def _wrap(value: Any, *owners: Any, force: bool = False) -> Any:
    """NumPy's results as CuPy gives them: arrays only, 0-d ones instead of scalars."""
    if isinstance(value, tuple | list):
        wrapped = [_wrap(v, *owners, force=force) for v in value]
        return wrapped if isinstance(value, list) else tuple(wrapped)
    if isinstance(value, np.ndarray | np.generic) or (
        force and isinstance(value, bool | int | float | complex)
    ):
        for owner in owners:  # out=, or a conversion that had nothing to do
            if isinstance(owner, ndarray) and owner._host is value:
                return owner
        host = np.asarray(value)
        if host.dtype.char not in _DTYPES:
            raise ValueError(f"Unsupported dtype {host.dtype}")
        result = object.__new__(ndarray)
        result._host = host
        return result
    return value


def _refuse_host(value: Any) -> None:
    """Refuse NumPy arrays, however deep in a list."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        for item in value:
            _refuse_host(item)


@functools.cache
def _signature(text: str) -> inspect.Signature:
    """An inspect.Signature from a snapshot's text, without running that text."""
    function = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    given, kinds = function.args, inspect.Parameter
    found = []

    def add(arg: ast.arg | None, kind: Any, default: ast.expr | None = None) -> None:
        if arg is not None:
            value = kinds.empty if default is None else ast.literal_eval(default)
            found.append(inspect.Parameter(arg.arg, kind, default=value))

    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for i, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        only = i < len(given.posonlyargs)
        add(arg, kinds.POSITIONAL_ONLY if only else kinds.POSITIONAL_OR_KEYWORD, default)
    add(given.vararg, kinds.VAR_POSITIONAL)
    for arg, default_or_none in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        add(arg, kinds.KEYWORD_ONLY, default_or_none)
    add(given.kwarg, kinds.VAR_KEYWORD)
    return inspect.Signature(found)


def _for_numpy(bound: inspect.BoundArguments) -> tuple[list[Any], dict[str, Any]]:
    """Required arguments by position (NumPy names some otherwise), the rest by keyword."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            args.append(value)
        elif name not in ("blocking", "stream") and not (
            value is None and parameter.default is None
        ):
            kwargs[name] = value
    return _unwrap(args), _unwrap(kwargs)


class _Function:
    """A CuPy function: its signature and its refusals, NumPy's arithmetic."""

    def __init__(self, name: str, entry: dict[str, Any], compute: Callable[..., Any] | None):
        self.__name__ = name.rpartition(".")[2]
        self._name, self._entry, self._compute = name, entry, compute

    @property
    def __signature__(self) -> inspect.Signature:
        return _signature(self._entry["def"] or "(*args, **kwargs)")

    def __repr__(self) -> str:
        return f"<{self._name} of the CuPy double>"

    def _refuse(self, name: str, value: Any, first: bool) -> None:
        _refuse_host(list(value.values()) if isinstance(value, dict) else value)
        if name == "tup" or (name == "args" and self.__name__ == "matmul"):
            operands, arrays_only = list(value), True
        elif name in _ARRAYS:
            operands, arrays_only = [value], first and self.__name__ not in _SCALAR_OK
        else:
            return
        for x in operands:
            if isinstance(x, list | tuple) or (
                arrays_only and x is not None and not isinstance(x, ndarray)
            ):
                raise TypeError(f"{self._name}(): {name!r} is a {type(x)}, not an array")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        short = self.__name__
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None
        if short not in _CONVERT:
            for position, (name, value) in enumerate(bound.arguments.items()):
                self._refuse(name, value, first=position == 0)
        # cupy.where waits only when it stands in for nonzero, which it decides itself.
        if (short in _MORE_SYNCS or self._entry.get("sync")) and short != "where":
            _sync(self._name)
        if (special := _SPECIAL.get(self._name)) is not None:
            return special(**bound.arguments)
        if self._compute is None:
            raise NotImplementedError(
                f"{self._name} exists in CuPy {SNAPSHOT_VERSION}, "
                "but the double cannot compute it with NumPy"
            )
        positional, keywords = _for_numpy(bound)
        with np.errstate(all="ignore"):  # a GPU raises no floating-point warnings
            result = self._compute(*positional, **keywords)
        return _wrap(result, *args, *kwargs.values(), force=short in _FORCE_ARRAY)


class _Ufunc:
    """A CuPy ufunc: no ``where``, and only the loops that the snapshot lists."""

    def __init__(self, name: str, entry: dict[str, Any], compute: Callable[..., Any] | None):
        self.__name__, self.nin, self.nout = entry["ufunc"]
        self.types: list[str] = entry["types"].split()
        self._name, self._compute = name, compute
        usable = [t for t in self.types if set(t) <= {*_DTYPES, "-", ">"}]
        self._loops = [(t.split("->")[0], t.split("->")[1]) for t in usable]

    def __repr__(self) -> str:
        return f"<ufunc {self.__name__!r} of the CuPy double>"

    def _loop(self, inputs: list[Any], dtype: Any) -> tuple[str, str]:
        dtypes = [x.dtype for x in inputs if isinstance(x, ndarray | np.generic)]
        if dtype is not None:
            wanted = np.dtype(dtype).char
            found = [loop for loop in self._loops if loop[1] == wanted * self.nout]
        else:
            # A Python scalar takes the arrays' type where its kind allows (NEP 50); where that
            # fits no loop (ldexp's integer), its own default type.
            common = [_dtype_of(x, dtypes) for x in inputs]
            own = [_dtype_of(x, []) for x in inputs]
            found = [
                loop
                for kinds in (common, own)
                for loop in self._loops
                if all(map(np.can_cast, kinds, loop[0]))
            ]
        if not found:
            shown = [str(getattr(x, "dtype", type(x).__name__)) for x in inputs]
            raise TypeError(f"ufunc {self.__name__!r} not supported for the input types {shown}")
        return found[0]

    def __call__(
        self,
        *args: Any,
        out: Any = None,
        dtype: Any = None,
        casting: Any = "same_kind",
        **wrong: Any,
    ) -> Any:
        if wrong:
            raise TypeError(f"Wrong arguments {wrong}")
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self.__name__!r}: {len(args)}")
        inputs, outputs = list(args[: self.nin]), args[self.nin :]
        if out is not None:
            if outputs:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            outputs = out if isinstance(out, tuple) else (out,)
        for x in inputs:
            if not isinstance(x, ndarray | np.generic | bool | int | float | complex):
                raise TypeError(f"Unsupported type {type(x)}")
        for x in outputs:
            if x is not None and not isinstance(x, ndarray):
                raise TypeError("Output arguments type must be cupy.ndarray")
        in_types, out_types = self._loop(inputs, dtype)
        if self._compute is None:
            raise NotImplementedError(f"{self._name}: NumPy has no counterpart")
        hosts = [
            np.asarray(_unwrap(x)).astype(t, copy=False)
            if isinstance(x, ndarray | np.generic)
            else np.asarray(x, dtype=t)
            for x, t in zip(inputs, in_types, strict=True)
        ]
        with np.errstate(all="ignore"):
            computed = self._compute(*hosts)
        parts = computed if isinstance(computed, tuple) else (computed,)
        results = []
        for i, (part, char) in enumerate(zip(parts, out_types, strict=True)):
            array = np.asarray(part).astype(char, copy=False)
            target = outputs[i] if i < len(outputs) else None
            if target is None:
                # NumPy hands back its own argument for a few no-ops; a kernel never does.
                shared = any(array is h for h in hosts)
                results.append(_wrap(array.copy() if shared else array))
                continue
            if target.shape != array.shape:
                raise ValueError(f"Out shape is mismatched: {target.shape} != {array.shape}")
            np.copyto(target._host, array, casting=casting)
            results.append(target)
        return results[0] if self.nout == 1 else tuple(results)


def _dtype_of(x: Any, others: list[Any]) -> Any:
    return x.dtype if isinstance(x, ndarray | np.generic) else np.result_type(*others, x)


def _index(key: Any) -> Any:
    """An index as NumPy wants it, noting masks and host arrays on the way."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        mask = part.dtype.kind == "b" if isinstance(part, ndarray) else False
        if isinstance(part, np.ndarray | list | tuple):
            transfers.append(Transfer("to device", "ndarray index"))
            mask = np.asarray(_unwrap(part)).dtype.kind == "b"
        if mask:
            _sync("boolean mask")
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)  # keeps a view where NumPy would hand out a scalar
    return _unwrap(parts)


class Device:
    """The one device of the double."""

    __hash__ = None  # type: ignore[assignment]  # as in CuPy

    def __init__(self, device: Any = None) -> None:
        self.id = 0 if device is None else int(device)
        if self.id:
            raise RuntimeError("the CuPy double has one device, 0")

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        _sync("Device.synchronize")


class ndarray:  # noqa: N801 - CuPy's name
    """A device array: a NumPy array that only the double may look at."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    __module__ = "cupy"
    _host: np.ndarray[Any, Any]

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: None = None,
        strides: None = None,
        order: Any = "C",
    ) -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("the double has no device memory")
        self._host = np.empty(shape, dtype, order)

    if TYPE_CHECKING:  # what the snapshot adds below

        def __getattr__(self, name: str) -> Any: ...

    # Conversions; those in _CONVERSIONS are added below. Each one copies to the host.

    def get(
        self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        _sync("ndarray.get")
        if out is None:
            return np.array(self._host, order=order)
        out[...] = self._host
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        transfers.append(Transfer("to device", "ndarray.set"))
        self._host[...] = arr

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __dlpack__(self, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the double has no device memory to share")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)  # kDLCUDA

    # NumPy's functions hand over to CuPy's of the same name, as they do for real arrays.

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        mine = _CUPY.get(ufunc.__name__)
        if method != "__call__" or mine is None:
            return NotImplemented
        return mine(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        where = {"numpy": "cupy", "numpy.linalg": "cupy.linalg", "numpy.fft": "cupy.fft"}
        mine = _OBJECTS.get(where.get(func.__module__, ""), {}).get(func.__name__)
        return NotImplemented if mine is None or mine is func else mine(*args, **kwargs)

    # Shape and layout.

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._host.shape)

    @shape.setter
    def shape(self, value: Any) -> None:
        self._host = self._host.view()
        self._host.shape = value

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    strides = property(lambda self: self._host.strides)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    device = property(lambda self: Device(0))
    T = property(lambda self: _wrap(self._host.T))
    mT = property(lambda self: _wrap(self._host.mT))  # noqa: N815 - CuPy's name

    @property
    def flags(self) -> SimpleNamespace:
        names = ("c_contiguous", "f_contiguous", "owndata", "fnc", "forc")
        return SimpleNamespace(**{name: getattr(self._host.flags, name) for name in names})

    @property
    def real(self) -> ndarray:
        return self if self._host.dtype.kind != "c" else _wrap(self._host.real)

    @real.setter
    def real(self, value: Any) -> None:
        _wrap(self._host.real)[...] = value

    @property
    def imag(self) -> ndarray:
        complex_ = self._host.dtype.kind == "c"
        result: ndarray = _wrap(self._host.imag if complex_ else self._host.imag.copy())
        return result

    @imag.setter
    def imag(self, value: Any) -> None:
        _wrap(self._host.imag)[...] = value

    # Items.

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if self._host.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self._host.shape[0]))

    def __getitem__(self, key: Any) -> ndarray:
        result: ndarray = _wrap(self._host[_index(key)])
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host(value)
        if isinstance(value, list | tuple):
            raise TypeError(f"Unsupported type {type(value)}")
        self._host[_index(key)] = _unwrap(value)

    def __copy__(self) -> ndarray:
        result: ndarray = _wrap(self._host.copy())
        return result

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.__copy__()

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:  # noqa: A002 - CuPy's name
        result: ndarray = _wrap(self._host.view() if dtype is None else self._host.view(dtype))
        return result


# Functions whose meaning differs from that of NumPy's namesake.


def _as_array(
    a: Any, dtype: Any = None, order: Any = None, copy: Any = None, ndmin: int = 0, **ignored: Any
) -> Any:
    if isinstance(a, ndarray) and not copy and order in (None, "K", "A") and ndmin <= a.ndim:
        same = dtype is None or np.dtype(dtype) == a.dtype
        if same:
            return a
    if isinstance(a, np.ndarray) or (
        isinstance(a, list | tuple) and any(isinstance(x, np.ndarray) for x in a)
    ):
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested")
        transfers.append(Transfer("to device", "asarray"))
    return _wrap(np.array(_unwrap(a), dtype=dtype, order=order or "K", ndmin=ndmin))


def _array(obj: Any, copy: Any = True, **options: Any) -> Any:
    # copy=False means "only if needed" here, as it did in NumPy 1.
    return _as_array(obj, copy=copy or None, **options)


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        _sync("cupy.where")
        return _wrap(np.nonzero(condition._host))
    return _wrap(np.where(condition._host.astype(bool), _unwrap(x), _unwrap(y)))


def _asnumpy(a: Any, out: Any = None, order: Any = "C", **ignored: Any) -> Any:
    return a.get(out=out, order=order) if isinstance(a, ndarray) else np.asarray(a, order=order)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "cupy.array": _array,
    "cupy.asarray": _as_array,
    "cupy.asanyarray": _as_array,
    "cupy.asnumpy": _asnumpy,
    "cupy.where": _where,
    "cupy.get_array_module": lambda args=(): (
        sys.modules["cupy"] if any(isinstance(x, ndarray) for x in args) else np
    ),
    "cupy.is_available": lambda: True,
    "cupy.cuda.is_available": lambda: True,
    "cupy.cuda.get_device_id": lambda: 0,
    "cupy.cuda.runtime.getDevice": lambda: 0,
    "cupy.cuda.runtime.getDeviceCount": lambda: 1,
    "cupy.cuda.runtime.deviceSynchronize": lambda: None,
}


def _unsupported(name: str) -> type:
    """A class that exists in CuPy and cannot be made here."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"the CuPy double has no {name}")

    return type(name.rpartition(".")[2], (), {"__init__": refuse, "__module__": "cupy"})


def _build(block: str) -> dict[str, Any]:
    """The objects of one module, each made from its line of the snapshot."""
    numpy_home: Any = {"cupy": np, "cupy.linalg": np.linalg, "cupy.fft": np.fft}.get(block)
    own = {"cupy.ndarray": ndarray, "cupy.cuda.Device": Device}
    objects: dict[str, Any] = {}
    for name, entry in _NAMES[block].items():
        full = f"{block}.{name}"
        if full in own:
            objects[name] = own[full]
        elif "ufunc" in entry:
            objects[name] = _Ufunc(full, entry, getattr(np, name, None))
        elif "numpy" in entry:
            with contextlib.suppress(AttributeError):  # another NumPy than the snapshot's
                objects[name] = operator.attrgetter(entry["numpy"])(np)
        elif entry.get("class"):
            objects[name] = _unsupported(full)
        elif "def" in entry:
            objects[name] = _Function(full, entry, getattr(numpy_home, name, None))
        elif "float" in entry:
            objects[name] = float(entry["float"])
        elif "value" in entry:
            objects[name] = entry["value"]
    return objects


_MODULES = ("cupy", "cupy.linalg", "cupy.fft", "cupy.cuda", "cupy.cuda.runtime")
_OBJECTS: dict[str, dict[str, Any]] = {block: _build(block) for block in _MODULES}
_CUPY = _OBJECTS["cupy"]
for _ns in ("cupy.linalg", "cupy.fft"):
    # "config" and the like are not functions; a name in __all__ must exist to be imported.
    _OBJECTS[_ns]["__all__"] = [n for n in _OBJECTS[_ns]["__all__"] if n in _OBJECTS[_ns]]


def _add_methods() -> None:
    """Give `ndarray` the operators and methods that the snapshot has and the class lacks."""

    def set_operator(slot: str, name: str) -> None:
        ufunc = _CUPY[name]
        if ufunc.__class__ is not _Ufunc or ufunc.nin == 2:
            setattr(ndarray, f"__{slot}__", lambda self, other: ufunc(self, other))
        else:
            setattr(ndarray, f"__{slot}__", lambda self: ufunc(self))
        if f"__r{slot}__" in slots:
            setattr(ndarray, f"__r{slot}__", lambda self, other: ufunc(other, self))
        if f"__i{slot}__" in slots:
            setattr(ndarray, f"__i{slot}__", lambda self, other: ufunc(self, other, self))

    def set_method(name: str, entry: dict[str, Any]) -> None:
        numpy_method = getattr(np.ndarray, name, None)
        function = _Function(f"cupy.ndarray.{name}", entry, numpy_method)
        setattr(ndarray, name, lambda self, *args, **kwargs: function(self, *args, **kwargs))

    def set_conversion(name: str) -> None:
        def convert(self: ndarray, *args: Any) -> Any:
            _sync(f"ndarray.{name}")
            return getattr(self._host, name)(*args)

        setattr(ndarray, name, convert)

    def set_missing(name: str) -> None:
        def refuse(self: ndarray) -> NoReturn:
            raise NotImplementedError(f"the CuPy double has no ndarray.{name}")

        setattr(ndarray, name, property(refuse))

    for name in _CONVERSIONS.split():
        set_conversion(name)
    slots = _NAMES["cupy.ndarray"]
    table = (
        "add=add sub=subtract mul=multiply truediv=true_divide floordiv=floor_divide "
        "mod=remainder pow=power divmod=divmod matmul=matmul and=bitwise_and or=bitwise_or "
        "xor=bitwise_xor lshift=left_shift rshift=right_shift eq=equal ne=not_equal lt=less "
        "le=less_equal gt=greater ge=greater_equal neg=negative pos=positive abs=absolute "
        "invert=invert"
    )
    for pair in table.split():
        slot, _, name = pair.partition("=")
        set_operator(slot, name)
    for name, entry in slots.items():
        if name in vars(ndarray) or name.startswith("__"):
            continue
        if "def" in entry:
            set_method(name, entry)
        else:
            set_missing(name)


_add_methods()


def from_numpy(array: Any) -> Any:
    """A double's array with the values of a NumPy array; for test harnesses, not logged."""
    return _wrap(np.array(array))


def to_numpy(array: ndarray) -> np.ndarray[Any, Any]:
    """A NumPy copy of a double's array; for test harnesses, not logged and never refused."""
    return np.array(array._host)


def _fresh_modules() -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    for block in (*_MODULES, "cupy.cuda.device"):
        module = ModuleType(block, f"Double of {block} {SNAPSHOT_VERSION}; see {__name__}.")
        spec = importlib.machinery.ModuleSpec(block, None, is_package=True)
        module.__spec__, module.__path__ = spec, []
        vars(module).update(_OBJECTS.get(block, {}))
        modules[block] = module
        parent, _, name = block.rpartition(".")
        if parent:
            setattr(modules[parent], name, module)
    vars(modules["cupy.cuda.device"])["Device"] = Device
    vars(modules["cupy"])["__version__"] = SNAPSHOT_VERSION
    return modules


@contextlib.contextmanager
def install() -> Iterator[ModuleType]:
    """Let the double be ``cupy`` while the body runs, then put everything back as it was."""
    import array_api_compat
    from array_api_compat.common import _helpers

    def replaced() -> dict[str, ModuleType]:
        roots = ("cupy", "array_api_compat.cupy")
        return {
            n: m
            for n, m in sys.modules.items()
            if n in roots or n.startswith(tuple(f"{root}." for root in roots))
        }

    def forget() -> None:
        for name in replaced():
            del sys.modules[name]
        if hasattr(array_api_compat, "cupy"):
            delattr(array_api_compat, "cupy")
        # array_api_compat remembers per array class which namespace it has; those answers are
        # about the modules that are being exchanged.
        for member in vars(_helpers).values():
            if hasattr(member, "cache_clear"):
                member.cache_clear()

    saved, attribute = replaced(), vars(array_api_compat).get("cupy")
    modules = _fresh_modules()
    forget()
    sys.modules.update(modules)
    try:
        yield modules["cupy"]
    finally:
        forget()
        sys.modules.update(saved)
        if attribute is not None:
            array_api_compat.cupy = attribute  # type: ignore[attr-defined]
