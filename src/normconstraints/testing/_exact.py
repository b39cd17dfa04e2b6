"""Exact arithmetic: what a projection should have been, and how far from it a result is.

The numbers that come in are those of the dtype, read as float64 without error, so that decimal
arithmetic with enough digits tells the truth about them.
"""

from __future__ import annotations

import dataclasses
import decimal
import importlib
import inspect
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from normconstraints._oracle import Entry, Group, length
from normconstraints._parameters import ENTRY, WHOLE, as_numbers
from normconstraints.constraint import Constraint, Entrywise, Grouped, parameters

_CONTEXT = decimal.Context(
    prec=60,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def digits() -> AbstractContextManager[Any]:
    """A context in which decimal numbers have all the digits that exact arithmetic takes here."""
    return decimal.localcontext(_CONTEXT)


@dataclass(frozen=True)
class Format:
    """A dtype by its name, and its numbers."""

    name: str
    eps: float
    smallest: float
    largest: float

    @property
    def is_complex(self) -> bool:
        """Whether entries have two parts."""
        return self.name.startswith("complex")

    def quantise(self, x: Any) -> Any:
        """float64 numbers rounded to this dtype, still as float64; complex part by part."""
        if np.iscomplexobj(x):
            return self.quantise(x.real) + 1j * self.quantise(x.imag)
        x = np.clip(np.asarray(x, dtype=np.float64), -self.largest, self.largest)
        if self.name == "bfloat16":  # float32 without its lower half, rounded to even
            wide = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
            bits = (wide + 0x7FFF + ((wide >> 16) & 1)) & 0xFFFF0000
            rounded = bits.astype(np.uint32).view(np.float32).astype(np.float64)
            return np.where(np.isnan(x), x, rounded)
        narrow = {"float16": np.float16, "float32": np.float32, "complex64": np.float32}
        return x.astype(narrow.get(self.name, np.float64)).astype(np.float64)

    def ulp(self, x: Decimal) -> Decimal:
        """The distance of neighbours of this dtype at `x`."""
        size = max(abs(float(x)), self.smallest)
        return Decimal(2.0 ** (np.frexp(size)[1] - 1)) * Decimal(self.eps)


FORMATS = {
    f.name: f
    for f in (
        Format("float16", 2.0**-10, 2.0**-14, 65504.0),
        Format("bfloat16", 2.0**-7, 2.0**-126, float(2.0**127 * (2 - 2.0**-7))),
        Format("float32", 2.0**-23, 2.0**-126, float(np.finfo(np.float32).max)),
        Format("float64", 2.0**-52, 2.0**-1022, float(np.finfo(np.float64).max)),
        Format("complex64", 2.0**-23, 2.0**-126, float(np.finfo(np.float32).max)),
        Format("complex128", 2.0**-52, 2.0**-1022, float(np.finfo(np.float64).max)),
    )
}


def group_axes(constraint: Constraint, ndim: int) -> tuple[int, ...] | None:
    """The axes of a group: none if each entry is one, None if the set does not say."""
    if isinstance(constraint, Grouped):
        axis = constraint.axis
        if axis is None:
            return tuple(range(ndim))
        if isinstance(axis, str):
            return None
        return tuple(sorted(a % ndim for a in ((axis,) if isinstance(axis, int) else axis)))
    return () if isinstance(constraint, Entrywise) else None


def group_indices(shape: tuple[int, ...], axes: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """An index for each group, in the order of the array that has lost `axes`."""
    kept = [i for i in range(len(shape)) if i not in axes]
    for place in np.ndindex(*(shape[i] for i in kept)):
        index: list[Any] = [slice(None)] * len(shape)
        for i, at in zip(kept, place, strict=True):
            index[i] = at
        yield tuple(index)


@dataclass
class Oracle:
    """The slow algorithm in the file of a set, applied to whole arrays."""

    constraint: Constraint
    slow: Any
    slow_violation: Any
    known: dict[bytes, list[Group]] = field(default_factory=dict)

    def groups(self, data: Any) -> list[Group]:
        """The groups of an array as decimal numbers."""
        axes = group_axes(self.constraint, data.ndim)
        assert axes is not None
        return [to_group(data[i]) for i in group_indices(data.shape, axes)]

    def project(self, data: Any) -> list[Group]:
        """The exact projection of each group."""
        key = data.tobytes() + repr((data.shape, data.dtype)).encode()
        if key not in self.known:
            self.known[key] = self.project_groups(self.groups(data), data.shape)
        return self.known[key]

    def project_groups(self, groups: list[Group], shape: tuple[int, ...]) -> list[Group]:
        """The exact projection of groups of an array of that shape."""
        return self._each(self.slow, groups, shape)

    def project_one(self, group: Group, shape: tuple[int, ...], number: int) -> list[Group]:
        """The exact projection of what takes the place of one group of an array of that shape."""
        return self._each(self.slow, [group], shape, number)

    def violation(self, groups: list[Group], shape: tuple[int, ...]) -> list[Any]:
        """The exact violation of groups of an array of that shape."""
        return self._each(self.slow_violation, groups, shape)

    def _each(
        self, slow: Any, groups: list[Group], shape: tuple[int, ...], start: int = 0
    ) -> list[Any]:
        axes = group_axes(self.constraint, len(shape))
        assert axes is not None
        given = self._given(shape, axes)
        with digits():
            return [
                slow(group, **{name: values[i] for name, values in given.items()})
                if all(x.is_finite() for entry in group for x in entry)
                else group
                for i, group in enumerate(groups, start)
            ]

    def _given(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> dict[str, list[Any]]:
        """The parameters of the slow algorithm, by name, for each group in turn."""
        kept = tuple(s for i, s in enumerate(shape) if i not in axes)
        count = int(np.prod(kept))
        fields: Any = dataclasses.fields(type(self.constraint))  # type: ignore[arg-type]
        how = {f.name: f.metadata.get("per") for f in fields}
        given: dict[str, list[Any]] = {}
        for name, value in parameters(self.constraint).items():
            if name == "group_axis":
                given["parts"] = [parts(shape, axes, value)] * count
            elif how[name] == WHOLE:
                given[name] = [_decimals(as_numbers(value))] * count
            elif how[name] == ENTRY and value is not None:
                spread = np.broadcast_to(np.asarray(as_numbers(value), dtype=np.float64), shape)
                given[name] = [
                    [x for (x,) in to_group(spread[i])] for i in group_indices(shape, axes)
                ]
            elif name not in ("axis", "method"):
                given[name] = _fit(value, kept)
        if "shape" in inspect.signature(self.slow).parameters:
            given["shape"] = [tuple(shape[a] for a in axes)] * count
        return given


def parts(shape: tuple[int, ...], axes: tuple[int, ...], inner: Any) -> list[list[int]]:
    """Where in a group, a flat list, the entries of each of its inner groups stand."""
    inner = inner if isinstance(inner, tuple) else (inner,)
    within = [axes.index(a % len(shape)) for a in inner]
    places = np.arange(math.prod(shape[a] for a in axes)).reshape([shape[a] for a in axes])
    outer = [i for i in range(len(axes)) if i not in within]
    rows = places.transpose(*outer, *within).reshape(-1, math.prod(shape[axes[i]] for i in within))
    return [[int(i) for i in row] for row in rows]


def _decimals(value: Any) -> Any:
    """Nested tuples of numbers as decimal ones; integers stay."""
    if isinstance(value, tuple):
        return tuple(_decimals(v) for v in value)
    return Decimal(value) if isinstance(value, float) else value


def _fit(value: Any, shape: tuple[int, ...]) -> list[Any]:
    """A parameter for each group in turn."""
    numbers = as_numbers(value)
    if numbers is None or isinstance(numbers, str):
        return [numbers] * max(1, int(np.prod(shape)))
    spread = np.broadcast_to(np.asarray(numbers, dtype=np.float64), shape)
    return [Decimal(float(x)) for x in spread.ravel()]


def find_oracle(constraint: Constraint) -> Oracle | None:
    """The oracle of a set: ``slow_projection`` of the module of its class, if there is one."""
    if group_axes(constraint, 8) is None:
        return None
    module = importlib.import_module(type(constraint).__module__)
    slow = getattr(module, "slow_projection", None)
    violation = getattr(module, "slow_violation", None)
    return None if slow is None or violation is None else Oracle(constraint, slow, violation)


def to_group(data: Any) -> Group:
    """An array of float64 or complex128 as a list of entries."""
    flat = np.atleast_1d(data).ravel()
    if np.iscomplexobj(flat):
        return [(Decimal(float(x.real)), Decimal(float(x.imag))) for x in flat]
    return [(Decimal(float(x)),) for x in flat]


def modulus(entry: Entry) -> Decimal:
    """The modulus of an entry."""
    with digits():
        # The root of a square would cost digits where there is nothing to add.
        return abs(entry[0]) if len(entry) == 1 else length([entry])


def difference(a: Group, b: Group) -> Decimal:
    """The largest modulus of the difference of two groups."""
    with digits():
        return max(
            (
                modulus(tuple(s - t for s, t in zip(x, y, strict=True)))
                for x, y in zip(a, b, strict=True)
            ),
            default=Decimal(0),
        )


def norm(group: Group) -> Decimal:
    """The Euclidean norm of a group."""
    with digits():
        return length(group) if group else Decimal(0)


def distance(a: Group, b: Group) -> Decimal:
    """The Euclidean distance of two groups."""
    with digits():
        return norm(
            [tuple(s - t for s, t in zip(x, y, strict=True)) for x, y in zip(a, b, strict=True)]
        )


def along(a: Group, b: Group, step: Decimal) -> Group:
    """``a + step * b``."""
    with digits():
        return [
            tuple(s + step * t for s, t in zip(x, y, strict=True))
            for x, y in zip(a, b, strict=True)
        ]


def inner(a: Group, b: Group) -> Decimal:
    """The inner product, of complex entries its real part."""
    with digits():
        products = [s * t for x, y in zip(a, b, strict=True) for s, t in zip(x, y, strict=True)]
        return sum(products, Decimal(0))


def derivative(
    oracle: Oracle, data: Any, direction: Any, step: Decimal = Decimal("1e-20")
) -> list[Group]:
    """The directional derivative of the exact projection, by central differences."""
    with digits():
        base, way = oracle.groups(data), oracle.groups(direction)
        sides = []
        for sign in (1, -1):
            moved = [
                [
                    tuple(s + sign * step * t for s, t in zip(x, y, strict=True))
                    for x, y in zip(g, d, strict=True)
                ]
                for g, d in zip(base, way, strict=True)
            ]
            sides.append(oracle.project_groups(moved, data.shape))
        return [
            [
                tuple((s - t) / (2 * step) for s, t in zip(x, y, strict=True))
                for x, y in zip(g, h, strict=True)
            ]
            for g, h in zip(*sides, strict=True)
        ]
