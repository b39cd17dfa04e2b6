r"""Matrices with entries >= 0 and given sums of rows and columns, for `Birkhoff` and `Transport`.

A primal active set method, in blocks. The entries of a support are free, the others are 0. On a
support the nearest matrix of the right sums is :math:`w_{ij} + p_i + q_j`, with multipliers that
solve a Laplacian system of the size of the columns. The iterate goes from where it is, inside the
set, towards that as far as no entry becomes negative; entries that are at 0 and would go below it
leave the support, and where :math:`w_{ij} + p_i + q_j > 0` outside it enter. It starts from a
greedy assignment, so that huge weights, for which the result is that of a linear program, take few
steps. For more than 8 rows or columns Newton's method on the multipliers comes first: it takes few
steps for any number of rows, but is for weights of the size of the sums.

Three things make it exact at weights of any size:

* The sums are perturbed by tiny numbers in the method, never in the result. So no proper part of
  the rows has the sum of a part of the columns, the support stays connected, and the multipliers
  are unique.
* The weights are split into bands by their size, for each of which the system is solved by itself.
  What a band adds to an entry is either 0, if the band is of no avail to the cycles through it, or
  comparable with the weights of the band; rounding is told from it and removed. So weights of 1e300
  that cancel do not wash away those near 1.
* The three numbers of an entry are added without error but the last rounding.

The support is all that is kept, and the result is computed from it anew, so that autodiff, to which
a mask is a constant, gives the exact derivative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from normconstraints import _array, _host, _linalg
from normconstraints._array import Array
from normconstraints._groups import Groups, running_count
from normconstraints._oracle import Group, positive
from normconstraints._parameters import as_numbers, check_number
from normconstraints._random import Draw

if TYPE_CHECKING:
    from decimal import Decimal

_UNIT = 2.0**-40
"""The largest sum, in the scale in which is computed: sums of the largest weights are finite."""
_TRIALS = 16
"""Lengths that are tried for a Newton step."""
_SMALL = 8
"""Up to so many rows and columns the active set needs no start but the greedy one."""
_ROUNDS = 6
"""Rounds of the greedy start; what they leave is spread."""


def steps(m: int, n: int) -> tuple[int, int]:
    """Newton steps for a start, and steps of the active set, as measured to be enough.

    Libraries that show their values to Python stop when nothing changes.
    """
    if max(m, n) <= _SMALL:
        return 0, 12 + m + n
    return 20, 40


# -------------------------------------------------------------------------------- parameters


def check_sums(owner: object, rows: Any, cols: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The sums of rows and columns as numbers; their totals agree."""
    name = type(owner).__name__
    found = []
    for what, value in (("rows", rows), ("cols", cols)):
        checked: Any = check_number(owner, what, value, above=0, strict=False, upto=1e250)
        rule = f"{name}: {what} must be one number for each of them"
        if _array.is_traced(checked):
            raise TypeError(f"{rule} that are known before the code is compiled; give a tuple")
        checked = as_numbers(checked)
        if not isinstance(checked, tuple) or not checked or isinstance(checked[0], tuple):
            raise ValueError(f"{rule}, as a tuple or an array with one dimension, got {value!r}")
        found.append(tuple(float(x) for x in checked))
    totals = [math.fsum(sums) for sums in found]
    if not max(totals) > 0 or abs(totals[0] - totals[1]) > 2.0**-40 * max(totals):
        raise ValueError(
            f"{name}: rows must have the total of cols, above 0, got {totals[0]!r} and "
            f"{totals[1]!r}"
        )
    return found[0], found[1]


# --------------------------------------------------------------------------------- the weight


