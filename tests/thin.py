"""Some cases in `make test`, and all of them in `make conformance`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thin(cases: Iterable[Any], every: int) -> list[Any]:
    """The cases, of which `make test` runs one in so many."""
    found = []
    for i, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        found.append(pytest.param(*values, marks=[pytest.mark.thorough] if i % every else []))
    return found
