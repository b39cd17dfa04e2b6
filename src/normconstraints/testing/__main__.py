"""``python -m normconstraints.testing [module:object] [--backend NAME ...]``.

Prints, for each set, how many checks of each law held on each backend, and ends with 1 if one
failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

# Before JAX starts: the sharded backend wants eight devices.
if "jax" not in sys.modules:
    flag = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

from normconstraints.constraint import Constraint
from normconstraints.testing import BACKENDS, Result, check_constraint, examples, law_names

_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and print the matrix; the number to exit with."""
    parser = argparse.ArgumentParser(
        prog="python -m normconstraints.testing",
        description="Prove the contract of constraints on every array library that is installed.",
    )
    parser.add_argument(
        "constraint",
        nargs="?",
        help="module:object, a constraint, several, or a class with EXAMPLES in its module; "
        "the sets of this library if left out",
    )
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(BACKENDS)}, or torch* for all that begin so; may be repeated",
    )
    parser.add_argument("--brief", action="store_true", help="two dtypes or half of the inputs")
    options = parser.parse_args(argv)
    try:
        constraints = _load(options.constraint) if options.constraint else examples()
        by_class: dict[str, list[Constraint]] = defaultdict(list)
        for constraint in constraints:
            by_class[type(constraint).__name__].append(constraint)
        total: Counter[str] = Counter()
        for name, members in by_class.items():
            results = [
                r
                for c in members
                for r in check_constraint(c, backends=options.backend, brief=options.brief)
            ]
            _print_matrix(name, members, results)
            total += Counter(r.status for r in results)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    counts = ", ".join(f"{total[s]:,} {s}" for s in ("passed", "failed", "expected failure"))
    print(f"{counts}, {total['skipped']:,} skipped")
    return 1 if total["failed"] else 0


def _load(path: str) -> list[Constraint]:
    module_name, _, attribute = path.partition(":")
    sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module_name)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    if isinstance(found, type) and issubclass(found, Constraint):
        given = getattr(sys.modules[found.__module__], "EXAMPLES", ())
        found = [c for c in given if type(c) is found]
    constraints = [found] if isinstance(found, Constraint) else found
    if not (
        isinstance(constraints, Iterable)
        and (members := list(constraints))
        and all(isinstance(c, Constraint) for c in members)
    ):
        raise TypeError(f"{path} must be a constraint or several, got {found!r}")
    return members


def _print_matrix(name: str, members: Sequence[Constraint], results: Sequence[Result]) -> None:
    """Backends down, laws across, the number of checks in each place."""
    backends = list(dict.fromkeys(r.backend for r in results))
    laws = [law for law in law_names() if any(r.law == law for r in results)]
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for r in results:
        cells[r.backend, r.law][r.status] += 1
    width = max(len(b) for b in backends)
    print(f"{name}: {', '.join(map(repr, members))}")
    heads = [law.replace(" ", "\n").replace("-", "-\n").split("\n") for law in laws]
    columns = [max(6, *(len(word) for word in head)) for head in heads]
    for line in range(max(len(head) for head in heads)):
        words = [head[line] if line < len(head) else "" for head in heads]
        row = "  ".join(word.rjust(c) for word, c in zip(words, columns, strict=True))
        print(f"{'':{width}}  {row}")
    for backend in backends:
        skipped = [r.message for r in results if r.backend == backend and r.status == "skipped"]
        texts = [_cell(cells[backend, law]) for law in laws]
        row = "  ".join(t.rjust(c) for t, c in zip(texts, columns, strict=True))
        print(f"{backend:{width}}  {'skipped: ' + skipped[0] if skipped else row}")
    for status in ("failed", "expected failure"):
        bad = [r for r in results if r.status == status]
        for r in bad[:_SHOWN]:
            print(f"  {status}: {r.law}, {r.backend}, {r.dtype}, {r.regime}: {r.message}")
        if len(bad) > _SHOWN:
            print(f"  and {len(bad) - _SHOWN} more {status}")
    print()


def _cell(counts: Counter[str]) -> str:
    if not counts:
        return "-"
    if counts["failed"]:
        return f"{counts['failed']}!/{sum(counts.values())}"
    return str(sum(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
