"""The examples for Keras by the lines that they give, and the page that shows what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from keras_models import BACKEND, only_on

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]


def run(example: str, backend: str) -> str:
    text = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Run: KERAS_BACKEND=torch python (.*)$", text, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", line],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
@only_on("torch")
def test_the_page_shows_what_the_command_prints() -> None:
    page = (ROOT / "docs/keras.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    printed = run("keras_migration", "torch")
    # Sums are not rounded alike everywhere: the numbers to 5 digits.
    assert shortened(table) == shortened(printed)
    assert len(printed.splitlines()) == 16


def shortened(table: str) -> list[list[str]]:
    """The cells, with numbers to 5 digits."""
    lines = (re.split(r"  +", line.strip()) for line in table.splitlines())
    return [[number(cell) for cell in line] for line in lines]


def number(cell: str) -> str:
    try:
        return f"{float(cell):.5g}"
    except ValueError:
        return cell


def test_the_example_learns_and_ends_inside() -> None:
    printed = run("keras_digits", BACKEND)
    (accuracy,) = re.findall(r"^([\d.]+)% of the test images are right$", printed, re.MULTILINE)
    assert float(accuracy) > 50  # a guess is right once in ten times
    found = re.findall(r"^(\S+): largest violation (\S+), of (\d+) units$", printed, re.MULTILINE)
    assert found == [("conv2d.kernel", "0", "32"), ("dense.kernel", "0", "64")]