class Matrices:
    """The groups of an array as matrices along the last two axes, scaled, and their sums."""

    def __init__(
        self,
        groups: Groups,
        axis: tuple[int, int],
        rows: tuple[float, ...],
        cols: tuple[float, ...],
    ) -> None:
        """Take the axis of the rows and that of the columns, and the sums of both."""
        self.groups, self.xp = groups, groups.xp
        ndim = groups.w.ndim
        ends = tuple(a % ndim for a in axis)
        self.order = (*[i for i in range(ndim) if i not in ends], *ends)
        self.rows, self.cols = rows, cols
        self.most = max(*rows, *cols)
        self.eps = groups.precision.eps if groups.precision.wide is None else self._wide_eps()

    def _wide_eps(self) -> float:
        return float(self.xp.finfo(self.groups.precision.wide).eps)

    def ordered(self, x: Array) -> Array:
        """An array of as many axes with those of the rows and of the columns at the end."""
        return self.xp.permute_dims(x, self.order)

    def restored(self, x: Array) -> Array:
        """What `ordered` made, with its axes as they were."""
        return self.xp.permute_dims(x, tuple(self.order.index(i) for i in range(len(self.order))))

    def constant(self, values: tuple[Any, ...]) -> Array:
        """Numbers as an array beside the weight."""
        groups = self.groups
        return _array.like(values, groups.w, self.xp, groups.precision.accumulator, groups.owner)

    # ------------------------------------------------------------------------------ membership

    def off(self) -> tuple[Array, Array]:
        """How far groups are outside, and which are.

        The largest of the negative entries and the distances from the planes of the right sums.
        """
        groups, xp = self.groups, self.xp
        w, scale = groups.shrunk()
        allowed = groups.slack * self.most + max(len(self.rows), len(self.cols)) * groups.quantum
        amount = groups.max(-groups.wide)
        outside = amount > 0
        along = self.order[-2:]
        for sums, own, across in ((self.rows, *along), (self.cols, *along[::-1])):
            shape = [1] * len(self.order)
            shape[own] = len(sums)
            right = xp.reshape(self.constant(sums), tuple(shape))
            distance = abs(groups.sum(w, (across,)) - right * scale)
            far = groups.max(xp.where(distance > allowed * scale, distance, 0.0))
            outside = outside | (far > 0)
            far = far / scale / groups.w.shape[across] ** 0.5
            amount = xp.where(far > amount, far, amount)
        return amount, outside

    # ------------------------------------------------------------------------------ projection

    def nearest(self) -> Array:
        """The nearest array with entries >= 0 and the right sums, in the dtype that computes."""
        xp = self.xp
        unit = _UNIT / 2.0 ** math.ceil(math.log2(self.most))
        w = self.ordered(self.groups.wide)
        top = (1000 if self.eps < 1e-10 else 110) - round(math.log2(unit))
        if self.groups.precision.exponent > top:
            # Weights beyond what the scale can hold are as good as infinite beside the sums.
            w = xp.where(w > 2.0**top, 2.0**top, w)
            w = xp.where(w < -(2.0**top), -(2.0**top), w)
        z = xp.where(xp.isfinite(w), w, 0.0) * unit
        system = _System(self, z, unit)
        support, x, done = self._support(system, z)
        y = system.solve(support, perturbed=False).entries
        # Twice: rounding is of the size of the weights, then of the result. Entries that are 0 but
        # for rounding leave in between, so that nothing is lost when they are cut off at the end.
        used = support & (y > -64 * self.eps * _UNIT) & system.open
        for _ in range(2):
            y = system.corrected(used, xp.where(used, y, 0.0))
            used = used & (y > 0)
        y = xp.where(used, y, xp.zeros_like(y))
        right = done & system.right_sums(y, 64 * self.eps * _UNIT)
        return self.restored(xp.where(right, y, self._member(x, system)) / unit)

    def _member(self, x: Array, system: _System) -> Array:
        """A member near an iterate that is not done, and a constant to autodiff."""
        xp = self.xp
        # As an integer, which has no derivative.
        digits = 1 / (8 * self.eps * _UNIT)
        whole = xp.astype(x * digits, xp.int64 if self.eps < 1e-10 else xp.int32)
        x = xp.where(system.open, xp.astype(whole, x.dtype) / digits, 0.0)
        rows, cols = (side[..., 0] for side in system.right)
        for right, axis in ((rows, -1), (cols, -2)):
            total = xp.sum(x, axis=axis, keepdims=True)
            x = x * xp.where(total > right, right / xp.where(total > 0, total, 1.0), 1.0)
        rows = rows - xp.sum(x, axis=-1, keepdims=True)
        cols = cols - xp.sum(x, axis=-2, keepdims=True)
        rows = xp.where(rows > 0, rows, xp.zeros_like(rows))
        cols = xp.where(cols > 0, cols, xp.zeros_like(cols))
        left = xp.sum(rows, axis=-2, keepdims=True)
        return x + rows * (cols / xp.where(left > 0, left, 1.0))

    def _support(self, system: _System, z: Array) -> tuple[Array, Array, Array]:
        """The support of the nearest matrix, the iterate, and whether it got to the end."""
        xp, groups = self.xp, self.groups
        library = _host.name_of(groups.w, groups.precision)
        newton, active = steps(len(self.rows), len(self.cols))
        x = self._greedy(z, system.near_rows, system.near_cols)
        support = x > 0
        known, found_already = support, xp.zeros_like(support[..., :1, :1])
        if newton:
            known, found_already = self._by_newton(system, z, newton, library)
            if library is not None and _all(found_already, library):
                return known, x, found_already
        done = found_already
        least = 64 * self.eps * _UNIT
        ends = (-2, -1)
        for _ in range(active):
            found = system.solve(support, perturbed=True, x=x)
            y, x = found.entries, found.x
            negative = support & (y < 0)
            # Steps are in units of the largest change: the smallest would be flushed to zero.
            size = xp.max(abs(xp.where(support, y, 0.0)), axis=ends, keepdims=True)
            size = xp.where(size > _UNIT, size, _UNIT)
            down = (x - y) / size
            falls = negative & (x > 0) & (down > 0)
            reach = xp.where(falls, x / xp.where(falls, down, 1.0), size)
            reach = xp.where(negative & (x <= 0), 0.0, reach)
            step = xp.min(reach, axis=ends, keepdims=True)
            moved = xp.where(step == size, y, x - step * down)
            x = xp.where(support & ((reach > step) | (step == size)) & (moved > 0), moved, 0.0)
            outside = xp.where(support, 0.0, y)
            # Not those that lag behind: across scales they would have to leave again one by one.
            gain = xp.max(outside, axis=ends, keepdims=True) / 2
            enters = (outside > least) & (outside >= gain) & (step > 0)
            following = (support & ((y >= 0) | (x > 0))) | enters
            done = xp.all(following == support, axis=ends, keepdims=True)
            done = done | found_already
            if library is not None and _all(done, library):
                break
            support = following
        return xp.where(found_already, known, support), x, done

    def _greedy(self, z: Array, rows: Array, cols: Array) -> Array:
        """A member: as much as fits where an entry is the largest of its row and its column."""
        xp = self.xp
        x = xp.zeros_like(z)
        rows, cols = rows + x[..., :1], cols + x[..., :1, :]
        for _ in range(min(_ROUNDS, len(self.rows) + len(self.cols))):
            free = (rows > 0) & (cols > 0)
            y = xp.where(free, z, -math.inf)
            best = free & (y == xp.max(y, axis=-1, keepdims=True))
            best = best & (y == xp.max(y, axis=-2, keepdims=True))
            best = best & (running_count(best, xp) == 1)
            flipped = xp.matrix_transpose(best)
            best = best & xp.matrix_transpose(running_count(flipped, xp) == 1)
            fits = xp.where(best, xp.where(rows < cols, rows, cols), 0.0)
            x = x + fits
            rows = rows - xp.sum(fits, axis=-1, keepdims=True)
            cols = cols - xp.sum(fits, axis=-2, keepdims=True)
        left = xp.sum(rows, axis=-2, keepdims=True)
        return x + rows * cols / xp.where(left > 0, left, 1.0)

    def _by_newton(
        self, system: _System, z: Array, count: int, library: str | None
    ) -> tuple[Array, Array]:
        """The support by Newton's method on the multipliers of the columns, and if it is right.

        It is for weights of some ten times the sums, in few steps however many rows there are.
        """
        xp = self.xp
        rows, cols = (side[..., 0] for side in system.right)
        place = running_count(_array.trues_like(z, xp), xp)
        place = xp.astype(place, z.dtype)
        shape = (_TRIALS, *[1 for _ in z.shape])
        lengths = xp.reshape(self.constant(tuple(4.0**-i for i in range(_TRIALS))), shape)

        def balanced(y: Array) -> Array:
            """The nearest matrix to `y` with the right sums of rows, from sorted numbers."""
            y = y - xp.max(y, axis=-1, keepdims=True)
            ordered = -xp.sort(-y, axis=-1)
            means = (xp.cumulative_sum(ordered, axis=-1) - rows) / place
            y = y - xp.max(means, axis=-1, keepdims=True)
            return xp.where(y > 0, y, xp.zeros_like(y))

        v = xp.zeros_like(z[..., :1, :])
        for _ in range(count):
            x = balanced(z + v)
            off = xp.sum(x, axis=-2, keepdims=True) - cols
            done = system.right_sums(x, 64 * self.eps * _UNIT)
            if library is not None and _all(done, library):
                break
            # Columns without support would go to infinity but for the ridge.
            _, _, laplacian = system.laplacian(x > 0, 2.0**-16)
            way = -_linalg.solve(laplacian, xp.matrix_transpose(off), xp)
            way = xp.matrix_transpose(way)
            # The longest step that does not go too far, and on to where the slope, that is linear
            # between two lengths, would be 0.
            trial = balanced((z + v)[None, ...] + lengths * way[None, ...])
            slope = xp.sum(trial, axis=-2, keepdims=True) - cols
            slope = xp.sum(slope * way[None, ...], axis=-1, keepdims=True)
            step = xp.max(xp.where(slope <= 0, lengths, 0.0), axis=0)
            low = xp.max(xp.where(lengths == step[None, ...], slope, -math.inf), axis=0)
            high = xp.max(xp.where(lengths == 4 * step[None, ...], slope, -math.inf), axis=0)
            more = (low <= 0) & (high > 0) & (low > -math.inf)
            part = xp.where(more, -low, 0.0) / xp.where(more, high - low, 1.0)
            v = v + (step + 3 * step * part) * way
        x = balanced(z + v)
        return x > 0, system.right_sums(x, 2.0**12 * self.eps * _UNIT)


