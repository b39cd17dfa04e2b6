"""The laws of what only some sets can do: linear minimisers, dual norms, tangents, samples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from normconstraints import _array, modes
from normconstraints._oracle import Group
from normconstraints.constraint import (
    Convex,
    HasDualNorm,
    HasLMO,
    HasSample,
    HasTangent,
    HasVJP,
    ZeroStays,
)
from normconstraints.testing import _exact, _laws, _regimes
from normconstraints.testing._exact import to_group
from normconstraints.testing._laws import Applies, Case, Law, fail, member, same, slices
from normconstraints.testing._regimes import make

ROOTS = ("float32", "float64")
"""The dtypes in which a derivative can be told from a step."""

LAWS: dict[str, tuple[Law, Applies]] = {}
law = functools.partial(_laws.law, laws=LAWS)


def _can(kind: type, *regimes: str) -> Applies:
    """For sets that can, on backends that run modes, with gradients or weights of these regimes."""
    return lambda case: (
        isinstance(case.constraint, kind)
        and case.backend.modes
        and case.regime in regimes
        and case.data.size > 0
    )


def _kept(case: Case, name: str, result: Any) -> None:
    before, after = case.backend.kept(case.w), case.backend.kept(result)
    if before != after:
        raise fail(name, input=before, result=after)


def _call(case: Case, mode: Callable[..., Any], *arrays: Any) -> Any:
    return case.backend.call(functools.partial(mode, case.constraint), *arrays)


def _gaussian(case: Case, salt: str) -> Any:
    return case.form.quantise(np.asarray(make("gaussian", case.seen.shape, case.form, salt=salt)))


def _not_bounded(case: Case, error: ValueError) -> None:
    """A set that has no minimiser or no distribution for its parameters says so in its name."""
    if not str(error).startswith(f"{type(case.constraint).__name__}: "):
        raise error


def _judged(case: Case) -> bool:
    return case.oracle is not None and case.regime != "huge" and not case.partial


@law(
    "lmo", _can(HasLMO, "gaussian", "huge", "zeros", "ties", "sparse", "one nan", "non-contiguous")
)
def lmo(case: Case) -> None:
    """A member, and the one that stays where it is when it is moved along the gradient and back."""
    try:
        found = _call(case, modes.lmo, case.w)
    except ValueError as error:
        _not_bounded(case, error)
        return
    _kept(case, "lmo", found)
    v = case.flush(case.backend.numpy(found))
    excess = np.asarray(case.backend.numpy(case.backend.violation(case.constraint, found)))
    for i, (index, e) in enumerate(zip(slices(case), np.ravel(excess), strict=True)):
        g = case.seen[index]
        if not np.all(np.isfinite(g)):
            if not same(v[index], g):
                raise fail("lmo", group=i, was=g, result=v[index])
            continue
        if e != 0:
            raise fail("lmo", group=i, violation=e)
        if _judged(case):
            _minimal(case, i, to_group(g), to_group(v[index]))


def _minimal(case: Case, i: int, g: Group, v: Group) -> None:
    # The nearest member to v - t g is v itself for every t, and only for a minimiser.
    assert case.oracle is not None
    size = _exact.norm(g)
    if not size:
        return
    with _exact.digits():
        step = (1 + 2 * _exact.norm(v)) / size
        moved = _exact.along(v, g, -step)
        (back,) = case.oracle.project_one(moved, case.seen.shape, i)
        reach = _exact.norm(v) + _exact.norm(back)
        near = 16 * case.relative(len(g)) * reach + case.floor(len(g)) + step * size / 10**50
        off = _exact.distance(back, v)
        if not isinstance(case.constraint, Convex):  # others may be as near
            off = step * size - _exact.distance(moved, back)
        if off > near:
            raise fail("lmo", group=i, off_by=f"{off:.3g}", allowed=f"{near:.3g}")


@law("dual norm", _can(HasDualNorm, "gaussian", "ties", "sparse", "huge", "one nan"))
def dual_norm(case: Case) -> None:
    """The inner product with the minimiser is the dual norm times one radius, for any gradient."""
    radii: list[list[Decimal | None]] = []
    other = _gaussian(case, "other")
    for g, w in ((case.seen, case.w), (other, case.backend.asarray(other, case.form.name))):
        found = np.asarray(case.backend.numpy(_call(case, modes.dual_norm, w)))
        v = case.backend.numpy(_call(case, modes.lmo, w))
        shape = tuple(np.shape(case.violation))
        if found.shape != shape:
            raise fail("dual norm", shape=found.shape, groups=shape)
        radii.append([])
        for index, d in zip(slices(case), found.ravel(), strict=True):
            hit = not np.all(np.isfinite(g[index]))
            if hit != bool(np.isnan(d)) or (not hit and d < 0):
                raise fail("dual norm", group=index, value=d)
            if hit or d == 0 or np.isinf(d):
                radii[-1].append(None)
                continue
            product = -_exact.inner(to_group(g[index]), to_group(v[index]))
            radii[-1].append(product / Decimal(float(d)))
    for i, (a, b) in enumerate(zip(*radii, strict=True)):
        size = case.seen.size
        if a is not None and b is not None and abs(a - b) > 16 * case.relative(size) * abs(b):
            raise fail("dual norm", group=i, radius=f"{a:.6g}", and_for_another=f"{b:.6g}")


@law(
    "tangent",
    lambda case: (
        _can(HasTangent, "gaussian", "interior", "boundary", "sparse")(case)
        and not case.partial
        and case.form.name in ROOTS
    ),
)
def tangent(case: Case) -> None:
    """The first order of the projection of a step along the gradient, from a member of the set."""
    gradient = _gaussian(case, "gradient")
    found = _call(case, modes.tangent, case.w, case.backend.asarray(gradient, case.form.name))
    _kept(case, "tangent", found)
    t = case.backend.numpy(found)
    if case.oracle is None:
        return
    for i, index in enumerate(slices(case)):
        p, way = to_group(case.result[index]), to_group(gradient[index])
        if isinstance(case.constraint, ZeroStays) and not np.any(case.result[index]):
            continue
        size = _exact.norm(way)
        step = Decimal(case.form.eps).sqrt() * (_exact.norm(p) or Decimal(1)) / size
        there = [_first_order(case, i, p, way, s) for s in (step, step / 64)]
        allowed = Decimal(64) * Decimal(case.form.eps).sqrt() * size
        if _exact.distance(*there) > allowed:
            continue  # a bound that is nearer than the step, but not there
        if _exact.distance(there[0], to_group(t[index])) > 2 * allowed:
            raise fail("tangent", group=i, result=t[index], exact=there[0])


def _first_order(case: Case, i: int, p: Group, way: Group, step: Decimal) -> Group:
    assert case.oracle is not None
    (base,) = case.oracle.project_one(p, case.seen.shape, i)
    (after,) = case.oracle.project_one(_exact.along(base, way, -step), case.seen.shape, i)
    return _exact.along([tuple(x / step for x in e) for e in base], after, -1 / step)


@law(
    "own derivative",
    lambda case: (
        isinstance(case.constraint, HasVJP)
        and case.backend.modes
        and case.data.size > 0
        and not case.form.is_complex
        and case.regime != _regimes.LARGE
    ),
)
def own_derivative(case: Case) -> None:
    """What a set states of its derivative: exact where that exists, finite elsewhere.

    Whether an adapter has registered or not: law "derivative" sees it only then.
    """
    cotangent = _gaussian(case, "cotangent")
    u = case.backend.asarray(cotangent, case.form.name)
    found = _call(case, _pullback, case.w, u)
    _kept(case, "own derivative", found)
    _laws.judge_derivative("own derivative", case, cotangent, case.backend.numpy(found))


def _pullback(constraint: HasVJP, w: Any, g: Any) -> Any:
    xp = _array.namespace(w, type(constraint).__name__)
    with _array.quiet(xp):
        result = constraint.project(w)
        return _array.as_array(constraint._vjp(w, result, g, xp), w, xp)


@law("sample", lambda case: _can(HasSample, "gaussian")(case) and case.backend.draws)
def sample(case: Case) -> None:
    """Members; the same for the same seed, others for another."""

    def draw(seed: int) -> Any:
        found = _call(case, functools.partial(_sample, seed), case.w)
        _kept(case, "sample", found)
        excess = np.asarray(case.backend.numpy(case.backend.violation(case.constraint, found)))
        if not np.all(excess == 0):
            raise fail("sample", violation=excess)
        return case.backend.numpy(found)

    try:
        first, again, other = draw(0), draw(0), draw(1)
    except ValueError as error:
        _not_bounded(case, error)
        return
    if not same(first, again):
        raise fail("sample", seed="gives two members")
    alone = same(case.result, member(case))  # the only member there is
    if first.size > 1 and same(first, other) and not alone:
        raise fail("sample", seeds="give one member")


def _sample(seed: int, constraint: HasSample, like: Any) -> Any:
    return modes.sample(constraint, like=like, seed=seed)
