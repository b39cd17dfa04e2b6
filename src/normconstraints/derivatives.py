"""Where an adapter says how its library attaches the derivative that a set states itself.

A set that is a `HasVJP` has a function for its vector-Jacobian product, written in the array API.
How a library is told of such a function is its own affair, and the core knows none; until an
adapter registers it here the library differentiates through the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from normconstraints import _array
from normconstraints._array import Array, Namespace

__all__ = ["Attach", "register"]

Attach: TypeAlias = Callable[
    [Callable[[Array], Array], Callable[[Array, Array, Array], Array], Array], Array
]
"""``attach(project, vjp, w)``, which computes ``project(w)`` and attaches its derivative."""

_attached: dict[str, Attach] = {}


def register(library: str, attach: Attach) -> None:
    r"""Let projections of the arrays of a library have the derivatives that sets state themselves.

    Parameters
    ----------
    library : str
        Its name: "torch", "jax". Whoever registers last is asked.
    attach : callable
        ``attach(project, vjp, w)`` returns ``project(w)``, bit for bit, such that the library takes
        ``vjp(w, result, g)`` for the product of `g` with the Jacobian at `w`, with `result` the
        projection. Both functions are made of array API calls that the library can trace, batch and
        differentiate again, and both close over the set alone.

    Notes
    -----
    What an `attach` has to see to:

    - Of the forward pass keep `w` and the result, nothing else: that is what it is for.
    - Let second derivatives pass through `vjp`. It depends on `w` and `result` as well as on `g`,
      and `result` must be known to depend on `w`.
    - Forward mode needs no second function. A projection is the gradient of a convex function,
      :math:`P = \nabla (\frac{1}{2} \|w\|^2 - \frac{1}{2} d(w)^2)`, so that where it has a
      Jacobian that is symmetric: ``vjp(w, result, t)`` is the product with a tangent t too. In JAX
      a ``custom_jvp`` of it serves both modes, for `vjp` is linear in its last argument.
    - Where the library cannot attach it, return ``project(w)``: slower, and as right.

    It is not asked where a parameter of the set is itself an array with a derivative, or is traced
    and may have one. Then the library differentiates through the algorithm, in the parameter too.

    Raises
    ------
    TypeError
        If `library` is no string or `attach` cannot be called.

    Examples
    --------
    For JAX::

        def attach(project, vjp, w):
            attached = jax.custom_jvp(project)

            @attached.defjvp
            def jvp(primals, tangents):
                result = attached(*primals)
                return result, vjp(*primals, result, *tangents)

            return attached(w)

        normconstraints.derivatives.register("jax", attach)
    """
    if not isinstance(library, str):
        raise TypeError(f"register: library must be the name of a library, got {library!r}")
    if not callable(attach):
        raise TypeError(f"register: attach must be a function (project, vjp, w), got {attach!r}")
    _attached[library] = attach


def attachment(xp: Namespace, parameters: Iterable[Any]) -> Attach | None:
    """How the library attaches a derivative, if that is registered and no parameter needs one too.

    `parameters` are those of the set.
    """
    attach = _attached.get(_array.name_of(xp))
    # A list, for Dynamo.
    if attach is None or any([_followed(value) for value in parameters]):  # noqa: C419
        return None
    return attach


def _followed(value: Any) -> bool:
    """Whether a parameter may have a derivative itself."""
    return bool(getattr(value, "requires_grad", False)) or _array.is_traced(value)
