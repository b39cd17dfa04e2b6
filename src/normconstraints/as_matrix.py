"""AsMatrix: a constraint on matrices, for a weight with any number of axes."""

from __future__ import annotations

import operator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, final

from normconstraints._array import Array, Namespace
from normconstraints._composite import Composite, call, check_constraint
from normconstraints._parameters import PLACES, assign
from normconstraints._random import Draw
from normconstraints.constraint import (
    Ball,
    Constraint,
    Convex,
    HasDualNorm,
    HasLMO,
    HasSample,
    HasTangent,
    register,
)
from normconstraints.layout import axis_word
from normconstraints.sets.max_norm import MaxNorm
from normconstraints.sets.triangular import Triangular

_TEACH = (
    "rows or cols must be given by keyword: the axes of the weight that become the rows of the "
    "matrix, or its columns; the other has all that are left. For one row for each output write "
    "rows=0 for (out, in, height, width) (PyTorch, Equinox), rows=-1 for (height, width, in, out) "
    "(Keras, Flax)"
)


@register
@final
@dataclass(frozen=True, eq=False)
class AsMatrix(Composite):
    r"""A constraint on matrices, for a weight with any number of axes: a kernel shown as a matrix.

    .. math:: \{ w : M(w) \in C \}, \qquad M(w)_{(r_1 \dots r_p), (c_1 \dots c_q)} = w_{r, c}

    Parameters
    ----------
    constraint : Constraint
        The set C, of matrices (`Symmetric`), or of vectors: the rows are axis -2 of what it sees
        and the columns axis -1, so that ``axis=-1`` makes a group of every row.
    rows, cols : int or tuple of int
        The axes of the weight that the rows and the columns run over, by keyword. Several are
        flattened in the order given, the last one fastest, whatever their order in the weight. If
        one of the two is left out, it has all axes that the other leaves, in their order. Axes in
        neither are batch, in their order: one matrix for each of their places.

    Raises
    ------
    TypeError
        If `constraint` is no constraint, `rows` or `cols` no integers, or both are left out.
    ValueError
        If an axis is named twice, the `axis` of the constraint is a word such as "unit", or at the
        call if an axis does not exist or none is left for what was left out.

    Notes
    -----
    M moves entries and changes none. So the projection is that of the matrices, moved back: as
    exact as that of the constraint, unique where that is, and with what is inside coming back bit
    for bit. It can do what the constraint can: `lmo`, `dual_norm`, `tangent` and `sample` take it
    if they take that. Such a matrix is the usual one for bounds on the spectral norm of a kernel,
    which is not the norm of the convolution as an operator.

    The violation has the shape that it has for the matrices: for `constraint` on the last two axes
    one number for each of the batch.

    Gradient: that of the constraint, moved back; so is its own derivative if it states one.
    Matrices, rows or entries with NaN or infinity come back as the constraint leaves them.

    References
    ----------
    T. Kolda, B. Bader, "Tensor decompositions and applications", SIAM Review 51 (2009), section 2.4
    (matricization).
    T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, "Spectral normalization for generative adversarial
    networks", ICLR 2018, for kernels of shape (out, in, height, width) as matrices with a row for
    each output.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> kernel = np.arange(8.0).reshape(2, 2, 1, 2)
    >>> c = AsMatrix(nc.MaxNorm(1.0, axis=-1), rows=0)
    >>> c.violation(kernel).round(3)
    array([ 2.742, 10.225])
    >>> c(kernel).reshape(2, 4).round(3)
    array([[0.   , 0.267, 0.535, 0.802],
           [0.356, 0.445, 0.535, 0.624]])

    The same kernel as Keras stores it, (height, width, in, out):

    >>> c = AsMatrix(nc.MaxNorm(1.0, axis=-1), rows=-1, cols=(2, 0, 1))
    >>> c.violation(np.moveaxis(kernel, (0, 1), (3, 2))).round(3)
    array([ 2.742, 10.225])
    """

    constraint: Constraint
    _: KW_ONLY
    rows: int | tuple[int, ...] | None = field(default=None, metadata=PLACES)
    cols: int | tuple[int, ...] | None = field(default=None, metadata=PLACES)
    _inherits: ClassVar[tuple[type, ...]] = (
        Ball,
        Convex,
        HasDualNorm,
        HasLMO,
        HasSample,
        HasTangent,
    )

    def __post_init__(self) -> None:
        constraint = check_constraint(self, self.constraint)
        # A layout would put the axes of the weight where those of the matrix are meant.
        if word := axis_word(constraint):
            raise ValueError(
                f'AsMatrix: constraint must have axes that are numbers, got axis="{word}" in '
                f"{constraint!r}; of the matrix the rows are axis -2 and the columns axis -1, so "
                "that axis=-1 makes a group of every row"
            )
        rows, cols = _check_axes("rows", self.rows), _check_axes("cols", self.cols)
        if rows is None and cols is None:
            raise TypeError(f"AsMatrix: {_TEACH}")
        named = [*_several(rows), *_several(cols)]
        if len(set(named)) < len(named):
            raise ValueError(_twice(rows, cols))
        assign(self, constraint=constraint, rows=rows, cols=cols)

    @property
    def allows_complex(self) -> bool:  # type: ignore[override]
        """Whether the constraint has a meaning for complex numbers."""
        return self.constraint.allows_complex

    def _axes(self, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The axes of the batch, of the rows and of the columns, not negative."""
        rows = _axes_of("rows", self.rows, ndim)
        cols = _axes_of("cols", self.cols, ndim)
        named = [*rows, *cols]
        if len(set(named)) < len(named):
            raise ValueError(f"{_twice(self.rows, self.cols)} for {_array_of(ndim)}")
        rest = tuple([i for i in range(ndim) if i not in named])
        if self.rows is not None and self.cols is not None:
            return rest, rows, cols
        if not rest:
            given, left = ("cols", "rows") if self.rows is None else ("rows", "cols")
            raise ValueError(
                f"AsMatrix: {left} must have an axis, got {given}={getattr(self, given)!r}, which "
                f"leaves none of {_array_of(ndim)}; leave this weight out, for it is no matrix"
            )
        return (), rows or rest, cols or rest

    def _span(self, ndim: int) -> tuple[int, ...]:
        return self._seen_by(ndim, self.constraint._span)

    def _whole(self, ndim: int) -> tuple[int, ...]:
        # Axes that are flattened into one are not left to an array in parts either.
        _, *sides = self._axes(ndim)
        flat = [axis for side in sides if len(side) > 1 for axis in side]
        return tuple(sorted({*self._seen_by(ndim, self.constraint._whole), *flat}))

    def _seen_by(self, ndim: int, ask: Any) -> tuple[int, ...]:
        """The axes of the weight behind those axes that are said of the matrices."""
        batch, rows, cols = self._axes(ndim)
        behind = [*[(axis,) for axis in batch], rows, cols]
        return tuple(sorted({axis for seen in ask(len(behind)) for axis in behind[seen]}))

    def _shown(self, w: Array, xp: Namespace) -> Array:
        """The weight as matrices."""
        batch, rows, cols = self._axes(w.ndim)
        shape = [w.shape[i] for i in batch]
        # The sizes, and no -1: an array may be empty.
        shape += [_product([w.shape[i] for i in side]) for side in (rows, cols)]
        return xp.reshape(xp.permute_dims(w, (*batch, *rows, *cols)), tuple(shape))

    def _back(self, x: Array, w: Array, xp: Namespace) -> Array:
        """What `_shown` showed, in the shape of the weight again."""
        batch, rows, cols = self._axes(w.ndim)
        order = [*batch, *rows, *cols]
        x = xp.reshape(x, tuple([w.shape[i] for i in order]))
        return xp.permute_dims(x, tuple([order.index(i) for i in range(w.ndim)]))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return self._back(call(self, self.constraint.project, self._shown(w, xp)), w, xp)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return call(self, self.constraint.violation, self._shown(w, xp))

    # What follows is called only if the constraint has it, which `_can` says.

    def _lmo(self, g: Array, xp: Namespace) -> Array:
        constraint: Any = self.constraint
        return self._back(constraint._lmo(self._shown(g, xp), xp), g, xp)

    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        constraint: Any = self.constraint
        return constraint._dual_norm(self._shown(g, xp), xp)

    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        constraint: Any = self.constraint
        found = constraint._tangent(self._shown(w, xp), self._shown(g, xp), xp)
        return self._back(found, g, xp)

    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        constraint: Any = self.constraint
        shown = self._shown(like, xp)
        return self._back(constraint._sample(shown, draw.beside(shown), xp), like, xp)


def _check_axes(name: str, value: Any) -> int | tuple[int, ...] | None:
    """An int or a tuple of ints, or None for what is left."""
    if value is None:
        return None
    rule = f"AsMatrix: {name} must be an int or a tuple of ints, got {value!r}"
    if isinstance(value, str | bool):
        hint = "; rows=0 serves PyTorch's layers, rows=-1 those of Keras and Flax"
        raise TypeError(rule + (hint if isinstance(value, str) else ""))
    several = isinstance(value, list | tuple)
    if several and any(isinstance(v, bool) for v in value):
        raise TypeError(rule)
    try:
        axes = tuple(operator.index(v) for v in (value if several else (value,)))
    except TypeError:
        raise TypeError(rule) from None
    if not axes:
        raise ValueError(f"{rule}; name one axis at least")
    return axes if several else axes[0]


def _several(axes: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if axes is None:
        return ()
    return axes if isinstance(axes, tuple) else (axes,)


def _axes_of(name: str, value: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """In the order given, not negative."""
    axes = _several(value)
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"AsMatrix: {name} must exist, got {name}={value!r} for {_array_of(ndim)}"
                + (f"; use {-ndim} to {ndim - 1}" if ndim else "; leave this weight out")
            )
    return tuple([axis % ndim for axis in axes])


def _twice(rows: Any, cols: Any) -> str:
    return f"AsMatrix: rows and cols must name each axis once, got rows={rows!r} and cols={cols!r}"


def _array_of(ndim: int) -> str:
    return f"an array with {ndim} dimension{'' if ndim == 1 else 's'}"


def _product(sizes: list[int]) -> int:
    # Not math.prod: sizes that Dynamo knows by name only.
    found = 1
    for size in sizes:
        found *= size
    return found


EXAMPLES: tuple[Any, ...] = (
    AsMatrix(MaxNorm(0.5, axis=-1), rows=-1),
    AsMatrix(MaxNorm((0.1, 1.0, 2.5, 0.0, 3.0, 1e3), axis=-1), rows=1, cols=0),
    AsMatrix(Triangular(), cols=(0,)),
)
