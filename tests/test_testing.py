"""The suite as others use it: on their own classes, from the command line, through pytest."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
from fitting import fitting

import normconstraints as nc
from normconstraints import _linalg
from normconstraints.testing import (
    BACKENDS,
    Backend,
    _check,
    check_constraint,
    examples,
    law_names,
)
from normconstraints.testing.backends import find_backends


@final
@dataclass(frozen=True, eq=False)
class ZeroMean(nc.Grouped, nc.Convex):
    """Somebody's own set, without an oracle."""

    _: KW_ONLY
    axis: Any
    shift: float = 0.0

    def _project(self, w: Any, xp: Any) -> Any:
        mean = xp.mean(w, axis=self.axis, keepdims=True)
        limit = nc.tolerance(w) * xp.max(xp.abs(w), axis=self.axis, keepdims=True)
        return xp.where(xp.abs(mean) <= limit, w, w - mean + self.shift)

    def _violation(self, w: Any, xp: Any) -> Any:
        mean = xp.abs(xp.mean(w, axis=self.axis))
        limit = nc.tolerance(w) * xp.max(xp.abs(w), axis=self.axis)
        return xp.where(mean <= limit, 0 * mean, mean)


def test_a_third_partys_set_without_an_oracle() -> None:
    results = check_constraint(ZeroMean(axis=0), backends=["numpy"])
    laws = {r.law for r in results}
    assert {"kept", "idempotent", "in place", "variational", "identity", "bad input"} <= laws
    assert "nearest" not in laws
    # It spreads no NaN beyond its group and is otherwise sound, but for overflow and such.
    regimes = {r.regime for r in results if r.status == "failed"}
    assert "gaussian" not in regimes
    broken = check_constraint(ZeroMean(axis=0, shift=0.1), backends=["numpy"])
    found = {r.law for r in broken if r.status == "failed" and r.regime == "gaussian"}
    assert {"idempotent", "arrives"} <= found


def test_expected_failures_keep_their_reason() -> None:
    expected = {"idempotent": "the shift is on purpose", "arrives": "the shift is on purpose"}
    results = check_constraint(
        ZeroMean(axis=0, shift=0.1), backends=["numpy"], expected_failures=expected
    )
    chosen = [r for r in results if r.law == "idempotent" and r.regime == "gaussian"]
    assert {r.status for r in chosen} == {"expected failure"}
    assert all(r.message.startswith("the shift is on purpose (") for r in chosen)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backends": ["nunpy"]}, ValueError, "a backend must be among numpy, .*'nunpy'"),
        ({"expected_failures": {"nearst": "x"}}, ValueError, "must be among .*'nearst'"),
        ({"expected_failures": {"nearest": " "}}, ValueError, "expected to fail for a reason"),
    ],
)
def test_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_constraint(nc.NonNeg(), **arguments)


def test_only_constraints() -> None:
    with pytest.raises(TypeError, match="check_constraint: constraint must be a Constraint, got 3"):
        check_constraint(3)  # type: ignore[arg-type]


def test_what_a_library_lacks_is_skipped_with_the_reason() -> None:
    class NoSingularValues(type(BACKENDS["numpy"])):  # type: ignore[misc]
        name = "poor"
        dtypes = ("float32", "float64")
        lacks: ClassVar[dict[str, tuple[str, ...]]] = {"svd": ("float32", "float64"), "eigh": ()}

    def skipped(c: nc.Constraint) -> list[tuple[str, str]]:
        results = check_constraint(c, backends=[NoSingularValues()], brief=True)
        assert not [r for r in results if r.status == "failed"]
        return [(r.dtype, r.message) for r in results if r.status == "skipped"]

    reason = "no svd for {} that the contract can be held to"
    both = [(name, reason.format(name)) for name in ("float32", "float64")]
    assert skipped(nc.MaxRank(2)) == both
    assert skipped(nc.AsMatrix(nc.SpectralBall(1.0), rows=0)) == both
    assert skipped(nc.SpectralBall(1.0, method="gram")) == []
    assert skipped(nc.PositiveSemidefinite()) == []
    NoSingularValues.lacks = {"svd": ("float32",)}
    assert skipped(nc.MaxRank(2)) == both[:1]


