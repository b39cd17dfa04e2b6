"""Tied: entries with the same id are equal."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._linear import halves
from normconstraints._oracle import Group, differences, length, mean
from normconstraints._parameters import PLACES, Axis, as_numbers, assign, check_axis, is_array
from normconstraints._structure import Averages
from normconstraints.constraint import Convex, Grouped, HasTangent, HasVJP, register

if TYPE_CHECKING:
    from decimal import Decimal

Ids: TypeAlias = int | tuple[Any, ...] | Array
"""An integer, nested tuples of integers, or an array of them."""


def project_tied(w: Array, ids: Ids, *, axis: Axis = None) -> Array:
    """The nearest array in which entries with the same of `ids` are equal; see `Tied`."""
    t = _Ties(w, Places(check_ids("Tied", ids)), axis)
    return t.nearest(t.means, t.member())


@register
@final
@dataclass(frozen=True, eq=False)
class Tied(Grouped, Convex, HasTangent, HasVJP):
    r"""Entries with the same id are equal.

    .. math:: \{ w : w_i = w_j \text{ for all entries } i, j \text{ of a group with } d_i = d_j \}

    Parameters
    ----------
    ids : int, nested tuples of ints, or array of integers
        The ids d, any integers, which broadcast against a group, and so against the weight if no
        `axis` is given. Kept as nested tuples.
    axis : int, tuple of int, or None, default None
        The axes of a group, the whole weight if nothing is said. Entries of different groups are
        not tied; each group has the same ids, in the order of the weight's axes.

    Raises
    ------
    TypeError
        If `ids` holds something that is no integer, or is traced by a compiler.
    ValueError
        If `ids` are empty, or rows of them differ in length, or at the call if they do not fit.

    Notes
    -----
    A linear subspace: the projection is unique and takes the mean of the entries of each id. For
    weights that share a value by design: convolutions and other maps with a symmetry (the ids are
    the orbits of a group of permutations), hashed or quantised weights whose assignment is fixed. A
    group whose ids are tied already comes back bit for bit.

    The sums are taken by tables of places, made when the constraint is: twice the memory of a group
    at most, for whatever ids.

    Gradient: the projection itself, which is linear. Groups with NaN or infinity come back as they
    are. The violation is the distance from the set.

    References
    ----------
    S. Nowlan, G. Hinton, "Simplifying neural networks by soft weight-sharing", Neural Computation 4
    (1992), for weights that share their values.
    S. Ravanbakhsh, J. Schneider, B. Poczos, "Equivariance through parameter-sharing", ICML 2017,
    for the ids of a symmetry.

    Examples
    --------
    >>> import numpy as np
    >>> Tied((0, 1, 1, 7))(np.array([5.0, 1.0, 3.0, 2.0]))
    array([5., 2., 2., 2.])

    Windows that do not change if they are turned by a quarter:

    >>> c = Tied(((0, 1, 0), (1, 2, 1), (0, 1, 0)), axis=(-2, -1))
    >>> c(np.arange(9.0).reshape(1, 3, 3) ** 2)
    array([[[26., 21., 26.],
            [21., 16., 21.],
            [26., 21., 26.]]])
    """

    ids: Ids = field(metadata=PLACES)
    _: KW_ONLY
    axis: Axis = None
    _places: ClassVar[Places]  # of each object, but no parameter

    def __post_init__(self) -> None:
        ids = check_ids("Tied", self.ids)
        assign(self, ids=ids, axis=check_axis(self, self.axis), _places=Places(ids))

    def _project(self, w: Array, xp: Namespace) -> Array:
        t = _Ties(w, self._places, self.axis)
        return t.nearest(t.means, t.member())

    def _violation(self, w: Array, xp: Namespace) -> Array:
        t = _Ties(w, self._places, self.axis)
        return t.distance(lambda x: x - t.means(x), t.member())

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        t = _Ties(g, self._places, self.axis)
        return t.along(t.means, w)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        t = _Ties(w, self._places, self.axis)
        return t.pulled_back(t.means, g)


def check_ids(owner: str, value: Any) -> int | tuple[Any, ...]:
    """An integer, or nested tuples of integers."""
    rule = f"{owner}: ids must be integers, nested tuples or an array of them"
    if _array.is_traced(value):
        raise TypeError(
            f"{rule}, got an array that a compiler traces; tables are made of them at "
            "construction, so construct outside of what is compiled"
        )
    if is_array(value):
        xp = _array.namespace(value, owner)
        if not xp.isdtype(value.dtype, "integral"):
            raise TypeError(f"{rule}, got an array of {value.dtype}; cast it to integers")
        value = as_numbers(value)
    checked = _checked(value, f"{rule}, got {value!r}")
    if isinstance(checked, tuple) and not _flat(checked):
        raise ValueError(f"{rule}, got none: {value!r}")
    return checked


def _checked(value: Any, message: str) -> int | tuple[Any, ...]:
    if isinstance(value, list | tuple):
        found = tuple(_checked(v, message) for v in value)
        if len({_shape(v) for v in found}) > 1:
            raise ValueError(f"{message}; rows must be equally long")
        return found
    if isinstance(value, bool | str):
        raise TypeError(message)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(message) from None


def _shape(value: int | tuple[Any, ...]) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        return ()
    return (len(value), *(_shape(value[0]) if value else ()))


def _flat(value: int | tuple[Any, ...]) -> list[int]:
    return [i for v in value for i in _flat(v)] if isinstance(value, tuple) else [value]


@dataclass(frozen=True)
class Places:
    """Where the entries of each id are: tables by which they are gathered.

    The standard has no sums by segments. Ids are put into heaps by the number of their entries, to
    the next power of two, and each heap is gathered as a matrix with a row for each id, whose rest
    is filled with zeros: whatever the ids, no more than twice the entries.
    """

    ids: int | tuple[Any, ...]
    shape: tuple[int, ...] = field(init=False, compare=False, repr=False)
    first: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """For each entry the first one with its id."""
    heaps: tuple[tuple[tuple[int, ...], int], ...] = field(init=False, compare=False, repr=False)
    """For each heap the places of its matrix, row after row, and how long a row is."""
    row: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """For each entry the row of its id, counted through all heaps."""
    counts: tuple[float, ...] = field(init=False, compare=False, repr=False)
    """For each row the number of its entries."""

    kept: dict[Any, Array] = field(init=False, compare=False, repr=False)
    """The tables as arrays."""

    def __post_init__(self) -> None:
        flat = _flat(self.ids)
        places: dict[int, list[int]] = {}
        for place, i in enumerate(flat):
            places.setdefault(i, []).append(place)
        heaps: dict[int, list[int]] = {}
        for i, own in places.items():
            heaps.setdefault(1 << (len(own) - 1).bit_length(), []).append(i)
        order = [i for size in sorted(heaps) for i in heaps[size]]
        row = {i: number for number, i in enumerate(order)}
        nowhere = len(flat)  # the place of a zero behind the last entry
        assign(
            self,
            kept={},
            shape=_shape(self.ids),
            first=tuple(places[i][0] for i in flat),
            heaps=tuple(
                (tuple(p for i in heaps[size] for p in _filled(places[i], size, nowhere)), size)
                for size in sorted(heaps)
            ),
            row=tuple(row[i] for i in flat),
            counts=tuple(float(len(places[i])) for i in order),
        )


def _filled(places: list[int], size: int, nowhere: int) -> Iterable[int]:
    return [*places, *[nowhere] * (size - len(places))]


class _Ties(Averages):
    """The groups of a weight and the places of the ids in each."""

    def __init__(self, w: Array, places: Places, axis: Axis) -> None:
        """Fit the ids to the shape of a group."""
        super().__init__(w, axis, "Tied")
        self._places = places
        self._whole = tuple([w.shape[a] for a in self.groups.axes])
        own = places.shape
        missing = len(self._whole) - len(own)
        if missing < 0 or any(
            [s not in (1, t) for s, t in zip(own, self._whole[missing:], strict=True)]  # noqa: C419
        ):
            raise ValueError(
                f"Tied: ids must broadcast against a group, got shape {own} against {self._whole}; "
                "give ids of that shape, or mend axis"
            )
        self._ids = (*[1] * missing, *own)
        """The shape of the ids with all axes of a group."""

    def _take(self, x: Array, table: str | int) -> Array:
        """The entries along the last axis at the places of a table, or of a heap."""
        places = self._places
        numbers = places.heaps[table][0] if isinstance(table, int) else getattr(places, table)
        places = self._array(table, numbers, x, self.xp.int32)
        return _array.take(x, places, self.xp)

    def _array(self, table: str | int, numbers: Any, x: Array, dtype: Any) -> Array:
        kept = self._places.kept.setdefault(table, {})
        return _array.held(numbers, x, self.xp, dtype, "Tied: ids", kept)

    def _over_group(self, x: Array) -> Array:
        """What there is of the ids, along the last axis, for each entry of the group."""
        xp, batch = self.xp, tuple(x.shape[:-1])
        if self._ids == self._whole:
            return x
        x = xp.broadcast_to(xp.reshape(x, (*batch, *self._ids)), (*batch, *self._whole))
        return xp.reshape(x, (*batch, self.groups.size))

    def member(self) -> Array:
        """Groups in which each entry is equal to the first one with its id."""
        xp, groups = self.xp, self.groups
        w = self.of(groups.w)
        if 0 in w.shape:
            return groups.every(groups.w == groups.w)
        first, batch = w, tuple(w.shape[:-1])
        if self._ids != self._whole:
            first = xp.reshape(w, (*batch, *self._whole))
            for axis, (one, size) in enumerate(
                zip(self._ids, self._whole, strict=True), len(batch)
            ):
                if one < size:
                    first = first[(*(slice(None),) * axis, slice(0, 1), ...)]
            first = xp.reshape(first, (*batch, len(self._places.row)))
        first = self._over_group(self._take(first, "first"))
        return groups.every(self.back(w == first))

    def means(self, x: Array) -> Array:
        """Every entry with the mean of those that have its id."""
        xp, places, batch = self.xp, self._places, tuple(x.shape[:-1])
        low, spread = None, 1
        if self._ids != self._whole:
            x = xp.reshape(x, (*batch, *self._whole))
            for axis, (one, size) in enumerate(
                zip(self._ids, self._whole, strict=True), len(batch)
            ):
                if one < size:
                    x, low = self._sum(x, low, axis)
                    spread *= size
            x = xp.reshape(x, (*batch, len(places.row)))
        padded = self._padded(x)
        low = None if low is None else self._padded(xp.reshape(low, tuple(x.shape)))
        sums = []
        for heap, (numbers, size) in enumerate(places.heaps):
            shape = (*batch, len(numbers) // size, size)
            rows = xp.reshape(self._take(padded, heap), shape)
            below = None if low is None else xp.reshape(self._take(low, heap), shape)
            rows, below = self._sum(rows, below, len(batch) + 1)
            sums.append(xp.squeeze(rows if below is None else rows + below, axis=-1))
        total = xp.concat(sums, axis=-1) if len(sums) > 1 else sums[0]
        counts = self._array("counts", places.counts, x, self.groups.precision.accumulator)
        mean = total / (counts if spread == 1 else counts * spread)
        return self._over_group(self._take(mean, "row"))

    def _padded(self, x: Array) -> Array:
        return self.xp.concat([x, self.xp.zeros_like(x[..., :1])], axis=-1)

    def _sum(self, x: Array, low: Array | None, axis: int) -> tuple[Array, Array | None]:
        """The sum over an axis, which is kept, and what rounding took from it.

        A mean may be much smaller than the entries. Where nothing wider computes, the rounding of
        each sum of two is exact (D. Knuth, The Art of Computer Programming 2, section 4.2.2), and
        is added up beside.
        """
        xp = self.xp
        if self.groups.precision.wide is not None or not x.shape[axis]:
            return _array.accurate_sum(x, (axis,), xp), None
        low = xp.zeros_like(x) if low is None else low
        while x.shape[axis] > 1:
            (a, b, odd), (c, d, odd_low) = halves(x, axis), halves(low, axis)
            both = a + b
            second = both - a
            lost = (a - (both - second)) + (b - second)
            x = xp.concat([both, odd], axis=axis)
            low = xp.concat([c + d + lost, odd_low], axis=axis)
        return x, low


def slow_projection(group: Group, ids: Any, shape: tuple[int, ...]) -> Group:
    """By definition: the mean of the entries of each id."""
    own = _broadcast(ids, shape)
    means = {i: mean([e for e, j in zip(group, own, strict=True) if j == i]) for i in set(own)}
    return [means[i] for i in own]


def _broadcast(ids: Any, shape: tuple[int, ...]) -> list[int]:
    """The id of each entry of a group of that shape."""
    if not shape:
        return [ids]
    if len(_shape(ids)) < len(shape):
        ids = (ids,)
    rows = ids if len(ids) == shape[0] else ids * shape[0]
    return [i for row in rows for i in _broadcast(row, shape[1:])]


def slow_violation(group: Group, ids: Any, shape: tuple[int, ...]) -> Decimal:
    """The distance from the projection."""
    return length(differences(group, slow_projection(group, ids, shape)))


EXAMPLES: tuple[Any, ...] = (
    Tied((7, -1, -1, 7, 0, -1)),
    Tied((0, 1, 2, 0, 0, 10**12, 0, 2), axis=0),
    Tied(tuple(tuple((i * j) % 5 for j in range(6)) for i in range(8))),
    Tied(((0,), (1,), (0,), (2,), (1,), (0,), (0,), (0,)), axis=(0, 1)),
    Tied(0),
)
