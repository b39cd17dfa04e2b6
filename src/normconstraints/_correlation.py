r"""The nearest correlation matrix, by Newton's method on the multipliers of the diagonal.

The diagonal of the weight has no influence, for that of every member is 1. With :math:`X_+` for the
part of a self-adjoint matrix with the positive eigenvalues the nearest member to G is

.. math:: X = (G + \mathrm{Diag}(y))_+ \quad \text{with} \quad \mathrm{diag}(X) = 1

which is the minimum of a convex function of y. Its gradient, the diagonal less 1, has as derivative
the divided differences :math:`\Omega` of the positive part (Qi and Sun 2006), which is positive
definite where X has a positive diagonal:

.. math:: M_{kl} = \sum_{ij} \Omega_{ij} q_{ki} \bar q_{li} \bar q_{kj} q_{lj}

That takes a dozen steps where G has entries up to 64. Of huge weights A two numbers of the size of
the weights cancel to a result of the size of 1, of which rounding leaves nothing. Those are
approached by steps of the proximal point algorithm, each from the member Z before it to the nearest
member to :math:`s A + (1 - s) Z` with :math:`s = \rho / \max |A|`: the weight itself is the only
fixed point for any :math:`\rho`. The larger it is, the nearer is each step, and the more is rounded
in it. So it grows, for the next stage to begin near its solution, and falls again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from normconstraints import _array, _host, _linalg
from normconstraints._array import Array
from normconstraints._matrix_oracle import (
    Matrix,
    Vector,
    dot,
    eigensystem,
    group_of,
    real_matrix,
    solved,
)
from normconstraints._norms import power_of_two
from normconstraints._oracle import Group, positive
from normconstraints._parameters import Axis
from normconstraints._search import Search
from normconstraints._spectral import Change, EigenSpectra
from normconstraints._structure import half, mirrored

if TYPE_CHECKING:
    from decimal import Decimal

STEPS = 112
"""Decompositions, as measured to be enough; what sees its values stops when nothing is left."""
_FIRST, _FACTOR = 16.0, 8.0
"""The largest entry of the first stage and of the last, and how much it grows and falls by."""
_ROUGH = 0.02
"""The error of the diagonal that is good enough for the next stage to begin with."""
_FINE = 8.0**6
"""The largest entry of stages of which the rounding shows, where the result has all digits."""
_REST = 1 / 16
"""The part of what may be rounded that is usual, where the result has all digits."""
_PATIENCE = 12.0
"""Steps after which a stage other than the last is given up."""
_DENSE = 64
"""Up to so many rows the system of the multipliers is solved as a whole."""
_ROUNDS = 24
"""Of conjugate gradients, for larger ones."""


class Stages(NamedTuple):
    """What becomes of the largest entry, stage by stage, and what of a stage counts as solved."""

    sizes: tuple[float, ...]
    goals: tuple[float, ...]
    """The largest error of the diagonal, but for rounding."""
    rising: tuple[float, ...]
    """1 for a stage before the sizes fall."""
    fine: float
    """The largest entry of stages that take at least one step."""
    rest: float
    """What of the rounding that there may be counts as solved."""


def stages(eps: float, *, wide: bool) -> Stages:
    """The stages for a dtype that computes, which is wider than that of the weight or not.

    The largest size is such that a weight of some ten units of rounding beside the largest one
    still moves the result.
    """
    top = _FACTOR ** math.floor(-0.9 * math.log2(eps) / math.log2(_FACTOR))
    up = [_FIRST]
    while up[-1] < top:
        up.append(min(top, _FACTOR * up[-1]))
    goals = [*[_ROUGH for _ in up[1:]], 1e-8, 1e-8]
    up.append(top)
    down: list[float] = []
    while (size := top / _FACTOR ** (len(down) + 1)) > 4 * _FIRST:
        down.append(size)
    down += [4 * _FIRST, 2 * _FIRST, _FIRST]
    exact = [0.0 for _ in down]
    rising = (*[1.0 for _ in up], *exact)
    fine, rest = (0.0, 1.0) if wide else (_FINE, _REST)
    return Stages((*up, *down), (*goals, *exact), rising, fine, rest)


# --------------------------------------------------------------------------------- the weight


class CorrelationMatrices:
    """The matrices of a weight, and the nearest ones with ones on the diagonal."""

    def __init__(self, w: Array, axis: Axis, owner: str) -> None:
        """Take the matrices, which must be square; those with NaN or infinity count as zero."""
        self._spectra = EigenSpectra(w, axis, owner)
        self.matrices = self._spectra.matrices
        self.groups = groups = self.matrices.groups
        self.xp, self.size = groups.xp, self.matrices.rows
        self._eps = float(self.xp.finfo(groups.precision.accumulator).eps)

    def violation(self) -> Array:
        """How far each matrix is outside."""
        s, xp = self._spectra, self.xp
        low = s.violation(lambda y: Change(y, s.vectors(y).max(-y), y > 0))
        if 0 in self.groups.w.shape:
            return low
        with _array.quiet(xp):
            y = self.matrices.of(self.groups.wide)
            off = abs(self._real(y) - 1.0)
            off = xp.max(xp.where(self._diagonal(off), off, 0.0), axis=(-2, -1))
            off = _array.cast(off, low.dtype, xp)
            return xp.where(off > low, off, low)

    def nearest(self) -> Array:
        """The weight with the matrices outside replaced by the nearest ones."""
        groups, xp = self.groups, self.xp
        with _array.quiet(xp):
            outside = xp.reshape(self.violation(), groups.reduced) > 0
            library = _array.host_library(groups.w)
            if library is not None and not _host.count(outside, library):
                return _array.copy(groups.w, xp)
            return groups.put_back(self.matrices.back(self._solved(library)), outside)

    def pulled_back(self, result: Array, g: Array) -> Array:
        """The product of a gradient with the Jacobian of the projection, which is symmetric.

        The result says where on the boundary it is: of the multipliers only the diagonal is not in
        the difference to the weight, and there :math:`X S = 0` says what it is.
        """
        xp, m = self.xp, self.matrices
        with _array.quiet(xp):
            unit, size = self._unit()
            member = self._without_diagonal(m.of(self._finite(self.groups.widen(result))))
            # Huge multipliers are divided by their size, small ones are not.
            factor = 1.0 / xp.where(size > 1, size, 1.0)
            rest = factor[..., None] * member
            rest = rest - xp.where(size > 1, 1.0, size)[..., None] * unit
            inner = self._real(_linalg.product(member, rest, xp))
            edge = -xp.sum(xp.where(self._diagonal(inner), inner, 0.0), axis=-1)
            balanced = member - rest
            balanced = xp.where(self._diagonal(inner), (1.0 - edge)[..., None], balanced)
            x, q = _linalg.eigh(balanced, xp)
            spectrum = _Spectrum(self, xp.where(x > 0, factor * x, x), q)
            h = self._without_diagonal(half(m.of(self.groups.widen(g)), m, 1.0))
            first = spectrum.spread(h)
            along = spectrum.newton(self._diagonal_of(first), 4 * _ROUNDS)
            found = first - spectrum.spread(self._as_diagonal(along))
            found = m.back(self._without_diagonal(half(found, m, 1.0)))
            return xp.where(self.groups.finite, _array.cast(found, g.dtype, xp), g)

    # ------------------------------------------------------------------------------- the stages

    def _unit(self) -> tuple[Array, Array]:
        """The matrices without diagonal, their largest entry made 1, and what that is."""
        xp, m, p = self.xp, self.matrices, self.groups.precision
        y = 0.5 * m.of(self._finite(self.groups.wide))  # half of a sum that could overflow
        off = self._without_diagonal(y + mirrored(y, m))
        scale = power_of_two(off, (off.ndim - 2, off.ndim - 1), xp, p)
        off = off * scale
        parts = abs(self._real(off))
        if p.is_complex:
            imag = abs(xp.imag(off))
            parts = xp.where(imag > parts, imag, parts)
        largest = xp.max(parts, axis=(-2, -1), keepdims=True)
        return off / xp.where(largest > 0, largest, 1.0), (largest / scale)[..., 0]

    def _solved(self, library: str | None) -> Array:
        """The nearest matrices; where the steps were too few, members near them."""
        xp = self.xp
        unit, size = self._unit()
        wide = self.groups.precision.wide is not None
        plan = _Plan(self, stages(self._eps, wide=wide), size)
        zero = xp.zeros_like(size)
        blank = zero * self._diagonal_of(unit)
        start = _State(
            stage=zero + 1.0,
            done=zero,
            base=xp.zeros_like(unit),
            found=xp.zeros_like(unit),
            y=blank + 1.0,
            way=blank,
            last=zero + math.inf,
            tries=zero,
            search=Search.begun(zero),
        )

        def turn(state: _State) -> _State:
            return self._turned(state, plan, unit)

        def over(state: _State) -> Array:
            return xp.all(state.done > 0)

        found = _array.repeat(turn, start, STEPS, xp, over, library).found
        ones = xp.ones_like(self._real(found))
        return xp.where(self._diagonal(ones), ones, found)

    def _turned(self, at: _State, plan: _Plan, unit: Array) -> _State:
        """One decomposition: where a step led, and the next step or the next stage."""
        xp, search = self.xp, at.search
        stage = plan.at(at.stage)
        here = stage.size[..., None] * unit + (1.0 - stage.share)[..., None] * at.base
        y = at.y + search.step * at.way
        x, q = _linalg.eigh(here + self._as_diagonal(y), xp)
        spectrum = _Spectrum(self, x, q)
        g = spectrum.diagonal - 1.0
        error = xp.max(abs(g), axis=-1, keepdims=True)
        noise = 4 * self._eps * xp.max(abs(x), axis=-1, keepdims=True)
        # Where it is rounding that decides, the error of the diagonal does.
        slope = xp.sum(g * at.way, axis=-1, keepdims=True)
        good = (error <= at.last / 2) | (error <= noise) | search.found(slope)
        stuck = (error <= 64 * noise) & (error >= at.last / 2)
        # The multipliers of the stage before are as wrong as was rounded there, which is more.
        done = (error <= stage.goal) | (error <= noise * plan.rest) | stuck
        ready = good & done & ~(stage.is_fine & (at.tries == 0))
        # Newton's method stalls where its way bends soon. From where it came to, which is a member
        # as soon as its diagonal is made 1, smaller steps lead on.
        tired = ~ready & (at.tries >= _PATIENCE) & ~stage.is_last
        back = tired & stage.rises & (at.stage > 1)
        following = xp.where(back, at.stage - 1.0, stage.following)
        left = ready | tired
        open_ = at.done == 0

        found = self._without_diagonal(spectrum.normalised())
        found = xp.where((good & open_)[..., None], found, at.found)
        way = -spectrum.newton(g, _ROUNDS)
        fall = xp.sum(g * way, axis=-1, keepdims=True)
        y = xp.where(good, y, at.y)
        # Multipliers grow as the weights do.
        growth = plan.at(following).size / xp.where(stage.size > 0, stage.size, 1.0)
        none = xp.zeros_like(slope)
        return _State(
            stage=xp.where(left & open_, following, at.stage),
            done=xp.where(ready & stage.is_last, none + 1.0, at.done),
            base=xp.where(left[..., None], found, at.base),
            found=found,
            y=xp.where(left, 1.0 + growth * (y - 1.0), y),
            way=xp.where(left, none, xp.where(good, way, at.way)),
            last=xp.where(left, none + math.inf, xp.where(good, error, at.last)),
            tries=xp.where(left, none, at.tries + 1.0),
            search=search.following(slope, xp.where(left, none, fall), good | left, xp),
        )

    # ------------------------------------------------------------------------------------ shapes

    def _finite(self, x: Array) -> Array:
        return self.xp.where(self.groups.finite, x, self.xp.zeros_like(x))

    def _real(self, x: Array) -> Array:
        return self.xp.real(x) if self.groups.precision.is_complex else x

    def _diagonal(self, x: Array) -> Array:
        """True on the diagonals of real matrices."""
        place = _array.places(self.xp.ones_like(x[..., 0]), x.ndim - 2, self.xp)
        return place[..., None] == place[..., None, :]

    def _diagonal_of(self, x: Array) -> Array:
        """The real parts of the diagonals."""
        real = self._real(x)
        return self.xp.sum(self.xp.where(self._diagonal(real), real, 0.0), axis=-1)

    def _as_diagonal(self, y: Array) -> Array:
        """Vectors as diagonals of matrices without anything else."""
        wide = self.xp.broadcast_to(y[..., None], (*y.shape, self.size))
        return self.xp.where(self._diagonal(wide), wide, self.xp.zeros_like(wide))

    def _without_diagonal(self, x: Array) -> Array:
        return self.xp.where(self._diagonal(self._real(x)), self.xp.zeros_like(x), x)


class _State(NamedTuple):
    """How far it is with each matrix."""

    stage: Array
    """Its number, from 1."""
    done: Array
    base: Array
    """The member that the stage begins with, without its diagonal."""
    found: Array
    y: Array
    """The multipliers."""
    way: Array
    """From there to the minimum, if the function were quadratic."""
    last: Array
    """The error of the diagonal there."""
    tries: Array
    """Steps of this stage so far."""
    search: Search


class _Stage(NamedTuple):
    """What a stage is for each matrix."""

    size: Array
    """The largest entry."""
    share: Array
    """That relative to the largest of the weight."""
    goal: Array
    following: Array
    is_last: Array
    is_fine: Array
    rises: Array


class _Plan:
    """The stages of each matrix: those that are of use for its size."""

    def __init__(self, owner: CorrelationMatrices, given: Stages, size: Array) -> None:
        self.xp, self.size, self.count = owner.xp, size, len(given.sizes)

        def table(values: tuple[float, ...]) -> Array:
            groups = owner.groups
            return _array.like(values, size, self.xp, groups.precision.accumulator, groups.owner)

        places = table(tuple(float(i + 1) for i in range(self.count)))
        self.places = places + self.xp.zeros_like(size)
        self.sizes, self.goals, self.rising = (table(values) for values in given[:3])
        self.fine, self.rest = given.fine, given.rest
        # A stage that rises is of use if the one before it was too small, one that falls if it is
        # smaller than the weight.
        before = (0.0, *given.sizes[:-1])
        limit = tuple(
            b if r else s for b, s, r in zip(before, given.sizes, given.rising, strict=True)
        )
        self.useful = table(limit) < size

    def at(self, stage: Array) -> _Stage:
        """What the stages of these numbers are."""
        xp = self.xp
        size = self._size(stage)
        later = self.useful & (self.places > stage)
        following = xp.min(xp.where(later, self.places, self.count + 1.0), axis=-1, keepdims=True)
        is_last = following > self.count
        following = xp.where(is_last, stage, following)
        rises = self._of(self.rising, stage) > 0
        exact = is_last | ~rises | (size == self.size)
        return _Stage(
            size=size,
            share=xp.where(size < self.size, size / xp.where(self.size > 0, self.size, 1.0), 1.0),
            goal=xp.where(exact, 0.0, self._of(self.goals, stage)),
            following=following,
            is_last=is_last,
            is_fine=exact & (size <= self.fine),
            rises=rises,
        )

    def _of(self, table: Array, stage: Array) -> Array:
        chosen = self.xp.where(self.places == stage, table, 0.0)
        return self.xp.sum(chosen, axis=-1, keepdims=True)

    def _size(self, stage: Array) -> Array:
        size = self._of(self.sizes, stage)
        return self.xp.where(size < self.size, size, self.size)


class _Spectrum:
    """Eigenvalues and eigenvectors, and the derivative of the positive part there."""

    def __init__(self, owner: CorrelationMatrices, x: Array, q: Array) -> None:
        self.owner, self.xp = owner, owner.xp
        self.q, self.qh = q, mirrored(q, owner.matrices)
        self.x, self.p = x, owner.xp.where(x > 0, x, owner.xp.zeros_like(x))
        self._squares = self._moduli_squared()
        self.slopes = self._divided_differences()
        self.diagonal = self.xp.sum(self._squares * self.p[..., None, :], axis=-1)
        """Of the positive part."""
        mixed = _linalg.product(self._squares, self.slopes, self.xp)
        own = self.xp.sum(mixed * self._squares, axis=-1)
        size = self.xp.max(own, axis=-1, keepdims=True)
        # What keeps the system regular, below what is rounded in it.
        self._ridge = 4 * owner._eps * self.xp.where(size > 0, size, 1.0)
        self._own = own + self._ridge
        """The diagonal of the system."""

    def normalised(self) -> Array:
        """The positive part with a diagonal of 1, or 0 where that is 0."""
        xp = self.xp
        length = self.diagonal
        length = xp.sqrt(xp.where(length > 0, length, 1.0))
        rows = self.q / length[..., None]
        part = _linalg.product(rows * self.p[..., None, :], mirrored(rows, self.owner.matrices), xp)
        return half(part, self.owner.matrices, 1.0)

    def _divided_differences(self) -> Array:
        xp, x, p = self.xp, self.x, self.p
        above = x > 0
        run = x[..., None] - x[..., None, :]
        slope = (p[..., None] - p[..., None, :]) / xp.where(run == 0, 1.0, run)
        both = above[..., None] & above[..., None, :]
        neither = ~(above[..., None] | above[..., None, :])
        return xp.where(both, 1.0, xp.where(neither, xp.zeros_like(slope), slope))

    def spread(self, h: Array) -> Array:
        """The derivative along h."""
        inner = _linalg.product(_linalg.product(self.qh, h, self.xp), self.q, self.xp)
        return _linalg.product(
            _linalg.product(self.q, self.slopes * inner, self.xp), self.qh, self.xp
        )

    def newton(self, g: Array, rounds: int) -> Array:
        """The multipliers along which the diagonal of the positive part changes by g.

        Of large matrices by conjugate gradients, in so many rounds: the system takes memory that
        grows with the third power of the rows, and time with the fourth.
        """
        xp = self.xp
        if self.owner.size > _DENSE:
            return self._by_gradients(g, rounds)
        pairs = self.q[..., :, None, :] * self._conjugate(self.q)[..., None, :, :]
        parts = [pairs]
        if self.owner.groups.precision.is_complex:
            parts = [xp.real(pairs), xp.imag(pairs)]
        w = self.slopes[..., None, :, :]
        system = sum(xp.sum(_linalg.product(k, w, xp) * k, axis=-1) for k in parts)
        system = system + self.owner._as_diagonal(xp.zeros_like(g) + self._ridge)
        return _linalg.solve(system, g[..., None], xp)[..., 0]

    def _by_gradients(self, g: Array, rounds: int) -> Array:
        """Conjugate gradients with the diagonal of the system as preconditioner."""
        owner = self.owner

        def system(y: Array) -> Array:
            return owner._diagonal_of(self.spread(owner._as_diagonal(y))) + self._ridge * y

        inverse = 1.0 / self._own
        return _linalg.conjugate_gradients(system, g, rounds, self.xp, inverse=inverse, axes=-1)

    def _moduli_squared(self) -> Array:
        real = self.owner._real(self.q)
        if not self.owner.groups.precision.is_complex:
            return real * real
        imag = self.xp.imag(self.q)
        return real * real + imag * imag

    def _conjugate(self, x: Array) -> Array:
        complex_ = self.owner.groups.precision.is_complex
        return _array.conjugate(x, self.xp) if complex_ else x


# -------------------------------------------------------------------------------- in decimals


def nearest_in_decimals(group: Group, shape: tuple[int, ...]) -> Group:
    """Newton's method in many digits, for weights that grow from the size of 1 to their own.

    A complex matrix is a real one of twice the size here, whose nearest member is that of the
    complex one: all that both stay the same under makes it so.
    """
    import decimal

    a = real_matrix(group, shape)
    n, zero = len(a), a[0][0] * 0
    off = [[(a[i][j] + a[j][i]) / 2 if i != j else zero for j in range(n)] for i in range(n)]
    top = max(abs(x) for row in off for x in row)
    with decimal.localcontext() as context:

        def stage(size: Decimal, y: Vector, most: int) -> tuple[_Dual, bool]:
            # As many digits as multipliers of the size of the weights need beside a result of 1,
            # as solving needs where derivatives are 1 along some and 1 / size along others, and as
            # the way to a stage of the square of the size needs.
            last = size == top
            context.prec = 80 + (2 if last else 3) * max(0, size.adjusted())
            goal = small if last else small / (1 + size * size)
            return _solved(off, size / top if top else one, y, goal, most)

        context.prec += 2 * max(0, top.adjusted())
        one = zero + 1
        small = one.scaleb(-55)
        size = min(top, one)
        at, _ = stage(size, [one] * n, 1000)
        factor = one * 4
        while size < top:
            following = min(top, size * factor)
            trial, good = stage(following, at.predicted(following / top), 12)
            if good:
                at, size, factor = trial, following, factor * factor
            else:
                factor = max(factor.sqrt(), one + one / 64)
        return group_of(at.member(), group)


class _Dual:
    """What the dual function of t times a matrix is made of, where the multipliers are y."""

    def __init__(self, off: Matrix, t: Decimal, y: Vector, near: Matrix | None = None) -> None:
        """Decompose; quickly if `near` has almost the eigenvectors."""
        self.off, self.t, self.y, self.n = off, t, y, len(off)
        self.zero = zero = t * 0
        moved = [[t * x for x in row] for row in off]
        for i in range(self.n):
            moved[i][i] += y[i]
        if near is not None:
            moved = [[dot(v, [dot(r, u) for r in moved]) for u in near] for v in near]
            moved = [[moved[max(i, j)][min(i, j)] for j in range(self.n)] for i in range(self.n)]
        self.q, self.x = eigensystem(moved)
        if near is not None:
            columns = [list(c) for c in zip(*near, strict=True)]
            self.q = [[dot(v, c) for c in columns] for v in self.q]
        self.p = [positive(x) for x in self.x]
        self.g = [
            sum((p * v[k] * v[k] for p, v in zip(self.p, self.q, strict=True)), zero - 1)
            for k in range(self.n)
        ]

    def slopes(self) -> Matrix:
        """The divided differences of the positive part."""
        one, found = self.zero + 1, []
        for x, p in zip(self.x, self.p, strict=True):
            row = []
            for z, r in zip(self.x, self.p, strict=True):
                same = one if x > 0 else self.zero
                row.append(same if (x > 0) == (z > 0) else (p - r) / (x - z))
            found.append(row)
        return found

    def newton(self, right: Vector) -> Vector:
        """The solution of the system of the second derivatives."""
        n, w = self.n, self.slopes()
        system = []
        for k in range(n):
            row = []
            for m in range(n):
                z = [v[k] * v[m] for v in self.q]
                row.append(dot(z, [dot(r, z) for r in w]))
            system.append(row)
        return solved(system, right)

    def predicted(self, t: Decimal) -> Vector:
        """The multipliers for another t, to first order."""
        n, w = self.n, self.slopes()
        turned = [[dot(v, [dot(r, u) for r in self.off]) for u in self.q] for v in self.q]
        moved = [
            sum(
                (
                    w[i][j] * turned[i][j] * self.q[i][k] * self.q[j][k]
                    for i in range(n)
                    for j in range(n)
                ),
                self.zero,
            )
            for k in range(n)
        ]
        way = self.newton(moved)
        return [a - (t - self.t) * b for a, b in zip(self.y, way, strict=True)]

    def member(self) -> Matrix:
        """The matrix with the positive eigenvalues alone."""
        n = range(self.n)
        return [
            [
                sum((p * v[k] * v[m] for p, v in zip(self.p, self.q, strict=True)), self.zero)
                for m in n
            ]
            for k in n
        ]


def _solved(off: Matrix, t: Decimal, y: Vector, goal: Decimal, most: int) -> tuple[_Dual, bool]:
    """The minimum, from y on, and whether that took at most so many decompositions."""
    at = _Dual(off, t, y)
    while max(abs(g) for g in at.g) > goal:
        way = [-x for x in at.newton(at.g)]
        slope, step = -dot(at.g, way), at.zero + 1
        while True:
            most -= 1
            if most < 0:
                return at, False
            y = [a + step * x for a, x in zip(at.y, way, strict=True)]
            trial = _Dual(off, t, y, at.q)
            rising = dot(trial.g, way)
            if rising <= slope / 2:
                break
            step *= max(slope / (slope + rising), (at.zero + 1) / 10)
        at = trial
    return at, True
