"""Constraints of whole models: set by rules, applied by hand, kept by averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from normconstraints import Constraint, Rules, Scheduled
from normconstraints_keras import _tensors
from normconstraints_keras._constraints import KernelConstraint
from normconstraints_keras._weights import bare


class _ByRules(KernelConstraint):
    """What `constrain` has set, which it may set anew."""


def constrain(
    model: keras.Model, rules: Rules | Mapping[Any, Constraint | Scheduled | None]
) -> None:
    """Constrain the variables of a model by rules, without its layers' constructors.

    Parameters
    ----------
    model : keras.Model
        Built. Its variables are projected at once, and from then on by Keras' optimizers after
        each of their steps. A training function that is compiled already is compiled anew.
    rules : Rules or mapping
        Names or globs of the weights, or layer classes, with their constraints. None exempts a
        weight, also from the constraint that its layer was built with.

    Raises
    ------
    TypeError, ValueError
        If a pattern matches no weight, a weight has a constraint already, or does not fit its
        constraint. Nothing is changed then.

    Notes
    -----
    Called again, it replaces what it has set before; an empty mapping takes it back. Keras saves
    constraints with the layers that were built with them, so that these are gone after loading and
    `keras.models.clone_model`: call it again. Layers that are frozen are constrained from when
    they are trained.

    Examples
    --------
    >>> import keras
    >>> import normconstraints as nc
    >>> from normconstraints_keras import constrain, violation
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    >>> constrain(model, {"dense.kernel": nc.MaxNorm(0.5, axis="unit")})
    >>> float(violation(model)["dense.kernel"].max())
    0.0
    """
    weights = [
        replace(w, constraint=None) if isinstance(_constraint(w.array), _ByRules) else w
        for w in bare(model)
    ]
    chosen: dict[int, tuple[Any, Any]] = {}
    for bound in Rules.of(rules).bind(weights):
        variable = bound.weight.array
        if bound.weight.constraint is None:
            _check(bound.name, variable, bound.constraint)
            constraint = _ByRules(bound.at(0))
            chosen[id(variable)] = constraint, constraint(variable)
        else:
            chosen[id(variable)] = variable.constraint, variable.constraint(variable)
    for variable in [w.array for w in weights]:
        if id(variable) in chosen:
            variable.constraint, value = chosen[id(variable)]
            variable.assign(value)
        elif isinstance(_constraint(variable), KernelConstraint):
            variable.constraint = None
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)  # the one that is there was traced without them


def _check(name: str, variable: Any, constraint: Any) -> None:
    if not isinstance(variable, keras.Variable):
        raise ValueError(
            f"constrain: {name!r} must be a variable of Keras, and is a parameter of a PyTorch "
            "module; use normconstraints_torch.constrain for it"
        )
    if variable.constraint is not None and not isinstance(variable.constraint, _ByRules):
        raise ValueError(
            f"constrain: {name!r} must have one constraint, and has {variable.constraint!r} by its "
            "layer; set its `constraint` to None, or make the pattern narrower"
        )
    if isinstance(constraint, Scheduled):
        raise TypeError(
            f"constrain: the constraint of {name!r} must not be scheduled, for Keras does not tell "
            f"a constraint the step, got {constraint!r}; call `constrain` again with another one "
            "in a callback's on_epoch_begin"
        )


def _constraint(variable: Any) -> Any:
    return getattr(variable, "constraint", None)


def apply_constraints(model: keras.Model, *, frozen: bool = False) -> None:
    """Project the variables of a model that have a constraint, in place.

    For what no Keras optimizer does: steps of ``torch.optim`` on a Keras model, weights that were
    set or loaded, and the initial ones. Constraints of `keras.constraints` are applied too.

    Parameters
    ----------
    model : keras.Model
        Built.
    frozen : bool, default False
        Whether variables that are not trained now are projected as well. Keras leaves them.

    Raises
    ------
    ValueError
        If the model is not built, or a variable does not fit its constraint. Nothing is changed
        then.

    Examples
    --------
    >>> import keras
    >>> from normconstraints_keras import NonNeg, apply_constraints
    >>> dense = keras.layers.Dense(1, kernel_constraint=NonNeg())
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> _ = dense.kernel.assign([[1.0], [-2.0]])
    >>> apply_constraints(model)
    >>> keras.ops.convert_to_numpy(dense.kernel)
    array([[1.],
           [0.]], dtype=float32)
    """
    found = [w.array for w in bare(model) if _constraint(w.array) is not None]
    found = [v for v in found if frozen or v.trainable]
    values = [v.constraint(v) for v in found]
    for variable, value in zip(found, values, strict=True):
        variable.assign(value)


def projected(model: keras.Model, values: Sequence[Any]) -> list[Any]:
    """The values of the trainable variables after their constraints, as new tensors.

    For training without state, as ``model.stateless_call`` does it: a Keras model in a step that is
    compiled by JAX, with an optimizer of optax.

    Parameters
    ----------
    model : keras.Model
        Built.
    values : sequence of tensors
        In the order of ``model.trainable_variables``. Traced perhaps.

    Returns
    -------
    list of tensors
        Those of variables without a constraint are the very same.

    Raises
    ------
    ValueError
        If there are not as many values as variables, or one does not fit its constraint.

    Examples
    --------
    >>> import keras
    >>> from normconstraints_keras import NonNeg, projected
    >>> dense = keras.layers.Dense(1, kernel_constraint=NonNeg())
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> kernel, bias = projected(model, [keras.ops.array([[1.0], [-2.0]]), keras.ops.zeros((1,))])
    >>> keras.ops.convert_to_numpy(kernel)
    array([[1.],
           [0.]], dtype=float32)
    """
    variables = model.trainable_variables
    if len(variables) != len(values):
        raise ValueError(
            f"projected: values must be those of the {len(variables)} trainable variables, got "
            f"{len(values)}; pass them in the order of model.trainable_variables"
        )
    return [projected_value(v, value) for v, value in zip(variables, values, strict=True)]


def projected_value(variable: Any, value: Any) -> Any:
    """A value of a variable after the constraint of the variable."""
    constraint = variable.constraint
    if isinstance(constraint, KernelConstraint):
        return _tensors.project(constraint.of(variable), value)
    return value if constraint is None else constraint(value)


def violation(model: keras.Model) -> dict[str, Any]:
    """How far each group of each constrained variable is outside, by the names of the weights.

    Parameters
    ----------
    model : keras.Model
        Built.

    Returns
    -------
    dict of str to tensor
        One number for each group, in the units of the weights, 0 inside. Of the constraints of this
        package: those of `keras.constraints` do not say how far a weight is outside.

    Raises
    ------
    ValueError
        If the model is not built, or a variable does not fit its constraint.

    Examples
    --------
    >>> import keras
    >>> from normconstraints_keras import NonNeg, violation
    >>> dense = keras.layers.Dense(1, kernel_constraint=NonNeg())
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> _ = dense.kernel.assign([[1.0], [-2.0]])
    >>> [float(v.max()) for v in violation(model).values()]
    [2.0]
    """
    found = [w for w in bare(model) if isinstance(_constraint(w.array), KernelConstraint)]
    return {w.name: _tensors.violation(w.array.constraint.of(w.array), w.array) for w in found}
