"""Constraints made of constraints: several at once or in turn, part of the way, of a weight, moved.

None of them says by itself which entries are a group; where the parts agree about that, violations
are one number for each of those groups, and else one for the whole array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

from normconstraints import _array
from normconstraints._array import Array, Namespace, Precision
from normconstraints._norms import measure
from normconstraints._orders import exact_order, kind_of
from normconstraints._parameters import (
    PER_ENTRY,
    Number,
    assign,
    check_count,
    check_finite,
    check_number,
    check_order,
)
from normconstraints.constraint import (
    Constraint,
    Convex,
    Entrywise,
    Gradual,
    Grouped,
    parameters,
    parts,
    register,
)
from normconstraints.sets import Box, MaxNorm, NonNeg, Simplex

ROUNDS = 100
"""Rounds of Dykstra's algorithm if nothing else is said."""

_SETTLING = 16
"""Rounds of plain projections after it, which bring what rounding left outside into every set."""


# ------------------------------------------------------------------------------- parts in general


class _OfParts(Constraint):
    """A set made of others: its groups are as far as theirs together."""

    def _span(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({axis for part in _members(self) for axis in part._span(ndim)}))

    def _whole(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({axis for part in _members(self) for axis in part._whole(ndim)}))


def _members(constraint: Constraint) -> tuple[Constraint, ...]:
    """The constraints of which one is made."""
    return tuple(part for value in parameters(constraint).values() for part in parts(value))


def _check_constraint(owner: Constraint, value: Any) -> Constraint:
    if not isinstance(value, Constraint):
        raise TypeError(
            f"{type(owner).__name__}: constraint must be a constraint, got {value!r}; build it "
            "first, as in MaxNorm(1.0, axis=0)"
        )
    return value


def _check_constraints(owner: Constraint, given: tuple[Any, ...]) -> tuple[Constraint, ...]:
    name = type(owner).__name__
    if not given:
        raise ValueError(f"{name}: constraints must be one at least, got none")
    for value in given:
        if not isinstance(value, Constraint):
            raise TypeError(
                f"{name}: constraints must be constraints, got {value!r}; give them one by one, as "
                f"in {name}(NonNeg(), MaxNorm(1.0, axis=0))"
            )
    return given


def _each_of(owner: Constraint, given: tuple[Any, ...], named: Any) -> tuple[Any, ...]:
    """The parts, given one by one or, as configurations do, as one tuple by keyword."""
    if given and named:
        raise TypeError(
            f"{type(owner).__name__}: constraints must be given one by one or by keyword, got both"
        )
    if not isinstance(named, tuple | list):
        raise TypeError(f"{type(owner).__name__}: constraints must be a tuple, got {named!r}")
    return given or tuple(named)


def _call(owner: Constraint, method: Callable[[Array], Array], w: Array) -> Array:
    """What a part gives; its refusals in the name of the whole."""
    try:
        return method(w)
    except (TypeError, ValueError) as error:
        # Errors of tracing are subclasses: they are not ours, and cannot be built from a string.
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{type(owner).__name__}: {error}") from error


def _group_axes(constraint: Constraint, ndim: int) -> tuple[int, ...] | None:
    """The axes of a group: none if each entry is one, None if that is not known."""
    if isinstance(constraint, Relaxed | Translated):
        return _group_axes(constraint.constraint, ndim)
    if isinstance(constraint, Intersection | Sequence):
        return _common_axes(constraint.constraints, ndim)
    if isinstance(constraint, Grouped):
        return _array.normalise_axis(constraint.axis, ndim, type(constraint).__name__)
    return () if isinstance(constraint, Entrywise) else None


def _common_axes(parts: Iterable[Constraint], ndim: int) -> tuple[int, ...] | None:
    """The same of several; single entries are parts of whatever groups the others have."""
    found = {_group_axes(c, ndim) for c in parts} - {()}
    if not found:
        return ()
    return found.pop() if len(found) == 1 else None


