"""Weights in several processes: real ones, by torchrun, over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from thin import thin

pytest.importorskip("torch")

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("count", "what"), thin([(2, "one of each set"), (2, "all"), (4, "one of each set")], 3)
)
def test_processes_together_do_what_one_does(count: int, what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", str(HERE / "processes.py")]
    command += [str(tmp_path / "found"), what]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("found.*"))]
    failures = {name: why for one in found for name, why in one.items() if why}
    assert not failures, "\n".join(failures.values())
    assert result.returncode == 0, result.stderr
    assert len(found) == count
    assert len(found[0]) == 12
