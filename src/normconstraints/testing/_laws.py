"""The contract, one law a function: it returns if it holds and raises `BrokenLawError` if not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from normconstraints import derivatives
from normconstraints._array import tolerance
from normconstraints._oracle import Group
from normconstraints.constraint import (
    Ball,
    Constraint,
    Convex,
    Decomposed,
    DropsMinusInfinity,
    Entrywise,
    Gradual,
    Grouped,
    HasVJP,
    ZeroStays,
)
from normconstraints.testing import _exact
from normconstraints.testing._exact import FORMATS, Format, Oracle, to_group
from normconstraints.testing._regimes import LARGE, make
from normconstraints.testing.backends import BACKENDS, Backend

FINITE = ("one nan", "one infinity")


class BrokenLawError(AssertionError):
    """A law does not hold."""


@dataclass
class Case:
    """One constraint on one backend with one input; everything is computed once, when asked for."""

    constraint: Constraint
    oracle: Oracle | None
    backend: Backend
    form: Format
    regime: str
    data: Any

    def array(self) -> Any:
        """The input, afresh."""
        if self.regime == "non-contiguous":
            view = self.backend.strided(self.data, self.form.name)
            if view is not None:
                return view
        return self.backend.asarray(self.data, self.form.name)

    @functools.cached_property
    def w(self) -> Any:
        """The input."""
        return self.array()

    @functools.cached_property
    def p(self) -> Any:
        """The projection as the library gives it."""
        return self.backend.project(self.constraint, self.w)

    @functools.cached_property
    def seen(self) -> Any:
        """The input as the backend sees it: without what it flushes to zero."""
        return self.flush(self.data)

    @functools.cached_property
    def result(self) -> Any:
        """The projection as numbers."""
        return self.flush(self.backend.numpy(self.p))

    def flush(self, x: Any) -> Any:
        """Subnormal numbers are zero for some backends, whether they say so in a result or not."""
        if not self.flushes:
            return x
        if np.iscomplexobj(x):
            return self.flush(x.real) + 1j * self.flush(x.imag)
        return np.where(np.abs(x) < self.form.smallest, np.copysign(0.0, x), x)

    @functools.cached_property
    def beyond(self) -> list[bool]:
        """For each group whether the nearest member has numbers that the dtype does not hold."""
        if self.oracle is None or self.data.size == 0:
            return [False] * np.size(self.violation)
        largest = Decimal(self.form.largest)
        return [
            any(abs(x) > largest for entry in group if _finite(group) for x in entry)
            for group in self.oracle.project(self.seen)
        ]

    @functools.cached_property
    def violation(self) -> Any:
        """The violation as numbers."""
        return np.asarray(self.backend.numpy(self.backend.violation(self.constraint, self.w)))

    @property
    def wide(self) -> bool:
        """Whether norms of this dtype are taken in a wider one."""
        return self.form.name in self.backend.wide

    @property
    def partial(self) -> bool:
        """Whether one call is not meant to arrive."""
        return isinstance(self.constraint, Gradual) and self.constraint.rate != 1.0

    @property
    def decomposed(self) -> bool:
        """Whether results are as far off as the projection moves when the weight is rounded."""
        return isinstance(self.constraint, Decomposed)

    def ulps(self, size: int) -> Decimal:
        """How many units of the last place a result may be off."""
        return Decimal(4 if self.wide else 2 * self.loose(size))

    def loose(self, size: int) -> float:
        """The tolerance in units of rounding where nothing wider computes."""
        found = tolerance(1.0, size, wide=False, decomposed=self.decomposed)
        return found * getattr(self.constraint, "roundings", 1)

    def relative(self, size: int) -> Decimal:
        """How far outside, relative to the bound, a result may be."""
        return Decimal(self.form.eps) * Decimal(4 if self.wide else self.loose(size))

    def noise(self, group: Group) -> Decimal:
        """What a decomposition rounds in a group."""
        if not self.decomposed or not group or not _finite(group):
            return Decimal(0)
        doubles = not self.wide or "float32" in (self.form.name, *self.backend.wide)
        eps = FORMATS["float64" if doubles else "float32"].eps if self.wide else self.form.eps
        return Decimal(eps * self.loose(len(group)) / 2) * _exact.norm(group)

    @functools.cached_property
    def doubt(self) -> list[Decimal]:
        """How far the exact projection of each group moves when that is rounded."""
        groups = _groups(self, self.seen)
        if not isinstance(self.constraint, Decomposed) or not groups:
            return [Decimal(0)] * len(groups)
        if self.oracle is None:
            return self._own_doubt(groups)
        ways = _groups(self, np.asarray(make("gaussian", self.seen.shape, self.form, salt="way")))
        found = []
        for i, (group, way, at) in enumerate(
            zip(groups, ways, self.oracle.project(self.seen), strict=True)
        ):
            if not _finite(group):
                found.append(Decimal(0))
                continue
            step = self.noise(group) or Decimal(self.form.smallest)
            # A result shorter than what is rounded may end on the other side of the set, and the
            # exact one does not move where it is on that side already: look both ways.
            moved = Decimal(0)
            for sign in (1, -1) if step > _exact.norm(at) else (1,):
                near = _exact.along(group, way, sign * step / _exact.norm(way))
                (there,) = self.oracle.project_one(near, self.seen.shape, i)
                moved = max(moved, _exact.distance(there, at))
            # A direction at random has its share only of the worst one.
            moved *= Decimal(len(group)).sqrt()
            if self.constraint.roundings > 1 and isinstance(self.constraint, Convex):
                moved = max(moved, step)  # not computed as if the weight were rounded
            found.append(moved)
        return found

    def _own_doubt(self, groups: list[Group]) -> list[Decimal]:
        """The same by NumPy's result in double precision, where there is no exact one to ask."""
        way = np.asarray(make("gaussian", self.seen.shape, self.form, salt="way"))
        found = []
        for group, index in zip(groups, slices(self), strict=True):
            moved = 0.0
            if _finite(group):
                near = np.zeros_like(way)
                near[index] = float(self.noise(group)) / np.linalg.norm(way[index]) * way[index]
                top = FORMATS["float64"].largest
                with np.errstate(over="ignore"):
                    sides = [np.clip(self.seen + s * near, -top, top) for s in (-1, 0, 1)]
                ends = [self.constraint.project(side)[index] for side in sides]
                change = np.stack([end - ends[1] for end in ends])
                size = float(np.max(np.abs(change))) or 1.0  # squares of it may overflow
                moved = size * max(float(np.linalg.norm(c / size)) for c in change)
            found.append(Decimal(moved) * Decimal(len(group)).sqrt())
        return found

    def floor(self, size: int) -> Decimal:
        """What rounding near the smallest numbers of the dtype may add."""
        smallest = Decimal(self.form.smallest)
        if not self.flushes:
            smallest *= Decimal(self.form.eps)
        return smallest * Decimal(max(size, 1)).sqrt()

    @property
    def flushes(self) -> bool:
        """Whether subnormal numbers of this dtype count as zero."""
        return self.form.name in self.backend.flushed


