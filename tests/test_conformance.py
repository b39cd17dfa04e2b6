"""The contract, for every set on every backend of the plain job."""

from __future__ import annotations

from collections.abc import Callable

import normconstraints as nc
from normconstraints.testing import BACKENDS, Result, examples, parametrize_with_checks

ALL = examples()
# One of each set, and what traces differently: parameters that are arrays, and rates.
FEW = [
    *{type(c): c for c in reversed(ALL)}.values(),
    *(c for c in ALL if isinstance(c, nc.Gradual) and c.rate != 1.0),
]
PLAIN = ["numpy", "torch", "jax jit", "strict", "cupy double"]
OTHERS = [name for name, b in BACKENDS.items() if name not in PLAIN and not b.extended]


@parametrize_with_checks(ALL, backends=PLAIN)
def test_contract(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    results = check()
    record_property("checks", len(results))
    assert results


@parametrize_with_checks(FEW, backends=OTHERS)
def test_contract_in_other_ways(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    results = check()
    record_property("checks", len(results))
    assert results
