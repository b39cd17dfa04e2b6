"""Checkpoints by orbax: a training that goes on in another process is the unbroken one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("optax")
pytest.importorskip("orbax.checkpoint")

import jax
import resumed

MIDDLE, END = 13, 30


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def trained(how: str, save_in: Path) -> Any:
    """The end of an unbroken training that was saved in the middle."""
    params = resumed.beginning()
    state = resumed.optimizer(how).init(params)
    return resumed.train(how, params, state, range(END), save_in, at=MIDDLE)


def test_a_training_that_goes_on_in_another_process_is_the_unbroken_one(tmp_path: Path) -> None:
    ways = ("exact", "constrained")
    unbroken = {how: trained(how, tmp_path / how) for how in ways}
    command = [sys.executable, resumed.__file__, str(tmp_path), str(MIDDLE), str(END)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    for how in ways:
        found = resumed.load(tmp_path / how, END, how)
        assert bits(found) == bits(unbroken[how])
        assert bits(found) != bits(resumed.load(tmp_path / how, MIDDLE, how))
        # And it is the constraints of the last step that hold.
        radius = 1.0 - 0.8 * (END - 1) / 60
        norms = np.linalg.norm(found[0]["dense"]["kernel"], axis=0)
        assert norms.max() == pytest.approx(radius, rel=1e-5)
        assert np.abs(found[0]["head"]["bias"]).max() <= 0.01 * (1 + 1e-6)


def test_a_checkpoint_of_the_plain_optimizer_goes_on_with_constraints(tmp_path: Path) -> None:
    trained("plain", tmp_path)
    plain = resumed.load(tmp_path, MIDDLE, "plain")
    params, state = resumed.load(tmp_path, MIDDLE, "constrained")
    assert bits((params, state)) == bits(plain)
    assert jax.tree.structure(state) == jax.tree.structure(plain[1])
    found, state = resumed.train("constrained", params, state, range(MIDDLE, END))
    assert np.abs(plain[0]["head"]["bias"]).max() > 0.02  # or it says nothing
    assert np.abs(found["head"]["bias"]).max() <= 0.01 * (1 + 1e-6)
    # And back again: nothing of the constraints is in the checkpoint.
    resumed.save(tmp_path, END, found, state)
    assert bits(resumed.load(tmp_path, END, "plain")) == bits((found, state))
