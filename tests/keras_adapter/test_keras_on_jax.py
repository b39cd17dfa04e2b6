"""What depends on the backend of Keras, on JAX, in a process of its own.

`make test-extended` has all of it on TensorFlow.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from keras_models import only_on
from thin import thin

# Nearly all of the time is for compiling. Not the policies and each layer, which differ by no
# backend.
SOME = (
    "(compiled_anew and auto) or compiled_step or (ends_inside and UnitNorm and None)"
    " or (the_question and 0.75)"
)
FILES = ("contract", "averages", "constrain", "constraints", "units", "trainings")
CHOSEN = (
    "test_keras_contract or (test_keras_averages and not TopK)"
    " or (test_keras_constrain.py and not frozen)"
    " or (test_keras_constraints and ((says_the_same and MinMax and rate) or loss_scale))"
    " or (test_keras_units and (attention or by_hand or Conv2DTranspose))"
    " or (test_keras_trainings and not 3.0)"
)


@only_on("torch")
@pytest.mark.parametrize(
    ("chosen", "least"), thin([(SOME, 4), (CHOSEN, 61)], 2), ids=["some", "more"]
)
def test_on_jax(chosen: str, least: int) -> None:
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *(f"{Path(__file__).parent}/test_keras_{f}.py" for f in FILES), "-k", chosen],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= least
