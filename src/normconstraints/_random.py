"""Random arrays beside a given one, by the generator of its own library and of a seed alone."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

from normconstraints import _array
from normconstraints._array import Array, Namespace


class Draw:
    """Random arrays of the library and device of `like`, in the dtype in which norms are taken.

    Each call draws anew. The same seed gives the same arrays, on the same library and device.
    """

    def __init__(self, like: Array, xp: Namespace, owner: str, seed: int) -> None:
        """Start the generator of the library of `like`."""
        self.precision = _array.precision(like, xp, owner)
        self._like, self._xp = like, xp
        self._dtype = self.precision.accumulator
        self._source = _source(like, xp, seed)

    def beside(self, like: Array) -> Draw:
        """The same generator, where it is now, for a weight of another shape."""
        other = copy.copy(self)
        other._like = like
        return other

    def normal(self, shape: tuple[int, ...] | None = None) -> Array:
        """Real standard normal numbers, of the shape of the weight if none is given."""
        shape = tuple(self._like.shape) if shape is None else shape
        return self._source("normal", shape, self._dtype)

    def uniform(self, shape: tuple[int, ...] | None = None) -> Array:
        """Numbers above 0 and at most 1, equally likely."""
        shape = tuple(self._like.shape) if shape is None else shape
        return 1 - self._source("uniform", shape, self._dtype)

    def exponential(self, shape: tuple[int, ...] | None = None) -> Array:
        """Exponential numbers of mean 1, at least 0."""
        return -self._xp.log(self.uniform(shape))

    def direction(self) -> Array:
        """Normal numbers of the kind of the weight: complex where it is."""
        if not self.precision.is_complex:
            return self.normal()
        return _as_complex(self.normal(), self.normal(), self._xp)


def _as_complex(re: Array, im: Array, xp: Namespace) -> Array:
    return re + im * 1j


def _source(like: Array, xp: Namespace, seed: int) -> Callable[[str, tuple[int, ...], Any], Array]:
    name = _array.name_of(xp)
    if name == "torch":
        torch = sys.modules["torch"]
        generator = torch.Generator(device=like.device).manual_seed(seed)
        kinds = {"normal": torch.randn, "uniform": torch.rand}
        return lambda kind, shape, dtype: kinds[kind](
            shape, generator=generator, dtype=dtype, device=like.device
        )
    if name == "jax":
        return _jax_source(sys.modules["jax"], seed)
    if name in ("numpy", "cupy"):
        generator = sys.modules[name].random.default_rng(seed)
        drawn = {"normal": generator.standard_normal, "uniform": generator.random}
        return lambda kind, shape, dtype: drawn[kind](shape, dtype=dtype)
    # The standard has no random numbers; Python's own serve the libraries that have none either.
    import random

    plain = random.Random(seed)
    one = {"normal": lambda: plain.gauss(0.0, 1.0), "uniform": plain.random}

    def draw(kind: str, shape: tuple[int, ...], dtype: Any) -> Array:
        return _array.like(_nested(one[kind], shape), like, xp, dtype, "sample: like")

    return draw


def _jax_source(jax: Any, seed: int) -> Callable[[str, tuple[int, ...], Any], Array]:
    key = jax.random.key(seed)
    count = 0

    def draw(kind: str, shape: tuple[int, ...], dtype: Any) -> Array:
        nonlocal count
        count += 1
        own = jax.random.fold_in(key, count)
        return getattr(jax.random, kind)(own, shape, dtype=dtype)

    return draw


def _nested(one: Callable[[], float], shape: tuple[int, ...]) -> Any:
    if not shape:
        return one()
    return tuple(_nested(one, shape[1:]) for _ in range(shape[0]))
