"""Optax: an optimizer whose steps end in the sets, and the exact way beside it.

The exact way has no wrapper: `apply_updates` in place of ``optax.apply_updates``::

    updates, state = tx.update(gradients, state, params)
    params = apply_updates(params, updates, rules)

`constrained` is for code that applies the updates itself, as trainers do.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax

from normconstraints_jax._project import RulesLike, project

try:
    import optax
except ImportError as error:
    raise ImportError("normconstraints_jax.optax needs optax; run: pip install optax") from error

__all__ = ["apply_updates", "constrained"]

Params = TypeVar("Params")


def apply_updates(
    params: Params, updates: Any, rules: RulesLike, *, step: Any = None, specs: Any = None
) -> Params:
    """Updated parameters, of which those that have a constraint are the nearest that fulfil it.

    Parameters
    ----------
    params : pytree of arrays
        The parameters.
    updates : pytree of arrays
        What the optimizer gave.
    rules : Rules or mapping
        As for `normconstraints_jax.project`.
    step : int or integer array, optional
        As for `normconstraints_jax.project`.
    specs : pytree of PartitionSpec, optional
        As for `normconstraints_jax.project`.

    Returns
    -------
    pytree of arrays
        ``project(optax.apply_updates(params, updates), rules, step=step, specs=specs)``.

    Raises
    ------
    TypeError, ValueError
        As for `normconstraints_jax.project`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import normconstraints as nc
    >>> from normconstraints_jax.optax import apply_updates
    >>> tx = optax.sgd(1.0)
    >>> params = {"w": jnp.array([[0.6], [0.8]])}
    >>> updates, _ = tx.update({"w": jnp.array([[-3.0], [-4.0]])}, tx.init(params), params)
    >>> apply_updates(params, updates, {"w": nc.MaxNorm(1.0, axis=0)})["w"].round(3)
    Array([[0.6],
           [0.8]], dtype=float32)
    """
    tree: Any = params
    moved: Any = optax.apply_updates(tree, updates)
    projected: Params = project(moved, rules, step=step, specs=specs)
    return projected


def constrained(
    tx: optax.GradientTransformation, rules: RulesLike, *, specs: Any = None
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose updates lead into the sets, up to rounding.

    Parameters
    ----------
    tx : optax.GradientTransformation
        Put this around all of it: what follows would lead out again.
    rules : Rules or mapping
        As for `normconstraints_jax.project`. Every pattern must match a parameter that it is given:
        inside ``optax.masked`` and ``optax.partition`` these are the chosen ones alone.
    specs : pytree of PartitionSpec, optional
        As for `normconstraints_jax.project`, for an optimizer inside ``jax.shard_map``.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state is that of `tx`, so that checkpoints from before load. `update` needs `params`,
        and the keyword `step` if a constraint is `normconstraints.Scheduled`.

    Raises
    ------
    TypeError, ValueError
        From `update`: as for `normconstraints_jax.project`, and if `params` is None.

    Notes
    -----
    The update of a constrained parameter is q - p, with q the projection of p + u. In floating
    point p + (q - p) is not q: it is off by roundings of p, an ulp where p is near q and thousands
    where p is far away. Use `apply_updates` if you can, which gives q itself. Parameters without a
    constraint get the update of `tx` as it is.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import normconstraints as nc
    >>> from normconstraints_jax.optax import constrained
    >>> tx = constrained(optax.sgd(1.0), {"w": nc.NonNeg()})
    >>> params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([1.0])}
    >>> gradients = {"w": jnp.array([3.0, 1.0]), "b": jnp.array([3.0])}
    >>> updates, state = tx.update(gradients, tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    {'b': Array([-2.], dtype=float32), 'w': Array([0., 1.], dtype=float32)}
    """
    inner = optax.with_extra_args_support(tx)

    def update(
        updates: Any, state: Any, params: Any = None, *, step: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "constrained: params must be given, got None; write tx.update(gradients, state, "
                "params)"
            )
        if step is not None:
            extra["step"] = step
        # Models of Equinox may be given whole: what has no update, as functions, is no parameter.
        params = jax.tree.map(
            lambda u, p: None if u is None else p, updates, params, is_leaf=lambda u: u is None
        )
        updates, state = inner.update(updates, state, params, **extra)
        updated = optax.apply_updates(params, updates)
        projected = project(updated, rules, step=step, specs=specs)

        def way(u: Any, p: Any, moved: Any, q: Any) -> Any:
            # What no rule chose comes back as it went in.
            return u if q is moved else jax.numpy.asarray(q - p, dtype=u.dtype)

        return jax.tree.map(way, updates, params, updated, projected), state

    return optax.GradientTransformationExtraArgs(tx.init, update)