def _all(done: Array, library: str) -> bool:
    return _host.count(done, library) == _host.entries(done)


class _Found(NamedTuple):
    entries: Array
    x: Array


class _System:
    """The multipliers of the sums, on a support, for each band of the weights."""

    def __init__(self, matrices: Matrices, z: Array, unit: float) -> None:
        self.xp = xp = matrices.xp
        self.eps = eps = matrices.eps
        rows, cols = matrices.rows, matrices.cols
        m, n = len(rows), len(cols)
        half = round(-math.log2(eps)) // 2
        self.blur = 2.0 ** -(half + 6)
        # Of full digits are the weights up to some 64 times the sums: they decide within cycles.
        low = 6 + round(math.log2(_UNIT))
        top = round(math.log2(unit)) + matrices.groups.precision.exponent
        edges = [2.0**e for e in range(low, min(max(top, low), 1023), half)]
        size = abs(z)[..., None]
        above = (size >= matrices.constant((0.0, *edges))) & (
            size < matrices.constant((*edges, math.inf))
        )
        self.bands = xp.where(above, z[..., None], 0.0)
        self.high = self.blur * xp.max(abs(self.bands), axis=(-3, -2), keepdims=True)
        self.low = matrices.constant((1.0, *[0.0 for _ in edges]))
        right = [x * unit for x in rows], [x * unit for x in cols]
        near = _perturbed(*right, (2.0**-34 if eps < 1e-10 else 2.0**-12) * _UNIT)
        self.right = self._planes(matrices, *right)
        self.near = self._planes(matrices, *near)
        self.near_rows, self.near_cols = (x[..., 0] for x in self.near)
        free = (tuple(float(x > 0) for x in side) for side in (rows, cols))
        open_rows, open_cols = (matrices.constant(side) for side in free)
        self.open = (xp.reshape(open_rows, (m, 1)) > 0) & (xp.reshape(open_cols, (1, n)) > 0)
        place = running_count(_array.trues_like(z[..., :1, :], xp), xp)
        self.diagonal = xp.astype(place == xp.matrix_transpose(place), z.dtype)

    @staticmethod
    def _planes(matrices: Matrices, rows: list[float], cols: list[float]) -> tuple[Array, Array]:
        xp = matrices.xp
        r, c = matrices.constant(tuple(rows)), matrices.constant(tuple(cols))
        return xp.reshape(r, (len(rows), 1, 1)), xp.reshape(c, (1, len(cols), 1))

    def solve(self, support: Array, *, perturbed: bool, x: Array | None = None) -> _Found:
        """The entries with multipliers: on the support the nearest matrix of the right sums.

        With an iterate `x` that, with sums that are right again.
        """
        xp = self.xp
        right = self.near if perturbed else self.right
        low = self.low
        bands = self.bands
        if x is not None:
            bands = xp.concat([bands, x[..., None]], axis=-1)
            low = xp.concat([low, xp.ones_like(low[:1])])
        y = self._fitted(support, bands, (right[0] * low, right[1] * low))
        if x is not None:
            y, last = y[..., :-1], y[..., -1]
            # An entry that has just entered is 0, and not what rounding makes of it.
            x = xp.where(support & (last > 16 * self.eps * _UNIT), last, 0.0)
        noise = (abs(y) <= self.high) & (self.low == 0)
        return _Found(xp.sum(xp.where(noise, 0.0, y), axis=-1), x)

    def right_sums(self, x: Array, least: float) -> Array:
        """Whether the sums are right but for `least`."""
        xp = self.xp
        rows, cols = (side[..., 0] for side in self.right)
        off = abs(xp.sum(x, axis=-1, keepdims=True) - rows)
        good = xp.all(off <= least, axis=(-2, -1), keepdims=True)
        off = abs(xp.sum(x, axis=-2, keepdims=True) - cols)
        return good & xp.all(off <= least, axis=(-2, -1), keepdims=True)

    def corrected(self, support: Array, x: Array) -> Array:
        """The nearest matrix to `x` of the right sums on a support."""
        return self._fitted(support, x[..., None], self.right)[..., 0]

    def laplacian(self, support: Array, ridge: float | None = None) -> tuple[Array, Array, Array]:
        """Entries of each row, what each has of it, and the Laplacian of the columns, regular.

        Its kernel are the constants if the support is connected; one is added that has only these
        in its range.
        """
        xp = self.xp
        mask = xp.astype(support, self.bands.dtype)
        count = xp.sum(mask, axis=-1, keepdims=True)
        count = xp.where(count > 0, count, 1.0)
        share = mask / count
        ridge = 4 * self.eps if ridge is None else ridge
        diagonal = self.diagonal * (xp.sum(mask, axis=-2, keepdims=True) + ridge)
        return count, share, diagonal - xp.matrix_transpose(mask) @ share + 1 / mask.shape[-1]

    def _fitted(self, support: Array, bands: Array, right: tuple[Array, Array]) -> Array:
        xp = self.xp
        count, share, laplacian = self.laplacian(support)
        kept = xp.where(support[..., None], bands, 0.0)
        rows = xp.sum(kept, axis=-2, keepdims=True) - right[0]
        cols = xp.sum(kept, axis=-3, keepdims=True) - right[1]
        cols = cols - xp.sum(share[..., None] * rows, axis=-3, keepdims=True)
        q = -_linalg.solve(laplacian, cols[..., 0, :, :], xp)[..., None, :, :]
        p = -(rows / count[..., None])
        p = p - xp.sum(share[..., None] * q, axis=-2, keepdims=True)
        return _sum(bands, p, q)