Law: TypeAlias = Callable[[Case], None]
Applies: TypeAlias = Callable[[Case], bool]
LAWS: dict[str, tuple[Law, Applies]] = {}


def law(
    name: str, applies: Applies, laws: dict[str, tuple[Law, Applies]] = LAWS
) -> Callable[[Law], Law]:
    """Make a function the law of that name, for the cases to which it applies."""

    def add(checked: Law) -> Law:
        laws[name] = (checked, applies)
        return checked

    return add


def _has_values(case: Case) -> bool:
    return case.backend.has_values


def _small(case: Case) -> bool:
    return case.backend.has_values and case.regime != LARGE


def _judged(case: Case) -> bool:
    """Cases with an oracle whose numbers the backend does not flush away."""
    return _small(case) and case.oracle is not None and case.seen.size > 0


def fail(law: str, **facts: Any) -> BrokenLawError:
    """The error that says what does not hold."""
    return BrokenLawError(
        f"{law}: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in facts.items())
    )


def same(a: Any, b: Any) -> bool:
    """Bit for bit: NaN equals NaN, and zeros have signs."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if np.iscomplexobj(a) or np.iscomplexobj(b):
        return same(a.real, b.real) and same(a.imag, b.imag)
    signs = (np.signbit(a) == np.signbit(b)) | np.isnan(a)
    return bool(np.all(((a == b) & signs) | (np.isnan(a) & np.isnan(b))))


def _finite(group: Group) -> bool:
    return all(x.is_finite() for entry in group for x in entry)


def _groups(case: Case, data: Any) -> list[Group]:
    """The groups of an array; the whole array if the set does not say."""
    axes = _exact.group_axes(case.constraint, data.ndim)
    axes = tuple(range(data.ndim)) if axes is None else axes
    return [to_group(data[i]) for i in _exact.group_indices(data.shape, axes)]


def slices(case: Case) -> list[Any]:
    """An index for each group; one for the whole array if the set does not say."""
    axes = _exact.group_axes(case.constraint, case.seen.ndim)
    axes = tuple(range(case.seen.ndim)) if axes is None else axes
    return list(_exact.group_indices(case.seen.shape, axes))


@law("kept", lambda case: True)
def kept(case: Case) -> None:
    """Type, dtype, shape, device and sharding stay; the input does not change."""
    before, after = case.backend.kept(case.w), case.backend.kept(case.p)
    if before != after:
        raise fail("kept", input=before, result=after)
    if case.backend.has_values and not same(case.backend.numpy(case.w), case.data):
        raise fail("kept", input="was changed")


@law("nearest", _judged)
def nearest(case: Case) -> None:
    """The exact projection to a few units of the last place of the group's largest entry."""
    assert case.oracle is not None
    exact = case.oracle.project(case.seen)
    for i, (got, want) in enumerate(zip(_groups(case, case.result), exact, strict=True)):
        if not _finite(want) or case.beyond[i]:
            continue
        if not _finite(got):
            raise fail("nearest", group=i, result=got, exact=want)
        largest = max((_exact.modulus(e) for e in want), default=Decimal(0))
        allowed = case.ulps(len(want)) * case.form.ulp(largest) + case.floor(1) + case.doubt[i]
        off = _exact.difference(got, want)
        if off > allowed:
            raise fail("nearest", group=i, off_by=f"{off / case.form.ulp(largest):.3g} ulp")


