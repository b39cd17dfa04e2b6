r"""Kernels of circular convolutions and the norms of these as operators.

On a grid of F points a circular convolution is, frequency by frequency, a product with a matrix
(Sedghi, Gupta and Long 2019), and its norm the largest singular value of all of these. With A for
the Fourier transform of a kernel on the grid, scaled so that :math:`A^* A = 1`, and B for the
matrices of which no singular value is above 1, the nearest kernel to G is

.. math:: \min_K \tfrac12 \|K - G\|^2 \quad \text{with} \quad A K \in B

in units of the bound. With multipliers L it is where :math:`K - G + A^* L = 0` and :math:`A K =
P_B(V)`, :math:`V = A K + L / \sigma`. Two methods are used in turn:

* The method of multipliers: the minimum over K of a convex function, by Newton's method along ways
  that are searched, and then :math:`L = \sigma (V - P_B(V))`. It gets near from anywhere.
* Newton's method on both equations at once. With D for the derivative of :math:`P_B`, and
  :math:`\mu` added to it, which falls as the equations are fulfilled, the system

  .. math:: (1 + \sigma A^* (D + \mu)^{-1} (1 - D) A) \, dK = \ldots

  has only as many unknowns as the kernel. It is exact in some ten steps, or goes nowhere; then the
  first method takes a turn from the best that was found, with a larger :math:`\sigma`.

Everything is divided by the norm of G, so that :math:`K` in the first equation becomes :math:`K /
t`, however huge the weight is. Complex matrices are real ones of twice the size here, in which
every singular value is there twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from normconstraints import _array, _host, _linalg
from normconstraints._array import Array
from normconstraints._groups import Groups
from normconstraints._norms import power_of_two
from normconstraints._parameters import Number
from normconstraints._search import Search

STEPS = 128
"""Decompositions, as measured to be enough; what sees its values stops when nothing is left."""
_SIGMA = 10.0, 3.0, 1e6
"""What multipliers are divided by, what by that grows when the second method fails, and its end."""
_HELD = 2.0**-10, 2.0**-3, 2.0**-31
"""The same for the distance from the last kernel, relative to that from the weight.