def _sum(a: Array, b: Array, c: Array) -> Array:
    """Three numbers, added with one rounding (Knuth's TwoSum, twice)."""
    s = a + b
    t = s - a
    low = (a - (s - t)) + (b - t)
    r = s + c
    t = r - s
    return r + (low + ((s - (r - t)) + (c - t)))


def _perturbed(rows: list[float], cols: list[float], by: float) -> tuple[list[float], list[float]]:
    """Sums near the given ones; no part of the rows has the sum of a part of the columns."""
    # Fractions of multiples of irrational numbers, the same for any library.
    a = [0.25 + math.modf(i * 0.6180339887498949)[0] for i in range(1, len(rows) + 1)]
    b = [0.25 + math.modf(i * 0.7548776662466927)[0] for i in range(1, len(cols) + 1)]
    even = (math.fsum(rows) + by * math.fsum(a) - math.fsum(cols)) / math.fsum(b)
    return (
        [x + by * d for x, d in zip(rows, a, strict=True)],
        [x + even * d for x, d in zip(cols, b, strict=True)],
    )


def drawn(matrices: Matrices, draw: Draw) -> Array:
    """Entries >= 0 near the right sums: exponential numbers, balanced by Sinkhorn's method."""
    xp = matrices.xp
    rows, cols = matrices.constant(matrices.rows), matrices.constant(matrices.cols)
    x = matrices.ordered(draw.exponential())
    for _ in range(8):
        for right, axis in ((rows[:, None], -1), (cols[None, :], -2)):
            total = xp.sum(x, axis=axis, keepdims=True)
            x = x * (right / xp.where(total > 0, total, 1.0))
    return _array.cast(matrices.restored(x), matrices.groups.w.dtype, xp)


