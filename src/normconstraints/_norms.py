"""Lengths of groups that neither overflow nor underflow, and groups brought to another length.

Every set that looks only at the Euclidean norm of a group (max-norm, unit norm, ...) is the pair of
a question, which groups must move and to what length, and `rescale`, which moves them.

Half and single precision are measured in double. Where the library has nothing wider (double
itself, and single in JAX without x64), a group is first multiplied by a power of two that brings
its largest entry near 1, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from normconstraints import _array, _host
from normconstraints._array import Array, Namespace, Precision
from normconstraints._parameters import Axis, Number
from normconstraints._random import Draw

Decision: TypeAlias = tuple[Any, Array]
"""A length for each group, or the excess of its length, and a mask of the groups it concerns."""

Rule: TypeAlias = Callable[..., Decision]
"""What a set says of its groups: called with their `Norms` and the bounds by name."""


def project_length(
    w: Array,
    axis: Axis,
    goal: Rule,
    bounds: dict[str, Number],
    *,
    owner: str,
    rate: Number = 1.0,
    out: Array | None = None,
    often_inside: bool = False,
) -> Array:
    """`w` with the groups that `goal` names multiplied to the length that it gives.

    With `rate` below 1 they go only that part of the way. The result is written to `out`, which may
    be `w`, if that is given. Errors are in the name of the class `owner`. A set with an interior
    says `often_inside`: it pays to look roughly whether any group has to move.
    """
    xp = _array.namespace(w, owner)
    precision = _array.precision(w, xp, owner)
    axes = _array.normalise_axis(axis, w.ndim, owner)
    if type(rate) is not float:
        rate = _groupwise({"rate": rate}, w, axes, xp, precision, owner)["rate"]
    values = _groupwise(bounds, w, axes, xp, precision, owner)
    library = _host.name_of(w, precision)
    plain = [type(value) is float for value in (rate, *values.values())]
    if often_inside and out is w and all(plain) and _host.can_glance(w, axes, library, precision):
        rows = xp.reshape(w, (-1, _array.group_size(w, axes)))
        few = _outside_at_a_glance(rows, goal, values, precision)
        if few is not None:
            if few.shape[0]:
                part = project_length(rows[few], 1, goal, bounds, owner=owner, rate=rate)
                _array.write_rows(rows, few, part)
            return w
    if library is not None and out is not None and _host.entries(w) > _host.BLOCK[library]:
        rows = _host.Rows(w, library)
        if 0 not in rows.axes(axes):
            _project_rows(w, rows, axes, goal, values, rate, out, precision)
            return out
    if precision.wide is not None and not precision.is_complex and _array.is_plain_cuda(w):
        return _in_few_calls(w, axes, goal, values, rate, out, xp, precision)
    if library is None and precision.scaled and not precision.is_complex:
        whole = type(rate) is float and rate == 1
        if whole and _array.can_choose(w, xp):
            return _in_few_readings(w, axes, goal, values, xp, precision)
    norms = measure(w, axes, xp, precision, library)
    length, moved = goal(norms, **values)
    return rescale(w, norms, length, moved, library, rate, out)


def _in_few_calls(
    w: Array,
    axes: tuple[int, ...],
    goal: Rule,
    bounds: dict[str, Any],
    rate: Any,
    out: Array | None,
    xp: Namespace,
    precision: Precision,
) -> Array:
    """`project_length` where each call takes its time, and goes over memory by itself.

    Nothing as wide as the norms and as large as the weight is kept: a product with a factor is
    computed in the wider dtype and rounded at once, for which the factor need not be rounded. A
    factor of 1 leaves a group as it is.
    """
    scaled = _array.norms_in(precision.wide, w, axes)
    norms = Norms(scaled, 1.0, _array.group_size(w, axes), xp, precision, None)
    length, moved = goal(norms, **bounds)
    factor = length / xp.where(moved, scaled, 1.0)
    if not (isinstance(rate, float) and rate == 1):
        factor = (1 - rate) + rate * factor
    return _array.rounded_product(w, xp.where(moved, factor, 1.0), out)


def _in_few_readings(
    w: Array,
    axes: tuple[int, ...],
    goal: Rule,
    bounds: dict[str, Any],
    xp: Namespace,
    precision: Precision,
) -> Array:
    """`project_length` in compiled code, which takes as long as it reads and writes memory.

    On a CPU the weight is read for its squares and for the result. Only if a sum of squares has
    left the range where that matters to the set are groups scaled by their largest entries. What
    does that is a loop of no turn or one, for a loop works in the memory of the weight. A
    conditional would need the weight beside it.
    """
    size = _array.group_size(w, axes)
    numbers = {name: value for name, value in bounds.items() if type(value) is float}
    arrays = {name: value for name, value in bounds.items() if name not in numbers}

    def in_three(w: Array, arrays: dict[str, Array]) -> Array:
        norms = measure(w, axes, xp, precision)
        length, moved = goal(norms, **numbers, **arrays)
        return lengthen(w, norms, length, moved, precision)

    def in_two(w: Array, arrays: dict[str, Array]) -> Array:
        bounds = numbers | arrays

        def decide(norms: Norms) -> tuple[Array, Array]:
            length, moved = goal(norms, **bounds)
            return length / xp.where(moved, norms.scaled, 1.0), moved

        def scale(state: tuple[Array, ...]) -> tuple[Array, ...]:
            lost, w, _, _ = state
            norms = measure(w, axes, xp, precision)
            factor, moved = decide(norms)
            # Masked it is not the product that was measured, which would be kept in memory.
            own = _array.cast(xp.where(moved, norms.scale, 1.0), w.dtype, xp)
            return xp.zeros_like(lost), xp.where(moved, w * own, w), factor, moved

        squares = _array.accurate_sum(
            _modulus_squared(_widen(w, xp, precision), xp, precision), axes, xp
        )
        # Beside a larger sum, squares that underflowed do not count. And what a rule says of two
        # norms it says of those between them.
        least = 2.0 ** -(precision.exponent // 2)
        ends = [xp.full_like(squares, end) for end in (precision.smallest, 1.01 * least**0.5)]
        low = [_moved(end, goal, bounds, size, xp, precision) for end in ends]
        lost = ~(squares < float("inf")) | ((squares < least) & (low[0] | low[1]))
        root = xp.sqrt(squares)
        start = (xp.any(lost), w, *decide(Norms(root, 1.0, size, xp, precision, None)))
        _, near, factor, moved = _array.loop(lambda state: state[0], scale, start)
        result = _array.cast(_widen(near, xp, precision) * factor, w.dtype, xp)
        return xp.where(moved, result, near)

    return _array.on_cpu(in_two, in_three, w, arrays)


def _outside_at_a_glance(
    rows: Array, goal: Rule, bounds: dict[str, Any], precision: Precision
) -> Array | None:
    """The few rows of torch's host memory that may have to move, None if they are not few.

    By norms in single precision, which cost a third, and a bound for their error. What a rule says
    of a norm it says of all that are longer, or of all that are shorter, so that it is enough to
    ask it of both ends.
    """
    count, size = rows.shape
    few = None
    for part in (rows[: max(1, count // 16)], rows):  # often the first ones tell
        xp, ends, every = _host.glance(part, precision)
        few = _host.chosen([_moved(end, goal, bounds, size, xp, precision) for end in ends])
        if few.shape[0]:
            few = _host.chosen([_moved(end, goal, bounds, size, xp, precision) for end in every()])
            if few.shape[0] * 8 > part.shape[0]:
                return None
    return few


def _moved(
    norms: Array, goal: Rule, bounds: dict[str, Any], size: int, xp: Namespace, precision: Precision
) -> Array:
    return goal(Norms(norms, 1.0, size, xp, precision, None, most=0.0), **bounds)[1]


def _project_rows(
    w: Array,
    rows: _host.Rows,
    axes: tuple[int, ...],
    goal: Rule,
    bounds: dict[str, Any],
    rate: Any,
    out: Array,
    precision: Precision,
) -> None:
    """`project_length` block by block: each is measured and multiplied while it is in cache."""
    xp, library, moved_axes = rows.xp, rows.name, rows.axes(axes)
    v, target = rows.ordered(w), rows.ordered(out)
    ordered = {k: b if type(b) is float else rows.ordered(b) for k, b in bounds.items()}
    rates = rate if type(rate) is float else rows.ordered(rate)

    def work(blocks: Sequence[slice]) -> list[None]:
        scratch = rows.scratch()
        for r in blocks:
            norms = measure(v[r], moved_axes, xp, precision, library, scratch)
            length, moved = goal(norms, **{k: _host.row(b, r) for k, b in ordered.items()})
            rescale(v[r], norms, length, moved, library, _host.row(rates, r), target[r])
        return []

    rows.each(work)


def _groupwise(
    bounds: dict[str, Number],
    w: Array,
    axes: tuple[int, ...],
    xp: Namespace,
    precision: Precision,
    owner: str,
) -> dict[str, Any]:
    """Bounds in a form that combines with the norms."""
    if all([type(value) is float for value in bounds.values()]):  # noqa: C419 - for Dynamo
        return bounds
    return {
        name: value
        if type(value) is float
        else _array.groupwise(value, w, axes, xp, precision.accumulator, f"{owner}: {name}")
        for name, value in bounds.items()
    }


def length_violation(
    w: Array, axis: Axis, excess: Rule, bounds: dict[str, Number], *, owner: str
) -> Array:
    """The excess that a set gives for its groups, 0 where it does not apply."""
    xp = _array.namespace(w, owner)
    precision = _array.precision(w, xp, owner)
    axes = _array.normalise_axis(axis, w.ndim, owner)
    norms = measure(w, axes, xp, precision, _host.name_of(w, precision))
    with _array.quiet(xp):
        amount, outside = excess(norms, **_groupwise(bounds, w, axes, xp, precision, owner))
        return norms.report(amount, outside, axes)


@dataclass(slots=True)
class Norms:
    """The norms of the groups of one array, reduced axes kept with length 1."""

    scaled: Array
    """Norm of the group times `scale`; NaN or infinite only where an entry is."""
    scale: Any
    """A power of two for each group, or 1.0."""
    size: int
    """Entries in a group."""
    xp: Namespace
    precision: Precision
    measured: Array | None
    """The array itself times `scale` in the dtype that measures, unless that was done in blocks.

    It is used again for the result, so that autodiff adds derivatives before it scales and rounds
    them: two infinities of opposite sign would be NaN.
    """
    most: float = float("inf")
    """No square of a norm is above it; infinite or NaN if the values were not looked at."""

    @property
    def slack(self) -> float:
        """How far from its bound, relatively, a norm may be and count as right.

        Half the tolerance: the other half is for what the projection itself rounds.
        """
        wide = self.precision.wide is not None
        return _array.tolerance(self.precision.eps, self.size, wide=wide) / 2

    def above(self, bound: Any) -> Array:
        """Groups that are longer than `bound` and finite."""
        # Where a wider dtype measures there is no doubt. Else the rounding of the measurement could
        # move a group that was just put on the bound.
        slack = 0.0 if self.precision.wide is not None else self.slack
        return self._finite(self.scaled > bound * (1 + slack) * self.scale)

    def below(self, bound: Any) -> Array:
        """Groups that are shorter than `bound` by more than the slack, and have a direction."""
        return (self.scaled < bound * (1 - self.slack) * self.scale) & (self.scaled > 0)

    def rests_on(self, bound: Any) -> Array:
        """Groups as short as `bound` or shorter, within the tolerance."""
        return self.scaled <= bound * (1 + 2 * self.slack) * self.scale

    def touches(self, bound: Any) -> Array:
        """Groups as long as `bound` or longer, within the tolerance."""
        return self.scaled >= bound * (1 - 2 * self.slack) * self.scale

    def off(self, bound: Any) -> Array:
        """Groups whose length differs from `bound` by more than the slack, with a direction."""
        long = self._finite(self.scaled > bound * (1 + self.slack) * self.scale)
        return long | self.below(bound)

    def _finite(self, long: Array) -> Array:
        return long if self.most < float("inf") else long & self.finite

    @property
    def finite(self) -> Array:
        """Groups without NaN and infinity."""
        return self.scaled < float("inf")

    @property
    def zero(self) -> Array:
        """Groups in which every entry is 0."""
        return self.scaled == 0

    def within(self, bound: Any) -> Any:
        """The length to aim at so that no rounding on the way ends above `bound`."""
        p = self.precision
        # One rounding of each product, and where the factor is rounded too a second one; the
        # sixty-fourth covers the measurement. Without a wider dtype `slack` covers the rest.
        roundings = 2.0 if p.by_factor else 1.0
        return bound * (1 - roundings * p.unit * (1 + 1 / 64))

    def report(self, amount: Array, outside: Array, axes: tuple[int, ...]) -> Array:
        """`amount` where `outside`, 0 inside, NaN for groups that are not finite; axes dropped."""
        xp = self.xp
        found = xp.where(outside, amount, 0.0)
        found = xp.where(self.finite, found, float("nan"))
        found = _array.cast(found, self.precision.real, xp)
        return xp.squeeze(found, axis=axes) if axes else found

    @property
    def length(self) -> Array:
        """The norms themselves, which overflow where the dtype of the accumulator does."""
        return self.scaled / self.scale


def measure(
    w: Array,
    axes: tuple[int, ...],
    xp: Namespace,
    precision: Precision,
    library: str | None = None,
    scratch: Array | None = None,
) -> Norms:
    """The norms of the groups that `axes` span, in blocks if `library` is that of host memory."""
    size = _array.group_size(w, axes)
    if library is not None:
        squares = _host.square_sums(w, axes, library, scratch)
        most = _host.most(squares, library)
        # float64 itself could have overflowed or underflowed; then it is scaled below.
        safe = precision.wide is not None or (
            most < 2.0**500 and _host.least(squares, library) > 2.0**-600
        )
        if safe:
            return Norms(xp.sqrt(squares), 1.0, size, xp, precision, None, most)
    scale: Any = 1.0
    y = _widen(w, xp, precision)
    with _array.quiet(xp):
        if precision.scaled:
            scale = power_of_two(y, axes, xp, precision)
            y = y * scale
        squares = _array.accurate_sum(_modulus_squared(y, xp, precision), axes, xp)
    # The root of 0 has an infinite derivative, which a mask behind it would turn into NaN.
    zero = squares == 0
    root = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squares)))
    return Norms(root, scale, size, xp, precision, y)


def rescale(
    w: Array,
    norms: Norms,
    goal: Any,
    moved: Array,
    library: str | None,
    rate: Any = 1.0,
    out: Array | None = None,
) -> Array:
    """`w` with the groups that are `moved` multiplied to the length `goal`, or by `rate` so far."""
    if library is not None and norms.measured is None:
        factor = _host_factor(norms, goal, moved, rate, library)
        if factor is not None:
            return _host.multiply(w, factor, out, norms.precision, library)
    with _array.quiet(norms.xp):
        result = lengthen(w, norms, goal, moved, norms.precision, rate)
    if out is None:
        return result
    _array.write(out, result)
    return out


def _host_factor(norms: Norms, goal: Any, moved: Array, rate: Any, library: str) -> Any:
    """The factor of each group, 1 for those that stay, 1.0 alone if all do; None if there is none.

    Multiplying by 1 leaves a group as it is, bit for bit, so that no mask is needed.
    """
    xp, precision = norms.xp, norms.precision
    if not _host.count(moved, library):
        return 1.0
    whole = type(rate) is float and rate == 1
    if whole and type(goal) is float and goal > 0:
        factor = goal / xp.where(moved, norms.scaled, goal)
    else:
        factor = goal / xp.where(moved, norms.scaled, 1.0)
        if not whole:
            if precision.wide is None:
                return None
            factor = (1 - rate) + rate * factor
        factor = xp.where(moved, factor, 1.0)
    if precision.by_factor:  # rounded to float32 it must keep all its digits
        large = whole and type(goal) is float and goal > 2.0**-100 * norms.most**0.5
        if not (large or _host.least(factor, library) > 2.0**-100):
            return None
        if not _host.most(factor, library) < 2.0**100:
            return None
    return factor


def lengthen(
    w: Array, norms: Norms, goal: Any, moved: Array, precision: Precision, rate: Any = 1.0
) -> Array:
    """`w` times ``goal / norms`` where `moved`, computed in `precision`."""
    xp = norms.xp
    whole = isinstance(rate, float) and rate == 1
    factor = goal / xp.where(moved, norms.scaled, 1.0)
    y = norms.measured
    if y is None or (precision.scaled and _array.fuses(xp)):
        # A compiler that fuses would write y to memory to use it twice; the mask makes it another.
        y = _widen(w, xp, precision)
        if type(norms.scale) is not float:
            y = y * xp.where(moved, norms.scale, 1.0)
    if precision.scaled:
        result = y * factor
        if not whole:
            result = (1 - rate) * _widen(w, xp, precision) + rate * result
    else:
        if not whole:
            factor = (1 - rate) + rate * factor
        if precision.by_factor:
            short = moved & _moderate(factor)
            factor = xp.where(short, _round_to_single(xp.where(short, factor, 1.0)), factor)
        result = y * factor
    if precision.wide is not None:
        result = xp.astype(result, precision.dtype)
    return xp.where(moved, result, w)


# ------------------------------------------------------------------- what a norm is the norm of


def downhill(
    g: Array,
    axis: Axis,
    value: Number,
    *,
    owner: str,
    name: str,
    inward: bool = False,
    ball: bool = False,
    rms: bool = False,
) -> Array:
    """Against `g` as far as `value`, group by group: where a sphere or ball is steepest.

    With `inward` no rounding ends further away. In a `ball` a group of zeros stays there; else its
    first entry is `value`. With `rms` the value is the root mean square and not the norm.
    """
    xp = _array.namespace(g, owner)
    precision = _array.precision(g, xp, owner)
    axes = _array.normalise_axis(axis, g.ndim, owner)
    length = _groupwise({name: value}, g, axes, xp, precision, owner)[name]
    norms = measure(g, axes, xp, precision)
    length = length * math.sqrt(norms.size) if rms else length
    goal = norms.within(length) if inward or ball else length
    found = lengthen(g, norms, -goal, norms.finite & ~norms.zero, precision)
    if ball:
        return found
    ones = xp.ones_like(g, dtype=precision.accumulator)
    first = ones == 1
    for a in axes:
        first = first & (_array.places(ones, a, xp) == 1)
    pole = _array.cast(goal * ones, g.dtype, xp)
    return xp.where(norms.zero & first, pole, found)


def along_sphere(
    w: Array, g: Array, axis: Axis, applies: Rule, bounds: dict[str, Number], *, owner: str
) -> Array:
    """The gradient `g` without its part along `w`, in the groups for which a set says so.

    ``applies(norms, uphill, **bounds)`` are those groups; `uphill` is true where a step against the
    gradient makes the group longer. For a group of zeros they say whether it has to stay there.
    """
    xp = _array.namespace(w, owner)
    precision = _array.precision(w, xp, owner)
    axes = _array.normalise_axis(axis, w.ndim, owner)
    norms = measure(w, axes, xp, precision)
    assert norms.measured is not None
    unit = norms.measured / xp.where(norms.zero | ~norms.finite, 1.0, norms.scaled)
    y = _widen(g, xp, precision)
    product = xp.real(xp.conj(unit) * y) if precision.is_complex else unit * y
    radial = _array.accurate_sum(product, axes, xp)
    chosen = applies(norms, radial < 0, **_groupwise(bounds, w, axes, xp, precision, owner))
    chosen = chosen & norms.finite & xp.isfinite(radial)
    rest = xp.where(norms.zero, xp.zeros_like(y), y - unit * radial)
    return xp.where(chosen, _array.cast(rest, g.dtype, xp), g)


def everywhere(norms: Norms, uphill: Array) -> Array:
    """The rule of a sphere for `along_sphere`: every group, but zeros stay where they are."""
    return ~norms.zero


def euclidean_norm(g: Array, axis: Axis, *, owner: str) -> Array:
    """The Euclidean norm of each group, NaN for those that are not finite."""
    xp = _array.namespace(g, owner)
    axes = _array.normalise_axis(axis, g.ndim, owner)
    norms = measure(g, axes, xp, _array.precision(g, xp, owner))
    return norms.report(norms.length, norms.finite, axes)


def within_ball(draw: Draw, axis: Axis, owner: str, like: Array) -> Array:
    """Groups in the ball of radius 1, every point of it equally likely."""
    xp = _array.namespace(like, owner)
    axes = _array.normalise_axis(axis, like.ndim, owner)
    d = draw.direction()
    norms = measure(d, axes, xp, _array.precision(d, xp, owner))
    shape = tuple(norms.scaled.shape)
    dimension = norms.size * (2 if draw.precision.is_complex else 1)
    return d * (draw.uniform(shape) ** (1 / dimension) / norms.length)


def _round_to_single(x: Array) -> Array:
    """float64 numbers rounded to the 24 digits of float32, by Veltkamp's splitting.

    A product of two numbers of 24 digits is exact in float64, so that the product with such a
    factor is the same whether it is taken in float32, in place, or in float64, where autodiff can
    sum without overflow. A cast would send the derivative through float32 too.
    """
    high = x * (2.0**29 + 1)
    return high - (high - x)


def _widen(w: Array, xp: Namespace, precision: Precision) -> Array:
    """`w` in the dtype that measures."""
    if precision.wide is None:
        return w
    return xp.astype(w, precision.wide_complex if precision.is_complex else precision.wide)


def _modulus_squared(y: Array, xp: Namespace, precision: Precision) -> Array:
    if not precision.is_complex:
        return y * y
    re, im = xp.real(y), xp.imag(y)
    return re * re + im * im


def _moderate(factor: Array) -> Array:
    """Where a factor in float64 keeps all its digits when it is rounded to float32."""
    return (factor > 2.0**-100) & (factor < 2.0**100)


def power_of_two(y: Array, axes: tuple[int, ...], xp: Namespace, precision: Precision) -> Array:
    """A power of two for each group that brings its largest entry near 1.

    Not the reciprocal of the entry: products with that round, and XLA flushes it to 0 above 8.5e37.
    The standard has no frexp, so three steps of comparisons halve the exponent each time.
    """
    size = xp.maximum(xp.abs(xp.real(y)), xp.abs(xp.imag(y))) if precision.is_complex else xp.abs(y)
    if 0 in y.shape:
        return xp.sum(size, axis=axes, keepdims=True) + 1.0
    largest = size
    if axes:
        most = xp.max(size, axis=axes, keepdims=True)
        largest = _array.exchanged(most, xp, largest=True)
    scale = ones = xp.ones_like(largest)
    for part in (2, 4, 8):
        power = 2.0 ** (precision.exponent // part)
        big, small = largest > power, largest < 1 / power
        step = xp.where(big, 1 / power, xp.where(small, power, ones))
        largest, scale = largest * step, scale * step
    return scale
