"""The contract as a test suite, for the sets here, for sets of your own and for other backends."""

from normconstraints.testing._check import (
    Result,
    check_constraint,
    examples,
    law_names,
)
from normconstraints.testing._pytest import parametrize_with_checks
from normconstraints.testing.backends import BACKENDS, Backend

__all__ = [
    "BACKENDS",
    "Backend",
    "Result",
    "check_constraint",
    "examples",
    "law_names",
    "parametrize_with_checks",
]
