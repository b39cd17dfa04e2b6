"""For all tests of Keras; KERAS_BACKEND chooses its backend for the process."""

from __future__ import annotations

from pathlib import Path

import pytest

# Keras 3.15 makes arrays of NumPy of tensors by np.array(tensor), in `fit` too, of which NumPy 2.4
# warns on PyTorch 2.13 and TensorFlow 2.21: they do not take the argument `copy` yet.
NUMPY_OF_TORCH = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(NUMPY_OF_TORCH))


@pytest.fixture(autouse=True)
def _seed() -> None:
    import keras

    keras.utils.set_random_seed(0)
