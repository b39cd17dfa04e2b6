"""Weights in two processes: real ones, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")
pytest.importorskip("optax")

HERE = Path(__file__).parent
COUNT = 2


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_two_processes_together_do_what_one_does(tmp_path: Path) -> None:
    port = free_port()
    running = []
    for rank in range(COUNT):
        given = (HERE / "jax_processes.py", port, rank, COUNT, tmp_path / f"found.{rank}")
        running.append(
            subprocess.Popen(
                [sys.executable, *map(str, given)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("found.*"))]
    failures = {name: why for each in found for name, why in each.items() if why}
    assert not failures, "\n".join(failures.values())
    assert [process.returncode for process in running] == [0] * COUNT, "\n".join(outputs)
    assert len(found) == COUNT
    assert len(found[0]) == 5
