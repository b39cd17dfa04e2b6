"""The worked examples on arrays of every library, by the line that they give for it."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from normconstraints.testing.backends._cupy import CupyDouble

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
LINE = 'xp: Any = import_module("array_api_compat.numpy")'
NAMESPACES = {
    "numpy": "array_api_compat.numpy",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    # Its names and signatures only: the double computes with NumPy.
    "cupy": "array_api_compat.cupy",
}
SMALL = {
    "nmf_digits": "--iterations 2 --parts 6",
    "dictionary": "--iterations 1 --atoms 16",
    "unmixing": "--rounds 1 --every 16",
}
# The same on every library, from the same start.
FOUND = {
    "nmf_digits": (r"^([\d.]+)% of the images' energy", 79.3),
    "dictionary": (r": ([\d.]+) dB$", 22.0),
    "unmixing": (r"^([\d.]+)% of the variance", 98.1),
}


CASES = [
    # NumPy, and one of the others for each.
    pytest.param(e, n, marks=[] if j in (0, i + 1) else [pytest.mark.thorough])
    for i, e in enumerate(SMALL)
    for j, n in enumerate(NAMESPACES)
]


@pytest.mark.parametrize(("example", "library"), CASES)
def test_an_example_ends_inside_with_a_picture(
    example: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if library in ("torch", "jax"):
        pytest.importorskip(library)
    text = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Run: python (.*)$", text, re.MULTILINE)
    assert line == f"examples/{example}.py"
    assert text.count(LINE) == 1 and NAMESPACES[library] in text
    text = text.replace(LINE, LINE.replace("array_api_compat.numpy", NAMESPACES[library]))
    monkeypatch.setattr(sys, "argv", shlex.split(f"{line} --out {tmp_path} {SMALL[example]}"))
    with CupyDouble().session() if library == "cupy" else nullcontext():
        exec(compile(text, line, "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    violations = re.findall(r"^\w+: largest violation (.*)$", said, re.MULTILINE)
    assert violations and set(violations) == {"0"}
    pattern, expected = FOUND[example]
    (found,) = re.findall(pattern, said, re.MULTILINE)
    assert float(found) == pytest.approx(expected, abs=0.2)
    picture = matplotlib.image.imread(tmp_path / f"{example}.png")
    assert picture[..., :3].std() > 0.1
