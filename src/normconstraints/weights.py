"""What a model is to the rules: a list of named weights, each with the layer that holds it.

Plain dicts and lists of arrays are walked here; adapters register how the models of their framework
are walked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from normconstraints import layout
from normconstraints._array import Array
from normconstraints.layout import Layout

if TYPE_CHECKING:
    from normconstraints.constraint import Constraint
    from normconstraints.schedules import Scheduled

__all__ = ["Place", "Weight", "register_walker", "tie", "weights_of"]


@dataclass(frozen=True)
class Place:
    """Where a weight is: its name in the model, the layer that holds it and its name there."""

    name: str
    layer: Any = None
    attribute: str = ""
    roles: Layout | None = None
    """Known from elsewhere than the class of the layer."""

    def layout(self) -> Layout:
        """The roles of the axes.

        Raises
        ------
        LayoutError
            If they are not known.
        """
        if self.roles is not None:
            return self.roles
        if self.layer is None:
            raise layout.LayoutError(
                f"the layer of {self.name!r} is not known; give the roles of its axes, as "
                f'Rules(..., layouts={{{self.name!r}: "oi"}}), with o for output units and i for '
                "inputs, or the axis as a number"
            )
        return layout.of(self.layer, self.attribute)


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a model."""

    array: Array
    place: Place
    ties: tuple[Place, ...] = ()
    """The other places of the same array, where weights are tied."""
    constraint: Constraint | Scheduled | None = None
    """What the model itself says of it, where models do. Rules hold it as they hold their own."""

    @property
    def name(self) -> str:
        """The name in the model: of its first place."""
        return self.place.name

    @property
    def places(self) -> tuple[Place, ...]:
        """All places."""
        return (self.place, *self.ties)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array.

        Raises
        ------
        TypeError
            If it is no array.
        ValueError
            If it has none yet.
        """
        try:
            return tuple(self.array.shape)
        except AttributeError:
            raise TypeError(f"{self.name!r} must be an array, got {self.array!r}") from None
        except RuntimeError:  # torch's parameters of a lazy module
            raise ValueError(
                f"{self.name!r} must have a shape, and a lazy module has none before its first "
                "batch; run one through the model, then constrain it"
            ) from None


Walker: TypeAlias = Callable[[Any], Iterable[Weight]]
_walkers: dict[type, Walker] = {}


def register_walker(cls: type, walker: Walker) -> None:
    """Let `weights_of` walk models of a class, and of those that inherit from it, by a function."""
    _walkers[cls] = walker


def weights_of(model: Any) -> list[Weight]:
    """The weights of a model.

    Parameters
    ----------
    model : dict, list or tuple of arrays, list of Weight, or a model of a framework
        Dicts, lists and tuples nested as you like: the name of an array is the path to it, joined
        with dots. Models of a framework need their adapter to be imported.

    Returns
    -------
    list of Weight
        One for each array; an array that is in two places has ties.

    Raises
    ------
    TypeError
        If the model is of a class that no imported adapter knows.
    ValueError
        If two weights have one name.

    Examples
    --------
    >>> import numpy as np
    >>> from normconstraints.weights import weights_of
    >>> [w.name for w in weights_of({"dense": [{"kernel": np.ones((2, 3))}]})]
    ['dense.0.kernel']
    """
    for base in type(model).__mro__:
        if base in _walkers:
            return _checked(_walkers[base](model))
    if isinstance(model, list | tuple) and model and all(isinstance(w, Weight) for w in model):
        return _checked(model)
    if not isinstance(model, Mapping | list | tuple):
        module = type(model).__module__.partition(".")[0]
        raise TypeError(
            "weights_of: model must be a dict or list of arrays, or a model of a framework whose "
            "adapter is imported (normconstraints_torch; normconstraints_jax.equinox, .nnx, "
            ".linen or .haiku; normconstraints_keras; normconstraints_numpy.sklearn), got "
            f"{module}.{type(model).__qualname__}"
        )
    return _checked(tie((array, Place(name)) for name, array in _leaves(model, ())))


def tie(pairs: Iterable[tuple[Array, Place]]) -> list[Weight]:
    """One weight for each array, with all its places, in the order of the first."""
    found: dict[int, Weight] = {}
    for array, place in pairs:
        first = found.get(id(array))
        if first is None:
            found[id(array)] = Weight(array, place)
        else:
            found[id(array)] = replace(first, ties=(*first.ties, place))
    return list(found.values())


def _checked(weights: Iterable[Weight]) -> list[Weight]:
    weights = list(weights)
    names = Counter(place.name for weight in weights for place in weight.places)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"weights_of: every weight must have its own name, got {twice[0]!r} twice; a key that "
            "holds a dot can be mistaken for a path"
        )
    return weights


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    if isinstance(node, Mapping):
        items: Any = node.items()
    elif isinstance(node, tuple) and hasattr(node, "_fields"):  # named, by their names
        items = zip(getattr(node, "_fields"), node, strict=True)  # noqa: B009 - for pyright
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        yield ".".join(path), node
        return
    for key, child in items:
        yield from _leaves(child, (*path, str(key)))