@law("feasible", lambda case: _judged(case) and not case.partial)
def feasible(case: Case) -> None:
    """The result is in the set in exact arithmetic, to 4 eps of the bound; a ball is not left."""
    assert case.oracle is not None
    groups = _groups(case, case.result)
    nearest_to_result = case.oracle.project_groups(groups, case.seen.shape)
    strict = isinstance(case.constraint, Ball) and case.wide
    source = _groups(case, case.seen)
    for i, (got, want) in enumerate(zip(groups, nearest_to_result, strict=True)):
        if not _finite(source[i]) or case.beyond[i]:
            continue
        if not _finite(got):
            raise fail("feasible", group=i, result=got)
        excess = _exact.distance(got, want)
        size = len(got)
        allowed = case.floor(size)
        if not strict:
            allowed += case.relative(size) * _exact.norm(want)
        if excess > allowed:
            raise fail("feasible", group=i, outside_by=f"{excess:.3g}", allowed=f"{allowed:.3g}")


@law("inside", _small)
def inside(case: Case) -> None:
    """A group in the set comes back bit for bit."""
    if case.oracle is not None and case.seen.size:
        source, exact = _groups(case, case.seen), case.oracle.project(case.seen)
        in_set = [_finite(a) and a == b for a, b in zip(source, exact, strict=True)]
    else:
        in_set = [bool(np.all(case.violation == 0))] * len(slices(case))
    for index, member in zip(slices(case), in_set, strict=True):
        if member and not same(case.result[index], case.seen[index]):
            raise fail("inside", group=index, got=case.result[index], was=case.seen[index])


