"""What any constraint can do: free functions that never look inside a set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normconstraints import _array
from normconstraints._array import Array
from normconstraints._norms import measure
from normconstraints._parameters import check_count
from normconstraints._random import Draw
from normconstraints.constraint import Constraint, HasDualNorm, HasLMO, HasSample, HasTangent

if TYPE_CHECKING:  # it can what its constraint can, and stands above this module
    from normconstraints.as_matrix import AsMatrix


def distance(constraint: Constraint, w: Array) -> Array:
    r"""The Euclidean distance of `w` from the set, :math:`\|w - P(w)\|_2` over all entries.

    Parameters
    ----------
    constraint : Constraint
        The set.
    w : array
        As for the call of the constraint.

    Returns
    -------
    array
        0-d, real, of the precision of `w`. NaN if a group that holds NaN or infinity is left as it
        is; infinity if the distance is too large for the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> round(float(nc.distance(nc.MaxNorm(1.0, axis=0), np.array([3.0, 4.0]))), 6)
    4.0
    """
    xp = _array.namespace(w, "distance")
    with _array.quiet(xp):
        offset = w - constraint.project(w)
        precision = _array.precision(offset, xp, "distance")
        norms = measure(offset, tuple(range(w.ndim)), xp, precision)
        return xp.reshape(_array.cast(norms.length, precision.real, xp), ())


def penalty(constraint: Constraint, w: Array) -> Array:
    r"""Half the squared distance from the set, :math:`\frac{1}{2} \|w - P(w)\|_2^2`, for a loss.

    Parameters
    ----------
    constraint : Constraint
        The set.
    w : array
        As for the call of the constraint.

    Returns
    -------
    array
        0-d, real. float32 or wider for half precision, whose range the square would leave; else of
        the precision of `w`.

    Notes
    -----
    Its gradient is ``w - P(w)``, the step from the set to `w`. Training with it pulls the weights
    towards the set and never quite puts them there.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> round(float(nc.penalty(nc.MaxNorm(1.0, axis=0), np.array([3.0, 4.0]))), 6)
    8.0
    """
    xp = _array.namespace(w, "penalty")
    with _array.quiet(xp):
        offset = w - constraint.project(w)
        precision = _array.precision(offset, xp, "penalty")
        if precision.eps > 1e-6:
            offset = xp.astype(offset, xp.float32)
        squares = offset * offset
        if precision.is_complex:
            squares = xp.real(offset) ** 2 + xp.imag(offset) ** 2
        return xp.reshape(_array.accurate_sum(squares, tuple(range(w.ndim)), xp) / 2, ())


def is_satisfied(constraint: Constraint, w: Array, *, atol: float = 0.0) -> Array:
    """Whether every group of `w` is in the set.

    Parameters
    ----------
    constraint : Constraint
        The set.
    w : array
        As for the call of the constraint.
    atol : float, default 0.0
        The violation, in the units of the weights, that still counts as inside. Without it inside
        means what the projection leaves alone.

    Returns
    -------
    array
        0-d and boolean. False if a violation is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> bool(nc.is_satisfied(nc.MaxNorm(5.0, axis=0), np.array([3.0, 4.0])))
    True
    """
    if not (isinstance(atol, float | int) and 0 <= atol < math.inf):
        raise ValueError(f"is_satisfied: atol must be a finite number >= 0, got {atol!r}")
    xp = _array.namespace(w, "is_satisfied")
    return xp.all(constraint.violation(w) <= atol)


def lmo(constraint: HasLMO | AsMatrix, g: Array) -> Array:
    r"""The linear minimiser over the set, :math:`\arg\min_{v \in C} \langle g, v \rangle`.

    What Frank-Wolfe and norm-constrained optimisers ask of a set instead of a projection.

    Parameters
    ----------
    constraint : HasLMO
        A bounded set, most of the sets here; others raise.
    g : array
        The gradient, of the shape of the weight.

    Returns
    -------
    array
        A member of the set with the smallest inner product with `g`, group by group (for complex
        numbers the real part of it). Of the type, dtype, shape and device of `g`. Where several are
        as good, the one that the lowest index gives. A group that holds NaN or infinity comes back
        as it is.

    Raises
    ------
    TypeError
        If the set has no minimiser in closed form.
    ValueError
        If the set is not bounded for its parameters.

    References
    ----------
    M. Jaggi, "Revisiting Frank-Wolfe", ICML 2013. T. Pethick et al., "Training deep learning models
    with norm-constrained LMOs", ICML 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> nc.lmo(nc.L1Ball(2.0, axis=0), np.array([1.0, -3.0, 2.0]))
    array([0., 2., 0.])
    """
    name = _owner(constraint, HasLMO, "lmo", "no linear minimiser in closed form")
    xp = _array.namespace(g, name)
    constraint._precision(g, xp)
    if 0 in g.shape:
        constraint.violation(g)  # so that a wrong axis is an error here too
        return _array.copy(g, xp)
    with _array.quiet(xp):
        return _array.as_array(constraint._lmo(g, xp), g, xp)


def dual_norm(constraint: HasDualNorm | AsMatrix, g: Array) -> Array:
    r"""The dual of the norm whose ball the set is, :math:`\max_{\|v\| \le 1} \langle g, v \rangle`.

    Times the radius it is the support function of the set: ``-radius * dual_norm(c, g)`` is the
    inner product of `g` with ``lmo(c, g)``.

    Parameters
    ----------
    constraint : HasDualNorm
        A ball of a norm, of whatever radius.
    g : array
        Of the shape of the weight.

    Returns
    -------
    array
        One real number for each group, NaN where the group holds NaN or infinity.

    Raises
    ------
    TypeError
        If the set is no ball of a norm.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> float(nc.dual_norm(nc.L1Ball(2.0, axis=0), np.array([1.0, -3.0, 2.0])))
    3.0
    """
    name = _owner(constraint, HasDualNorm, "dual_norm", "no norm")
    xp = _array.namespace(g, name)
    constraint._precision(g, xp)
    with _array.quiet(xp):
        return constraint._dual_norm(g, xp)


def tangent(constraint: HasTangent | AsMatrix, w: Array, g: Array) -> Array:
    r"""The gradient without its component that leaves the set.

    With T the tangent cone of the set at w it is :math:`-P_T(-g)`: the step ``w - t * result``
    leaves the set only to second order in t, and is the nearest such step to ``w - t * g``.

    Parameters
    ----------
    constraint : HasTangent
        A set whose tangent cones are known.
    w : array
        A member of the set; from elsewhere it is projected first.
    g : array
        The gradient, of the shape, dtype and library of `w`.

    Returns
    -------
    array
        Of the type, dtype, shape and device of `g`. Groups in which `w` or `g` holds NaN or
        infinity come back as they are in `g`.

    Raises
    ------
    TypeError
        If the tangent cones of the set are not known, or `w` and `g` are of different libraries or
        dtypes.
    ValueError
        If `w` and `g` differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> w, g = np.array([0.0, 1.0]), np.array([3.0, 5.0])
    >>> nc.tangent(nc.UnitNorm(axis=0), w, g)
    array([3., 0.])
    """
    name = _owner(constraint, HasTangent, "tangent", "no known tangent cones")
    xp = _array.namespace(w, name)
    if _array.namespace(g, name) is not xp or w.dtype != g.dtype:
        raise TypeError(
            f"{name}: w and g must be of one library and dtype, got {w.dtype} and {g.dtype}; "
            "convert one of them"
        )
    if tuple(w.shape) != tuple(g.shape):
        raise ValueError(
            f"{name}: w and g must have one shape, got {tuple(w.shape)} and {tuple(g.shape)}"
        )
    w = constraint.project(w)
    if 0 in w.shape:
        return _array.copy(g, xp)
    with _array.quiet(xp):
        return _array.as_array(constraint._tangent(w, g, xp), g, xp)


def sample(constraint: HasSample | AsMatrix, *, like: Array, seed: int) -> Array:
    """A random member of the set, by the generator of the library of `like`.

    Parameters
    ----------
    constraint : HasSample
        A set that can be drawn from; its docstring says how.
    like : array
        Gives the library, dtype, shape and device; its values do not count.
    seed : int
        At least 0. The same seed gives the same member, on the same library and device.

    Returns
    -------
    array
        Of the type, dtype, shape and device of `like`.

    Raises
    ------
    TypeError
        If the set cannot be drawn from, or `seed` is no integer.
    ValueError
        If `seed` is negative, or the set is not bounded for its parameters.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> w = nc.sample(nc.Simplex(axis=0), like=np.empty(4), seed=0)
    >>> float(w.sum().round(6)), bool((w >= 0).all())
    (1.0, True)
    """
    name = _owner(constraint, HasSample, "sample", "no way to draw members")
    xp = _array.namespace(like, name)
    constraint._precision(like, xp)
    draw = Draw(like, xp, name, check_count(constraint, "seed", seed, least=0))
    if 0 in like.shape:
        return _array.copy(like, xp)
    with _array.quiet(xp):
        drawn = constraint._sample(like, draw, xp)
        return constraint.project(_array.cast(drawn, like.dtype, xp))


def _owner(constraint: object, kind: type, mode: str, lack: str) -> str:
    """The name of the set for errors; a TypeError if it lacks what the mode needs."""
    name = type(constraint).__name__
    if not (isinstance(constraint, Constraint) and constraint._can(kind)):
        raise TypeError(
            f"{mode}: constraint must be a {kind.__name__}, got {name}, which has {lack}"
        )
    return name


def tolerance(w: Array, size: int = 1) -> float:
    """How far, relative to its bound, a group of `w` may be out and count as inside.

    The one tolerance of the library: the sets, the conformance suite and the docs use it.

    Parameters
    ----------
    w : array
        Its dtype counts, and whether its library has a wider one to measure with.
    size : int, default 1
        Entries in a group.

    Returns
    -------
    float
        Four units of the last place of the dtype, and where nothing wider measures an eighth more
        for every doubling of the group.

    Notes
    -----
    Sets that decompose matrices round more where nothing wider measures: :math:`16 + 2 n^{1/4}`
    units for matrices of n entries.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> nc.tolerance(np.ones(3, dtype=np.float32)) == 4 * 2.0**-23
    True
    """
    xp = _array.namespace(w, "tolerance")
    precision = _array.precision(w, xp, "tolerance")
    return _array.tolerance(precision.eps, size, wide=precision.wide is not None)
