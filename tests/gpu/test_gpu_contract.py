"""The contract on a GPU: every example of every set on every backend that wants one.

``make conformance-gpu`` runs it whole. Elsewhere there is one look at each of these backends, which
without a GPU is a skip that says what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import normconstraints as nc
from normconstraints.testing import BACKENDS, check_constraint, examples

WHOLE = bool(os.environ.get("GPU"))
"""Set by `make conformance-gpu`."""
NAMES = [name for name, backend in BACKENDS.items() if backend.gpu]
CHOSEN = examples() if WHOLE else [nc.MaxNorm(1.0, axis=0)]


def _cases() -> list[Any]:
    # First those whose traces are long, so that no worker is left alone with one at the end.
    long = (nc.Birkhoff, nc.Transport, nc.CappedSimplex)
    order = sorted(CHOSEN, key=lambda c: not isinstance(c, long))
    return [pytest.param(c, n, id=f"{c!r}-{n}") for n in reversed(NAMES) for c in order]


@pytest.mark.parametrize(("constraint", "name"), _cases())
def test_the_contract_on_a_gpu(
    constraint: nc.Constraint, name: str, record_property: Callable[[str, object], None]
) -> None:
    if (reason := BACKENDS[name].missing()) is not None:
        pytest.skip(f"{name}: {reason}")
    results = check_constraint(constraint, backends=[name], brief=not WHOLE)
    record_property("checks", len(results))
    record_property("backend", name)
    failed = [
        f"{r.law} ({r.dtype}, {r.regime}): {r.message}" for r in results if r.status == "failed"
    ]
    assert results and not failed, f"{len(failed)} of {len(results)}\n" + "\n".join(failed[:20])