@law("idempotent", lambda case: _has_values(case) and not case.partial)
def idempotent(case: Case) -> None:
    """What was just projected comes back bit for bit."""
    again = case.flush(case.backend.numpy(case.backend.project(case.constraint, case.p)))
    if not same(again, case.result):
        raise fail("idempotent", largest_change=np.nanmax(np.abs(again - case.result)))


@law("deterministic", _has_values)
def deterministic(case: Case) -> None:
    """The same input gives the same bits."""
    again = case.flush(case.backend.numpy(case.backend.project(case.constraint, case.array())))
    if not same(again, case.result):
        raise fail("deterministic", largest_change=np.nanmax(np.abs(again - case.result)))


@law("violation", lambda case: _small(case) and case.regime not in FINITE)
def violation(case: Case) -> None:
    """One number a group; 0 where the projection moves nothing; what the definition gives."""
    found = case.violation
    axes = _exact.group_axes(case.constraint, case.seen.ndim)
    if axes is not None:
        shape = tuple(s for i, s in enumerate(case.seen.shape) if i not in axes)
        if found.shape != shape:
            raise fail("violation", shape=found.shape, groups=shape)
    if not np.all(found >= 0):
        raise fail("violation", negative_or_nan=found)
    if axes is None:
        if bool(np.all(found == 0)) != same(case.result, case.seen):
            raise fail("violation", value=found, but="the projection says otherwise")
        return
    for v, index in zip(found.ravel(), slices(case), strict=True):
        group = case.seen[index]
        still = isinstance(case.constraint, ZeroStays) and not np.any(group)
        if not still and (v == 0) != same(case.result[index], group):
            raise fail("violation", group=index, value=v, but="the projection says otherwise")
    if case.oracle is None or not _judged(case):
        return
    groups = _groups(case, case.seen)
    for v, group, exact in zip(
        found.ravel(), groups, case.oracle.violation(groups, case.seen.shape), strict=True
    ):
        size = _exact.norm(group) + abs(exact)
        if np.isinf(v) and exact + size >= Decimal(case.form.largest):
            continue
        scale = case.relative(len(group)) * size + case.floor(len(group)) + case.noise(group)
        if not np.isfinite(v) or abs(Decimal(float(v)) - exact) > scale:
            raise fail("violation", value=v, exact=f"{exact:.6g}")


@law(
    "arrives",
    lambda case: _small(case) and not case.partial and case.regime not in FINITE,
)
def arrives(case: Case) -> None:
    """The violation of the projection is 0, but for groups of zeros where there is no direction."""
    after = np.asarray(case.backend.numpy(case.backend.violation(case.constraint, case.p)))
    if isinstance(case.constraint, ZeroStays):
        for v, index in zip(after.ravel(), slices(case), strict=True):
            if v != 0 and np.any(case.result[index]):
                raise fail("arrives", group=index, violation=v)
    elif not np.all((after == 0) | np.reshape(np.asarray(case.beyond, dtype=bool), after.shape)):
        raise fail("arrives", violation=after)


@law("zero groups", lambda case: _small(case) and isinstance(case.constraint, ZeroStays))
def zero_groups(case: Case) -> None:
    """A group of zeros stays at zero."""
    for index in slices(case):
        if not np.any(case.seen[index]) and not same(case.result[index], case.seen[index]):
            raise fail("zero groups", group=index, result=case.result[index])


