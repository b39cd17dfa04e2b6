"""What Keras' own constraint does with its default axis, and what a word for the axis does."""

from __future__ import annotations

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from keras_models import only_on

import normconstraints as nc
import normconstraints_keras  # noqa: F401 - the layouts

# The core itself is given tensors here, and takes those of TensorFlow by the adapter alone.
pytestmark = only_on("torch", "jax")

EXAMPLE = Path(__file__).parents[2] / "examples" / "keras_axis.py"
CONV = "Conv2D(32, (3, 3)) on RGB"


def test_the_table_of_the_example() -> None:
    rows = {row[:2]: row[2:] for row in runpy.run_path(str(EXAMPLE))["table"]()}
    dense = "Dense(128) on 784"
    assert {key: value[:2] for key, value in rows.items()} == {
        (dense, "keras MaxNorm(3)"): (128, 784),
        (dense, 'nc.MaxNorm(3, "unit")'): (128, 784),
        (CONV, "keras MaxNorm(3)"): (288, 3),
        (CONV, "keras MaxNorm(3, [0, 1, 2])"): (32, 27),
        (CONV, 'nc.MaxNorm(3, "unit")'): (32, 27),
    }
    left = {key: value[2] for key, value in rows.items()}
    # A filter of RGB has nine columns of three entries, each with its own bound of 3.
    assert left.pop((CONV, "keras MaxNorm(3)")) == pytest.approx(9.0, rel=1e-5)
    assert list(left.values()) == pytest.approx([3.0] * 4, rel=1e-5)


def test_the_plan_counts_the_same_groups() -> None:
    layer = keras.layers.Conv2D(32, (3, 3))
    layer.build((None, 32, 32, 3))
    groups = {
        axis: nc.Rules({"kernel": nc.MaxNorm(3.0, axis=axis)}).plan(layer).rows[0].groups
        for axis in (0, "unit")
    }
    assert groups == {0: 288, "unit": 32}


def test_a_filter_of_norm_nine_passes_the_default_axis() -> None:
    kernel = np.full((3, 3, 3, 32), 3.0**0.5, np.float32)
    assert np.linalg.norm(kernel[..., 0]) == pytest.approx(9.0)
    given = keras.ops.convert_to_tensor(kernel)
    kept = keras.constraints.MaxNorm(3)(given)
    assert float(keras.ops.max(keras.ops.abs(kept - given))) < 1e-6
    filters = keras.constraints.MaxNorm(3, axis=[0, 1, 2])(given)
    ours = nc.layout.resolve(
        nc.MaxNorm(3.0, axis="unit"),
        nc.layout.of(keras.layers.Conv2D(32, 3), "kernel"),
        (3, 3, 3, 32),
    )
    assert float(keras.ops.max(keras.ops.abs(filters - ours.project(given)))) < 1e-6
