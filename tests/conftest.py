"""Set up before any framework starts, and count the checks of the contract."""

from __future__ import annotations

import os

# Eight devices for the sharded backend; read by XLA once, when JAX starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
# Read once, when Keras is imported. PyTorch is there in the plain job, and compiles nothing.
os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

REQUIRED_CHECKS = 20_000
WHOLE = bool(os.environ.get("WHOLE"))
"""Set by `make conformance`, for what takes too long in `make test`."""
_counted: dict[str, int] = {"checks": 0, "tests": 0}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not WHOLE:
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("thorough")])
        items[:] = [i for i in items if not i.get_closest_marker("thorough")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # User properties reach the main process from the workers of pytest-xdist too.
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "checks":
                _counted["checks"] += int(str(value))
                _counted["tests"] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counted["tests"]:
        terminalreporter.write_line(
            f"contract: {_counted['checks']:,} checks in {_counted['tests']} tests"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Only where the whole conformance ran: a selection with -k or -m may count less.
    options = session.config.option
    chosen = options.keyword or options.markexpr
    whole = not chosen and session.config.args_source.name != "ARGS"
    main = not hasattr(session.config, "workerinput")
    if main and whole and exitstatus == 0 and _counted["checks"] < REQUIRED_CHECKS:
        print(f"\nthe contract needs {REQUIRED_CHECKS:,} checks, got {_counted['checks']:,}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
