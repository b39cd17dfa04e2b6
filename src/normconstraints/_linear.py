r"""What sets of linear equations and inequalities have in common: normals, and parts along them.

The nearest group w with :math:`a^T w = b` is :math:`w - a (a^T w - b) / \|a\|^2`. Rounding does two
kinds of harm where the part along the normal is much larger than what is left when it is gone. An
error of the coefficient stays along the normal: the same step once more takes it out. The rounding
of the products of the coefficient with the normal does not, so that, where no wider dtype computes,
the products are taken with their rounding errors, by splitting numbers in halves (T. J. Dekker,
"A floating-point technique for extending the available precision", Numer. Math. 18 (1971)).

Several equations become planes at right angles, `Basis`, in decimal arithmetic at construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._groups import Groups
from normconstraints._norms import measure
from normconstraints._parameters import Number, as_numbers, check_finite, flatten
from normconstraints._random import Draw

if TYPE_CHECKING:  # decimal is imported where a matrix is factored
    from decimal import Decimal


def check_normal(owner: object, name: str, value: Any) -> Number:
    """A finite number or an array of such that are not all 0."""
    checked = check_finite(owner, name, value)
    if not _array.is_traced(checked) and not any(flatten(as_numbers(checked))):
        raise ValueError(
            f"{type(owner).__name__}: {name} must have an entry other than 0, got {value!r}; a "
            "normal of zeros has no plane"
        )
    return checked


# --------------------------------------------------------------------------- one normal a group


class Normal:
    """One vector a for each group. It is a number, 1 or -1, where all entries are the same."""

    def __init__(self, groups: Groups, a: Any, low: Any = None) -> None:
        """Take `a`, and `low` for the digits of the vector that `a` has no room for."""
        self.groups, self.a, self.low = groups, a, low
        self.plain = isinstance(a, float)
        size = float(max(groups.size, 1))
        self.square: Any = size if self.plain else groups.sum(a * a)
        self.spread: Any = size if self.plain else groups.sum(abs(a))
        """The sum of the moduli of its entries."""

    def products(self, y: Array) -> Array:
        """Its entries times those of `y`."""
        if self.plain:
            return y if self.a > 0 else -y
        return self.a * y

    def along(self, y: Array) -> Array:
        """The inner product with each group."""
        return self.total(self.products(y))

    def total(self, x: Array) -> Array:
        """The sum over each group."""
        g = self.groups
        if not g.precision.is_complex:
            return g.sum(x)
        # XLA sums complex numbers one after the other, over all axes even if asked for one by one.
        for axis in g.axes:
            x = _halved(x, axis, g.xp)
        return x

    def less(self, y: Array, t: Array) -> Array:
        """`y` less `t` times the vector."""
        if self.plain:
            return y - t if self.a > 0 else y + t
        return y - self.a * t

    def split(self, y: Array, t: Array) -> tuple[Array, Any]:
        """The same, and what rounding took from it: 0.0 where that is of no account.

        So where a wider dtype computes, or where the rounding is that of the result alone.
        """
        if self.plain or self.groups.precision.wide is not None:
            return self.less(y, t), 0.0
        # Near 1, for the rounding of a small product is smaller still, and XLA makes it 0.
        scale = _power_near(t, self.groups)
        t = t * scale
        product = self.a * t
        lost = _rounding(self.a, t, product, _splitter(self.groups))
        if self.low is not None:
            lost = lost + self.low * t
        product, lost = product * (1 / scale), lost * (1 / scale)
        rest = y - product
        back = rest - y
        return rest, ((y - (rest - back)) - (product + back)) - lost


def _halved(x: Array, axis: int, xp: Namespace) -> Array:
    """The sum over an axis, which is kept: a half is added to the other until 1 is left."""
    if not x.shape[axis]:
        return xp.sum(x, axis=axis, keepdims=True)
    while x.shape[axis] > 1:
        first, second, odd = halves(x, axis)
        x = xp.concat([first + second, odd], axis=axis)
    return x


def halves(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Two halves of an axis, and the entry that is over, if there is one."""
    before = (slice(None),) * axis
    length, half = x.shape[axis], x.shape[axis] // 2
    parts = slice(0, half), slice(half, 2 * half), slice(2 * half, length)
    return x[(*before, parts[0], ...)], x[(*before, parts[1], ...)], x[(*before, parts[2], ...)]


def sum_of_squares(x: Array, groups: Groups) -> tuple[Array, Array]:
    """The sum over each group of squares of real numbers near 1, and the rounding error of it.

    The error is left at 0 where a wider dtype computes.
    """
    xp = groups.xp
    squares = x * x
    if groups.precision.wide is not None:
        total = groups.sum(squares)
        return total, xp.zeros_like(total)
    if groups.size == 0:
        return groups.sum(squares), groups.sum(squares)
    errors = _rounding(x, x, squares, _splitter(groups))
    for axis in groups.axes:
        while squares.shape[axis] > 1:
            first, second, odd = halves(squares, axis)
            total = first + second
            back = total - first
            error = (first - (total - back)) + (second - back)
            squares = xp.concat([total, odd], axis=axis)
            first, second, odd = halves(errors, axis)
            errors = xp.concat([error + (first + second), odd], axis=axis)
    return squares, errors