# -------------------------------------------------------------------------------- in decimals


def nearest_of_sums(group: Group, rows: tuple[Decimal, ...], cols: tuple[Decimal, ...]) -> Group:
    """An active set that gains or loses one entry at a time, in 1500 digits.

    The free entries always hold a spanning tree of rows and columns: an entry that can be lost is
    on a cycle, for the others are given by the sums.
    """
    import decimal

    n = len(cols)
    with decimal.localcontext() as context:
        context.prec = 1500
        zero = rows[0] * 0
        tiny = decimal.Decimal(10) ** -700
        w = [[group[i * n + j][0] for j in range(n)] for i in range(len(rows))]
        places = sorted(
            ((i, j) for i in range(len(rows)) for j in range(n)), key=lambda e: -w[e[0]][e[1]]
        )
        x, free = _start(places, list(rows), list(cols))
        while True:
            p, q = _multipliers(w, free, rows, cols)
            step, lost = zero + 1, None
            for i, j in sorted(free):
                y = w[i][j] + p[i] + q[j]
                if y < -tiny and x[i, j] < step * (x[i, j] - y):
                    step, lost = x[i, j] / (x[i, j] - y), (i, j)
            for i, j in free:
                x[i, j] += step * (w[i][j] + p[i] + q[j] - x[i, j])
            if lost is not None:
                x[lost] = zero
                free.discard(lost)
                continue
            gains = {(i, j): w[i][j] + p[i] + q[j] for i, j in places if (i, j) not in free}
            best = max(gains, key=gains.__getitem__, default=None)
            if best is None or gains[best] <= tiny:
                return [(positive(x[i, j]),) for i in range(len(rows)) for j in range(n)]
            free.add(best)


