"""The public check: every law, on every backend, dtype and regime."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from normconstraints import config
from normconstraints._parameters import is_array
from normconstraints.constraint import (
    Constraint,
    Grouped,
    Quadratic,
    is_registered,
    parameters,
    parts,
    registered,
    registered_names,
)
from normconstraints.testing import _exact, _laws, _mode_laws, _regimes
from normconstraints.testing._exact import FORMATS, Oracle
from normconstraints.testing.backends import Backend, find_backends

Status: TypeAlias = Literal["passed", "failed", "skipped", "expected failure"]
ALL = "all"
"""Stands in a result for every law, dtype or regime at once."""


@dataclass(frozen=True)
class Result:
    """The outcome of one law for one input."""

    law: str
    backend: str
    dtype: str
    regime: str
    status: Status
    message: str = ""
    """Why it failed, was skipped or was expected to fail."""


def check_constraint(
    constraint: Constraint,
    *,
    backends: Iterable[str | Backend] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    shape: tuple[int, ...] | None = None,
    brief: bool = False,
) -> list[Result]:
    """Prove the contract for a constraint, your own too.

    Parameters
    ----------
    constraint : Constraint
        Any subclass. If the module of its class has ``slow_projection`` and ``slow_violation``, as
        the files in `normconstraints.sets` have, results are compared with those in exact
        arithmetic; else the laws that need no second algorithm are checked.
    backends : iterable of str, optional
        Names of backends (see `normconstraints.testing.BACKENDS`), ``"torch*"`` for all that begin
        so. All of the plain kind if left out; those that are not installed are skipped with the
        reason.
    expected_failures : mapping of str to str, optional
        Laws that are known not to hold, each with the reason.
    shape : tuple of int, optional
        The shape of most inputs, for constraints that fix one. If left out it is `SHAPE` of the
        module of the class, or (8, 6).
    brief : bool, default False
        For a look while you work: two dtypes where each costs a compilation, elsewhere about half
        of the inputs, which their names choose, and a group of a million entries in NumPy's
        float32 alone.

    Returns
    -------
    list of Result
        One for each law, backend, dtype and regime.

    Raises
    ------
    TypeError
        If `constraint` is no `Constraint`.
    ValueError
        If a backend or a law is unknown, or a law that is expected to fail has no reason.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from normconstraints.testing import check_constraint
    >>> results = check_constraint(nc.NonNeg(), backends=["numpy"])
    >>> {r.status for r in results}
    {'passed'}
    """
    if not isinstance(constraint, Constraint):
        raise TypeError(f"check_constraint: constraint must be a Constraint, got {constraint!r}")
    expected = dict(expected_failures or {})
    for law, reason in expected.items():
        if law not in law_names():
            raise ValueError(
                f"check_constraint: an expected failure must be among {', '.join(law_names())}, "
                f"got {law!r}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"check_constraint: {law!r} must be expected to fail for a reason")
    chosen = find_backends(backends)
    results = list(_identity(constraint))
    usual: tuple[int, ...] = getattr(sys.modules[type(constraint).__module__], "SHAPE", (8, 6))
    given = usual if shape is None else shape
    oracle = _exact.find_oracle(constraint)
    for backend in chosen:
        results += _on_backend(constraint, oracle, backend, given, brief)
    return [_expect(result, expected) for result in results]


LAWS = {**_laws.LAWS, **_mode_laws.LAWS}


def law_names() -> list[str]:
    """The names of all laws."""
    return ["identity", "bad input", "traceable", *LAWS]


def examples() -> list[Constraint]:
    """The examples in the files of all registered sets."""
    found: list[Constraint] = []
    for cls in map(registered, registered_names()):
        if cls is not None and issubclass(cls, Constraint):
            given = getattr(sys.modules[cls.__module__], "EXAMPLES", ())
            found += [c for c in given if type(c) is cls]
    return found


def _expect(result: Result, expected: dict[str, str]) -> Result:
    if result.status == "failed" and result.law in expected:
        message = f"{expected[result.law]} ({result.message})"
        return dataclasses.replace(result, status="expected failure", message=message)
    return result


def _on_backend(
    constraint: Constraint,
    oracle: Oracle | None,
    backend: Backend,
    shape: tuple[int, ...],
    brief: bool,
) -> Iterator[Result]:
    if (reason := backend.missing()) is not None:
        yield Result(ALL, backend.name, ALL, ALL, "skipped", reason)
        return
    with backend.session():
        backend.start(constraint)
        yield from _bad_input(constraint, backend, shape)
        names = [n for n in backend.dtypes if constraint.allows_complex or not n.startswith("c")]
        if brief and backend.compiles and len(names) > 2:
            others = [n for n in names if n != "float32"]
            names = ["float32", others[_number(constraint, backend.name) % len(others)]]
        for name in names:
            gone = [f for f in sorted(_needs(constraint)) if name in backend.lacks.get(f, ())]
            if gone:
                reason = f"no {' and '.join(gone)} for {name} that the contract can be held to"
                yield Result(ALL, backend.name, name, ALL, "skipped", reason)
                continue
            form = FORMATS[name]
            for regime, data in _inputs(constraint, backend, form, shape):
                if brief and not _chosen(constraint, backend, form, regime):
                    continue
                case = _laws.Case(constraint, oracle, backend, form, regime, data)
                yield from _all_laws(case)


def _needs(constraint: Constraint) -> set[str]:
    """The functions of linear algebra that a set is made of, or those of which it is made."""
    held = [c for value in parameters(constraint).values() for c in parts(value)]
    needs = {name for c in held for name in _needs(c)}
    # By eigenvectors, and by products alone.
    other = {"gram": ("eigh",), "polar": ()}
    return needs | {*other.get(getattr(constraint, "method", ""), constraint.needs)}


def _chosen(constraint: Constraint, backend: Backend, form: _exact.Format, regime: str) -> bool:
    """Whether a brief look takes this input: about half of them, on each backend another half."""
    if regime == _regimes.LARGE:
        return form.name == "float32" and backend.name == "numpy"
    if regime == "gaussian" or (regime == "huge" and not backend.compiles):
        return True
    return _number(constraint, backend.name, form.name, regime) % 2 == 0


def _number(constraint: Constraint, *words: str) -> int:
    """A number that the words and the set determine, the same in every process."""
    return zlib.crc32(" ".join((type(constraint).__name__, *words)).encode())


def _all_laws(case: _laws.Case) -> Iterator[Result]:
    facts = (case.backend.name, case.form.name, case.regime)
    try:
        _ = case.p, (case.violation if case.backend.has_values else None)
    except Exception as error:  # whatever it is, it is the finding
        yield Result("traceable", *facts, "failed", f"{type(error).__name__}: {error}"[:500])
        return
    yield Result("traceable", *facts, "passed")
    for name, (law, applies) in LAWS.items():
        if applies(case):
            try:
                law(case)
            except Exception as error:  # a law that cannot be checked has not been shown to hold
                kind = (
                    "" if isinstance(error, _laws.BrokenLawError) else f"{type(error).__name__}: "
                )
                yield Result(name, *facts, "failed", f"{kind}{error}"[:500])
            else:
                yield Result(name, *facts, "passed")


def _inputs(
    constraint: Constraint, backend: Backend, form: _exact.Format, shape: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    for regime in _regimes.VALUES:
        data = _regimes.make(regime, shape, form)
        if regime == "boundary":
            data = form.quantise(constraint.project(data))
        yield regime, data
    if any(
        (isinstance(v, tuple) and "axis" not in name) or is_array(v)
        for name, v in parameters(constraint).items()
    ):
        return
    if backend.compiles and form.name != "float32":
        return
    few = ("0 dimensions", "3 dimensions", "empty")
    for regime, other in _regimes.SHAPES.items():
        if backend.compiles and regime not in few:
            continue
        if _fits(constraint, other):
            yield regime, _regimes.make(regime, other, form)
    if not backend.quick or form.is_complex or isinstance(constraint, Quadratic):
        return
    if isinstance(constraint, Grouped):
        million: dict[Any, tuple[int, ...]] = {None: (10**6,), 0: (10**6, 2), 1: (2, 10**6)}
        large = million.get(constraint.axis)
        if large is not None and _fits(constraint, large):
            yield _regimes.LARGE, _regimes.make(_regimes.LARGE, large, form)


def _fits(constraint: Constraint, shape: tuple[int, ...]) -> bool:
    """Whether the set has a meaning for that shape: else it says so by the error that it raises."""
    axis = constraint.axis if isinstance(constraint, Grouped) else ()
    axes = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    if not all(isinstance(a, int) and -len(shape) <= a < len(shape) for a in axes):
        return False
    try:
        constraint.violation(np.zeros(shape))
    except ValueError as error:
        return not str(error).startswith(f"{type(constraint).__name__}: ")
    except Exception:
        return True  # for the laws to find
    return True


def _bad_input(
    constraint: Constraint, backend: Backend, shape: tuple[int, ...]
) -> Iterator[Result]:
    """What is no array of floating point is refused by name, with the remedy."""
    name = type(constraint).__name__
    cases: list[tuple[str, Any, type[Exception] | tuple[type[Exception], ...]]] = [
        ("list", [1.0, 2.0], TypeError),
        ("None", None, TypeError),
        ("number", 1.0, TypeError),
    ]
    ones = np.ones(shape)
    if backend.has_values:
        cases += [
            ("integers", backend.asarray(ones, "int32"), TypeError),
            ("booleans", backend.asarray(ones, "bool"), TypeError),
        ]
        if not constraint.allows_complex and "complex64" in backend.dtypes:
            cases.append(("complex", backend.asarray(ones, "complex64"), TypeError))
        axis = constraint.axis if isinstance(constraint, Grouped) else None
        if isinstance(axis, int):
            low = backend.asarray(np.ones((2,) * (axis if axis >= 0 else -axis - 1)), "float32")
            cases.append(("missing axis", low, ValueError))
    if backend.name == "numpy":
        cases += [
            ("masked", np.ma.masked_array(ones, ones > 0), TypeError),
            ("objects", ones.astype(object), TypeError),
            ("strings", ones.astype(str), TypeError),
            ("scalar", np.float64(1.0), TypeError),
        ]
    for regime, w, kind in cases:
        for method in (constraint.project, constraint.violation):
            fault = ""
            try:
                method(w)
            except kind as error:
                if not str(error).startswith(f"{name}: "):
                    fault = f"{regime}: the message must begin with the class: {error}"
            except Exception as error:
                fault = f"{regime}: {type(error).__name__}: {error}"
            else:
                fault = f"{regime}: accepted"
            yield Result(
                "bad input", backend.name, ALL, regime, "failed" if fault else "passed", fault
            )


def _identity(constraint: Constraint) -> Iterator[Result]:
    """Equality, hash, pickle, repr and configuration go by the parameters."""
    for what in ("pickle", "config", "hash", "frozen"):
        fault = ""
        try:
            fault = _identity_fault(constraint, what)
        except Exception as error:
            fault = f"{what}: {type(error).__name__}: {error}"
        yield Result("identity", "python", ALL, what, "failed" if fault else "passed", fault)


def _identity_fault(constraint: Constraint, what: str) -> str:
    plain = not any(is_array(v) for v in parameters(constraint).values())
    if what == "pickle" and pickle.loads(pickle.dumps(constraint)) != constraint:
        return "pickle: not equal after a round trip"
    if what == "config" and is_registered(type(constraint)):
        data = json.loads(json.dumps(config.to_config(constraint)))
        if config.from_config(data) != constraint:
            return "config: not equal after a round trip through JSON"
    if what == "hash" and plain:
        twin = pickle.loads(pickle.dumps(constraint))
        if hash(twin) != hash(constraint):
            return "hash: equal constraints have different hashes"
    if what == "frozen":
        for name in parameters(constraint):
            try:
                setattr(constraint, name, None)
            except AttributeError:
                continue
            return f"frozen: {name} can be assigned"
    return ""
