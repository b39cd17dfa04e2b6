"""The suite is tested too: bugs planted one at a time, each of which it must find.

A mutant is a line of the core replaced by a wrong one. The code of the functions is swapped where
they are, so that everything that holds them runs the wrong one, and swapped back afterwards.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import pytest
from thin import thin

import normconstraints as nc
from normconstraints import constraint as base
from normconstraints.testing import check_constraint


@dataclass(frozen=True)
class Mutant:
    """What is wrong, where, and the constraint and backends that are to show it."""

    bug: str
    module: str
    right: str
    wrong: str
    constraint: nc.Constraint
    backends: tuple[str, ...] = ("numpy",)


MAX = nc.MaxNorm(1.0, axis=0)
UNIT = nc.UnitNorm(axis=0)
FIXED = nc.FixedNorm(2.0, axis=0)
RATE = nc.MinMaxNorm(0.5, 1.0, rate=0.25, axis=0)
BAND = nc.MinMaxNorm(0.5, 1.0, axis=0)
LINF = nc.LInfBall(0.1, axis=0)
BOX = nc.Box(-0.5, 0.25)
CAPPED = nc.CappedSimplex(
    (-0.5, 0.0, 0.0, -1.0, -0.25, 0.0),
    (0.5, 1.0, 0.25, 1.0, 0.25, 2.0),
    (0.1, 1.0, 2.5, -1.0, 3.0, 0.0, 0.75, 1.5),
    axis=-1,
)
SPECTRAL = nc.SpectralBall(1.0)

MUTANTS = [
    Mutant(
        "epsilon added to the norm, as in Keras",
        "_norms",
        "return Norms(root, scale,",
        "return Norms(root + 1e-7, scale,",
        UNIT,
    ),
    Mutant(
        "norm of float32 taken in float32, which overflows",
        "_array",
        "doubles = eps > 1e-10 and _has_float64(w, xp)",
        "doubles = False",
        MAX,
        ("strict",),
    ),
    Mutant(
        "norm of float64 taken without scaling",
        "_norms",
        "        if precision.scaled:\n            scale",
        "        if False:\n            scale",
        MAX,
        ("strict",),
    ),
    Mutant(
        "scaled by the largest entry and not by a power of two",
        "_norms",
        "    scale = ones = xp.ones_like(largest)\n",
        "    return 1 / largest\n    scale = ones = xp.ones_like(largest)\n",
        MAX,
        ("strict",),
    ),
    Mutant(
        "outside by an ulp: scaled to the bound itself",
        "_norms",
        "return bound * (1 - roundings * p.unit * (1 + 1 / 64))",
        "return bound",
        MAX,
    ),
    Mutant(
        "shrunk by far too much",
        "_norms",
        "return bound * (1 - roundings * p.unit * (1 + 1 / 64))",
        "return bound * (1 - 16 * p.unit)",
        MAX,
    ),
    Mutant(
        "feasible groups are moved to the bound too",
        "_norms",
        "return self._finite(self.scaled > bound * (1 + slack) * self.scale)",
        "return self._finite(self.scaled > 0)",
        MAX,
    ),
    Mutant(
        "feasible groups shrink a little at every call",
        "_norms",
        "return xp.where(moved, result, w)",
        "return xp.where(moved, result, w * (1 - precision.eps))",
        MAX,
        ("strict",),
    ),
    Mutant(
        "the bound is taken for its square",
        "sets.max_norm",
        "return norms.within(max_value), norms.above(max_value)",
        "return norms.within(max_value**2), norms.above(max_value)",
        nc.MaxNorm(0.3, axis=None),
    ),
    Mutant(
        "no slack where nothing wider measures: not idempotent",
        "_norms",
        "slack = 0.0 if self.precision.wide is not None else self.slack",
        "slack = -4 * self.precision.eps",
        MAX,
        ("strict no x64",),
    ),
    Mutant(
        "infinity counts as finite and becomes NaN",
        "_norms",
        'return self.scaled < float("inf")',
        "return self.scaled == self.scaled",
        MAX,
    ),
    Mutant(
        "NaN spreads to all groups",
        "_norms",
        "y = _widen(w, xp, precision)\n    with",
        "y = _widen(w, xp, precision) + 0 * xp.sum(_widen(w, xp, precision))\n    with",
        MAX,
        ("strict",),
    ),
    Mutant(
        "NaN hidden: replaced by zero",
        "_norms",
        "return xp.where(moved, result, w)",
        "return xp.where(moved, result, xp.where(w == w, w, 0.0))",
        MAX,
        ("strict",),
    ),
    Mutant(
        "violation of groups that are not finite is 0",
        "_norms",
        'found = xp.where(self.finite, found, float("nan"))',
        "found = xp.where(self.finite, found, 0.0)",
        MAX,
    ),
    Mutant(
        "NaN gradient at zero: the root of 0",
        "_norms",
        "root = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squares)))",
        "root = xp.sqrt(squares)",
        MAX,
        ("torch grad",),
    ),
    Mutant(
        "NaN gradient at zero: division by the norm outside the mask",
        "_norms",
        "    factor = goal / xp.where(moved, norms.scaled, 1.0)\n    y = norms.measured",
        "    factor = goal / norms.scaled\n    y = norms.measured",
        MAX,
        ("torch grad",),
    ),
    Mutant(
        "a zero group is moved",
        "_norms",
        "& (self.scaled > 0)",
        "& (self.scaled >= 0)",
        UNIT,
        ("strict",),
    ),
    Mutant(
        "a zero group of a sphere is said to be inside",
        "sets.fixed_norm",
        "norms.off(value) | norms.zero",
        "norms.off(value)",
        FIXED,
    ),
    Mutant(
        "host sync: a branch on values",
        "_norms",
        "    if precision.wide is not None:\n        result = xp.astype",
        "    if bool(xp.any(moved)) and precision.wide is not None:\n        result = xp.astype",
        MAX,
        ("strict", "torch no sync", "jax jit", "cupy double"),
    ),
    Mutant(
        "host sync: a linear system that raises if it is singular",
        "_linalg",
        'return sys.modules["torch"].linalg.solve_ex(a, b)[0]',
        "return xp.linalg.solve(a, b)",
        nc.Birkhoff(axis=(-2, -1)),
        ("torch no sync",),
    ),
    Mutant(
        "host sync: float() of a norm",
        "_norms",
        "    zero = squares == 0\n",
        "    zero = squares == 0\n    float(xp.sum(squares))\n",
        MAX,
        ("strict", "torch fake cuda"),
    ),
    Mutant(
        "a mask index, whose shape depends on values",
        "_norms",
        "    zero = squares == 0\n",
        "    zero = squares == 0\n    squares[zero]\n",
        MAX,
        ("strict", "cupy double"),
    ),
    Mutant(
        "the cast back is missing",
        "_norms",
        "result = xp.astype(result, precision.dtype)",
        "result = result",
        MAX,
        ("strict",),
    ),
    Mutant(
        "a constant on the default device",
        "_norms",
        "    zero = squares == 0\n",
        "    zero = squares == xp.zeros(1, dtype=squares.dtype)\n",
        MAX,
        ("strict",),
    ),
    Mutant(
        "a name that the standard has not",
        "_norms",
        "return y * y\n",
        "return xp.float_power(y, 2)\n",
        MAX,
        ("strict",),
    ),
    Mutant(
        "written in place: the input changes",
        "_host",
        "        product = w * factor\n",
        "        w *= factor\n        product = w\n",
        MAX,
    ),
    Mutant(
        "in place is another arithmetic",
        "_norms",
        "    _array.write(out, result)\n",
        "    _array.write(out, result * (1 - norms.precision.eps))\n",
        MAX,
        ("cupy double",),
    ),
    Mutant(
        "in place writes nowhere",
        "constraint",
        "self._project_into(w, w, xp)",
        "self._project(w, xp)",
        MAX,
    ),
    Mutant(
        "in place on a read-only array is tried",
        "_array",
        'elif not getattr(getattr(w, "flags", None), "writeable", True):',
        "elif False:",
        BOX,
    ),
    Mutant(
        "wrong axis: the transpose",
        "_array",
        "return (axis % ndim,)",
        "return ((ndim - 1 - axis) % ndim,)",
        MAX,
    ),
    Mutant(
        "negative axes count from the wrong end",
        "_array",
        "return (axis % ndim,)",
        "return (abs(axis) % ndim,)",
        nc.MaxNorm(0.3, axis=-2),
    ),
    Mutant(
        "rate on the wrong side",
        "_norms",
        "            factor = (1 - rate) + rate * factor\n        factor",
        "            factor = rate + (1 - rate) * factor\n        factor",
        RATE,
    ),
    Mutant(
        "rate on the wrong side where nothing wider measures",
        "_norms",
        "result = (1 - rate) * _widen(w, xp, precision) + rate * result",
        "result = rate * _widen(w, xp, precision) + (1 - rate) * result",
        RATE,
    ),
    Mutant(
        "the lower bound is forgotten",
        "sets.min_max_norm",
        "low), long | short",
        "low), long",
        BAND,
    ),
    Mutant(
        "bounds that meet: a short group ends above",
        "sets.min_max_norm",
        "xp.where(long | (low > high), high, low)",
        "xp.where(long, high, low)",
        nc.MinMaxNorm(1.0, 1.0, axis=1),
    ),
    Mutant(
        "root mean square over one entry too few",
        "sets.unit_rms",
        "norm = value * math.sqrt(norms.size)",
        "norm = value * math.sqrt(max(norms.size - 1, 1))",
        nc.UnitRMS(axis=0),
    ),
    Mutant(
        "the ball of the largest entry is left by rounding its radius up",
        "sets.linf_ball",
        "_array.representable(radius, precision, inward=True)",
        "_array.representable(radius, precision)",
        LINF,
    ),
    Mutant(
        "clipping from above alone",
        "sets.linf_ball",
        "return xp.where(w < low, low, w)",
        "return w",
        LINF,
    ),
    Mutant(
        "NaN clipped away",
        "sets.box",
        "w = xp.where(w > high, high, w)",
        "w = xp.where(w <= high, w, high)",
        BOX,
    ),
    Mutant(
        "a negative zero loses its sign",
        "sets.non_neg",
        "return xp.where(w < 0, 0.0, w)",
        "return xp.where(w <= 0, 0.0, w)",
        nc.NonNeg(),
    ),
    Mutant(
        "violation without its axes dropped",
        "_norms",
        "return xp.squeeze(found, axis=axes) if axes else found",
        "return found",
        MAX,
    ),
    Mutant(
        "violation of a group is that of its square",
        "sets.max_norm",
        "return norms.length - max_value, norms.above(max_value)",
        "return norms.length**2 - max_value**2, norms.above(max_value)",
        MAX,
    ),
    Mutant(
        "integers are let in",
        "_array",
        "    if not is_float:",
        "    if False:",
        MAX,
    ),
    Mutant(
        "a naive sum in float64",
        "_array",
        "x = xp.sum(fold(x, axis, xp), axis=axis, keepdims=True)",
        "x = xp.cumulative_sum(x, axis=axis)[..., -1:, :]",
        nc.UnitNorm(axis=0),
        ("strict",),
    ),
    Mutant(
        "a naive sum in float64 in host memory",
        "_host",
        "squares = np.add.reduce(folded, axis=axis, keepdims=True)",
        "squares = np.add.accumulate(squares, axis=axis)[-1:]",
        nc.UnitNorm(axis=0),
        ("numpy",),
    ),
    Mutant(
        "the scaled sum is not asked for where float64 underflows",
        "_norms",
        "_host.least(squares, library) > 2.0**-600",
        "True",
        nc.UnitNorm(axis=0),
        ("numpy",),
    ),
    Mutant(
        "a group with NaN counts as finite",
        "_norms",
        'return long if self.most < float("inf") else long & self.finite',
        "return long",
        MAX,
        ("numpy",),
    ),
    Mutant(
        "Newton's threshold without the total",
        "_threshold",
        "return (above - total) / xp.where(slope > 0, slope, 1.0)",
        "return above / xp.where(slope > 0, slope, 1.0)",
        nc.Simplex(axis=0),
        ("strict",),
    ),
    Mutant(
        "too few steps of Newton's method",
        "_threshold",
        "return min(size, math.ceil(math.log2(size) - math.log2(eps) / 2)) + 1",
        "return 1",
        nc.Simplex(axis=0),
        ("strict",),
    ),
    Mutant(
        "numbers not shifted",
        "_threshold",
        "    y = y - groups.max(y)\n    if low is not None:",
        "    if low is not None:",
        nc.Simplex(axis=0),
        ("strict",),
    ),
    Mutant(
        "an L1 ball left by a rounding",
        "sets.l1_ball",
        "onto_l1_sphere(groups, r, inward=groups.inward)",
        "onto_l1_sphere(groups, r)",
        nc.L1Ball(1.0, axis=0),
    ),
    Mutant(
        "the last of the smallest entries as a vertex",
        "_groups",
        "return self.unflat(flat & (running_count(flat, self.xp) == 1))",
        "return self.unflat(flat & (running_count(flat, self.xp) == 2))",
        nc.Simplex(axis=0),
    ),
    Mutant(
        "the largest entry as a vertex",
        "_threshold",
        "least = -groups.max(-g)",
        "least = groups.max(g)",
        nc.Simplex(axis=0),
    ),
    Mutant(
        "a minimiser uphill",
        "_norms",
        "found = lengthen(g, norms, -goal,",
        "found = lengthen(g, norms, goal,",
        UNIT,
    ),
    Mutant(
        "a dual norm that is the norm itself",
        "_threshold",
        "sizes = groups.max(moduli(groups.wide, groups))",
        "sizes = groups.sum(moduli(groups.wide, groups))",
        nc.L1Ball(1.0, axis=0),
    ),
    Mutant(
        "a tangent that keeps what leaves the sphere",
        "_norms",
        "rest = xp.where(norms.zero, xp.zeros_like(y), y - unit * radial)",
        "rest = y",
        UNIT,
    ),
    Mutant(
        "samples that do not know their seed",
        "_random",
        "generator = sys.modules[name].random.default_rng(seed)",
        "generator = sys.modules[name].random.default_rng(0)",
        nc.Simplex(axis=0),
    ),
    Mutant(
        "what is missing is not given to the entries between",
        "sets.capped_simplex",
        "xp.where(between, x + step * a, x)",
        "xp.where(between, x, x)",
        CAPPED,
    ),
    Mutant(
        "levels that take another sum from each row",
        "sets.l1_inf_ball",
        "return xp.where(active, (sums - taken) / count, 0.0)",
        "return xp.where(active, sums / count - taken, 0.0)",
        nc.L1InfBall(1.0, axis=None, group_axis=0),
    ),
    Mutant(
        "mean taken away once",
        "_linear",
        "        rest, low = self.normal.split(self.y, self._share(self.dot))",
        "        rest, low = self.y, 0.0",
        nc.ZeroMean(axis=0),
    ),
    Mutant(
        "a half-space taken for its plane",
        "sets.half_space",
        "return planes.put_back(planes.onto(b), planes.off(b) > planes.slack)",
        "return planes.put_back(planes.onto(b), abs(planes.off(b)) > planes.slack)",
        nc.HalfSpace(-2.0, 0.75, axis=None),
    ),
    Mutant(
        "a slab's wrong bound",
        "sets.slab",
        "goal = groups.xp.where(above, high, low)",
        "goal = groups.xp.where(above, low, high)",
        nc.Slab(1.0, -0.5, 0.25, axis=0),
    ),
    Mutant(
        "the polar cone not sent to 0",
        "sets.second_order_cone",
        "beside = self.outside & (sum_ > 0)",
        "beside = self.outside",
        nc.SecondOrderCone(axis=0),
    ),
    Mutant(
        "the smallest entries stay",
        "_order",
        "_beside(groups, height).largest(height, k)",
        "_beside(groups, -height).largest(-height, k)",
        nc.TopK(3, axis=0),
    ),
    Mutant(
        "a slice is outside only if all its blocks are",
        "sets.n_of_m",
        "groups.xp.any(full, axis=axis, keepdims=True)",
        "groups.xp.all(full, axis=axis, keepdims=True)",
        nc.NOfM(1, 2, axis=-1),
    ),
    Mutant(
        "free signs count as positive",
        "sets.sign_pattern",
        "((signs > 0) & (x < 0))",
        "((signs >= 0) & (x < 0))",
        nc.SignPattern((1, -1, 0, 1, -1, -1)),
    ),
    Mutant(
        "the norm of all entries instead of the positive ones",
        "sets.non_neg_unit_norm",
        "norms = _measure(groups, above)",
        "norms = _measure(groups, x)",
        nc.NonNegUnitNorm(axis=0),
    ),
    Mutant(
        "means of huge entries overflow",
        "sets.monotone",
        "xp.where(largest > small * 2.0 ** (p.exponent - 1), small,",
        "xp.where(largest > math.inf, small,",
        nc.Monotone(axis=0),
    ),
    Mutant(
        "a stated derivative that averages over all that it has seen so far",
        "sets.monotone",
        "after = xp.where(same, x[..., step:], x[..., :-step])",
        "after = x[..., :-step]",
        nc.Monotone(axis=0),
    ),
    Mutant(
        "a stated derivative that adds up and does not average",
        "sets.monotone",
        "return _over_blocks(x / _array.cast(count, x.dtype, xp), blocks, xp)",
        "return _over_blocks(x, blocks, xp)",
        nc.Monotone(axis=0),
    ),
    Mutant(
        "Dykstra forgets its corrections",
        "compose",
        "shifted = _finite_or(x + a, x, xp)",
        "shifted = _finite_or(x, x, xp)",
        nc.Box(0.05, 0.4) & nc.MaxNorm(0.6, axis=0),
    ),
    Mutant(
        "a kernel put back in the order in which it is shown as a matrix",
        "as_matrix",
        "tuple([order.index(i) for i in range(w.ndim)])",
        "tuple(order)",
        nc.AsMatrix(nc.MaxNorm(0.5, axis=-1), rows=-1),
    ),
    Mutant(
        "a kernel left as a matrix",
        "as_matrix",
        "return self._back(call(self, self.constraint.project, self._shown(w, xp)), w, xp)",
        "return call(self, self.constraint.project, self._shown(w, xp))",
        nc.AsMatrix(nc.MaxNorm(0.5, axis=-1), rows=-1),
    ),
    Mutant(
        "a diagonal divided by the number of rows, however long it is",
        "_structure",
        "float(min(d + 1, n, m, count - d))",
        "float(n)",
        nc.Toeplitz(),
    ),
    Mutant(
        "diagonals from the other corner",
        "_structure",
        "return matrices.xp.flip(x, axis=-2)",
        "return x",
        nc.Toeplitz(),
    ),
    Mutant(
        "rows and columns mistaken for each other",
        "_structure",
        "self._turned = rows > cols",
        "self._turned = rows < cols",
        nc.Triangular(),
    ),
    Mutant(
        "members found by their mean, which is rounded",
        "_structure",
        "self.groups.put_back(found, ~member | ((found == w) & (w != 0)))",
        "self.groups.put_back(found, self.groups.finite)",
        nc.Toeplitz(),
    ),
    Mutant(
        "heaps of tied entries filled with one of them, not with zeros",
        "sets.tied",
        "self.xp.concat([x, self.xp.zeros_like(x[..., :1])], axis=-1)",
        "self.xp.concat([x, x[..., :1]], axis=-1)",
        nc.Tied((7, -1, -1, 7, 0, -1)),
    ),
    Mutant(
        "means of tied entries over the last of the axes that ids leave out",
        "sets.tied",
        "spread *= size",
        "spread = size",
        nc.Tied(0),
    ),
    Mutant(
        "positive entries taken for tied ones",
        "sets.tied",
        "return groups.every(self.back(w == first))",
        "return groups.every(self.back(w == first) | (groups.w > 0))",
        nc.Tied(0, axis=0),
    ),
    Mutant(
        "transposed without the conjugate",
        "_structure",
        "if matrices.groups.precision.is_complex else t",
        "if False else t",
        nc.Symmetric(),
    ),
    Mutant(
        "sums of huge entries that overflow",
        "_structure",
        "y, scale = self.groups.shrunk()",
        "y, scale = self.groups.wide, 1.0",
        nc.Circulant(),
    ),
    Mutant(
        "the diagonal of the nearest correlation matrix is held by nothing in the derivative",
        "_correlation",
        "found = first - spectrum.spread(self._as_diagonal(along))",
        "found = first",
        nc.Correlation(),
    ),
    Mutant(
        "a correlation matrix whose diagonal is roughly right counts as nearest",
        "_correlation",
        "exact = is_last | ~rises | (size == self.size)",
        "exact = rises & ~rises",
        nc.Correlation(),
    ),
    Mutant(
        "matrices with NaN are decomposed",
        "_spectral",
        "xp.where(groups.finite, y * self._scale, xp.zeros_like(y))",
        "y * self._scale",
        SPECTRAL,
    ),
    Mutant(
        "float32 is decomposed in float32",
        "_spectral",
        "            y = groups.wide\n",
        "            y = groups.w\n",
        SPECTRAL,
    ),
    Mutant(
        "the skew part of a derivative by the differences of the symmetric one",
        "_spectral",
        "pairs = f[..., None] + f[..., None, :], y[..., None] + y[..., None, :]",
        "pairs = f[..., None] - f[..., None, :], y[..., None] - y[..., None, :]",
        SPECTRAL,
    ),
    Mutant(
        "slopes of values that are 0 twice are 0 too",
        "_spectral",
        "return xp.where(b == 0, xp.astype(free, found.dtype), found)",
        "return xp.where(b == 0, xp.zeros_like(found), found)",
        SPECTRAL,
    ),
    Mutant(
        "a derivative without what is at right angles to all singular vectors",
        "_spectral",
        "if matrices.rows > self.size:",
        "if False:",
        SPECTRAL,
    ),
    Mutant(
        "members of a curved set have the derivative of a plain",
        "_spectral",
        "curved = self._curved(find) if convex else xp.ones_like(self.groups.finite)",
        "curved = self._curved(find)",
        nc.Orthogonal(),
    ),
    Mutant(
        "values with a sum to keep change it in the derivative",
        "_spectral",
        "h = xp.where(free, h - mean, h)",
        "h = xp.where(free, h, h)",
        nc.NuclearBall(1.0),
    ),
    Mutant(
        "not quite symmetric",
        "_spectral",
        "return half(_linalg.product(v * values[..., None, :], vh, self.xp), self.matrices, 1.0)",
        "return _linalg.product(v * values[..., None, :], vh, self.xp)",
        nc.PositiveSemidefinite(),
    ),
    Mutant(
        "no slack for what a decomposition rounds",
        "_spectral",
        "wide=p.wide is not None, decomposed=True) / 2",
        "wide=p.wide is not None, decomposed=True) * 0",
        SPECTRAL,
    ),
    Mutant(
        "far too much slack for what a decomposition rounds",
        "_spectral",
        "wide=p.wide is not None, decomposed=True) / 2",
        "wide=p.wide is not None, decomposed=True) * 16",
        nc.Orthogonal(),
    ),
    Mutant(
        "a reflection counts as a rotation",
        "_spectral",
        "return self.xp.where(last & negative, -y, y)",
        "return y",
        nc.SpecialOrthogonal(),
    ),
    Mutant(
        "a tangent of wide matrices as of tall ones",
        "_spectral",
        "tall = m.rows >= m.cols",
        "tall = True",
        nc.Orthogonal(axis=(1, 0)),
    ),
    Mutant(
        "the smallest singular values stay",
        "_spectral",
        "_array.places(self.xp.ones_like(y), y.ndim - 1, self.xp) <= count",
        "_array.places(self.xp.ones_like(y), y.ndim - 1, self.xp) > y.shape[-1] - count",
        nc.MaxRank(2),
    ),
    Mutant(
        "divided by the largest singular value, as spectral normalization does",
        "sets.spectral_ball",
        "Change(s.xp.where(inside, y, r),",
        "Change(y * s.xp.where(s.vectors(y).max(y) > r, r / s.vectors(y).max(y), 1.0),",
        SPECTRAL,
    ),
    Mutant(
        "eigenvalues cut at 0, whatever their sum",
        "sets.spectraplex",
        "values = onto_simplex(s.vectors(y), y, t)",
        "values = s.xp.where(y > 0, y, s.xp.zeros_like(y))",
        nc.Spectraplex(),
    ),
    Mutant(
        "a second pass that is left out where Gram matrices lose digits",
        "_spectral_methods",
        "again = doubt > self.slack / 4",
        "again = doubt < 0",
        nc.SpectralBall(1.0, method="gram"),
    ),
    Mutant(
        "polynomials that stop before the sign is there",
        "_spectral_methods",
        "math.ceil(math.log(0.024 / smallest, _GROWTH)) + _FINISHING",
        "math.ceil(math.log(0.024 / smallest, _GROWTH)) + _FINISHING[:4]",
        nc.Orthogonal(method="polar"),
    ),
    Mutant(
        "a kernel is cut off after its frequencies were capped, which is not the nearest",
        "_convolution",
        "k = self._solved(x, norm, bound, library).found",
        "k = self.back((v := self.transformed(x / norm * self.count**0.5)) - _System(self, "
        "v * norm / bound).excess * bound / norm)",
        nc.ConvOperatorBall(0.3, spatial=(4,), roles="sio"),
    ),
    Mutant(
        "a kernel whose norm is above the bound by rounding counts as outside",
        "_convolution",
        "return norm - bound > slack * norm",
        "return norm > bound",
        nc.ConvOperatorBall(0.3, spatial=(4,), roles="sio"),
    ),
]


def _functions(namespace: dict[str, Any], module: str) -> Iterator[FunctionType]:
    for value in list(namespace.values()):
        if isinstance(value, FunctionType) and value.__module__ == module:
            yield value
        elif isinstance(value, type) and value.__module__ == module:
            for member in vars(value).values():
                function = member.fget if isinstance(member, property) else member
                if isinstance(function, FunctionType) and function.__module__ == module:
                    yield function


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The core with one wrong line."""
    module = importlib.import_module(f"normconstraints.{mutant.module}")
    source = inspect.getsource(module)
    assert source.count(mutant.right) == 1, f"{mutant.bug}: the line is not there, or twice"
    text = source.replace(mutant.right, mutant.wrong)
    ast.parse(text)
    known = dict(base._registered)
    namespace: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(text, f"<{mutant.bug}>", "exec"), namespace)
    base._registered.clear()
    base._registered.update(known)
    wrong = {f.__qualname__: f.__code__ for f in _functions(namespace, module.__name__)}
    functions = [
        f
        for f in _functions(vars(module), module.__name__)
        if f.__qualname__ in wrong and f.__code__.co_freevars == wrong[f.__qualname__].co_freevars
    ]
    right = [(f, f.__code__) for f in functions]
    saved = module._precisions.copy() if mutant.module == "_array" else None
    try:
        for f, _ in right:
            f.__code__ = wrong[f.__qualname__]
        if saved is not None:
            module._precisions.clear()
        yield
    finally:
        for f, code in right:
            f.__code__ = code
        if saved is not None:
            module._precisions.clear()
            module._precisions.update(saved)


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 30
    assert len({m.bug for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.filterwarnings("ignore")  # what a mutant makes the libraries warn of is its own
@pytest.mark.parametrize("mutant", thin(MUTANTS, 6), ids=lambda m: m.bug)
def test_the_suite_finds(mutant: Mutant) -> None:
    for backend in mutant.backends:
        with planted(mutant):
            brief = check_constraint(mutant.constraint, backends=[backend], brief=True)
            found = any(r.status == "failed" for r in brief)
            results = brief if found else check_constraint(mutant.constraint, backends=[backend])
        failed = [r for r in results if r.status == "failed"]
        assert failed, f"survived on {backend}"
        # Found for what it does, not because the planted line cannot run at all.
        assert not any("NameError" in r.message for r in failed), failed[0].message


def test_without_a_bug_there_is_nothing_to_find() -> None:
    sound = Mutant("nothing", "_norms", "zero = squares == 0", "zero = squares == 0", MAX)
    with planted(sound):
        results = check_constraint(MAX, backends=["numpy"])
    assert {r.status for r in results} == {"passed"}
