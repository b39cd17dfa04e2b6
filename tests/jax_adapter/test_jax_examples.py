"""The examples for JAX, run by the line that they give."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")
pytest.importorskip("optax")

ROOT = Path(__file__).parents[2]


def output(example: str) -> str:
    text = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Run: python (.*)$", text, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *shlex.split(line)],
        cwd=ROOT,
        # With more threads such small matrices are slower, by far if other tests run meanwhile.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("example", "needs"),
    [
        pytest.param("jax_optax", "optax", marks=pytest.mark.thorough),
        ("jax_nnx", "flax"),
        pytest.param("jax_linen", "flax", marks=pytest.mark.thorough),
        pytest.param("jax_equinox", "equinox", marks=pytest.mark.thorough),
    ],
)
def test_an_example_learns_and_ends_inside(example: str, needs: str) -> None:
    pytest.importorskip(needs)
    pytest.importorskip("sklearn")
    text = output(example)
    (accuracy,) = re.findall(r"^([\d.]+)% of the test images are right$", text, re.MULTILINE)
    assert float(accuracy) > 50  # a guess is right once in ten times
    violations = re.findall(r"^(\S+): largest violation (\S+)$", text, re.MULTILINE)
    assert len(violations) == 4
    assert {value for _, value in violations} == {"0"}


def table(text: str) -> dict[tuple[str, str, str], list[float]]:
    """The rows: how much is outside in percent, and by how much, after one step and at the end."""
    rows = re.findall(
        r"^(\w+)\(.*?\) +(\S+(?: away)?) +(\w+) +([\d.]+)% by (\S+) +([\d.]+)% by (\S+)$",
        text,
        re.MULTILINE,
    )
    return {(name, start, way): list(map(float, numbers)) for name, start, way, *numbers in rows}


@pytest.mark.thorough
def test_what_the_wrapper_costs_is_what_the_page_says() -> None:
    found = table(output("jax_inexact"))
    exact = {key: row for key, row in found.items() if key[2] == "apply_updates"}
    assert len(exact) == 6
    assert all(row == [0, 0, 0, 0] for row in exact.values())
    page = table((ROOT / "docs/jax.md").read_text(encoding="utf-8"))
    assert page.keys() == found.keys() - exact.keys()
    for key, row in page.items():
        # Where a sum of many terms is rounded depends on the processor.
        assert found[key] == pytest.approx(row, rel=0.5, abs=1e-9), key
