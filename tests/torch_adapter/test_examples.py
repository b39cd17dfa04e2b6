"""The examples for PyTorch, run by the line that they give."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("example", "needs", "weights"),
    [
        ("torch_plain", "torch", 4),
        pytest.param("torch_fsdp", "torch", 4, marks=pytest.mark.thorough),
        pytest.param("torch_lightning", "lightning", 2, marks=pytest.mark.thorough),
        pytest.param("torch_trainer", "transformers", 7, marks=pytest.mark.thorough),
    ],
)
def test_an_example_learns_and_ends_inside(example: str, needs: str, weights: int) -> None:
    pytest.importorskip(needs)
    text = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Run: (?:python |(?=torchrun))(.*)$", text, re.MULTILINE)
    # torchrun is a script that stands beside Python, wherever that is.
    line = re.sub("^torchrun", "-m torch.distributed.run", line)
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
    (accuracy,) = re.findall(r"^([\d.]+)% of the test images are right$", done.stdout, re.MULTILINE)
    assert float(accuracy) > 50  # a guess is right once in ten times
    violations = re.findall(r"^(\S+): largest violation (\S+)$", done.stdout, re.MULTILINE)
    assert len(violations) == weights
    assert {value for _, value in violations} == {"0"}