def square_error(x: Array, square: Array, groups: Groups) -> Array:
    """What the square of a real number near 1 has beyond its rounded value, 0 as above."""
    if groups.precision.wide is not None:
        return groups.xp.zeros_like(square)
    return _rounding(x, x, square, _splitter(groups))


def _splitter(groups: Groups) -> float:
    digits = 1 - round(math.log2(groups.precision.eps))
    return 2.0 ** -(-digits // 2) + 1


def _rounding(a: Array, t: Array, product: Array, splitter: float) -> Array:
    """What ``a * t`` has beyond its rounded value `product`."""
    high, top = _upper(a, splitter), _upper(t, splitter)
    low, rest = a - high, t - top
    return ((high * top - product) + high * rest + low * top) + low * rest


def _upper(x: Array, splitter: float) -> Array:
    """The upper half of the digits."""
    far = splitter * x
    return far - (far - x)


def _power_near(a: Array, groups: Groups) -> Array:
    """A power of two for each group that brings the largest entry of `a` near 1."""
    xp = groups.xp
    largest = groups.max(abs(a))
    exponent = _array.precision(a, xp, groups.owner).exponent
    scale = ones = xp.ones_like(largest)
    for part in (2, 4, 8, 16, 32, 64):
        power = 2.0 ** (exponent // part)
        big, small = largest > power, largest < 1 / power
        step = xp.where(big, 1 / power, xp.where(small, power, ones))
        largest, scale = largest * step, scale * step
    return scale


class Plane:
    """One normal for each group of a weight, times a number that brings squares into range."""

    def __init__(self, groups: Groups, normal: Number = 1.0) -> None:
        """Lay the normals along the axes of the groups."""
        self.groups = groups
        self._length: Any = 1.0
        self._power: Any = None
        self.proper: Any = True
        """Groups whose normal is not all 0."""
        a = groups.entries(normal, "normal")
        if isinstance(a, float):
            a, self._length = math.copysign(1.0, a), abs(a)
        else:
            self._power = _power_near(a, groups)
            a = a * self._power
            if not _array.is_traced(normal):
                # XLA takes the constants in a product of products together: the square of an entry
                # overflowed for all that, and there was no plane.
                a = _array.settled(a, groups.xp)
        self.normal = Normal(groups, a)
        self.square = self.normal.square
        if self._power is not None:
            self.proper = self.square > 0
            self.square = groups.xp.where(self.proper, self.square, 1.0)

    def pulled_back(self, g: Array) -> Array:
        """The product of a gradient with the derivative of the projection, of members too.

        Linear in the gradient, whose values decide nothing: JAX transposes it. The part along the
        normal is taken out twice, as that of a weight is.
        """
        groups = self.groups
        y = groups.widen(g)
        for _ in range(2):
            y = self.normal.less(y, self._share(self.normal.along(y)))
        moved = groups.finite & self.proper
        return groups.xp.where(moved, _array.cast(y, g.dtype, groups.xp), g)

    def _share(self, x: Array) -> Array:
        # XLA divides a complex by a real number as by another complex one, with errors of several
        # units of the last place.
        return x * (1 / self.square) if self.groups.precision.is_complex else x / self.square


class Planes(Plane):
    """The groups of a weight beside planes with one normal a group.

    Everything is in units of the normal times a number, so that squares of its entries neither
    overflow nor underflow, and offsets are times that number too.
    """

    def __init__(self, groups: Groups, normal: Number = 1.0) -> None:
        """Take the part of each group along the normal."""
        super().__init__(groups, normal)
        self.y, self.scale = groups.shrunk()
        products = self.normal.products(self.y)
        self.dot = self.normal.total(products)
        rounding = self.normal.spread * _near_zero(groups) * self.scale
        self.slack = groups.slack * groups.sum(abs(products)) + rounding
        """How far the inner product may be from an offset and count as right."""

    def offset(self, value: Number, name: str) -> Any:
        """A parameter of the groups, an inner product with the normal, as `off` and `onto` take it.

        A float where it is one, else an array beside the reductions.
        """
        b = self.groups.number(value, name)
        return b / self._length if self._power is None else b * self._power

    def off(self, offset: Any) -> Array:
        """By how much the inner products are above `offset`, in units that `slack` has too."""
        return self.dot - offset * self.scale

    def onto(self, offset: Any) -> Array:
        """The nearest groups whose inner product with the normal is `offset`."""
        rest, low = self.normal.split(self.y, self._share(self.dot))
        rest = _joined(rest, low)
        left = self.normal.along(rest) - offset * self.scale
        return unshrunk(self.normal.less(rest, self._share(left)), self.scale)

    def across(self) -> Array:
        """The parts of the groups at right angles to the normal."""
        return self.onto(0.0)

    def put_back(self, result: Array, moved: Array) -> Array:
        """`result` where `moved`, for groups that are finite and have a normal."""
        return self.groups.put_back(result, moved & self.proper)

    def report(self, off: Array, outside: Array) -> Array:
        """The distance of planes from which groups are `off`, NaN for groups without a normal."""
        root = self.square**0.5
        amount = unshrunk(abs(off) / root, self.scale)
        return self.groups.report(amount, outside, self.groups.finite & self.proper)


def _joined(x: Array, low: Any) -> Array:
    return x if isinstance(low, float) else x + low


def unshrunk(x: Array, scale: Any) -> Array:
    """What was computed of groups that `Groups.shrunk` multiplied by `scale`."""
    return x if isinstance(scale, float) else x * (1 / scale)


def in_plane(groups: Groups, normal: Number, w: Array) -> Array:
    """The groups of a gradient without their part along the normal."""
    planes = Planes(groups, normal)
    return planes.put_back(planes.across(), Groups(w, groups.axes, groups.owner).finite)


def of_normal(draw: Draw, like: Array, xp: Namespace) -> Array:
    """Normal numbers in the dtype of the weight."""
    return _array.cast(draw.direction(), like.dtype, xp)


# ------------------------------------------------------------------------ several planes a group


@dataclass(frozen=True, slots=True)
class Basis:
    """Unit vectors at right angles that span the rows of a matrix, and offsets along them."""

    rows: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float, ...], ...]
    """The digits of the rows beyond those of a float."""
    offsets: tuple[float, ...]


