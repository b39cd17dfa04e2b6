"""The inputs: regimes in which projections are known to go wrong.

Gaussian numbers alone find few bugs; overflow, ties, boundaries and non-finite entries find them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from normconstraints.testing._exact import Format

Maker: TypeAlias = Callable[[np.random.Generator, tuple[int, ...], Format], Any]


def _gaussian(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if form.is_complex else x


def _interior(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    return 1e-3 * _gaussian(rng, shape, form)


def _huge(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    x = _gaussian(rng, shape, form)
    return x / np.max(np.abs(x), initial=1e-3) * form.largest


def _tiny(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    # Above the smallest normal number by enough that hardly an entry is subnormal.
    return (
        _gaussian(rng, shape, form)
        * form.smallest
        * (2.0**2 if form.name == "float16" else 2.0**14)
    )


def _subnormal(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    return _gaussian(rng, shape, form) * form.smallest * 2.0**-4


def _zeros(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    # Some groups of zeros among others, and a negative zero.
    x = _gaussian(rng, shape, form)
    if x.ndim:
        x[:1] = 0
        x[..., :1] = 0
        x[..., -1:] *= -0.0
        return x
    return x * 0


def _ties(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    signs = np.where(_gaussian(rng, shape, form).real < 0, -1.0, 1.0)
    return 0.7 * signs * (1j**0.5 if form.is_complex else 1)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    return _gaussian(rng, shape, form) * (rng.random(shape) < 0.2)


def _mixed(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    low, high = np.log10(form.smallest) * 0.9, np.log10(form.largest) * 0.9
    return _gaussian(rng, shape, form) * 10.0 ** rng.uniform(low, high, shape)


def _one_nan(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    x = _gaussian(rng, shape, form)
    x[(0,) * x.ndim] = np.nan
    return x


def _one_infinity(rng: np.random.Generator, shape: tuple[int, ...], form: Format) -> Any:
    x = _gaussian(rng, shape, form)
    x[(-1,) * x.ndim] = -np.inf
    return x


VALUES: dict[str, Maker] = {
    "gaussian": _gaussian,
    "interior": _interior,
    "boundary": _gaussian,  # projected in float64 before it is rounded to the dtype
    "huge": _huge,
    "tiny": _tiny,
    "subnormal": _subnormal,
    "zeros": _zeros,
    "ties": _ties,
    "sparse": _sparse,
    "mixed scales": _mixed,
    "one nan": _one_nan,
    "one infinity": _one_infinity,
    "non-contiguous": _gaussian,  # handed over as a strided view
}
"""Regimes of values, all in one shape."""

SHAPES: dict[str, tuple[int, ...]] = {
    "0 dimensions": (),
    "1 dimension": (5,),
    "one element": (1, 1),
    "3 dimensions": (2, 3, 4),
    "4 dimensions": (3, 2, 2, 3),
    "5 dimensions": (2, 1, 3, 2, 2),
    "6 dimensions": (2, 1, 2, 3, 1, 2),
    "empty": (0, 3),
    "empty groups": (3, 0),
}
"""Regimes of shapes, all gaussian, for sets whose parameters do not fix the shape."""

LARGE = "10^6 entries"
"""A group of a million entries; for the backends that are quick enough."""


def make(regime: str, shape: tuple[int, ...], form: Format, *, salt: str = "") -> Any:
    """Numbers of the dtype `form`, as float64 or complex128; the same at every call."""
    rng = np.random.default_rng(zlib.crc32(f"{regime}{shape}{salt}".encode()))
    maker = VALUES.get(regime, _gaussian)
    x = np.asarray(maker(rng, shape, form))
    if "infinity" in regime:
        finite = np.isfinite(x)
        return np.where(finite, form.quantise(np.where(finite, x, 0)), x)
    return form.quantise(x)
