"""Constraints made of several: what is in all of them, and one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._composite import (
    Composite,
    call,
    common_axes,
    over_entries,
    widen,
    worst,
)
from normconstraints._orders import exact_order, kind_of
from normconstraints._parameters import Number, assign, check_count, check_order
from normconstraints.constraint import Constraint, Convex, register
from normconstraints.sets.box import Box
from normconstraints.sets.max_norm import MaxNorm
from normconstraints.sets.non_neg import NonNeg

ROUNDS = 100
"""Rounds of Dykstra's algorithm if nothing else is said."""

_SETTLING = 16
"""Rounds of plain projections after it, which bring what rounding left outside into every set."""


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


@register
@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Intersection(Composite):
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
    - a cone (a subspace, the k largest entries, a second-order cone, positive semidefinite
      matrices), then `MaxNorm`;
    - a subspace (`ZeroMean`, `Symmetric`, `Toeplitz`, `Tied`, ...) or the k largest entries, then a
      set of lengths (`UnitNorm`, `MinNorm`, ...);
    - `Symmetric`, then a set of symmetric matrices;
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
    _inherits: ClassVar[tuple[type, ...]] = (Convex,)

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
                if not c._can(Convex):
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

    def _group_axes(self, ndim: int) -> tuple[int, ...] | None:
        return common_axes(self.constraints, ndim)

    def _project(self, w: Array, xp: Namespace) -> Array:
        steps = _exact_parts(self.constraints)
        if len(steps) == 1:
            return _in_turn(self, steps[0], w)
        with _array.quiet(xp):
            amount, axes = worst(self, self.constraints, w, xp)
            inside = over_entries(amount == 0, axes, xp)
            found = _dykstra(self, steps, w, axes, xp)
            found = _array.repeat(
                lambda x: _in_turn(self, self.constraints, x),
                _array.cast(found, w.dtype, xp),
                _SETTLING,
                xp,
            )
        return xp.where(inside, w, found)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return worst(self, self.constraints, w, xp)[0]


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
    y = widen(w, owner._precision(w, xp), xp)
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
        w = call(owner, c.project, w)
    return w


@register
@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Sequence(Composite):
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

    def _group_axes(self, ndim: int) -> tuple[int, ...] | None:
        return common_axes(self.constraints, ndim)

    def _project(self, w: Array, xp: Namespace) -> Array:
        return _in_turn(self, self.constraints, w)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return worst(self, self.constraints, w, xp)[0]


EXAMPLES: tuple[Any, ...] = (
    Intersection(NonNeg(), MaxNorm(0.5, axis=0)),
    Intersection(MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1e3), axis=0), NonNeg()),
    Intersection(Box(0.05, 0.4), MaxNorm(0.6, axis=0), rounds=6),
    Sequence(NonNeg(), MaxNorm(0.5, axis=-1)),
)
