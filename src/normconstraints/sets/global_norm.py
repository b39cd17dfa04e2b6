"""Global norm: the joint Euclidean norm of several arrays is at most a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints._norms import Norms, lengthen, measure
from normconstraints._parameters import Number, assign, check_number
from normconstraints.constraint import Parametrised, register

_T = TypeVar("_T")


@register
@final
@dataclass(frozen=True, eq=False)
class GlobalNorm(Parametrised):
    r"""The joint Euclidean norm of several arrays is at most `max_value`.

    .. math:: \{ (w_1, ..., w_k) : \textstyle\sum_j \|w_j\|_2^2 \le r^2 \}

    Unlike the other sets it is called with a list, tuple or mapping of arrays, nested if need be,
    and returns the same.

    Parameters
    ----------
    max_value : float
        The bound r >= 0, in the units of the weights.

    Raises
    ------
    TypeError
        If `max_value` is no number, or at the call if the arrays are of several libraries.
    ValueError
        If `max_value` is negative, NaN or infinite.

    Notes
    -----
    All arrays together are one group: they are scaled by one factor, or not at all. If one holds
    NaN or infinity all come back as they are. The projection is unique. The arrays may differ in
    shape and dtype and must be on one device.

    Gradient: as for `MaxNorm` of the concatenation. MXNet's `clip_global_norm` is this map, there
    for gradients.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, for the joint norm of gradients.

    Examples
    --------
    >>> import numpy as np
    >>> weights = {"kernel": np.array([[3.0, 0.0]]), "bias": np.array([4.0])}
    >>> GlobalNorm(1.0)(weights)["bias"].round(6)
    array([0.8])
    """

    max_value: Number

    def __post_init__(self) -> None:
        value = check_number(self, "max_value", self.max_value, above=0, strict=False)
        if isinstance(value, tuple):
            raise TypeError(f"GlobalNorm: max_value must be one number, got {value!r}")
        assign(self, max_value=value)

    def project(self, ws: _T) -> _T:
        """The nearest arrays with a joint norm of at most `max_value`, as new arrays.

        Parameters
        ----------
        ws : list, tuple or mapping of arrays
            May be nested. Not changed.
        """
        arrays: list[Array] = []
        _visit(ws, arrays.append)
        if not arrays:
            return ws
        found = iter(self._project_all(arrays))
        return _visit(ws, lambda _: next(found))  # type: ignore[no-any-return]

    def __call__(self, ws: _T) -> _T:
        """The same as `project`."""
        return self.project(ws)

    def project_(self, ws: _T) -> _T:
        """The same as `project`, in place; no array is changed before all have been checked."""
        arrays: list[Array] = []
        _visit(ws, arrays.append)
        for w in arrays:
            _array.check_writable(w, _array.namespace(w, "GlobalNorm"), "GlobalNorm")
        if arrays:
            with _array.unrecorded(_array.namespace(arrays[0], "GlobalNorm")):
                for w, value in zip(arrays, self._project_all(arrays), strict=True):
                    _array.write(w, value)
        return ws

    def violation(self, ws: object) -> Array:
        """By how much the joint norm exceeds `max_value`: 0-d, 0 inside, NaN if an entry is."""
        arrays: list[Array] = []
        _visit(ws, arrays.append)
        if not arrays:
            raise ValueError("GlobalNorm: w must hold at least one array, got none")
        with _array.quiet(_array.namespace(arrays[0], "GlobalNorm")):
            joint = self._joint(arrays)
            excess = joint.length - self.max_value
            return joint.report(excess, joint.above(self.max_value), ())

    def _project_all(self, arrays: list[Array]) -> list[Array]:
        with _array.quiet(_array.namespace(arrays[0], "GlobalNorm")):
            joint = self._joint(arrays)
            goal, moved = joint.within(self.max_value), joint.above(self.max_value)
            found = []
            for w in arrays:
                precision = _array.precision(w, joint.xp, "GlobalNorm")
                result = lengthen(w, joint, goal, moved, precision)
                found.append(_array.as_array(result, w, joint.xp))
            return found

    def _joint(self, arrays: list[Array]) -> Norms:
        """The norm of all arrays together, 0-d."""
        xp = _array.namespace(arrays[0], "GlobalNorm")
        parts = [_single(w, xp) for w in arrays]
        # Each array was scaled by its own power of two; the smallest, that of the largest entry, is
        # safe for all.
        scale = parts[0].scale
        for part in parts[1:]:
            if type(part.scale) is not float or type(scale) is not float:
                low = part.scale < scale
                scale = xp.where(low, part.scale, scale)
        squares = sum((p.scaled * (scale / p.scale)) ** 2 for p in parts)
        coarsest = max((p.precision for p in parts), key=lambda p: p.eps)
        size = sum(p.size for p in parts)
        zero = squares == 0
        root = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squares)))
        return Norms(root, scale, size, xp, coarsest, None)


def _single(w: Array, xp: Namespace) -> Norms:
    other = _array.namespace(w, "GlobalNorm")
    if other is not xp:
        raise TypeError(
            "GlobalNorm: w must hold arrays of one library, got "
            f"{_array.name_of(xp)} and {_array.name_of(other)}; convert some of them"
        )
    precision = _array.precision(w, xp, "GlobalNorm")
    flat = xp.reshape(w, (-1,))
    found = measure(flat, (0,), xp, precision)
    scale = found.scale if type(found.scale) is float else xp.reshape(found.scale, ())
    return Norms(xp.reshape(found.scaled, ()), scale, found.size, xp, precision, None)


def _visit(ws: Any, visit: Callable[[Array], Any]) -> Any:
    """The same structure with each array replaced by what `visit` returns."""
    if isinstance(ws, Mapping):
        values = {key: _visit(value, visit) for key, value in ws.items()}
        return type(ws)(values)  # type: ignore[call-arg]
    if isinstance(ws, tuple) and hasattr(ws, "_fields"):  # a named tuple
        return type(ws)(*(_visit(value, visit) for value in ws))
    if isinstance(ws, list | tuple):
        return type(ws)(_visit(value, visit) for value in ws)
    _array.namespace(ws, "GlobalNorm")
    return visit(ws)
