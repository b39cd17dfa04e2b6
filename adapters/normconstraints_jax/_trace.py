"""What tracing the initialisation of a model tells about the axes of its weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax

from normconstraints import layout
from normconstraints.layout import Layout, LayoutError

Seen = dict[str, list[tuple[Layout, tuple[int, ...]]]]
"""Names with the layouts that layers give them and the shapes that the layers see."""


def shapes(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function returns, as shapes; switches among its arguments stay as they are."""
    tree: Any
    leaves, tree = jax.tree.flatten((args, kwargs))

    def run(arrays: list[Any]) -> Any:
        rest = iter(arrays)
        filled = [next(rest) if hasattr(leaf, "shape") else leaf for leaf in leaves]
        run_args, run_kwargs = tree.unflatten(filled)
        return function(*run_args, **run_kwargs)

    return jax.eval_shape(run, [leaf for leaf in leaves if hasattr(leaf, "shape")])


def see(seen: Seen, name: str, layer: Any, attribute: str, shape: tuple[int, ...]) -> None:
    """Take down a weight, if its layer is known."""
    try:
        found = layout.of(layer, attribute)
        if set(found.roles) <= {"o"}:  # no incoming weights, whatever the dimensions
            found = Layout("o" * len(shape))
        found.fit(len(shape))
    except LayoutError:  # left out; rules that need it say what to write
        return
    if (found, shape) not in seen.setdefault(name, []):
        seen[name].append((found, shape))


def layouts(
    seen: Seen, shapes: dict[str, tuple[int, ...]], *, lifted: bool = False
) -> dict[str, Layout]:
    """The layouts of those weights whose axes are known without a doubt, for `Rules`.

    With `lifted`, a name may have more parts in front, up to a slash, than its layer knows of.
    """
    found = {}
    for name, shape in shapes.items():
        inner = name
        while lifted and inner not in seen and "/" in inner:
            inner = inner.partition("/")[2]
        ways = {_stacked(*way, shape) for way in seen.get(inner, ())} - {None}
        if len(ways) == 1 and (only := ways.pop()):
            found[exactly(name)] = only
    return found


def exactly(name: str) -> str:
    """The glob that matches a name and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _stacked(found: Layout, inner: tuple[int, ...], outer: tuple[int, ...]) -> Layout | None:
    """The layout with ``l`` for the axes that scan and vmap add; None if it cannot be told."""
    more = len(outer) - len(inner)
    if more < 1:
        return found if inner == outer else None
    ways = [
        at
        for at in itertools.combinations(range(len(outer)), more)
        if tuple(n for i, n in enumerate(outer) if i not in at) == inner
    ]
    if len(ways) != 1:
        return None
    roles = iter(found.fit(len(inner)))
    axes = ["l" if i in ways[0] else next(roles) for i in range(len(outer))]
    return Layout("".join(f"({r})" if len(r) > 1 else r for r in axes), found.groups)


def einsum(equation: str | None) -> str:
    """The roles of the kernel in an einsum of inputs and kernel.

    Raises
    ------
    LayoutError
        If the equation is not known, or the kernel has an ellipsis in it.
    """
    if not equation or "->" not in equation or "..." in equation.split("->")[0].split(",")[1]:
        raise LayoutError(
            "Einsum: the axes of a kernel are only known from an equation that names them all, "
            f"got {equation!r}; give their roles with Rules(..., layouts=...)"
        )
    operands, result = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    # What is only in the kernel is summed over, as its inputs are.
    return "".join(("g" if x in inputs else "o") if x in result else "i" for x in kernel)
