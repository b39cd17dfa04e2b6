"""Constraints as Keras' layers take them."""

from __future__ import annotations

from typing import Any, Self

import keras

import normconstraints as nc
from normconstraints import Constraint
from normconstraints.layout import axis_word
from normconstraints_keras import _owners
from normconstraints_keras._tensors import project

Axis = int | tuple[int, ...] | str | None


_register = keras.saving.register_keras_serializable("normconstraints")


@_register
class KernelConstraint(keras.constraints.Constraint):  # type: ignore[misc]  # untyped
    """Any constraint, for the ``*_constraint`` arguments of Keras' layers.

    Parameters
    ----------
    constraint : normconstraints.Constraint
        What the weight has to fulfil after each step of a Keras optimizer. With ``axis="unit"`` the
        axes are those of the layer that has the variable: of a `Dense` kernel 0, of a `Conv2D`
        (0, 1, 2), of the output projection of `MultiHeadAttention` (0, 1).

    Raises
    ------
    TypeError
        If `constraint` is none. A `normconstraints.Scheduled` is none, for Keras does not tell a
        constraint the step.

    Notes
    -----
    Called with a variable or tensor of any backend, it returns a tensor. It saves and loads with
    the model, in a process that has imported `normconstraints_keras`. Two with equal constraints
    are equal.

    Gradient: that of the constraint, by the backend. NaN and infinity: as the constraint says.

    Examples
    --------
    >>> import keras
    >>> import normconstraints as nc
    >>> from normconstraints_keras import KernelConstraint
    >>> conv = keras.layers.Conv2D(
    ...     32, (3, 3), kernel_constraint=KernelConstraint(nc.MaxNorm(3.0, axis="unit"))
    ... )
    """

    def __init__(self, constraint: Constraint) -> None:
        if not isinstance(constraint, Constraint):
            hint = ""
            if isinstance(constraint, nc.Scheduled):
                hint = ", for Keras does not tell a constraint the step; give the constraint inside"
            raise TypeError(
                f"KernelConstraint: constraint must be a normconstraints.Constraint{hint}, got "
                f"{constraint!r}"
            )
        self.constraint = constraint

    def __call__(self, w: Any) -> Any:
        """The nearest tensor that fulfils the constraint."""
        return project(self.of(w), w)

    def of(self, w: Any) -> Constraint:
        """The constraint with the axes that it has for a variable, the constraint itself if set.

        Raises
        ------
        LayoutError
            If the axes depend on the layer, and it or its axes are not known.
        """
        if axis_word(self.constraint) is None or not isinstance(w, keras.Variable):
            return self.constraint
        return _owners.resolve(self.constraint, w)

    def get_config(self) -> dict[str, Any]:
        """The constraint as JSON data."""
        return {"constraint": nc.to_config(self.constraint)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The constraint that `get_config` wrote down."""
        return cls(nc.from_config(config["constraint"]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KernelConstraint) or type(self) is not type(other):
            return NotImplemented
        return self.constraint == other.constraint

    def __hash__(self) -> int:
        return hash((type(self), self.constraint))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.constraint!r})"


class _Named(KernelConstraint):
    """One of `keras.constraints`, by its signature: the parameters are attributes too."""

    def __init__(self, constraint: Constraint) -> None:
        super().__init__(constraint)
        for name in self.get_config():
            setattr(self, name, getattr(constraint, name))

    def get_config(self) -> dict[str, Any]:
        """The arguments by name, as JSON data."""
        parameters: dict[str, Any] = nc.to_config(self.constraint)["parameters"]
        return parameters

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The constraint with these arguments."""
        return cls(**config)

    def __repr__(self) -> str:
        return repr(self.constraint)  # the class inside has the same name and arguments


@_register
class MaxNorm(_Named):
    """The norm of every group is at most `max_value`; `keras.constraints.MaxNorm`, exactly.

    Parameters
    ----------
    max_value : float or nested tuples, default 2
        The bound, at least 0. Keras takes negative ones too, and turns the weights round.
    axis : int, tuple of int, None or "unit", default 0
        The axes that one group spans. Keras' 0 are the incoming weights of a unit for the kernel of
        a `Dense` layer alone; "unit" means them for every layer.

    Raises
    ------
    TypeError, ValueError
        As `normconstraints.MaxNorm`, which has the formula, the gradient and what becomes of NaN.

    Examples
    --------
    >>> from keras import ops
    >>> from normconstraints_keras import MaxNorm
    >>> w = MaxNorm(1.0)(ops.array([[3.0, 0.3], [4.0, 0.4]]))
    >>> ops.convert_to_numpy(w).round(6)
    array([[0.6, 0.3],
           [0.8, 0.4]], dtype=float32)
    """

    def __init__(self, max_value: Any = 2, axis: Axis = 0) -> None:
        super().__init__(nc.MaxNorm(max_value, axis=axis))


@_register
class UnitNorm(_Named):
    """The norm of every group is 1; `keras.constraints.UnitNorm`, exactly.

    Parameters
    ----------
    axis : int, tuple of int, None or "unit", default 0
        As for `MaxNorm`.

    Raises
    ------
    TypeError, ValueError
        As `normconstraints.UnitNorm`, which has the formula, the gradient and what becomes of NaN.

    Examples
    --------
    >>> from keras import ops
    >>> from normconstraints_keras import UnitNorm
    >>> ops.convert_to_numpy(UnitNorm()(ops.array([[3.0, 0.0], [4.0, 0.0]]))).round(6)
    array([[0.6, 0. ],
           [0.8, 0. ]], dtype=float32)
    """

    def __init__(self, axis: Axis = 0) -> None:
        super().__init__(nc.UnitNorm(axis=axis))


@_register
class MinMaxNorm(_Named):
    """Norms lie between two values; `keras.constraints.MinMaxNorm`, exactly.

    Parameters
    ----------
    min_value, max_value : float or nested tuples, default 0.0 and 1.0
        The bounds, ``0 <= min_value <= max_value``.
    rate : float, default 1.0
        In (0, 1]: how much of the way to the bounds one call goes.
    axis : int, tuple of int, None or "unit", default 0
        As for `MaxNorm`.

    Raises
    ------
    TypeError, ValueError
        As `normconstraints.MinMaxNorm`, which has the formula, the gradient and what becomes of
        NaN.

    Examples
    --------
    >>> from keras import ops
    >>> from normconstraints_keras import MinMaxNorm
    >>> w = MinMaxNorm(1.0, 5.0, rate=0.5)(ops.array([[6.0], [8.0]]))
    >>> ops.convert_to_numpy(w).round(6)
    array([[4.5],
           [6. ]], dtype=float32)
    """

    def __init__(
        self, min_value: Any = 0.0, max_value: Any = 1.0, rate: float = 1.0, axis: Axis = 0
    ) -> None:
        super().__init__(nc.MinMaxNorm(min_value, max_value, rate=rate, axis=axis))


@_register
class NonNeg(_Named):
    """No entry is below 0; `keras.constraints.NonNeg`.

    Examples
    --------
    >>> from keras import ops
    >>> from normconstraints_keras import NonNeg
    >>> ops.convert_to_numpy(NonNeg()(ops.array([-1.0, 2.0])))
    array([0., 2.], dtype=float32)
    """

    def __init__(self) -> None:
        super().__init__(nc.NonNeg())


max_norm, unit_norm, min_max_norm, non_neg = MaxNorm, UnitNorm, MinMaxNorm, NonNeg
