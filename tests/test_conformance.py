"""The contract, for every set and backend of the plain job.

All of it takes long: ``make conformance`` runs it. ``make test`` takes a brief look at every set on
NumPy, at every second one on PyTorch, and at every third one on one of the other backends in turn,
so that each of these sees a set or two.
Those that want a GPU are in ``tests/gpu``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import normconstraints as nc
from normconstraints.testing import (
    BACKENDS,
    Result,
    check_constraint,
    examples,
    parametrize_with_checks,
)

WHOLE = bool(os.environ.get("WHOLE"))
ALL = examples()
# One of each set, and what traces differently: parameters that are arrays, and rates.
FEW = [
    *{type(c): c for c in reversed(ALL)}.values(),
    *(c for c in ALL if isinstance(c, nc.Gradual) and c.rate != 1.0),
]
# Thousands of equations in a trace: a minute for what takes seconds with any other set.
LONG = (nc.Birkhoff, nc.Transport, nc.Correlation, nc.ConvOperatorBall)
PLAIN = ["numpy", "torch", *(["strict"] if WHOLE else [])]
OTHERS = [name for name, b in BACKENDS.items() if name not in PLAIN and not (b.extended or b.gpu)]


def _run(check: Callable[[], list[Result]], record_property: Callable[[str, object], None]) -> None:
    results = check()
    record_property("checks", len(results))
    assert results


@parametrize_with_checks(
    ALL if WHOLE else FEW, backends=[b for b in PLAIN if b != "torch"], brief=not WHOLE
)
def test_contract(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    _run(check, record_property)


@parametrize_with_checks(ALL if WHOLE else FEW[::2], backends=["torch"], brief=not WHOLE)
def test_contract_on_torch(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    _run(check, record_property)


@parametrize_with_checks(
    [c for c in ALL if c not in FEW][:: 1 if WHOLE else 3], backends=["numpy"], brief=True
)
def test_contract_of_more_examples(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    _run(check, record_property)


def _in_turn() -> list[tuple[nc.Constraint, str]]:
    """Another backend for every third set; all of them for all if WHOLE.

    Those whose traces are LONG have them only then.
    """
    found = []
    for i, constraint in enumerate(FEW):
        for j, name in enumerate(OTHERS):
            turn = i % 3 == 1 and (j - i // 3) % len(OTHERS) == 0
            if WHOLE or (turn and not isinstance(constraint, LONG)):
                found.append((constraint, name))
    return found


@pytest.mark.timeout(1800)  # what is LONG takes torch.compile a minute for each input
@pytest.mark.parametrize(("constraint", "backend"), _in_turn(), ids=lambda x: str(x))
def test_contract_in_other_ways(
    constraint: nc.Constraint, backend: str, record_property: Callable[[str, object], None]
) -> None:
    if (reason := BACKENDS[backend].missing()) is not None:
        pytest.skip(reason)
    results = check_constraint(constraint, backends=[backend], brief=True)
    record_property("checks", len(results))
    failed = [
        f"{r.law} ({r.dtype}, {r.regime}): {r.message}" for r in results if r.status == "failed"
    ]
    assert results and not failed, "\n".join(failed[:20])