@law("non-finite", lambda case: _small(case) and case.regime in FINITE)
def non_finite(case: Case) -> None:
    """NaN and infinity are neither hidden nor spread."""
    bad = ~np.isfinite(case.seen)
    clips = isinstance(case.constraint, Entrywise) and not case.form.is_complex
    if clips:
        if not np.array_equal(np.isnan(case.result), np.isnan(case.seen)):
            raise fail("non-finite", nan="appeared or vanished")
        far = np.where(np.isinf(case.seen), np.sign(case.seen) * case.form.largest, case.seen)
        far = np.where(np.isnan(far), 0.0, far)
        at = case.backend.project(case.constraint, case.backend.asarray(far, case.form.name))
        want = case.backend.numpy(at)
        unmoved = np.isinf(case.seen) & (want == far)
        want = np.where(unmoved | np.isnan(case.seen), case.seen, want)
        if not same(case.result, want):
            raise fail("non-finite", result=case.result, expected=want)
        return
    if _exact.group_axes(case.constraint, case.seen.ndim) is None:
        if not same(np.isfinite(case.result) | bad, np.ones_like(bad)):
            raise fail("non-finite", spread=case.result)
        return
    entry = isinstance(case.constraint, Entrywise)
    drops = isinstance(case.constraint, DropsMinusInfinity)
    for index, v in zip(slices(case), case.violation.ravel(), strict=True):
        group, result = case.seen[index], case.result[index]
        hit = np.any(bad[index])
        if hit and drops and np.any(np.isfinite(group)) and np.all(group[bad[index]] == -np.inf):
            _left_out(case, index, v)
            continue
        if hit and not np.isnan(v):
            raise fail("non-finite", group=index, violation=v)
        if not hit and np.isnan(v):
            raise fail("non-finite", spread_to_violation_of=index)
        rows = np.atleast_1d(bad[index]) if entry else slice(None)
        if hit and not same(np.atleast_1d(result)[rows], np.atleast_1d(group)[rows]):
            raise fail("non-finite", group=index, result=result, was=group)
        if not hit and not np.all(np.isfinite(result)):
            raise fail("non-finite", spread_to=index)


def _left_out(case: Case, index: Any, v: Any) -> None:
    """An entry of minus infinity becomes 0, as one far below the others would."""
    group, result = case.seen[index], case.result[index]
    low = np.where(np.isinf(case.seen), -case.form.largest / 2, case.seen)
    at = case.backend.project(case.constraint, case.backend.asarray(low, case.form.name))
    want = case.flush(case.backend.numpy(at))[index]
    if v != np.inf or not same(result, want) or np.any(result[np.isinf(group)]):
        raise fail("non-finite", group=index, result=result, expected=want, violation=v)


@law(
    "agreement",
    lambda case: (
        _has_values(case)
        and case.backend.name != "numpy"
        and case.form.name in BACKENDS["numpy"].dtypes
    ),
)
def agreement(case: Case) -> None:
    """The same as NumPy: bit for bit where entries are clipped, else to 8 ulp of the largest."""
    reference = _numpy_result(case)
    if isinstance(case.constraint, Entrywise) and not case.form.is_complex:
        if not same(reference, case.result):
            raise fail("agreement", numpy=reference, here=case.result)
        return
    for i, index in enumerate(slices(case)):
        a, b = np.atleast_1d(reference[index]), np.atleast_1d(case.result[index])
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)):
            raise fail("agreement", numpy=a, here=b)
        if not finite.all() or not a.size:
            continue
        ulp = float(case.form.ulp(Decimal(float(np.max(np.abs(a))))))
        off = float(np.max(np.abs(a - b)))
        loose = 2 * case.loose(a.size)
        if off > loose * ulp + float(case.floor(1)) + 2 * float(case.doubt[i]):
            raise fail("agreement", group=index, off_by=f"{off / ulp:.3g} ulp")


_NUMPY: dict[Any, Any] = {}


