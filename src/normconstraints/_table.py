"""Rows as text: aligned columns for `print`, a rich table where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rows = Sequence[Sequence[str]]


def as_text(head: Sequence[str], rows: Rows) -> str:
    """Columns padded to the widest entry, two spaces apart."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def as_rich(title: str, head: Sequence[str], rows: Rows) -> Any:
    """A `rich.table.Table`.

    Raises
    ------
    ImportError
        If rich is not installed; says the line to run.
    """
    try:
        from rich.markup import escape
        from rich.table import Table
    except ImportError as error:
        raise ImportError(
            'a table needs rich; run: pip install "normconstraints[report]", or print it as text'
        ) from error
    table = Table(title=title)
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*[escape(cell) for cell in row])
    return table
