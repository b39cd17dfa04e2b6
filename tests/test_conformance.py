"""The contract, for every example of every set on every backend of the plain job."""

from __future__ import annotations

from collections.abc import Callable

from normconstraints.testing import BACKENDS, Result, examples, parametrize_with_checks

# A compilation of Dynamo takes a second, so that it sees one example of each set.
FIRST = list({type(c): c for c in reversed(examples())}.values())
COMPILED = "torch compile"


@parametrize_with_checks(
    examples(), backends=[b for b in BACKENDS if b != COMPILED and not BACKENDS[b].extended]
)
def test_contract(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    results = check()
    record_property("checks", len(results))
    assert results


@parametrize_with_checks(FIRST, backends=[COMPILED])
def test_contract_compiled(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    results = check()
    record_property("checks", len(results))
    assert results