def _numpy_result(case: Case) -> Any:
    if case.regime == LARGE:
        numpy = BACKENDS["numpy"]
        return numpy.numpy(case.constraint.project(numpy.asarray(case.seen, case.form.name)))
    key = (id(case.constraint), case.form.name, case.regime, case.seen.shape, case.flushes)
    if key not in _NUMPY:
        numpy = BACKENDS["numpy"]
        result = numpy.numpy(case.constraint.project(numpy.asarray(case.seen, case.form.name)))
        _NUMPY[key] = (case.constraint, result)  # holds the constraint, whose id is the key
    return _NUMPY[key][1]


@law(
    "in place", lambda case: _has_values(case) and (case.backend.mutable or case.backend.immutable)
)
def in_place(case: Case) -> None:
    """`project_` gives the same bits in the same array, or refuses and changes nothing."""
    if case.backend.immutable:
        _refuses(case, "in place", TypeError, case.w)
        return
    w = case.array()
    returned = case.constraint.project_(w)
    if returned is not w:
        raise fail("in place", returned="another array")
    if not same(case.flush(case.backend.numpy(w)), case.result):
        raise fail("in place", differs_from="project")
    if (locked := case.backend.read_only(case.w)) is not None:
        _refuses(case, "in place", ValueError, locked)


def _refuses(case: Case, law: str, error: type[Exception], w: Any) -> None:
    try:
        case.constraint.project_(w)
    except error as found:
        name = type(case.constraint).__name__
        if name not in str(found) or "w = constraint(w)" not in str(found):
            raise fail(law, message=str(found)) from found
    else:
        raise fail(law, accepted=type(w))
    if not same(case.backend.numpy(w), case.data):
        raise fail(law, changed="although it refused")


def _told(case: Case) -> bool:
    """Whether the library was told of the derivatives that sets state themselves."""
    return case.backend.name.partition(" ")[0] in derivatives._attached


def _smooth(case: Case) -> bool:
    # A decomposition has no derivative of its own where values are equal; what such a set states
    # of it is the law "own derivative".
    return (
        _small(case)
        and (not isinstance(case.constraint, Decomposed) or _told(case))
        and case.backend.differentiable
        and not case.form.is_complex
        and "empty" not in case.regime
    )


@law("derivative", _smooth)
def derivative(case: Case) -> None:
    """Exact where it exists, finite elsewhere."""
    cotangent = case.form.quantise(
        np.asarray(make("gaussian", case.seen.shape, case.form, salt="cotangent"))
    )
    u = case.backend.asarray(cotangent, case.form.name)
    judge_derivative(
        "derivative",
        case,
        cotangent,
        case.backend.numpy(case.backend.pullback(case.constraint, case.w, u)),
        members=_told(case) and isinstance(case.constraint, HasVJP),
    )


def judge_derivative(
    law: str, case: Case, cotangent: Any, found: Any, *, members: bool = True
) -> None:
    """Whether `found` is the product of the cotangent with the Jacobian of the projection.

    With `members` on the boundary too: to a library they are numbers that come back as they are, so
    that only a set can know its derivative there. Of a decomposition also where values are 0 or
    equal, for there is what it has to state.
    """
    bad = ~np.isfinite(case.seen)
    for number, index in enumerate(slices(case)):
        values = found[index]
        if np.any(bad[index]) or np.all(np.isfinite(values)):
            continue
        if np.any(np.isnan(values)) or not _beyond(case, cotangent, index, number, values):
            raise fail(law, group=index, value=values)
    members = case.regime == "boundary" and members
    usual = case.regime in ("gaussian", "interior", "non-contiguous")
    special = case.decomposed and (members or case.regime in ("ties", "zeros", "sparse"))
    if case.oracle is None or not (usual or members or special):
        return
    direction = np.asarray(make("gaussian", case.seen.shape, case.form, salt="direction"))
    straight = [True] * len(slices(case))
    if special:
        straight = _steady(case, direction)
    elif members:
        straight = _straight(case, direction)
    if not any(straight):
        return
    forward = _exact.derivative(case.oracle, case.seen, direction)
    closer = _exact.derivative(case.oracle, case.seen, direction, Decimal("1e-22"))
    for i, (pull, way, there, push, again, plain) in enumerate(
        zip(
            _groups(case, found),
            _groups(case, direction),
            _groups(case, cotangent),
            forward,
            closer,
            straight,
            strict=True,
        )
    ):
        if not _finite(pull) or not plain:
            continue  # too large for the dtype, as was shown above, or perhaps a kink
        if _exact.distance(push, again) > case.relative(len(push)) * _exact.norm(push):
            continue  # the projection jumps here: there is no derivative
        a = sum((x * y for (x,), (y,) in zip(pull, way, strict=True)), Decimal(0))
        b = sum((x * y for (x,), (y,) in zip(there, push, strict=True)), Decimal(0))
        scale = _exact.norm(way) * max(_exact.norm(there), _exact.norm(pull))
        if abs(a - b) > 16 * case.relative(len(pull)) * scale + case.floor(1):
            raise fail(law, group=i, product=f"{a:.6g}", exact=f"{b:.6g}")