def test_what_is_missing_is_skipped_with_the_reason() -> None:
    class Absent(Backend):
        name = "absent"
        dtypes = ("float32",)

        def missing(self) -> str | None:
            return "there is no such library"

        def asarray(self, data: Any, dtype: str) -> Any:
            return data

        def numpy(self, w: Any) -> Any:
            return w

    results = check_constraint(nc.NonNeg(), backends=[Absent()])
    (skipped,) = (r for r in results if r.status == "skipped")
    assert (skipped.backend, skipped.message) == ("absent", "there is no such library")


def test_cupy_runs_where_there_is_a_gpu_and_else_says_why_not() -> None:
    reason = BACKENDS["cupy"].missing()
    results = check_constraint(nc.MaxNorm(1.0, axis=0), backends=["cupy"])
    if reason is None:
        assert {r.status for r in results} == {"passed"}
    else:
        assert [r.message for r in results if r.status == "skipped"] == [reason]
        assert "cupy is not installed" in reason or "no GPU" in reason


def test_patterns_of_backends() -> None:
    assert {b.name for b in find_backends(["torch*"])} == {
        name for name in BACKENDS if name.startswith("torch")
    }
    assert [b.name for b in find_backends(["numpy"])] == ["numpy"]


def test_every_law_is_exercised() -> None:
    seen = {
        r.law
        for c in (nc.MaxNorm(1.0, axis=0), nc.UnitNorm(axis=0), nc.Monotone(axis=0))
        for r in check_constraint(c, backends=["numpy", "torch grad"])
    }
    assert seen == set(law_names())


def test_every_set_has_examples() -> None:
    public = {getattr(nc, name) for name in nc.__all__}
    sets = {
        s
        for s in public
        if isinstance(s, type) and issubclass(s, nc.Constraint) and not inspect.isabstract(s)
    }
    assert {type(c) for c in examples()} == sets
    assert len(sets) >= 38


def _command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "normconstraints.testing", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_the_command_prints_the_matrix() -> None:
    done = _command("normconstraints:NonNeg", "--backend", "numpy", "--backend", "strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NonNeg: NonNeg()\n")
    assert " 0 failed" in done.stdout
    for word in ("numpy", "strict", "kept", "nearest", "traceable"):
        assert word in done.stdout


def test_the_command_fails_where_a_law_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            import normconstraints as nc

            @dataclass(frozen=True, eq=False)
            class Doubled(nc.Constraint):
                def _project(self, w, xp):
                    return 2 * w
                def _violation(self, w, xp):
                    return xp.sum(abs(w))

            mine = [Doubled()]
            """
        )
    )
    done = _command("mine:mine", "--backend", "numpy", cwd=tmp_path)
    assert done.returncode == 1
    assert "failed: idempotent, numpy" in done.stdout
    assert _command("mine:nothing", cwd=tmp_path).returncode == 2
    assert _command("mine:mine", "--backend", "nunpy", cwd=tmp_path).returncode == 2


def test_the_decorator_in_a_package_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent(
            """
            import normconstraints as nc
            from normconstraints.testing import parametrize_with_checks

            @parametrize_with_checks([nc.NonNeg()], backends=["numpy", "cupy"])
            def test_contract(check):
                check()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    reason = BACKENDS["cupy"].missing()
    assert done.returncode == 0, done.stdout
    assert ("2 passed" if reason is None else "1 passed, 1 skipped") in done.stdout


def test_results_are_plain_data() -> None:
    result = check_constraint(nc.NonNeg(), backends=["numpy"])[0]
    assert json.loads(json.dumps(vars(result)))["status"] == "passed"
    assert np.all([isinstance(v, str) for v in vars(result).values()])


@pytest.mark.parametrize("c", examples(), ids=str)
def test_a_set_says_which_linear_algebra_it_needs(
    c: nc.Constraint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a library that lacks it fails where it should be skipped."""
    used = set()
    names = {"singular_values": "svd", "eigenvalues": "eigh", "determinant_sign": "slogdet"}

    def noted(name: str) -> Callable[..., Any]:
        function = getattr(_linalg, name)

        def call(*args: Any, **options: Any) -> Any:
            used.add(names.get(name, name))
            return function(*args, **options)

        return call

    for name in ("svd", "eigh", "solve", *names):
        monkeypatch.setattr(_linalg, name, noted(name))
    w = fitting(c, 3 * np.random.default_rng(0).standard_normal(64))
    c.violation(c(w))
    assert used <= _check._needs(c)
