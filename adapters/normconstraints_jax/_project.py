"""Pure functions of a tree of weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import jax

from normconstraints import Bound, Constraint, Rules, Scheduled
from normconstraints.report import Report
from normconstraints.weights import Weight
from normconstraints_jax import _sharding, _tree

Params = TypeVar("Params")
RulesLike: TypeAlias = Rules | Mapping[Any, Constraint | Scheduled | None]


def project(params: Params, rules: RulesLike, *, step: Any = None, specs: Any = None) -> Params:
    """Weights with those that have a constraint replaced by the nearest that fulfil it.

    Parameters
    ----------
    params : pytree of arrays, or a model of Equinox or Flax NNX
        Dicts, lists, registered dataclasses and nodes, nested as you like. The name of a leaf is
        the path to it, joined with dots: keys, indices, names of attributes.
    rules : Rules or mapping
        Names or globs of the leaves, or layer classes if `params` holds layers, with their
        constraints.
    step : int or integer array, optional
        The count of steps, traced perhaps. Needed if a constraint is `normconstraints.Scheduled`.
    specs : pytree of PartitionSpec, optional
        Inside ``jax.shard_map``: how the weights are cut, as its ``in_specs`` say it, for all of
        them or for parts of the tree. Of a model of NNX one for all.

    Returns
    -------
    pytree of arrays
        The same tree. Leaves without a constraint are the very same arrays. Of a module of Flax
        NNX a copy; `normconstraints_jax.nnx.project_` is in place.

    Raises
    ------
    TypeError, ValueError
        If a pattern matches no leaf, two leaves have one name, a leaf does not fit its constraint,
        the step is missing, or `specs` are, and a weight may be cut over devices. Inside
        ``jax.jit`` this happens when it traces.

    Notes
    -----
    Pure, and fit for ``jit``, ``grad``, ``vmap``, ``scan`` and donated arguments. In a training
    step it comes after the update: ``project(optax.apply_updates(params, updates), rules)``. Names
    and rules are read while tracing, so a compiled step pays for the arithmetic only. With a traced
    `step`, constraints that change are compiled once, and one that acts now and then costs nothing
    on other steps (under ``vmap`` over steps it does).

    Sharded arrays under ``jit`` need nothing said. Inside ``jax.shard_map`` a weight is the part of
    one device, of which a constraint that is called by itself cannot know: it takes the part for
    the weight and gives wrong numbers. With `specs`, groups that are whole on a device are
    projected there; across the cut, sets of norms exchange the largest entry and the sum of squares
    of each group, and for other sets the groups are gathered.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints_jax import project
    >>> params = {"dense": [{"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([7.0])}]}
    >>> rules = {"*.kernel": nc.MaxNorm(1.0, axis=0)}
    >>> jax.jit(lambda p: project(p, rules))(params)["dense"][0]["kernel"].round(3)
    Array([[0.6],
           [0.8]], dtype=float32)
    """
    found, rebuild = _tree.flatten(params)
    done: Params = rebuild(projected(found, rules, step, _tree.specs_of(params, specs)))
    return done


def violation(
    params: object, rules: RulesLike, *, step: Any = None, specs: Any = None
) -> dict[str, jax.Array]:
    """How far each group of each constrained weight is outside, by the names of the weights.

    Parameters
    ----------
    params : pytree of arrays, or a model of Equinox or Flax NNX
        As for `project`.
    rules : Rules or mapping
        As for `project`.
    step : int or integer array, optional
        As for `project`. Constraints count that are not due at the step, too.
    specs : pytree of PartitionSpec, optional
        As for `project`. Each device gets the violation of the whole weight, for which the weight
        is gathered.

    Returns
    -------
    dict of str to array
        One number per group, in the units of the weights, 0 inside.

    Raises
    ------
    TypeError, ValueError
        As for `project`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints_jax import violation
    >>> violation({"w": jnp.array([[3.0], [4.0]])}, {"w": nc.MaxNorm(2.0, axis=0)})
    {'w': Array([3.], dtype=float32)}
    """
    step = _count(step)
    found = weights(params)
    spec = _by_weight(found, _tree.specs_of(params, specs))
    done = {}
    for bound in Rules.of(rules).bind(found):
        at = _needed(step, bound) if _changes(bound) else 0
        done[bound.name] = _of(
            bound, bound.weight.array, at, spec[id(bound.weight)], _sharding.violation
        )
    return done


def penalty(params: object, rules: RulesLike, *, step: Any = None, specs: Any = None) -> jax.Array:
    r"""Half the squared distance of the weights from their sets, for the loss.

    .. math:: \sum_i \frac{1}{2} \| w_i - P_i(w_i) \|_2^2

    Parameters
    ----------
    params : pytree of arrays, or a model of Equinox or Flax NNX
        As for `project`.
    rules : Rules or mapping
        As for `project`.
    step : int or integer array, optional
        As for `project`. A constraint that is not due at the step adds nothing.
    specs : pytree of PartitionSpec, optional
        As for `project`. Each device gets the penalty of the whole weights. Take the gradient
        outside of the ``shard_map``, or leave its ``check_vma`` on: without it JAX counts what is
        summed over devices once for each of them.

    Returns
    -------
    array
        0-d. Its gradient at each weight is w - P(w), the step from the set to the weight.

    Raises
    ------
    TypeError, ValueError
        As for `project`.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints_jax import penalty
    >>> params, rules = {"w": jnp.array([[3.0], [4.0]])}, {"w": nc.MaxNorm(4.0, axis=0)}
    >>> penalty(params, rules).round(4)
    Array(0.5, dtype=float32)
    >>> jax.grad(penalty)(params, rules)["w"].round(3)
    Array([[0.6],
           [0.8]], dtype=float32)
    """
    step = _count(step)
    total = jax.numpy.zeros(())
    found = weights(params)
    spec = _by_weight(found, _tree.specs_of(params, specs))
    for bound in Rules.of(rules).bind(found):
        scheduled = isinstance(bound.constraint, Scheduled)
        at = _needed(step, bound) if scheduled else 0
        term = _of(bound, bound.weight.array, at, spec[id(bound.weight)], _sharding.penalty)
        total = total + (jax.numpy.where(bound.due(at), term, 0.0) if scheduled else term)
    return total


def record(report: Report, before: object, after: object, rules: RulesLike, *, step: int) -> None:
    """Take down in a report what a projection did to each weight that it was due for.

    Parameters
    ----------
    report : normconstraints.report.Report
        The report that gets one entry for each weight.
    before, after : pytree of arrays, or a model of Equinox or Flax NNX
        The weights before and after the projection. Outside of ``jax.jit``, for they are read;
        donated arrays are gone, so project separately on the steps to be recorded.
    rules : Rules or mapping
        As for `project`.
    step : int
        The step of training.

    Raises
    ------
    TypeError, ValueError
        As for `project`, or if `after` lacks a weight.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import normconstraints as nc
    >>> from normconstraints.report import Report
    >>> from normconstraints_jax import project, record
    >>> rules, report = {"w": nc.MaxNorm(2.0, axis=0)}, Report()
    >>> params = {"w": jnp.array([[3.0], [4.0]])}
    >>> record(report, params, project(params, rules), rules, step=10)
    >>> print(report)
    step  weight  at bound  violation  change
    10    w       100%      3          0.6
    """
    done = {weight.name: weight.array for weight in weights(after)}
    for bound in Rules.of(rules).bind(weights(before)):
        if bound.name not in done:
            raise ValueError(f"record: after must hold {bound.name!r}, as before does")
        if bound.due(step):
            report.record(step, bound.name, bound.at(step), bound.weight.array, done[bound.name])


def weights(params: object) -> list[Weight]:
    """The weights of a tree by the names and layers that `project` sees.

    Parameters
    ----------
    params : pytree of arrays, or a model of Equinox or Flax NNX
        As for `project`.

    Returns
    -------
    list of normconstraints.weights.Weight
        ``rules.plan(weights(params))`` is the plan of any tree, of models in a dict for example.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from normconstraints_jax import weights
    >>> [w.name for w in weights({"dense": [jnp.ones((2, 3))]})]
    ['dense.0']
    """
    return _tree.flatten(params)[0]


def projected(
    found: list[Weight], rules: RulesLike, step: Any, specs: list[Any] | None = None
) -> list[Any]:
    """The arrays of weights after the rules, those without a constraint as they are."""
    step = _count(step)
    spec = _by_weight(found, specs)
    done: dict[int, Any] = {}
    waiting: dict[tuple[int, int], list[Bound]] = {}
    for bound in Rules.of(rules).bind(found):
        c = bound.constraint
        if isinstance(c, Scheduled) and not c.always:
            waiting.setdefault((c.every, c.start), []).append(bound)
        else:
            at = _needed(step, bound) if _changes(bound) else 0
            done[id(bound.weight)] = _of(bound, bound.weight.array, at, spec[id(bound.weight)])
    for group in waiting.values():
        done.update(_when_due(group, _needed(step, group[0]), spec))
    return [done.get(id(weight), weight.array) for weight in found]


def _by_weight(found: list[Weight], specs: list[Any] | None) -> dict[int, Any]:
    """How each weight is cut, None if nothing was said."""
    return {id(w): s for w, s in zip(found, specs or [None] * len(found), strict=True)}


def _when_due(group: list[Bound], step: Any, spec: dict[int, Any]) -> dict[int, Any]:
    """Constraints of one rhythm, so that a compiled step asks once whether they are due."""

    def act(arrays: list[Any]) -> list[Any]:
        pairs = zip(group, arrays, strict=True)
        return [_of(bound, array, step, spec[id(bound.weight)]) for bound, array in pairs]

    before, due = [bound.weight.array for bound in group], group[0].due(step)
    if isinstance(due, bool):
        after = act(before) if due else before
    else:
        after = jax.lax.cond(due, act, lambda arrays: arrays, before)
    return {id(bound.weight): array for bound, array in zip(group, after, strict=True)}


def _of(
    bound: Bound,
    array: Any,
    step: Any,
    spec: Any,
    mode: Callable[[Constraint, Any, str, Any], Any] = _sharding.project,
) -> Any:
    try:
        return mode(bound.at(step), array, bound.name, spec)
    except (TypeError, ValueError) as error:
        error.add_note(f"This is about the weight {bound.name!r}, chosen by {bound.rule}.")
        raise


def _changes(bound: Bound) -> bool:
    return isinstance(bound.constraint, Scheduled) and bool(bound.constraint.changing)


def _count(step: Any) -> Any:
    """The step as an int or an array of JAX."""
    if step is None:
        return None
    if isinstance(step, jax.Array):
        if step.ndim == 0 and jax.numpy.issubdtype(step.dtype, jax.numpy.integer):
            return step
    else:
        try:
            return operator.index(step)
        except TypeError:
            pass
    raise TypeError(f"project: step must be one integer, got {step!r}")


def _needed(step: Any, bound: Bound) -> Any:
    if step is None:
        raise ValueError(
            f"project: step must be given where a constraint is scheduled, as that of "
            f"{bound.name!r} by {bound.rule} is, got None; pass the count of steps, "
            "project(params, rules, step=step)"
        )
    return step