def _straight(case: Case, direction: Any) -> list[bool]:
    """For each group whether the projection goes on as it is, far along a line to both sides.

    Then there is a derivative at a member that was rounded too, as there is in linear subspaces.
    """
    assert case.oracle is not None
    found = []
    exact = case.oracle.project(case.seen)
    for i, (group, way) in enumerate(
        zip(_groups(case, case.seen), _groups(case, direction), strict=True)
    ):
        size = _exact.norm(way)
        if not _finite(group) or not size:
            found.append(False)
            continue
        step = (_exact.norm(group) or Decimal(1)) / size / 16
        there, back = (
            case.oracle.project_one(_exact.along(group, way, sign * step), case.seen.shape, i)[0]
            for sign in (1, -1)
        )
        middle = [tuple(x / 2 for x in e) for e in _exact.along(there, back, Decimal(1))]
        off = _exact.distance(middle, exact[i])
        found.append(off <= case.relative(len(group)) * step * size)
    return found


def _steady(case: Case, direction: Any) -> list[bool]:
    """For each group whether its derivative is there, and what it is where rounding moves it to."""
    assert case.oracle is not None
    found = []
    astray = np.asarray(make("gaussian", case.seen.shape, case.form, salt="way"))
    for i, (group, way, other) in enumerate(
        zip(*(_groups(case, x) for x in (case.seen, direction, astray)), strict=True)
    ):
        length = _exact.norm(group) if _finite(group) else Decimal(0)
        if not length:
            found.append(False)
            continue
        aside = 32 * Decimal(case.form.eps) * length / _exact.norm(other)
        push, *others = (
            _slope(case, i, _exact.along(group, other, side * aside), way) for side in (0, 1, -1)
        )
        moved = max(_exact.distance(push, slope) for slope in others)
        found.append(moved <= 16 * case.relative(len(group)) * _exact.norm(way))
    return found


def _slope(case: Case, i: int, group: Group, way: Group) -> Group:
    """The directional derivative of the exact projection of what takes the place of a group."""
    assert case.oracle is not None
    step = Decimal("1e-20")
    there, back = (
        case.oracle.project_one(_exact.along(group, way, side * step), case.seen.shape, i)[0]
        for side in (1, -1)
    )
    with _exact.digits():
        return [
            tuple((x - y) / (2 * step) for x, y in zip(a, b, strict=True))
            for a, b in zip(there, back, strict=True)
        ]


def _beyond(case: Case, cotangent: Any, index: Any, number: int, values: Any) -> bool:
    """Whether infinite derivatives are too large for the dtype in truth."""
    if case.oracle is None:
        return False
    for place in np.flatnonzero(np.isinf(np.atleast_1d(values).ravel())):
        direction = np.zeros(np.atleast_1d(values).size)
        direction[place] = 1
        whole = np.zeros(case.seen.shape)
        whole[index] = direction.reshape(np.shape(values))
        step = Decimal(case.form.smallest) * Decimal("1e-30")
        push = _exact.derivative(case.oracle, case.seen, whole, step)[number]
        there = to_group(cotangent[index])
        exact = sum((x * y for (x,), (y,) in zip(there, push, strict=True)), Decimal(0))
        if abs(exact) < Decimal(case.form.largest) * Decimal("0.99"):
            return False
    return True


