"""Which axes of a weight hold the incoming weights of one unit: roles of axes, layer by layer.

A layout gives each axis of a weight a role, one letter each:

====== =============================================================================
``o``  output units (several axes if the units are counted by several)
``i``  inputs of a unit
``s``  spatial axes of a kernel; ``..`` stands for any number of them
``g``  groups of a grouped convolution, kept
``l``  layers in a stack, of ``scan`` or ``vmap``, each a weight of its own, kept
``t``  tokens, the rows of an embedding
``e``  entries of the vector of a token
====== =============================================================================

``"oi"`` is PyTorch's Linear, ``"s..io"`` a convolution of Keras. Where two roles share an axis they
stand in parentheses: ``"(gi)o.."`` is PyTorch's grouped transposed convolution, whose first axis
counts the groups and in each of them the inputs.

Layers are declared by class; adapters declare those of their framework, users their own::

    nc.layout.declare(MyLayer, weight="oi", bias="o")
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar, final

from normconstraints import _array
from normconstraints._array import Array, Namespace
from normconstraints.constraint import (
    Constraint,
    Entrywise,
    Grouped,
    InPlace,
    parameters,
    parts,
    with_parts,
)

__all__ = ["InView", "Layout", "LayoutError", "declare", "declared", "of", "resolve", "stacked"]

_SPANNED = {"unit": "ise", "filter": "ise", "input": "ose", "row": "e", "kernel": "s"}
_SPANNED["tensor"] = "oisgte"
_MEANING = {
    "unit": "the incoming weights of one unit",
    "filter": "the incoming weights of one filter",
    "input": "the outgoing weights of one input",
    "row": "the vector of one token of an embedding",
    "kernel": "one spatial kernel of a convolution",
    "tensor": "the whole weight",
}


class LayoutError(ValueError):
    """The axes of a weight are not known, or it has none of the kind that was asked for."""


@final
@dataclass(frozen=True)
class Layout:
    """The roles of the axes of a weight.

    Parameters
    ----------
    roles : str
        One letter an axis, as the module says; spaces do not count.
    groups : int, default 1
        How many groups there are where ``g`` shares an axis.

    Raises
    ------
    LayoutError
        If a letter is no role, or parentheses do not hold ``g`` and one other role.

    Examples
    --------
    >>> from normconstraints.layout import Layout
    >>> Layout("oi..").axes("unit", 4)
    (1, 2, 3)
    >>> Layout("s..io").axes("unit", 4)
    (0, 1, 2)
    >>> Layout("te").axes("row", 2)
    (1,)
    """

    roles: str
    groups: int = 1

    def __post_init__(self) -> None:
        roles = re.sub(r"s?\.\.+", "*", self.roles.replace(" ", ""))
        if not re.fullmatch(r"(?:[oisglte*]|\([g][oi]\))*", roles) or roles.count("*") > 1:
            raise LayoutError(
                "Layout: roles must be a letter of o, i, s, g, l, t, e for each axis, '..' once "
                f"for any number of spatial axes, and '(go)' or '(gi)' for two that share one, got "
                f"{self.roles!r}"
            )
        if not isinstance(self.groups, int) or isinstance(self.groups, bool) or self.groups < 1:
            raise LayoutError(f"Layout: groups must be a positive integer, got {self.groups!r}")
        object.__setattr__(self, "roles", roles.replace("*", "s.."))

    def fit(self, ndim: int) -> tuple[str, ...]:
        """The role of each of `ndim` axes, two letters where two share one.

        Raises
        ------
        LayoutError
            If the layout is of another number of axes.
        """
        axes = re.findall(r"\([a-z]+\)|s\.\.|[a-z]", self.roles)
        if "s.." in axes:
            at = axes.index("s..")
            axes[at : at + 1] = ["s"] * (ndim - len(axes) + 1)
        if len(axes) != ndim:
            raise LayoutError(
                f"Layout: {self.roles!r} must have a role for each axis, got a weight with {ndim} "
                f"dimension{'' if ndim == 1 else 's'}"
            )
        return tuple(axis.strip("()") for axis in axes)

    def has(self, per: str) -> bool:
        """Whether the weight has groups of that kind: a bias has no incoming weights."""
        letters = set(self.roles)
        if per == "input" and not letters & {"i", "t"}:
            return False
        return bool(letters & set(_SPANNED[per]))

    def axes(self, per: str, ndim: int) -> tuple[int, ...]:
        """The axes that one group spans, of the view if the weight needs one.

        Parameters
        ----------
        per : str
            "unit" (or "filter"), "input", "row", "kernel" or "tensor".
        ndim : int
            Dimensions of the weight.

        Raises
        ------
        LayoutError
            If the weight has no such groups.
        """
        fitted = self.fit(ndim)
        spanned = set(_SPANNED[per])
        if not self.has(per) or not spanned & set("".join(fitted)):
            raise LayoutError(
                f"axis={per!r} is {_MEANING[per]}, which a weight with the roles {self.roles!r} "
                "does not have; give the axis as a number, or leave the weight out"
            )
        if self._splits(per, fitted):
            fitted = tuple("".join(fitted))
        return tuple(i for i, role in enumerate(fitted) if spanned & set(role))

    def view(self, per: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape in which axes that two roles share are apart, None if that is not needed."""
        fitted = self.fit(len(shape))
        if not self._splits(per, fitted):
            return None
        found: list[int] = []
        for role, size in zip(fitted, shape, strict=True):
            if len(role) == 1:
                found.append(size)
            elif size % self.groups:
                raise LayoutError(f"Layout: {self.groups} groups must divide {size}, and do not")
            else:
                found += [self.groups, size // self.groups]
        return tuple(found)

    def _splits(self, per: str, fitted: tuple[str, ...]) -> bool:
        spanned = set(_SPANNED[per])
        return self.groups > 1 and any(spanned & set(r) and set(r) - spanned for r in fitted)


@final
@dataclass(frozen=True, eq=False)
class InView(InPlace):
    """A constraint on another shape of the weight: that of a grouped transposed convolution, say.

    Parameters
    ----------
    constraint : Constraint
        Applied to the weight in the shape `view`.
    view : tuple of int
        A shape with as many entries.
    """

    constraint: Constraint
    view: tuple[int, ...]

    def _project(self, w: Array, xp: Namespace) -> Array:
        return xp.reshape(self.constraint.project(self._viewed(w, xp)), w.shape)

    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        _array.write(out, self._project(w, xp))

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return self.constraint.violation(self._viewed(w, xp))

    def _viewed(self, w: Array, xp: Namespace) -> Array:
        if math.prod(w.shape) != math.prod(self.view):
            raise ValueError(f"InView: w must fit the shape {self.view}, got {tuple(w.shape)}")
        return xp.reshape(w, self.view)


_C = TypeVar("_C", bound=Constraint)


def resolve(constraint: _C, layout: Layout, shape: tuple[int, ...]) -> _C | InView:
    """The constraint with the word in its `axis` replaced by the axes of a weight.

    Parameters
    ----------
    constraint : Constraint
        Comes back itself if its `axis` is no word.
    layout : Layout
        The roles of the weight's axes.
    shape : tuple of int
        The weight's shape.

    Raises
    ------
    LayoutError
        If the weight has no groups of that kind.

    Examples
    --------
    >>> import normconstraints as nc
    >>> nc.layout.resolve(nc.MaxNorm(3.0, axis="unit"), nc.layout.Layout("s..io"), (3, 3, 1, 32))
    MaxNorm(max_value=3.0, axis=(0, 1, 2))
    """
    word = axis_word(constraint)
    if word is None:
        return constraint
    axes = layout.axes(word, len(shape))
    view = layout.view(word, shape)
    resolved = _with_axis(constraint, axes[0] if len(axes) == 1 else axes)
    return resolved if view is None else InView(resolved, view)


def axis_word(constraint: Constraint) -> str | None:
    """The word in the `axis` of a constraint, or of one inside it, if there is one."""
    for name, value in parameters(constraint).items():
        if name == "axis" and isinstance(value, str):
            return value
        for part in parts(value):
            if word := axis_word(part):
                return word
    return None


def _with_axis(constraint: _C, axes: int | tuple[int, ...]) -> _C:
    changes: dict[str, Any] = {}
    for name, value in parameters(constraint).items():
        if name == "axis" and isinstance(value, str):
            changes[name] = axes
        elif parts(value):
            changes[name] = with_parts(value, lambda c: _with_axis(c, axes))
    return dataclasses.replace(constraint, **changes)  # type: ignore[type-var]


def stacked(constraint: Constraint, ndim: int) -> Constraint | None:
    """The constraint for a stack of weights: with one axis more in front, which counts them.

    Many small weights cost many calls; in a stack they cost those of one.

    Parameters
    ----------
    constraint : Constraint
        With axes that are numbers, or None for the whole weight.
    ndim : int
        How many axes one weight has.

    Returns
    -------
    Constraint or None
        None if there is no such constraint, or it is not known: for those that are made of others,
        for words that a layout has to resolve first, and for `ConvOperatorBall`, whose axes all
        have a meaning.

    Examples
    --------
    >>> import normconstraints as nc
    >>> nc.layout.stacked(nc.MaxNorm(3.0, axis=1), 2)
    MaxNorm(max_value=3.0, axis=2)
    >>> nc.layout.stacked(nc.L1Ball(1.0, axis=None), 2)
    L1Ball(radius=1.0, axis=(1, 2))
    """
    if not isinstance(constraint, Grouped):
        return constraint if isinstance(constraint, Entrywise) else None
    if isinstance(constraint.axis, str) or not ndim:
        return None
    if constraint.axis is None and "axis" not in parameters(constraint):
        return None  # the whole weight is the group, and there is no parameter to say otherwise
    # Parameters of groups and of entries broadcast from the last axis, and so stay as they are.
    changes = {
        name: _one_further(value, ndim)
        for name, value in parameters(constraint).items()
        if name in ("axis", "group_axis")
    }
    return dataclasses.replace(constraint, **changes)  # type: ignore[type-var]


def _one_further(axis: int | tuple[int, ...] | None, ndim: int) -> int | tuple[int, ...]:
    if axis is None:
        return tuple(range(1, ndim + 1))
    if isinstance(axis, tuple):
        return tuple([a + 1 if a >= 0 else a for a in axis])
    return axis + 1 if axis >= 0 else axis


# ----------------------------------------------------------------------------------- registry

Roles: TypeAlias = str | Layout | Callable[[Any], str | Layout]
"""The roles of a weight, or a function of the layer that gives them."""

_layers: dict[type, dict[str, Roles]] = {}


def declare(cls: type, weights: Mapping[str, Roles] | None = None, /, **by_name: Roles) -> None:
    """Say which roles the axes of the weights of a layer class have.

    Parameters
    ----------
    cls : type
        The class; its subclasses inherit the declaration.
    weights : mapping of str to str, Layout or callable, optional
        Names of the weights in the layer, or globs; the first that matches counts. A callable gets
        the layer and returns its roles.
    **by_name : str, Layout or callable
        The same by keyword.

    Raises
    ------
    TypeError
        If `cls` is no class, or a value no roles.
    LayoutError
        If roles are not well formed.

    Examples
    --------
    >>> import normconstraints as nc
    >>> class Dense:
    ...     pass
    >>> nc.layout.declare(Dense, weight="oi", bias="o")
    >>> nc.layout.of(Dense(), "weight")
    Layout(roles='oi', groups=1)
    """
    if not isinstance(cls, type):
        raise TypeError(f"declare: cls must be a class, got {cls!r}")
    found: dict[str, Roles] = {}
    for name, roles in {**(weights or {}), **by_name}.items():
        if isinstance(roles, str):
            roles = Layout(roles)
        elif not (isinstance(roles, Layout) or callable(roles)):
            raise TypeError(
                f"declare: the roles of {name!r} must be a string, a Layout or a function of the "
                f"layer, got {roles!r}"
            )
        found[name] = roles
    _layers[cls] = found


def declared(cls: type) -> bool:
    """Whether the class itself, or one that it inherits from, was declared."""
    return any(base in _layers for base in cls.__mro__)


def of(layer: object, weight: str) -> Layout:
    """The layout of a weight of a layer.

    Parameters
    ----------
    layer : object
        An instance of a declared class.
    weight : str
        The name of the weight in the layer.

    Raises
    ------
    LayoutError
        If the class, or that weight of it, was not declared; says the line to write.
    """
    kind = type(layer)
    for base in kind.__mro__:
        for pattern, roles in _layers.get(base, {}).items():
            if fnmatchcase(weight, pattern):
                found = roles(layer) if callable(roles) else roles
                return Layout(found) if isinstance(found, str) else found
    named = f'{weight}="oi"' if weight.isidentifier() else f'{{"{weight}": "oi"}}'
    raise LayoutError(
        f"the axes of {weight!r} of a {kind.__module__}.{kind.__qualname__} are not known; say "
        f"them once, as normconstraints.layout.declare({kind.__qualname__}, {named}), with o for "
        "its output units and i for its inputs"
    )
