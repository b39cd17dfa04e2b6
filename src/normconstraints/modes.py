"""What any constraint can do: free functions that never look inside a set."""

from __future__ import annotations

import math

from normconstraints import _array
from normconstraints._array import Array
from normconstraints._norms import measure
from normconstraints.constraint import Constraint


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
