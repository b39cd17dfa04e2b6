"""How JAX is told of the derivative that a set states itself.

The Jacobian of a projection is symmetric where it exists, so that one function is the product with
a tangent and with a cotangent: a ``custom_jvp``, which JAX transposes, serves both modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from normconstraints import derivatives


def attach(project: Callable[[Any], Any], vjp: Callable[[Any, Any, Any], Any], w: Any) -> Any:
    """The projection, whose derivative JAX takes from `vjp`.

    Parameters
    ----------
    project : callable
        From the weight to its projection.
    vjp : callable
        From the weight, the projection and a gradient to the product with the Jacobian.
    w : array
        The weight.

    Returns
    -------
    array
        ``project(w)``.
    """
    attached = jax.custom_jvp(project)

    def jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        (x,), (t,) = primals, tangents
        result = attached(x)
        return result, vjp(x, result, t)

    attached.defjvp(jvp)
    return attached(w)


derivatives.register("jax", attach)