Of a weight that is longer than the bound by more than this tells, the rest is a matter of proximal
steps.
"""
_NEAR = 0.05
"""The relative length of a step after which the second method takes over."""
_PATIENCE = 6.0
"""Steps without progress after which it hands back."""
_DENSE = 256
"""Up to so many entries the systems are solved as a whole."""
_ROUNDS = 64
"""Of conjugate gradients, for larger kernels."""


class Kernel:
    """One kernel, the whole of a weight, and its convolution on a grid."""

    def __init__(self, w: Array, spatial: tuple[int, ...], roles: str, owner: str) -> None:
        """Check the shape; a kernel with NaN or infinity counts as zero."""
        if w.ndim != len(roles):
            raise ValueError(
                f"{owner}: w must have {len(roles)} axes, one for each letter of roles={roles!r}, "
                f"got shape {tuple(w.shape)}"
            )
        self.groups = groups = Groups(w, None, owner)
        self.xp = xp = groups.xp
        space = [i for i, role in enumerate(roles) if role == "s"]
        self.order = (roles.index("o"), roles.index("i"), *space)
        self.sizes = tuple(w.shape[i] for i in self.order)
        if any(n > m for n, m in zip(self.sizes[2:], spatial, strict=True)):
            raise ValueError(
                f"{owner}: spatial must be at least as large as the kernel along every axis, got "
                f"spatial={spatial} for a kernel of {self.sizes[2:]}"
            )
        self.out, self.into = self.sizes[:2]
        self.points = math.prod(self.sizes[2:])
        self.count = math.prod(spatial)
        self._spatial = spatial
        self.eps = float(xp.finfo(groups.precision.accumulator).eps)

    @property
    def empty(self) -> bool:
        """Whether there is nothing of which a norm could be taken."""
        return 0 in self.sizes

    # ------------------------------------------------------------------------------ the transform

    def prepare(self) -> None:
        """Take the transform as matrices of cosines and sines, from frequencies to points.

        Of two frequencies whose matrices are conjugates of each other only one is taken, with twice
        the weight, as far as the last axis tells which.
        """
        xp, groups = self.xp, self.groups

        def constant(values: Any) -> Array:
            return _array.like(values, groups.w, xp, groups.precision.accumulator, groups.owner)

        scale = self.count**-0.5
        re, im = constant(((scale,),)), constant(((0.0,),))
        weight = constant((1.0,))
        last = len(self._spatial) - 1
        for axis, (n, k) in enumerate(zip(self._spatial, self.sizes[2:], strict=True)):
            rows = n // 2 + 1 if axis == last else n
            angles = [[2 * math.pi * (f * x % n) / n for x in range(k)] for f in range(rows)]
            c = constant(tuple(tuple(math.cos(a) for a in row) for row in angles))
            s = constant(tuple(tuple(math.sin(a) for a in row) for row in angles))
            shape = (re.shape[0] * rows, re.shape[1] * k)
            a, b = re[:, None, :, None], im[:, None, :, None]
            c, s = c[None, :, None, :], s[None, :, None, :]
            re, im = xp.reshape(a * c - b * s, shape), xp.reshape(a * s + b * c, shape)
            own = tuple(2.0 if axis == last and 0 < 2 * f < n else 1.0 for f in range(rows))
            weight = xp.reshape(weight[:, None] * constant(own)[None, :], (shape[0],))
        self.re, self.im = re, im
        self.weight = weight[:, None, None]

    def transformed(self, k: Array) -> Array:
        """The matrices of kernels (..., matrix, point), each a real one of twice the size."""
        xp = self.xp
        re, im = self._by_frequency(k, self.re), self._by_frequency(k, -self.im)
        top, low = xp.concat([re, -im], axis=-1), xp.concat([im, re], axis=-1)
        return xp.concat([top, low], axis=-2)

    def _by_frequency(self, k: Array, m: Array) -> Array:
        xp, lead = self.xp, tuple(k.shape[:-2])
        rows = math.prod(lead) * self.out * self.into
        y = _linalg.product(xp.reshape(k, (rows, self.points)), xp.matrix_transpose(m), xp)
        y = xp.matrix_transpose(xp.reshape(y, (*lead, self.out * self.into, m.shape[0])))
        return xp.reshape(y, (*lead, m.shape[0], self.out, self.into))

    def back(self, y: Array) -> Array:
        """The adjoint: kernels of matrices."""
        o, i = self.out, self.into
        re = 0.5 * self.weight * (y[..., :o, :i] + y[..., o:, i:])
        im = 0.5 * self.weight * (y[..., o:, :i] - y[..., :o, i:])
        return self._by_point(re, self.re) - self._by_point(im, self.im)

    def _by_point(self, y: Array, m: Array) -> Array:
        xp, lead = self.xp, tuple(y.shape[:-3])
        y = xp.reshape(y, (*lead, m.shape[0], self.out * self.into))
        rows = math.prod(lead) * self.out * self.into
        y = xp.reshape(xp.matrix_transpose(y), (rows, m.shape[0]))
        return xp.reshape(_linalg.product(y, m, xp), (*lead, self.out * self.into, self.points))

    def largest(self, k: Array) -> Array:
        """The largest singular value of the matrices of one kernel."""
        # torch's singular values alone are rounded otherwise where something looks on.
        return self.xp.max(_linalg.svd(self.transformed(k), self.xp)[1])

    # --------------------------------------------------------------------------------- the weight

    def flat(self, x: Array) -> Array:
        """An array of the shape of the weight as one row for each pair of channels."""
        x = self.xp.permute_dims(x, self.order)
        return self.xp.reshape(x, (self.out * self.into, self.points))

    def unflat(self, x: Array) -> Array:
        """What `flat` made, in the shape of the weight again."""
        x = self.xp.reshape(x, self.sizes)
        order = tuple(self.order.index(i) for i in range(len(self.order)))
        return self.xp.permute_dims(x, order)

    def _measured(self, radius: Number) -> tuple[Array, Array, Any, Any]:
        """The kernel times a power of two, its norm, the bound in that scale, and the power."""
        groups, xp = self.groups, self.xp
        self.prepare()
        y = xp.where(groups.finite, groups.wide, xp.zeros_like(groups.wide))
        scale = power_of_two(y, groups.axes, xp, groups.precision)
        x = self.flat(y * scale)
        scale = xp.reshape(scale, ())
        bound = groups.number(radius, "radius")
        bound = bound if isinstance(bound, float) else xp.reshape(bound, ())
        return x, self.largest(x) * self.count**0.5, bound * scale, scale

    def _outside(self, norm: Array, bound: Any) -> Array:
        p, size = self.groups.precision, self.groups.size
        slack = _array.tolerance(p.eps, size, wide=p.wide is not None, decomposed=True) / 2
        return norm - bound > slack * norm

    def violation(self, radius: Number) -> Array:
        """How far the norm is above the bound."""
        groups, xp = self.groups, self.xp
        with _array.quiet(xp):
            if self.empty:
                zero = xp.sum(groups.wide, axis=groups.axes, keepdims=True)
                return groups.report(zero, zero > 0)
            _, norm, bound, scale = self._measured(radius)
            amount = xp.reshape((norm - bound) / scale, groups.reduced)
            floor = groups.quantum * max(groups.size, 1) ** 0.5
            outside = xp.reshape(self._outside(norm, bound), groups.reduced)
            return groups.report(amount, outside & (amount > floor))

    def nearest(self, radius: Number) -> Array:
        """The nearest kernel with a norm of at most the bound."""
        groups, xp = self.groups, self.xp
        with _array.quiet(xp):
            outside = xp.reshape(self.violation(radius), groups.reduced) > 0
            library = _array.host_library(groups.w)
            if library is not None and not _host.count(outside, library):
                return _array.copy(groups.w, xp)
            x, norm, bound, scale = self._measured(radius)
            k = self._solved(x, norm, bound, library).found
            # What is left of a step that was not the last, and of rounding.
            largest = self.largest(k)
            k = k / xp.where(largest > 1, largest * (1 + 2 * self.eps), 1.0)
            k = k * (bound / scale * self.count**-0.5)
            return groups.put_back(self.unflat(k), outside)

    def pulled_back(self, radius: Number, g: Array) -> Array:
        """The product of a gradient with the Jacobian of the projection, which is symmetric."""
        groups, xp = self.groups, self.xp
        with _array.quiet(xp):
            outside = xp.reshape(self.violation(radius), groups.reduced) > 0
            x, norm, bound, _ = self._measured(radius)
            at = self._solved(x, norm, bound, _array.host_library(groups.w))
            share = self._share(norm, bound)
            system = _System(self, self.transformed(at.found) + at.found_multipliers / _SIGMA[0])
            h = self.flat(groups.widen(g))
            # The exact weights are infinite. With mu added the result is off by a multiple of mu,
            # which two of them tell, and rounding by one of eps / mu.
            mu = self.eps ** (1 / 3)
            near, far = (
                system.solved(share * h, share + self.eps, weights, 4 * _ROUNDS, _SIGMA[0])
                for weights in (_softened(system, mu), _softened(system, 2 * mu))
            )
            found = 2 * near - far
            found = _array.cast(self.unflat(found), g.dtype, xp)
            return xp.where(outside & groups.finite, found, g)

    # ------------------------------------------------------------------------------ the iteration

    def _share(self, norm: Array, bound: Any) -> Array:
        """The bound relative to the norm, 1 for a kernel inside."""
        xp = self.xp
        share = bound / xp.where(norm > 0, norm, 1.0)
        return xp.where(share < 1, share, xp.ones_like(share))

    def _solved(self, x: Array, norm: Array, bound: Any, library: str | None) -> _State:
        xp = self.xp
        length = norm * self.count**-0.5
        unit = x / xp.where(length > 0, length, 1.0)
        share = self._share(norm, bound)
        zero = xp.zeros_like(share)
        blank = xp.zeros_like(self.transformed(unit))
        start = _State(
            done=zero,
            first=zero + 1.0,
            k=unit,
            multipliers=blank,
            way=xp.zeros_like(unit),
            search=Search.begun(zero),
            base=unit,
            mu=zero + 1.0,
            last=zero + math.inf,
            best=zero + math.inf,
            wait=zero,
            sigma=zero + _SIGMA[0],
            held=zero + _HELD[0],
            found_error=zero + math.inf,
            found=unit,
            found_multipliers=blank,
        )

        def turn(state: _State) -> _State:
            return self._turned(state, unit, share)

        def over(state: _State) -> Array:
            return state.done > 0

        found: _State = _array.repeat(turn, start, STEPS, xp, over, library)
        return found

    def _turned(self, at: _State, unit: Array, share: Array) -> _State:
        """One decomposition, and what either method makes of it."""
        xp = self.xp
        first = at.first > 0
        held = xp.where(share > at.held, share, at.held)
        k = at.k + at.search.step * at.way
        matrices = self.transformed(k)
        system = _System(self, matrices + at.multipliers / at.sigma)
        new_multipliers = at.sigma * system.excess

        # The method of multipliers: the gradient, and whether the step was right.
        gradient = held * k - (held - share) * at.base - unit + self.back(new_multipliers)
        slope = xp.sum(gradient * at.way)
        good = at.search.found(slope)

        # Both equations.
        off = matrices - (system.v - system.excess)
        rest = share * k - unit + self.back(at.multipliers)
        error = self._length(rest) / self._length(unit)
        error_off = xp.sqrt(0.5 * xp.sum(self.weight * off * off)) / self._length(k)
        error = xp.where(error_off > error, error_off, error)
        better = error < 0.7 * at.best
        wait = xp.where(better, xp.zeros_like(error), at.wait + 1.0)
        precise = at.best < 512 * self.eps
        done = ~first & ((error <= 2 * self.eps) | (precise & (wait > 2)))
        failed = ~first & ~done & (wait > _PATIENCE)
        mu = xp.where(error < at.last, at.mu, 4.0 * at.mu)
        mu = xp.where(error < at.last / 2, 0.2 * at.mu, mu)
        least = 64 * self.eps
        mu = xp.where(mu > 1, 1.0, xp.where(mu < least, least, mu))

        # One system serves both, with other weights.
        inverse = system.weights(lambda d: 1 / (d + mu))
        weights = system.weights(lambda d: (1 - d) / xp.where(first, xp.ones_like(d), d + mu))
        undone = system.applied(off, inverse)
        right = xp.where(first, gradient, rest + at.sigma * self.back(undone))
        way = -system.solved(right, held, weights, _ROUNDS, at.sigma)
        fall = xp.sum(gradient * way)
        near = self._length(way) <= _NEAR * self._length(k)
        change = system.applied(self.transformed(way), weights) + undone

        arrived = first & good & near
        step = first & ~arrived  # goes on along a way
        jump = ~first & ~failed
        none = xp.zeros_like(error)
        kept = xp.where(failed, at.found, xp.where(first & ~good, at.k, k))
        multipliers = xp.where(arrived, new_multipliers, at.multipliers)
        multipliers = xp.where(jump, at.multipliers + at.sigma * change, multipliers)
        multipliers = xp.where(failed, at.found_multipliers, multipliers)
        fresh = arrived | failed | ~first
        smaller = error < at.found_error
        found = (at.done == 0) & xp.where(first, good & (at.found_error == math.inf), smaller)
        following = at.search.following(slope, xp.where(fresh, none, fall), good | fresh, xp)
        return _State(
            done=xp.where(done, none + 1.0, at.done),
            first=xp.where(arrived, none, xp.where(failed, none + 1.0, at.first)),
            k=xp.where(jump, k + way, kept),
            multipliers=multipliers,
            way=xp.where(step, xp.where(good, way, at.way), xp.zeros_like(way)),
            search=following,
            base=xp.where(arrived, k, at.base),
            mu=xp.where(first, none + 1.0, mu),
            last=xp.where(first, none + math.inf, error),
            best=xp.where(first, none + math.inf, xp.where(better, error, at.best)),
            wait=xp.where(first, none, wait),
            sigma=self._after(failed, at.sigma, _SIGMA),
            held=self._after(failed, at.held, _HELD),
            found_error=xp.where(found & ~first, error, at.found_error),
            found=xp.where(found, k, at.found),
            found_multipliers=xp.where(found, at.multipliers, at.found_multipliers),
        )

    def _after(self, failed: Array, value: Array, rule: tuple[float, float, float]) -> Array:
        """What is changed after every failure, up to its end."""
        grown = value * rule[1]
        ended = (grown > rule[2]) if rule[1] > 1 else (grown < rule[2])
        return self.xp.where(failed & ~ended, grown, value)

    def _length(self, k: Array) -> Array:
        return self.xp.sqrt(self.xp.sum(k * k))


class _State(NamedTuple):
    """How far it is."""

    done: Array
    first: Array
    """1 for the method of multipliers, 0 for both equations at once."""
    k: Array
    multipliers: Array
    way: Array
    search: Search
    base: Array
    """Where the method of multipliers came to last."""
    mu: Array
    last: Array
    best: Array
    wait: Array
    sigma: Array
    """What multipliers are divided by."""
    held: Array
    """How much of the distance from the last kernel counts, at least."""
    """Steps since the error was smaller than ever."""
    found_error: Array
    found: Array
    """The kernel that is nearest to fulfilling both equations."""
    found_multipliers: Array


def _softened(system: _System, mu: float) -> _Weights:
    return system.weights(lambda d: (1 - d) / (d + mu))


_Weights: TypeAlias = tuple[Array, Array, Array]
"""Factors in the singular vectors: of the symmetric part, of the skew one, and of the rest."""


class _System:
    """The derivative of the projection onto the matrices without singular values above 1."""

    def __init__(self, owner: Kernel, v: Array) -> None:
        self.owner, self.xp, self.v = owner, owner.xp, v
        xp = self.xp
        u, y, vh = _linalg.svd(v, xp)
        self.u, self.vh = u, vh
        self.uh, self.right = xp.matrix_transpose(u), xp.matrix_transpose(vh)
        above = y > 1
        over = xp.where(above, y - 1, xp.zeros_like(y))
        self.excess = _linalg.product(u * over[..., None, :], vh, xp)
        """What the projection takes away."""
        f = xp.where(above, xp.ones_like(y), y)
        free = ~above
        both = free[..., None] & free[..., None, :]
        neither = above[..., None] & above[..., None, :]
        run = y[..., None] - y[..., None, :]
        slope = (f[..., None] - f[..., None, :]) / xp.where(run == 0, 1.0, run)
        slope = xp.where(both, 1.0, xp.where(neither, xp.zeros_like(slope), slope))
        whole = y[..., None] + y[..., None, :]
        mean = (f[..., None] + f[..., None, :]) / xp.where(whole == 0, 1.0, whole)
        mean = xp.where(both, 1.0, mean)
        alone = xp.where(above, 1.0 / xp.where(above, y, xp.ones_like(y)), xp.ones_like(y))
        self._derivative = (slope, mean, alone)

    def weights(self, of: Callable[[Array], Array]) -> _Weights:
        """A function of the derivative, which is a self-adjoint operator."""
        a, b, c = self._derivative
        return of(a), of(b), of(c)

    def applied(self, x: Array, weights: _Weights) -> Array:
        """Such a function times matrices."""
        xp = self.xp
        left = _linalg.product(self.uh, x, xp)
        m = _linalg.product(left, self.right, xp)
        t = xp.matrix_transpose(m)
        core = weights[0] * (0.5 * (m + t)) + weights[1] * (0.5 * (m - t))
        found = _linalg.product(_linalg.product(self.u, core, xp), self.vh, xp)
        if self.owner.out > self.owner.into:
            rest = _linalg.product(x, self.right, xp) - _linalg.product(self.u, m, xp)
            return found + _linalg.product(rest * weights[2][..., None, :], self.vh, xp)
        if self.owner.out < self.owner.into:
            rest = left - _linalg.product(m, self.vh, xp)
            return found + _linalg.product(self.u, rest * weights[2][..., None], xp)
        return found

    def solved(
        self, right: Array, least: Array, weights: _Weights, rounds: int, sigma: Any
    ) -> Array:
        """The kernel K with ``least K + sigma A* W A K`` as given, for weights W.

        Of large kernels by conjugate gradients, in so many rounds.
        """
        xp, owner = self.xp, self.owner

        def system(k: Array) -> Array:
            return least * k + sigma * owner.back(self.applied(owner.transformed(k), weights))

        shape = tuple(right.shape)
        size = math.prod(shape)
        if size <= _DENSE:
            flat = xp.reshape(right, (size,))
            place = _array.places(xp.ones_like(flat), 0, xp)
            unit = xp.astype(place[:, None] == place[None, :], right.dtype)
            matrix = xp.reshape(system(xp.reshape(unit, (size, *shape))), (size, size))
            return xp.reshape(_linalg.solve(matrix, flat[:, None], xp), shape)

        return _linalg.conjugate_gradients(system, right, rounds, xp)