def _worst(
    owner: Constraint, parts: tuple[Constraint, ...], w: Array, xp: Namespace
) -> tuple[Array, tuple[int, ...] | None]:
    """The largest violation of the parts for each group, and the axes of the groups."""
    found = [_call(owner, c.violation, w) for c in parts]
    axes = _common_axes(parts, w.ndim)
    if axes is None:
        found = [_largest(v, tuple(range(v.ndim)), xp) for v in found]
    elif axes:
        found = [
            v if _group_axes(c, w.ndim) else _largest(v, axes, xp)
            for v, c in zip(found, parts, strict=True)
        ]
    worst = found[0]
    for v in found[1:]:
        # Not maximum: what libraries make of NaN differs, and the standard leaves it open.
        worst = xp.where((v > worst) | (v != v), v, worst)
    return worst, axes


def _largest(v: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    if not axes:
        return v
    return xp.sum(v, axis=axes) if 0 in v.shape else xp.max(v, axis=axes)


def _over_entries(x: Array, axes: tuple[int, ...] | None, xp: Namespace) -> Array:
    """One value for each group in a shape that combines with the entries."""
    for axis in axes or ():
        x = xp.expand_dims(x, axis=axis)
    return x


def _widen(w: Array, precision: Precision, xp: Namespace) -> Array:
    if precision.wide is None:
        return w
    wide = precision.wide_complex if precision.is_complex else precision.wide
    return _array.cast(w, wide, xp)


def _is_convex(constraint: Constraint) -> bool:
    if isinstance(constraint, Intersection):
        return all(_is_convex(c) for c in constraint.constraints)
    if isinstance(constraint, Masked | Translated):
        return _is_convex(constraint.constraint)
    return isinstance(constraint, Convex)


def _bounds(constraint: Constraint) -> tuple[Number | None, Number | None]:
    """The bounds of the entries, None where there is none or it is not one for every entry."""
    kind = kind_of(constraint)
    if kind == "Box":
        return constraint.lower, constraint.upper  # type: ignore[attr-defined]
    if kind == "LInfBall" and type(radius := constraint.radius) is float:  # type: ignore[attr-defined]
        return -radius, radius
    return 0.0 if kind == "NonNeg" else None, 0.0 if kind == "NonPos" else None


@dataclass(frozen=True)
class _Pair:
    """A lower bound of one set and an upper bound of another, to be compared."""

    lower: Number | None
    upper: Number | None


def _check_common(parts: tuple[Constraint, ...]) -> None:
    """Intervals that meet two by two have a common member (Helly)."""
    for a in parts:
        for b in parts:
            try:
                check_order(_Pair(_bounds(a)[0], _bounds(b)[1]), "lower", "upper")
            except IndexError:
                continue  # shapes that do not go together, which the weight will find out
            except ValueError:
                raise ValueError(
                    f"Intersection: constraints must have a common member, got {a!r} and {b!r}"
                ) from None


# ------------------------------------------------------------------------------------ the classes


@register
@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Intersection(_OfParts):
    r"""What is in each of several sets; ``a & b`` is short for it.

    .. math:: C_1 \cap C_2 \cap \dots \cap C_m

    Parameters
    ----------
    *constraints : Constraint
        The sets. Intersections among them are taken apart. They must have a common member; where
        they bound entries, that is checked.
    rounds : int, default 100
        Rounds of Dykstra's algorithm, where it is needed.

    Raises
    ------
    TypeError
        If what is given is no constraint, or at the call if the weight is complex and one of the
        sets has no meaning for it.
    ValueError
        If nothing is given, the bounds of entries contradict each other, or one of the sets is not
        convex and no exact order is known.

    Notes
    -----
    Where it is proved that projections one after the other give the nearest common member, they are
    made in that order, whatever the order given, and `exact` is True. These are

    - bounds of entries: `Box`, `NonNeg`, `NonPos`, `LInfBall`, fixed supports and signs;
    - signs or a fixed support, then an L1, L2 or L-infinity ball, a solid simplex or the k largest
      entries;
    - a cone (a subspace, the k largest entries, a second-order cone), then `MaxNorm`;
    - a subspace or the k largest entries, then a set of lengths (`UnitNorm`, `MinNorm`, ...);
    - the k largest entries, then an L1 or L-infinity ball;
    - balls of one norm.

    Where groups matter, those of the later set must consist of whole groups of the earlier; give
    both axes alike, from the front or from the back.

    Else Dykstra's algorithm runs for `rounds` rounds, in double precision where the library has it,
    with Nesterov's momentum on the corrections. It converges to the nearest common member of convex
    sets (with momentum this is proved for two sets only), but the further away the weight is,
    relative to the size of the sets, the more rounds it takes: a hundred leave errors from 1e-16 to
    1e-3 of that size where the weight is about as large as the sets, and if it is a hundred times
    as large they end in some common member that is not the nearest. What is computed has an error
    of the size of the last place, in the wider dtype, of the entries that came in. A few plain
    projections follow, which bring into the sets what is nearly there; so `violation` says how far
    out the result is, not how far it is from the nearest member. Compare two numbers of rounds for
    that.

    What is in every set comes back bit for bit. So does a result with a violation of 0. One that
    has not converged is outside some set and moves on when it is projected again.

    The violation is the largest one of the sets: one number for each group if the sets have the
    same groups (single entries are parts of any group), and one for the whole array if not.

    Gradient: that of the projections in turn, exact for exact orders; through all rounds for
    Dykstra's algorithm, of which autodiff keeps each in memory. JAX compiles one round, but
    `torch.compile` each of them: ask for few there.
    Groups with NaN or infinity are left as they are as far as the sets do that.

    References
    ----------
    J. Boyle, R. Dykstra, "A method for finding projections onto the intersection of convex sets in
    Hilbert spaces", Lecture Notes in Statistics 37 (1986).
    A. Chambolle, P. Tan, S. Vaiter, "Accelerated alternating descent methods for Dykstra-like
    problems", J. Math. Imaging and Vision 59 (2017).
    H. Bauschke, R. Burachik, D. Herman, C. Kaya, "On Dykstra's algorithm: finite convergence,
    stalling, and the method of alternating projections", Optim. Letters 14 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = nc.MaxNorm(1.0, axis=0) & nc.NonNeg()
    >>> c.exact
    True
    >>> c(np.array([3.0, -4.0, 4.0])).round(6)
    array([0.6, 0. , 0.8])
    >>> nc.Simplex(axis=0) & nc.Box(upper=0.5)
    Intersection(Simplex(total=1.0, axis=0), Box(lower=None, upper=0.5))
    [not exact: Dykstra, 100 rounds]
    >>> (nc.Simplex(axis=0) & nc.Box(upper=0.5))(np.array([2.0, 0.3, 0.1])).round(6)
    array([0.5 , 0.35, 0.15])
    """

    constraints: tuple[Constraint, ...]
    rounds: int = ROUNDS

    def __init__(
        self,
        *parts: Constraint,
        constraints: tuple[Constraint, ...] = (),
        rounds: int = ROUNDS,
    ) -> None:
        given = _check_constraints(self, _each_of(self, parts, constraints))
        flat: list[Constraint] = []
        for c in given:
            flat += c.constraints if isinstance(c, Intersection) else (c,)
        assign(self, constraints=tuple(flat), rounds=check_count(self, "rounds", rounds))
        _check_common(self.constraints)
        if not self.exact:
            for c in self.constraints:
                if not _is_convex(c):
                    raise ValueError(
                        f"Intersection: constraints must be convex sets where no exact order is "
                        f"known, got {c!r}; write Sequence(...), whose result is in its last set"
                    )

    def __repr__(self) -> str:
        shown = [repr(c) for c in self.constraints]
        if self.rounds != ROUNDS:
            shown.append(f"rounds={self.rounds}")
        note = "" if self.exact else f" [not exact: Dykstra, {self.rounds} rounds]"
        return f"Intersection({', '.join(shown)}){note}"

    @property
    def exact(self) -> bool:
        """Whether the projection is proved to be exact; else it is what Dykstra's rounds give."""
        return exact_order(self.constraints) is not None

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether each of the sets has a meaning for complex numbers."""
        return all(c.allows_complex for c in self.constraints)

    def _project(self, w: Array, xp: Namespace) -> Array:
        steps = _exact_parts(self.constraints)
        if len(steps) == 1:
            return _in_turn(self, steps[0], w)
        with _array.quiet(xp):
            amount, axes = _worst(self, self.constraints, w, xp)
            inside = _over_entries(amount == 0, axes, xp)
            found = _dykstra(self, steps, w, axes, xp)
            found = _array.repeat(
                lambda x: _in_turn(self, self.constraints, x),
                _array.cast(found, w.dtype, xp),
                _SETTLING,
                xp,
            )
        return xp.where(inside, w, found)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return _worst(self, self.constraints, w, xp)[0]


def _dykstra(
    owner: Intersection,
    steps: list[tuple[Constraint, ...]],
    w: Array,
    axes: tuple[int, ...] | None,
    xp: Namespace,
) -> Array:
    """The common member that rounds of projections with corrections come to, in the wide dtype.

    Boyle and Dykstra's rounds minimise the dual problem, whose unknowns are the corrections, one of
    them at a time; Nesterov's momentum is added to them, group by group, and given up where the
    way turns. For two sets that is FISTA on the dual problem.
    """
    y = _widen(w, owner._precision(w, xp), xp)
    spanned = tuple(range(w.ndim)) if axes is None else axes

    def turn(state: Any) -> Any:
        _, old, ahead, count = state
        x, new = y, []
        for a in ahead:
            x = _finite_or(x - a, x, xp)
        for step, a in zip(steps, ahead, strict=True):
            # What would overflow goes without its correction, and what came in as infinite has
            # none: infinity must not become NaN, nor NaN reach other entries.
            shifted = _finite_or(x + a, x, xp)
            x = _in_turn(owner, step, shifted)
            new.append(_finite_or(shifted - x, xp.zeros_like(x), xp))
        against = xp.zeros_like(count)
        for a, b, c in zip(ahead, new, old, strict=True):
            against = against + _array.accurate_sum(_product(a - b, b - c, xp), spanned, xp)
        # Restarted where the way turns back (B. O'Donoghue and E. Candes, Found. Comput. Math. 15,
        # 2015), and where numbers are too large to tell.
        count = xp.where(against <= 0, count + 1, xp.zeros_like(count))
        share = count / (count + 3)
        further = [_finite_or(b + share * (b - c), b, xp) for b, c in zip(new, old, strict=True)]
        return x, new, further, count

    zeros = [xp.zeros_like(y) for _ in steps]
    none = _array.accurate_sum(xp.zeros_like(xp.abs(y)), spanned, xp)
    return _array.repeat(turn, (y, zeros, zeros, none), owner.rounds, xp)[0]


def _exact_parts(parts: tuple[Constraint, ...]) -> list[tuple[Constraint, ...]]:
    """The sets in as few heaps as are found, each in the order that is exact for the heap."""
    heaps: list[tuple[Constraint, ...]] = []
    order = exact_order(parts)
    if order is not None:
        return [order]
    for c in parts:
        for i, heap in enumerate(heaps):
            order = exact_order((*heap, c))
            if order is not None:
                heaps[i] = order
                break
        else:
            heaps.append((c,))
    return heaps


def _finite_or(x: Array, other: Array, xp: Namespace) -> Array:
    return xp.where(xp.isfinite(x), x, other)


def _product(a: Array, b: Array, xp: Namespace) -> Array:
    """The real products of entries, which sum to the inner product."""
    if not xp.isdtype(a.dtype, "complex floating"):
        return a * b
    return xp.real(a) * xp.real(b) + xp.imag(a) * xp.imag(b)


def _in_turn(owner: Constraint, parts: tuple[Constraint, ...], w: Array) -> Array:
    for c in parts:
        w = _call(owner, c.project, w)
    return w


@register
@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Sequence(_OfParts):
    r"""Projections one after the other, in the order given.

    .. math:: P_m(\dots P_2(P_1(w)))

    Parameters
    ----------
    *constraints : Constraint
        The constraints, the first one first.

    Raises
    ------
    TypeError
        If what is given is no constraint, or at the call if the weight is complex and one of them
        has no meaning for it.
    ValueError
        If nothing is given.

    Notes
    -----
    In general this is no projection: the result is in the last set and perhaps in no other, it is
    not the nearest common member if it is one, and it may move when it is projected again. Where an
    order is exact, `Intersection` knows it.

    The violation is the largest one of the constraints, as for `Intersection`: 0 only for what is
    in all of them and therefore comes back bit for bit. For the last set alone ask that set.

    Gradient: the product of those of the constraints. Groups with NaN or infinity are left as they
    are as far as the constraints do that.

    References
    ----------
    Keras' users ask for several constraints on one weight: https://github.com/keras-team/keras
    issue 6572.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = Sequence(nc.NonNeg(), nc.UnitNorm(axis=0))
    >>> c(np.array([3.0, -4.0, 4.0])).round(6)
    array([0.6, 0. , 0.8])
    """

    constraints: tuple[Constraint, ...]

    def __init__(self, *parts: Constraint, constraints: tuple[Constraint, ...] = ()) -> None:
        given = _check_constraints(self, _each_of(self, parts, constraints))
        assign(self, constraints=given)

    def __repr__(self) -> str:
        return f"Sequence({', '.join(repr(c) for c in self.constraints)})"

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether each of the constraints has a meaning for complex numbers."""
        return all(c.allows_complex for c in self.constraints)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return _in_turn(self, self.constraints, w)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return _worst(self, self.constraints, w, xp)[0]


@register
@final
@dataclass(frozen=True, eq=False)
class Relaxed(_OfParts, Gradual):
    r"""Part of the way to a set at each call.

    .. math:: w + \lambda \, (P(w) - w)

    Parameters
    ----------
    constraint : Constraint
        Where the way leads.
    rate : float or array, default 1.0
        The part :math:`\lambda` in (0, 1], a number or an array (or nested tuples) that broadcasts
        against the weight. With 1 the result is that of the constraint, bit for bit. Below 1 it is
        *not yet* in the set.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `rate` no number.
    ValueError
        If `rate` is out of its range.

    Notes
    -----
    Computed in double precision where the library has it. What is in the set comes back bit for
    bit. The violation is that of the constraint. An infinity stays, however far a set would clip
    it, unless the rate is 1; so does an entry whose way to the set is longer than the largest
    number of the dtype.

    Gradient: :math:`(1 - \lambda) I + \lambda J` with the derivative J of the constraint. Groups
    with NaN are left as they are if the constraint does that.

    `MinMaxNorm` has a rate of its own, which is the same for this set.

    References
    ----------
    H. Bauschke, P. Combettes, "Convex analysis and monotone operator theory in Hilbert spaces",
    2nd edition, 2017, section 4.5, for relaxed projections.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> Relaxed(nc.MaxNorm(1.0, axis=0), rate=0.5)(np.array([3.0, 4.0])).round(6)
    array([1.8, 2.4])
    """

    constraint: Constraint
    rate: Number = field(default=1.0, metadata=PER_ENTRY)

    def __post_init__(self) -> None:
        assign(
            self,
            constraint=_check_constraint(self, self.constraint),
            rate=check_number(self, "rate", self.rate, above=0, strict=True, upto=1),
        )

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the constraint has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _project(self, w: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        whole = type(self.rate) is float and self.rate == 1
        rate = _array.entrywise(self.rate, w, xp, precision.accumulator, "Relaxed: rate")
        nearest = _call(self, self.constraint.project, w)
        if whole:
            return nearest
        with _array.quiet(xp):
            y = _widen(w, precision, xp)
            away = y - _widen(nearest, precision, xp)
            away = xp.where(xp.isfinite(away), away, xp.zeros_like(away))
            # Minus, since a negative zero less zero keeps its sign.
            result = _array.cast(y - rate * away, w.dtype, xp)
        return result if type(rate) is float else xp.where(rate == 1, nearest, result)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return _call(self, self.constraint.violation, w)


@register
@final
@dataclass(frozen=True, eq=False)
class Masked(_OfParts):
    r"""A constraint on a rectangular part of a weight; the rest of it is left alone.

    .. math:: \{ w : w_{part} \in C \}

    Parameters
    ----------
    constraint : Constraint
        Applied to the part as if that were the whole weight.
    part : tuple
        For each axis of the weight, in order, an integer or a slice as a triple ``(start, stop,
        step)`` with None for what is left out, as a configuration can hold it; slices of Python
        (``numpy.s_[:, 2:5]``) are taken too. Steps are positive. Axes that are not named are taken
        whole. An integer keeps its axis, with a length of 1, so that the `axis` of the constraint
        means the axes of the weight.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `part` no such tuple.
    ValueError
        If a step is not positive, or at the call if the weight has fewer axes or an integer is out
        of its range.

    Notes
    -----
    A part and not a mask of single entries: what the nearest member is under a mask depends on the
    set (0 in place of what is masked is right for norms and wrong for sums), while a part is a
    smaller weight, of which every set knows the nearest member. This is a projection: what is
    outside the part does not move. For a support where all else is 0 there is `Mask`.

    The violation is that of the part.

    Gradient: that of the constraint in the part, the identity outside. NaN and infinity outside the
    part are left as they are; those in it as the constraint does.

    References
    ----------
    Keras' users ask for constraints on a part of a kernel: https://github.com/keras-team/keras
    issues 7456 and 20067.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = Masked(nc.NonNeg(), part=((0, 2, None),))
    >>> c(np.array([-1.0, 2.0, -3.0]))
    array([ 0.,  2., -3.])
    >>> Masked(nc.MaxNorm(1.0, axis=0), np.s_[:, 1])(np.array([[3.0, 3.0], [4.0, 4.0]])).round(6)
    array([[3. , 0.6],
           [4. , 0.8]])
    """

    constraint: Constraint
    part: tuple[int | tuple[int | None, int | None, int | None], ...]

    def __post_init__(self) -> None:
        assign(self, constraint=_check_constraint(self, self.constraint), part=_check_part(self))

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the constraint has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _span(self, ndim: int) -> tuple[int, ...]:
        return tuple(sorted({*super()._span(ndim), *range(min(len(self.part), ndim))}))

    def _whole(self, ndim: int) -> tuple[int, ...]:
        # Along the axes that it cuts it has to know which places are its own.
        return tuple(sorted({*super()._whole(ndim), *range(min(len(self.part), ndim))}))

    def _ranges(self, w: Array) -> list[range]:
        """The places along each axis."""
        if len(self.part) > w.ndim:
            raise ValueError(
                f"Masked: part must have an entry for each axis at most, got {len(self.part)} for "
                f"an array with {w.ndim} dimension{'' if w.ndim == 1 else 's'}"
            )
        found = [range(size) for size in w.shape]
        for axis, (entry, size) in enumerate(zip(self.part, w.shape, strict=False)):
            if isinstance(entry, tuple):
                found[axis] = range(*slice(*entry).indices(size))
            elif -size <= entry < size:
                found[axis] = range(entry % size, entry % size + 1)
            else:
                raise ValueError(
                    f"Masked: part must be within the weight, got {entry} for axis {axis}, which "
                    f"has {size} entries"
                )
        return found

    def _project(self, w: Array, xp: Namespace) -> Array:
        ranges = self._ranges(w)
        found = _call(self, self.constraint.project, _cut(w, ranges))
        return _put(found, w, ranges, xp)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return _call(self, self.constraint.violation, _cut(w, self._ranges(w)))


def _check_part(owner: Masked) -> tuple[Any, ...]:
    rule = (
        "Masked: part must be a tuple with an integer or a (start, stop, step) for each axis, None "
        "for what is left out of it"
    )
    given: Any = owner.part
    if isinstance(given, slice) or (isinstance(given, int) and not isinstance(given, bool)):
        given = (given,)
    if not isinstance(given, tuple | list):
        raise TypeError(f"{rule}, got {given!r}")
    return tuple(_check_place(entry, f"{rule}, got {given!r}") for entry in given)


def _check_place(entry: Any, message: str) -> Any:
    if isinstance(entry, slice):
        entry = (entry.start, entry.stop, entry.step)
    several = isinstance(entry, tuple | list)
    values = entry if several else (entry,)
    try:
        found = tuple(None if several and v is None else _integer(v) for v in values)
    except TypeError:
        raise TypeError(message) from None
    if not several:
        return found[0]
    if len(found) != 3:
        raise TypeError(message)
    if found[2] is not None and found[2] < 1:
        raise ValueError(f"{message}; a step must be at least 1")
    return found


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _cut(w: Array, ranges: list[range]) -> Array:
    """The entries at these places along each axis."""
    for axis, places in enumerate(ranges):
        if len(places) < w.shape[axis]:
            w = _along(w, axis, places)
    return w


def _along(x: Array, axis: int, places: range) -> Array:
    return x[(*(slice(None),) * axis, slice(places.start, places.stop, places.step), ...)]


def _put(found: Array, w: Array, ranges: list[range], xp: Namespace) -> Array:
    """`w` with `found` at these places."""
    if 0 in found.shape:
        return _array.copy(w, xp)
    # Stretched over the whole, no matter with what between, and chosen by masks, which leave a
    # sharded array sharded.
    for axis, places in enumerate(ranges):
        if len(places) < w.shape[axis]:
            found = _stretch(found, axis, places, w.shape[axis], xp)
    for axis, places in enumerate(ranges):
        size = w.shape[axis]
        if len(places) < size:
            chosen = tuple(i in places for i in range(size))
            mask = _array.like(chosen, w, xp, xp.bool, "Masked: part")
            shape = tuple(size if i == axis else 1 for i in range(w.ndim))
            found = xp.where(xp.reshape(mask, shape), found, w)
    return found


def _stretch(x: Array, axis: int, places: range, size: int, xp: Namespace) -> Array:
    """`x` with its entries at these places of an axis of another size."""
    count, step = len(places), places.step
    if step > 1:
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        x = xp.expand_dims(x, axis=axis + 1)
        x = xp.broadcast_to(x, (*before, count, step, *after))
        x = xp.reshape(x, (*before, count * step, *after))
        x = _along(x, axis, range(min(count * step, size - places.start)))
    edge = _along(x, axis, range(1))

    def filler(length: int) -> list[Array]:
        shape = tuple(length if i == axis else s for i, s in enumerate(x.shape))
        return [xp.broadcast_to(edge, shape)] if length else []

    last = size - places.start - x.shape[axis]
    return xp.concat([*filler(places.start), x, *filler(last)], axis=axis)


@register
@final
@dataclass(frozen=True, eq=False)
class Translated(_OfParts):
    r"""A set moved to another place: around pretrained weights, say.

    .. math:: c + C = \{ w : w - c \in C \}, \qquad P(w) = c + P_C(w - c)

    Parameters
    ----------
    constraint : Constraint
        The set C.
    center : float or array
        The place c of what was the origin, in the units of the weights: a number, or an array (or
        nested tuples) that broadcasts against the weight.

    Raises
    ------
    TypeError
        If `constraint` is no constraint or `center` no number.
    ValueError
        If `center` is not finite, or at the call if its shape does not fit.

    Notes
    -----
    Computed in double precision where the library has it. A difference has an error in proportion
    to what is subtracted: a group counts as inside, and comes back bit for bit, where it is outside
    by at most the norm of the moduli of group and center together, times eps of the dtype where a
    wider one measures and else the tolerance (`normconstraints.tolerance`). That holds for balls
    too, so that they may be left by this much. If the constraint does not say what a group is, the
    whole array is one.

    The violation is that of the moved weight, in the units of the weights.

    Gradient: that of the constraint at ``w - c``, and in the center the identity less that. Groups
    with NaN or infinity come back as the constraint leaves them.

    References
    ----------
    H. Bauschke, P. Combettes, "Convex analysis and monotone operator theory in Hilbert spaces",
    2nd edition, 2017, proposition 29.1.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> c = Translated(nc.MaxNorm(1.0, axis=0), center=(1.0, 2.0))
    >>> c(np.array([4.0, 6.0])).round(6)
    array([1.6, 2.8])
    >>> c.violation(np.array([4.0, 6.0])).round(6)
    np.float64(4.0)
    """

    constraint: Constraint
    center: Number = field(metadata=PER_ENTRY)

    def __post_init__(self) -> None:
        assign(
            self,
            constraint=_check_constraint(self, self.constraint),
            center=check_finite(self, "center", self.center),
        )

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the set has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _project(self, w: Array, xp: Namespace) -> Array:
        with _array.quiet(xp):
            center, moved = self._moved(w, xp)
            _, inside, axes = self._off(w, center, moved, xp)
            nearest = _call(self, self.constraint.project, moved)
            # What the set leaves alone, for whatever reason, is w less nothing: to add the center
            # again would round. The same derivative either way.
            step = xp.where(xp.isfinite(moved), moved - nearest, xp.zeros_like(moved))
            still = _widen(w, self._precision(w, xp), xp) - step
            found = xp.where(nearest == moved, still, center + nearest)
            inside = _over_entries(inside, axes, xp)
            return xp.where(inside, w, _array.cast(found, w.dtype, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        precision = self._precision(w, xp)
        with _array.quiet(xp):
            center, moved = self._moved(w, xp)
            amount, inside, _ = self._off(w, center, moved, xp)
            found = xp.where(inside, xp.zeros_like(amount), amount)
            return _array.cast(found, precision.real, xp)

    def _moved(self, w: Array, xp: Namespace) -> tuple[Any, Array]:
        """The center and the weight less it, in the dtype that computes."""
        precision = self._precision(w, xp)
        center = _array.entrywise(self.center, w, xp, precision.accumulator, "Translated: center")
        return center, _array.as_array(_widen(w, precision, xp) - center, w, xp)

    def _off(
        self, w: Array, center: Any, moved: Array, xp: Namespace
    ) -> tuple[Array, Array, tuple[int, ...] | None]:
        """The violation, which groups count as inside, and the axes of the groups."""
        precision = self._precision(w, xp)
        amount = _call(self, self.constraint.violation, moved)
        axes = _group_axes(self.constraint, w.ndim)
        spanned = tuple(range(w.ndim)) if axes is None else axes
        sizes = xp.abs(_widen(w, precision, xp)) + abs(center)
        norms = measure(sizes, spanned, xp, _array.precision(sizes, xp, "Translated"))
        # Measured in a wider dtype there is one rounding, of the result, and without one also those
        # of the difference and of the set itself.
        share = precision.eps
        if precision.wide is None:
            share = _array.tolerance(precision.eps, _array.group_size(w, spanned), wide=False)
        slack = norms.scaled * share / norms.scale
        slack = xp.squeeze(slack, axis=spanned) if spanned else slack
        near = (amount <= slack) & xp.isfinite(slack)
        if axes is None:
            near = xp.all(near)
            return amount, near | xp.all(amount == 0), axes
        return amount, near | (amount == 0), axes


EXAMPLES: tuple[Any, ...] = (
    Intersection(NonNeg(), MaxNorm(0.5, axis=0)),
    Intersection(MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1e3), axis=0), NonNeg()),
    Intersection(Box(0.05, 0.4), MaxNorm(0.6, axis=0), rounds=6),
    Sequence(NonNeg(), MaxNorm(0.5, axis=-1)),
    Relaxed(MaxNorm(0.5, axis=0), rate=0.25),
    Relaxed(Box(-0.5, 0.25)),
    Masked(MaxNorm(0.3, axis=0), ((0, 6, 2), (None, None, 5))),
    Masked(Box(-0.5, 0.25), ((None, 3, None),)),
    Translated(MaxNorm(0.5, axis=0), (0.1, -1.0, 0.0, 2.0, 1e2, 1e-3)),
    Translated(Simplex(axis=-1), 0.25),
    Translated(Box(-0.5, 0.25), 1.0),
)
