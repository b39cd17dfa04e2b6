"""Minimising a smooth function over a set, in plain loops, for arrays of any library.

For the problems of scientific computing rather than for training: the function is evaluated whole,
its values are compared in Python, and each iteration waits for its result. The sets are those of
this library, so that "least squares with non-negative coefficients that sum to 1" is a function of
three lines and ``Simplex()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints.as_matrix import AsMatrix
from normconstraints.constraint import Constraint, Convex, HasLMO
from normconstraints.modes import lmo

__all__ = ["Function", "Result", "frank_wolfe", "projected_gradient"]

Function: TypeAlias = Callable[[Array], tuple[Any, Array]]
"""The value at an array (a number, or 0-d) and the gradient, an array like it."""

_CONVERGED, _LIMIT, _STOPPED, _STUCK = range(4)
_MESSAGES = {
    _CONVERGED: "The optimality is below the tolerance.",
    _LIMIT: "The limit of iterations was reached.",
    _STOPPED: "The callback raised StopIteration.",
    _STUCK: "No step makes progress beyond rounding.",
}


@dataclass(frozen=True)
class Result:
    """What a minimisation found; the names are those of `scipy.optimize.OptimizeResult`."""

    x: Array
    """The last member of the set."""
    fun: float
    """The value there."""
    jac: Array
    """The gradient there."""
    optimality: float
    """How far from a minimiser it may be: see the function that returned it."""
    nit: int
    """Iterations."""
    nfev: int
    """Evaluations of value and gradient."""
    status: int
    """0 for success, 1 where the limit was reached, 2 where the callback ended it, 3 where rounding
    ended it."""

    @property
    def success(self) -> bool:
        """Whether the optimality is below the tolerance."""
        return self.status == _CONVERGED

    @property
    def message(self) -> str:
        """The status in words."""
        return _MESSAGES[self.status]


def projected_gradient(
    fun_and_grad: Function,
    x0: Array,
    constraint: Constraint,
    *,
    tol: float | None = None,
    max_iter: int = 10_000,
    step: float = 1.0,
    callback: Callable[[Result], object] | None = None,
) -> Result:
    r"""Minimise a smooth function over a set by steps along the gradient, each projected.

    Accelerated, with steps that adapt themselves. For a set that is not `Convex` the steps are not
    accelerated, and what is found is a point from which no short step leads down.

    Parameters
    ----------
    fun_and_grad : callable
        Takes an array like `x0`, always a member of the set or near it, and returns the value and
        the gradient. For complex arrays the gradient is g with
        :math:`f(x + d) \approx f(x) + \mathrm{Re} \langle g, d \rangle`.
    x0 : array
        Where to begin. It is projected first, and not changed.
    constraint : Constraint
        The set. Its axes are those of the array, so that one call can solve many problems at once,
        as long as their values are summed.
    tol : float, optional
        Stop when `Result.optimality`, the norm of the projected gradient
        :math:`\| x - P(x - s \nabla f(x)) \| / s` for a step s, is at most this times the larger of
        1 and the norm of the first gradient. The square root of the dtype's eps if left out.
    max_iter : int, default 10_000
        The largest number of iterations, each of which evaluates the function twice or a few times
        more.
    step : float, default 1.0
        The first step to try. A wrong one costs a few evaluations.
    callback : callable, optional
        Called with a `Result` after each iteration; to raise StopIteration in it ends the search.

    Returns
    -------
    Result
        Its `x` is in the set.

    Raises
    ------
    TypeError
        If `x0` is no array of floating point, or the gradient is of another library or dtype.
    ValueError
        If a number is out of its range, the gradient has another shape, or the value or gradient is
        not finite where the search begins.

    Notes
    -----
    FISTA with backtracking, restarted whenever its momentum points uphill. Values that differ by
    rounding only do not decide whether a step is short enough, gradients do then.

    References
    ----------
    A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems", SIAM J. Imaging Sci. 2 (2009).
    B. O'Donoghue, E. Candès, "Adaptive restart for accelerated gradient schemes", Found. Comput.
    Math. 15 (2015).
    S. Becker, E. Candès, M. Grant, "Templates for convex cone problems with applications to sparse
    signal recovery", Math. Program. Comput. 3 (2011), for the test of the step by gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints.optimize import projected_gradient
    >>> a, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    >>> def least_squares(x):
    ...     r = a @ x - b
    ...     return r @ r / 2, a.T @ r
    >>> result = projected_gradient(least_squares, np.zeros(2), nc.NonNeg(), tol=1e-10)
    >>> result.success, result.x.round(6)
    (True, array([1., 0.]))
    """
    problem = _Problem("projected_gradient", fun_and_grad, x0, constraint, tol, max_iter, callback)
    if not 0 < step < math.inf:
        raise ValueError(
            f"projected_gradient: step must be a positive number, got {step!r}; it is the first to "
            "be tried, 1.0 serves for most"
        )
    curvature, momentum = 1 / step, 1.0
    here = ahead = problem.first
    for nit in range(1, problem.max_iter + 1):
        last, curvature = curvature, 0.9 * curvature
        new, way, length = _step(problem, ahead, curvature)
        while length > problem.rounding(new) and not problem.is_bounded(ahead, new, way, curvature):
            curvature *= 2
            new, way, length = _step(problem, ahead, curvature)
        moved = new.x - here.x
        here = new
        optimality = curvature * length
        if optimality <= problem.goal:  # seen from `ahead`, so look again
            optimality = problem.optimality(here, 1 / curvature)
        if optimality <= problem.goal:
            return problem.end(here, optimality, nit, _CONVERGED)
        if problem.is_stopped(here, optimality, nit):
            return problem.end(here, optimality, nit, _STOPPED)
        if max(length, problem.norm(moved)) <= problem.rounding(here):
            return problem.end(here, problem.optimality(here, 1 / curvature), nit, _STUCK)
        # Not by the class: a set of matrices is as convex for a kernel. Nor are rounds of Dykstra a
        # projection that momentum can trust.
        convex = constraint._can(Convex) and getattr(constraint, "exact", True)
        if not convex or problem.dot(way, moved) < 0:
            momentum, ahead = 1.0, here
        else:
            grown = (1 + math.sqrt(1 + 4 * momentum**2 * curvature / last)) / 2
            ahead = problem.at(here.x + moved * ((momentum - 1) / grown))
            momentum = grown
    return problem.end(here, problem.optimality(here, 1 / curvature), max_iter, _LIMIT)


def frank_wolfe(
    fun_and_grad: Function,
    x0: Array,
    constraint: HasLMO | AsMatrix,
    *,
    tol: float | None = None,
    max_iter: int = 10_000,
    callback: Callable[[Result], object] | None = None,
) -> Result:
    r"""Minimise a smooth convex function over a bounded convex set by steps towards extreme points.

    Each iterate is a mean of few extreme points: of few entries on a `Simplex` or `L1Ball`. Slower
    than `projected_gradient` where exact answers are wanted.

    Parameters
    ----------
    fun_and_grad, x0, max_iter, callback
        As for `projected_gradient`.
    constraint : HasLMO
        A set whose linear minimiser is known, convex.
    tol : float, optional
        Stop when `Result.optimality`, here the gap
        :math:`\max_{v \in C} \langle \nabla f(x), x - v \rangle`, is at most this times the
        larger of 1 and the first gap. A convex function is above its minimum by at most the gap.
        The square root of the dtype's eps if left out.

    Returns
    -------
    Result
        Its `x` is in the set.

    Raises
    ------
    TypeError, ValueError
        As `projected_gradient`, and if `constraint` has no linear minimiser or is not convex.

    Notes
    -----
    Steps adapt themselves to the curvature that is met on the way.

    References
    ----------
    M. Jaggi, "Revisiting Frank-Wolfe: projection-free sparse convex optimization", ICML 2013.
    F. Pedregosa, G. Negiar, A. Askari, M. Jaggi, "Linearly convergent Frank-Wolfe with backtracking
    line-search", AISTATS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints.optimize import frank_wolfe
    >>> goal = np.array([0.5, 0.8, -1.0])
    >>> def distance(x):
    ...     return (x - goal) @ (x - goal) / 2, x - goal
    >>> frank_wolfe(distance, np.zeros(3), nc.Simplex(axis=0), tol=1e-4).x.round(3)
    array([0.35, 0.65, 0.  ])
    """
    problem = _Problem("frank_wolfe", fun_and_grad, x0, constraint, tol, max_iter, callback)
    if not constraint._can(Convex):
        raise TypeError(
            f"frank_wolfe: constraint must be convex, got {constraint!r}; a mean of its members is "
            "none of them"
        )
    here, curvature, goal, gap = problem.first, 1.0, math.inf, math.inf
    for nit in range(1, problem.max_iter + 1):
        toward = problem.corner(constraint, here) - here.x
        gap, square = -problem.dot(here.grad, toward), problem.dot(toward, toward)
        if nit == 1:
            goal = problem.tol * max(1.0, gap)
        if gap <= goal:
            return problem.end(here, max(gap, 0.0), nit - 1, _CONVERGED)
        curvature *= 0.9
        while True:
            share = min(1.0, gap / (curvature * square))
            way = toward * share
            # Its rounding must not lead out of the set.
            new = problem.at(constraint.project(here.x + way))
            short = share * math.sqrt(square) <= problem.rounding(new)
            if short or problem.is_bounded(here, new, way, curvature):
                break
            curvature *= 2
        if short:
            return problem.end(here, gap, nit, _STUCK)
        here = new
        if problem.is_stopped(here, gap, nit):
            return problem.end(here, gap, nit, _STOPPED)
    return problem.end(here, gap, max_iter, _LIMIT)


@dataclass(frozen=True)
class _Point:
    x: Array
    value: float
    grad: Array


class _Problem:
    """A function and a set, with what is asked of both."""

    first: _Point
    goal: float
    tol: float
    max_iter: int
    _evaluations: int

    def __init__(
        self,
        owner: str,
        fun_and_grad: Function,
        x0: Array,
        constraint: Constraint,
        tol: float | None,
        max_iter: int,
        callback: Callable[[Result], object] | None,
    ) -> None:
        self._owner, self._function, self._callback = owner, fun_and_grad, callback
        self._constraint = constraint
        if not isinstance(constraint, Constraint):
            raise TypeError(
                f"{owner}: constraint must be a normconstraints.Constraint, got {constraint!r}"
            )
        self._xp: Namespace = _array.namespace(x0, owner)
        self._precision = _array.precision(x0, self._xp, owner)
        self._eps = self._precision.eps
        if isinstance(max_iter, bool) or not isinstance(max_iter, Integral) or max_iter < 1:
            raise ValueError(
                f"{owner}: max_iter must be an integer of at least 1, got {max_iter!r}"
            )
        self.max_iter = int(max_iter)
        self.tol = math.sqrt(self._eps) if tol is None else tol
        if not 0 <= self.tol < math.inf:
            raise ValueError(
                f"{owner}: tol must be a number of at least 0, got {tol!r}; 0 goes on until "
                "nothing but rounding moves"
            )
        self._evaluations = 0
        self.first = self.at(constraint.project(x0))
        if not math.isfinite(self.first.value + self.norm(self.first.grad)):
            raise ValueError(
                f"{owner}: fun_and_grad must be finite where the search begins, got the value "
                f"{self.first.value} and a gradient of norm {self.norm(self.first.grad)}; begin "
                "elsewhere"
            )
        self.goal = self.tol * max(1.0, self.norm(self.first.grad))

    def at(self, x: Array) -> _Point:
        """The function at a point."""
        self._evaluations += 1
        value, grad = self._function(x)
        if (
            type(grad) is not type(x)
            or grad.dtype != x.dtype
            or tuple(grad.shape) != tuple(x.shape)
        ):
            raise TypeError(
                f"{self._owner}: fun_and_grad must return the value and a gradient of the type, "
                f"dtype and shape of x ({_kind(x)}), got {_kind(grad)}"
            )
        # A number that autograd still follows warns when it is read.
        return _Point(x, float(value.detach() if hasattr(value, "detach") else value), grad)

    def dot(self, a: Array, b: Array) -> float:
        """The real inner product over all entries, in the dtype that measures."""
        xp, p = self._xp, self._precision
        with _array.quiet(xp), _array.unrecorded(xp):
            product = xp.real(xp.conj(a) * b) if p.is_complex else a * b
            return float(xp.sum(_array.cast(product, p.accumulator, xp)))

    def norm(self, a: Array) -> float:
        """The Euclidean norm over all entries."""
        return math.sqrt(self.dot(a, a))

    def rounding(self, point: _Point) -> float:
        """The length below which a step from a point is nothing but rounding."""
        return self._eps * self.norm(point.x)

    def projected(self, point: _Point, step: float) -> Array:
        """The step against the gradient, projected."""
        with _array.unrecorded(self._xp):
            return self._constraint.project(point.x - point.grad * step)

    def corner(self, constraint: HasLMO | AsMatrix, point: _Point) -> Array:
        """The member of the set that is furthest against the gradient."""
        with _array.unrecorded(self._xp):
            return lmo(constraint, point.grad)

    def optimality(self, point: _Point, step: float) -> float:
        """The norm of the projected gradient."""
        return self.norm(point.x - self.projected(point, step)) / step

    def is_bounded(self, a: _Point, b: _Point, way: Array, curvature: float) -> bool:
        """Whether the function stays below a parabola of that curvature from `a` to `b`."""
        bend = curvature / 2 * self.dot(way, way)
        if not math.isfinite(b.value):
            return False
        noise = 1e4 * self._eps * max(abs(a.value), abs(b.value))
        if abs(b.value - a.value) > noise:
            return b.value <= a.value + self.dot(a.grad, way) + bend
        # The same for a convex function, by numbers that do not cancel.
        return self.dot(b.grad - a.grad, way) <= bend

    def is_stopped(self, point: _Point, optimality: float, nit: int) -> bool:
        """Whether the callback ends the search."""
        if self._callback is None:
            return False
        try:
            self._callback(self.end(point, optimality, nit, _LIMIT))
        except StopIteration:
            return True
        return False

    def end(self, point: _Point, optimality: float, nit: int, status: int) -> Result:
        """The result at a point."""
        return Result(point.x, point.value, point.grad, optimality, nit, self._evaluations, status)


def _step(problem: _Problem, point: _Point, curvature: float) -> tuple[_Point, Array, float]:
    new = problem.at(problem.projected(point, 1 / curvature))
    way = new.x - point.x
    return new, way, problem.norm(way)


def _kind(x: Any) -> str:
    shape = getattr(x, "shape", None)
    return f"{type(x).__name__} {getattr(x, 'dtype', '')} {'' if shape is None else tuple(shape)}"