_DIGITS = 50


def check_equations(
    owner: object, matrix: Any, offset: Any
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """A matrix of m rows, and m numbers, as tuples; one number in place of m counts for each."""
    name = type(owner).__name__
    if _array.is_traced(matrix) or _array.is_traced(offset):
        raise TypeError(
            f"{name}: matrix and offset must have values, got arrays that a compiler traces; they "
            "are factored at construction, so construct outside of what is compiled"
        )
    rows: Any = _numbers(owner, "matrix", matrix)
    if _depth(rows) != 2:
        raise ValueError(f"{name}: matrix must have two dimensions, (m, n), got {matrix!r}")
    if not any(map(any, rows)):
        raise ValueError(f"{name}: matrix must have an entry other than 0, got {matrix!r}")
    right: Any = _numbers(owner, "offset", offset)
    right = right if _depth(right) else (right,) * len(rows)
    if len(right) != len(rows) or _depth(right) != 1:
        raise ValueError(
            f"{name}: offset must have one number for each of the {len(rows)} rows of matrix, got "
            f"{offset!r}"
        )
    return rows, right


def _depth(numbers: Any) -> int:
    """How deep tuples of numbers are nested; 0 also for an empty one."""
    return 1 + _depth(numbers[0]) if isinstance(numbers, tuple) and numbers else 0


def _numbers(owner: object, name: str, value: Any) -> Any:
    return _floats(as_numbers(check_finite(owner, name, value)))


def _floats(value: Any) -> Any:
    return tuple(map(_floats, value)) if isinstance(value, tuple) else float(value)


def factored(
    owner: object, matrix: tuple[tuple[float, ...], ...], offset: tuple[float, ...]
) -> Basis:
    """The equations ``matrix @ w = offset`` as planes at right angles.

    By Gram and Schmidt, the row that has most left first, in so many digits that no second pass is
    needed. A row of which less is left than the rounding of its entries depends on the others: it
    adds nothing if its offset fits, else a ValueError names it.
    """
    import decimal
    from decimal import Decimal

    blur = Decimal(2) ** -52 * max(len(matrix), len(matrix[0]))
    context = decimal.Context(prec=_DIGITS, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
    with decimal.localcontext(context):
        left = {i: [Decimal(x) for x in row] for i, row in enumerate(matrix)}
        due = {i: Decimal(b) for i, b in enumerate(offset)}
        whole = {i: _norm(row) for i, row in left.items()}
        basis: list[list[Decimal]] = []
        along: list[Decimal] = []
        while left:
            share = {i: _norm(row) / whole[i] if whole[i] else whole[i] for i, row in left.items()}
            most = max(share, key=lambda i: share[i])
            if share[most] <= blur:
                break
            row = left.pop(most)
            length = _norm(row)
            q, b = [x / length for x in row], due.pop(most) / length
            for i, other in left.items():
                part = sum(map(mul, q, other), Decimal(0))
                left[i] = [x - part * y for x, y in zip(other, q, strict=True)]
                due[i] -= part * b
            basis.append(q)
            along.append(b)
        reach = _norm(along) if along else blur * 0
        for i, b in due.items():
            if abs(b) > blur * (whole[i] * reach + abs(Decimal(offset[i]))):
                raise ValueError(
                    f"{type(owner).__name__}: matrix and offset must have a solution, got row {i}, "
                    "which depends on the others while its offset does not fit theirs by "
                    f"{float(b):.3g}; remove the row or mend its offset"
                )
        rows = [[float(x) for x in q] for q in basis]
        low = [
            [float(x - Decimal(y)) for x, y in zip(q, row, strict=True)]
            for q, row in zip(basis, rows, strict=True)
        ]
        return Basis(
            tuple(map(tuple, rows)), tuple(map(tuple, low)), tuple([float(b) for b in along])
        )


def _norm(row: list[Decimal]) -> Decimal:
    squares = [x * x for x in row]
    return sum(squares[1:], squares[0]).sqrt()


class Normals:
    """The groups of a weight beside several planes a group, which meet at right angles."""

    def __init__(self, groups: Groups, basis: Basis) -> None:
        """Lay the vectors of the basis along the axes of the groups."""
        columns = len(basis.rows[0])
        if columns != groups.size:
            raise ValueError(
                f"{groups.owner}: matrix must have one column for each entry of a group, got "
                f"{columns} columns for groups of {groups.size}; mend matrix or axis"
            )
        self.groups, self.offsets = groups, basis.offsets
        self.y, self.scale = groups.shrunk()
        half = 2.0 ** (groups.precision.exponent // 2)
        if groups.precision.wide is None and max(map(abs, basis.offsets)) < half**0.5:
            # So that products of the smallest numbers are not rounded to a multiple of those.
            largest = groups.max(abs(self.y))
            up = groups.xp.where(largest < 1 / half, half, groups.xp.ones_like(largest))
            self.y, self.scale = self.y * up, self.scale * up
        self.normals = [
            Normal(groups, self._laid(row), self._laid(low))
            for row, low in zip(basis.rows, basis.low, strict=True)
        ]

    def _laid(self, row: tuple[float, ...]) -> Array:
        g = self.groups
        shape = tuple(s if i in g.axes else 1 for i, s in enumerate(g.w.shape))
        flat = _array.like(row, g.w, g.xp, g.precision.accumulator, f"{g.owner}: matrix")
        return g.xp.reshape(flat, shape)

    def off(self) -> tuple[Array, Array]:
        """The distance of each group from where the planes meet, and the groups that are off it."""
        groups = self.groups
        parts = [
            n.along(self.y) - b * self.scale
            for n, b in zip(self.normals, self.offsets, strict=True)
        ]
        distance = _length(groups.xp.stack(parts, axis=-1), (-1,), groups)[..., 0]
        # Of the length and not plane by plane, so that more planes do not allow more distance.
        size = _length(self.y, groups.axes, groups)
        rounding = groups.size**0.5 * _near_zero(groups) * self.scale
        return unshrunk(distance, self.scale), distance > groups.slack * size + rounding

    def onto(self) -> Array:
        """The nearest groups in all planes."""
        return self._nearest(self.offsets)

    def across(self) -> Array:
        """The parts of the groups at right angles to all normals."""
        return self._nearest([0.0] * len(self.normals))

    def pulled_back(self, g: Array) -> Array:
        """The product of a gradient with the derivative of `onto`, as that of one plane."""
        groups = self.groups
        y = groups.widen(g)
        for _ in range(2):
            for n in self.normals:
                y = n.less(y, n.along(y) / n.square)
        return groups.xp.where(groups.finite, _array.cast(y, g.dtype, groups.xp), g)

    def _nearest(self, offsets: Sequence[float]) -> Array:
        rest, low = self.y, 0.0
        for n in self.normals:
            # Added in the end, for before it the group may be long along another normal.
            rest, part = n.split(rest, n.along(rest) / n.square)
            low = low + part
        rest = _joined(rest, low)
        for n, b in zip(self.normals, offsets, strict=True):
            rest = n.less(rest, (n.along(rest) - b * self.scale) / n.square)
        return unshrunk(rest, self.scale)


def _near_zero(groups: Groups) -> float:
    """What rounding adds to an entry near 0: half the smallest number, in both parts of a complex.

    The smallest number itself, that is, since in double a half of it is no number.
    """
    return groups.precision.smallest * groups.precision.eps


def _length(x: Array, axes: tuple[int, ...], groups: Groups) -> Array:
    """The Euclidean norm over axes that are kept with length 1."""
    axes = tuple(a % x.ndim for a in axes)
    precision = _array.precision(x, groups.xp, groups.owner)
    return measure(x, axes, groups.xp, precision).length