def _start(
    places: list[tuple[int, int]], rows: list[Decimal], cols: list[Decimal]
) -> tuple[dict[tuple[int, int], Decimal], set[tuple[int, int]]]:
    """A member, the largest entries first, and a tree that holds those above 0."""
    m = len(rows)
    tree = list(range(m + len(cols)))
    x, free = {}, set()
    for i, j in places:
        x[i, j] = min(rows[i], cols[j])
        rows[i] -= x[i, j]
        cols[j] -= x[i, j]
    for i, j in [e for e in places if x[e] > 0] + places:
        a, b = tree[i], tree[m + j]
        if a != b:
            tree = [a if t == b else t for t in tree]
            free.add((i, j))
    return x, free


def _multipliers(
    w: list[list[Decimal]],
    free: set[tuple[int, int]],
    rows: tuple[Decimal, ...],
    cols: tuple[Decimal, ...],
) -> tuple[list[Decimal], list[Decimal]]:
    """What is added to rows and columns for the right sums, by elimination; 0 in the last."""
    m, n = len(rows), len(cols)
    zero = rows[0] * 0
    size = m + n - 1
    matrix = [[zero] * size for _ in range(size)]
    right = [*rows, *cols[:-1]]
    for i, j in free:
        k = m + j
        matrix[i][i] += 1
        right[i] -= w[i][j]
        if k < size:
            matrix[k][k] += 1
            matrix[i][k] = matrix[k][i] = zero + 1
            right[k] -= w[i][j]
    for a in range(size):
        for b in range(a + 1, size):
            if matrix[b][a]:
                factor = matrix[b][a] / matrix[a][a]
                for c in range(a, size):
                    if matrix[a][c]:
                        matrix[b][c] -= factor * matrix[a][c]
                right[b] -= factor * right[a]
    for a in range(size - 1, -1, -1):
        for c in range(a + 1, size):
            if matrix[a][c]:
                right[a] -= matrix[a][c] * right[c]
        right[a] /= matrix[a][a]
    return right[:m], [*right[m:], zero]


def excess_of_sums(group: Group, rows: tuple[Decimal, ...], cols: tuple[Decimal, ...]) -> Decimal:
    """How far entries are below 0, or sums are from the right ones as distances of their planes."""
    m, n = len(rows), len(cols)
    zero = rows[0] * 0
    found = [positive(-x) for (x,) in group]
    for i, right in enumerate(rows):
        off = sum((group[i * n + j][0] for j in range(n)), -right)
        found.append(abs(off) / (zero + n).sqrt())
    for j, right in enumerate(cols):
        off = sum((group[i * n + j][0] for i in range(m)), -right)
        found.append(abs(off) / (zero + m).sqrt())
    return max(found)
