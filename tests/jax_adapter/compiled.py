"""What the text of a program that JAX has compiled says of the weight that it is given."""

from __future__ import annotations

import re
from typing import Any


def readings(compiled: Any) -> tuple[int, bool]:
    """How often the first argument is read whatever it holds, and whether a loop may read it more.

    Each time is a pass over memory.
    """
    entry = compiled.as_text().split("ENTRY ", 1)[1]
    (shape,) = re.findall(r" = (\w+\[\S*?\])\S* parameter\(0\)", entry)
    # What comes out of the loop is the same memory.
    weight = rf"(%\S+) = {re.escape(shape)}\S* (?:parameter\(0\)|get-tuple-element)"
    names = re.findall(weight, entry)
    operands = re.findall(r" = .*? (?!tuple\b|while\b)[\w-]+\((.*?)\)", entry)
    count = sum(name in re.split(r"[,\s]+", given) for name in names for given in operands)
    return count, " while(" in entry
