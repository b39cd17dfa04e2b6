"""The suite as pytest tests of somebody else's package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from normconstraints.constraint import Constraint
from normconstraints.testing._check import ALL, Result, check_constraint
from normconstraints.testing.backends import Backend, find_backends

_F = TypeVar("_F", bound=Callable[..., Any])


def parametrize_with_checks(
    constraints: Iterable[Constraint],
    *,
    backends: Iterable[str | Backend] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    shape: tuple[int, ...] | None = None,
    brief: bool = False,
) -> Callable[[_F], _F]:
    """A pytest decorator: one test for each constraint on each backend.

    Parameters
    ----------
    constraints : iterable of Constraint
        Your constraints, with parameters.
    backends, expected_failures, shape, brief
        As for `check_constraint`.

    Returns
    -------
    decorator
        For a test with the argument `check`: calling it runs the checks, raises AssertionError with
        the laws that do not hold, skips where the backend is missing, and returns the results.

    Examples
    --------
    A whole test module::

        from normconstraints.testing import parametrize_with_checks

        @parametrize_with_checks([MySet(1.0, axis=0)])
        def test_contract(check):
            check()
    """
    import pytest

    def runner(constraint: Constraint, backend: Backend) -> Callable[[], list[Result]]:
        def check() -> list[Result]:
            if (reason := backend.missing()) is not None:
                pytest.skip(reason)
            results = check_constraint(
                constraint,
                backends=[backend],
                expected_failures=expected_failures,
                shape=shape,
                brief=brief,
            )
            failed = [r for r in results if r.status == "failed"]
            if failed:
                lines = [f"{r.law} ({r.dtype}, {r.regime}): {r.message}" for r in failed[:20]]
                raise AssertionError(
                    f"{constraint!r} on {backend.name}: {len(failed)} of {len(results)} checks "
                    "failed\n" + "\n".join(lines)
                )
            gone = [r.message for r in results if r.status == "skipped"]
            if gone and not any(r.dtype != ALL and r.status == "passed" for r in results):
                pytest.skip("; ".join(gone))
            return results

        return check

    params = [
        pytest.param(runner(c, b), id=f"{c!r}-{b.name}")
        for b in find_backends(backends)
        for c in constraints
    ]
    return pytest.mark.parametrize("check", params)