def _convex(case: Case) -> bool:
    return (
        _small(case)
        and isinstance(case.constraint, Convex)
        and not case.partial
        and case.regime not in FINITE
        and not case.form.is_complex
        and case.seen.size > 0
    )


@law("variational", _convex)
def variational(case: Case) -> None:
    """No member of a convex set lies beyond the projection: <w - Pw, z - Pw> <= 0."""
    inside = member(case)
    for i, (w, p, z) in enumerate(
        zip(
            _groups(case, case.seen),
            _groups(case, case.result),
            _groups(case, inside),
            strict=True,
        )
    ):
        if case.beyond[i]:
            continue
        if not _finite(p):
            raise fail("variational", group=i, result=p)
        product = sum(
            ((a - b) * (c - b) for (a,), (b,), (c,) in zip(w, p, z, strict=True)), Decimal(0)
        )
        # The result p is the exact one and what rounding added to it, which has a direction of its
        # own: it counts by itself where w is so near that it is as long as w - p.
        error = case.relative(len(w))
        reach = _exact.norm(z) + _exact.norm(p)
        allowed = (4 * error * reach + case.floor(len(w))) * _exact.distance(w, p)
        allowed += error * _exact.norm(p) * _exact.distance(z, p)
        allowed += case.doubt[i] * (_exact.distance(w, p) + _exact.distance(z, p))
        if product > allowed:
            raise fail("variational", group=i, product=f"{product:.3g}", allowed=f"{allowed:.3g}")


@law("nonexpansive", _convex)
def nonexpansive(case: Case) -> None:
    """Projections onto a convex set are no further apart than the points were."""
    other = np.asarray(make("gaussian", case.seen.shape, case.form, salt="other"))
    inside = member(case)
    for i, (w, p, v, q) in enumerate(
        zip(
            _groups(case, case.seen),
            _groups(case, case.result),
            _groups(case, other),
            _groups(case, inside),
            strict=True,
        )
    ):
        if case.beyond[i]:
            continue
        apart = _exact.distance(w, v)
        size = _exact.norm(p) + _exact.norm(q)
        allowed = apart + 2 * case.relative(len(w)) * size + case.floor(len(w)) + case.doubt[i]
        if _exact.distance(p, q) > allowed:
            raise fail("nonexpansive", group=i, before=f"{apart:.6g}")


def member(case: Case) -> Any:
    """A member of the set, from the same backend."""
    other = np.asarray(make("gaussian", case.seen.shape, case.form, salt="other"))
    w = case.backend.asarray(other, case.form.name)
    return case.backend.numpy(case.backend.project(case.constraint, w))


@law(
    "groups alone",
    lambda case: (
        _small(case) and isinstance(case.constraint, Grouped) and case.regime == "mixed scales"
    ),
)
def groups_alone(case: Case) -> None:
    """A group is projected as it would be without the others."""
    rng = np.random.default_rng(0)
    for i, index in enumerate(slices(case)[:4]):
        others = rng.permuted(case.seen.ravel()).reshape(case.seen.shape)
        others[index] = case.seen[index]
        w = case.backend.asarray(others, case.form.name)
        result = case.backend.numpy(case.backend.project(case.constraint, w))
        size = np.asarray(case.seen[index]).size
        largest = Decimal(float(np.max(np.abs(case.result[index]))))
        off = np.max(np.abs(case.flush(result)[index] - case.result[index]))
        loose = 2 * case.loose(size)
        if off > float(case.form.ulp(largest)) * loose + 2 * float(case.doubt[i]):
            raise fail("groups alone", group=index, off_by=off)
