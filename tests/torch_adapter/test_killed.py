"""A training that is killed in the middle and started again ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import killed  # noqa: E402

STEPS = 40


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-u", killed.__file__, folder, STEPS, pause]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def number(line: str, word: str) -> int:
    found, _, rest = line.partition(" ")
    assert found == word, line
    return int(rest)


def finish(folder: Path) -> tuple[str, dict[str, Any]]:
    with start(folder, 0.0) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output, torch.load(folder / "final.pt", weights_only=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
def test_a_killed_training_resumes_to_the_weights_of_the_unbroken_one(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    killed.main(tmp_path, STEPS, 0.0)
    torch.set_num_threads(threads)
    unbroken = torch.load(tmp_path / "final.pt", weights_only=True)
    broken = tmp_path / "broken"
    # Twice: before the second rule starts and after it.
    for begin, end in ((0, 10), (10, 25)):
        with start(broken, 0.05) as process:
            assert process.stdout is not None
            assert number(process.stdout.readline(), "from") >= begin
            while number(process.stdout.readline(), "saved") < end:
                pass
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert not (broken / "final.pt").exists()
    output, resumed = finish(broken)
    assert 25 <= number(output.splitlines()[0], "from") < STEPS
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    # And it is the constraints of the last step that hold.
    radius = 1.0 - 0.8 * (STEPS - 1) / 60
    assert float(unbroken["0.weight"].norm(dim=1).max()) == pytest.approx(radius, rel=1e-5)
    assert float(unbroken["2.weight"].abs().sum(dim=1).max()) <= 1.0 + 1e-6
    assert float(unbroken["2.bias"].sum()) == pytest.approx(1.0)
