"""The benchmark of NMF runs on images in the form of Fashion-MNIST, and says where to get those."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/nmf.py", "--data", str(folder), "--rounds", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_both_are_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 784), dtype=np.uint8)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + pixels.tobytes())
    done = run(tmp_path)
    # On so few images what is wanted of many need not be reached.
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    assert "NMF of 200 x 784 float32, rank 32" in done.stdout
    rows = re.findall(r"│ +(\d+) │ +([\d.]+) │ +([\d,]+) │ +([\d,]+) │ +([\d.]+) │", done.stdout)
    assert [int(row[0]) for row in rows] == [5, 10, 20, 40]
    theirs, ours = ([float(row[i].replace(",", "")) for row in rows] for i in (2, 3))
    half = np.square(pixels / 255.0).sum() / 2
    assert sorted(theirs, reverse=True) == theirs
    # What ours reaches is a matter of time.
    assert all(0 < value < half for value in (*theirs, *ours))
    assert re.search(r"^Projections: [\d.]+% of our step", done.stdout, re.MULTILINE)


def test_without_the_images_it_says_which_package_has_them(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "it is in Debian's package dataset-fashion-mnist" in done.stderr
