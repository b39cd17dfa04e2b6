"""The contract over the namespace that TensorFlow needs, on the other backends of Keras."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from keras_backends import BACKEND, Keras

import normconstraints as nc
from normconstraints.testing import Result, examples, parametrize_with_checks
from normconstraints_keras._array import Array, namespace

# Thousands of operations, a minute for what takes seconds with any other set.
LONG = (nc.Birkhoff, nc.Transport, nc.Correlation, nc.ConvOperatorBall)
FIRST = {type(c): c for c in reversed(examples()) if not isinstance(c, LONG)}
# A look at every second, and where each operation is compiled for each shape at every eighth.
# TensorFlow has the whole in the extended job.
EVERY = {"torch": 2, "jax": 8}
CHOSEN = [*FIRST.values()][:: EVERY[BACKEND]] if BACKEND in EVERY else []


@parametrize_with_checks(CHOSEN, backends=[Keras()], brief=True)
@pytest.mark.skipif(not CHOSEN, reason="the extended job has the whole contract on TensorFlow")
def test_contract(
    check: Callable[[], list[Result]], record_property: Callable[[str, object], None]
) -> None:
    record_property("checks", len(check()))


def test_a_dtype_that_keras_does_not_compute_in_is_not_there() -> None:
    dtypes = namespace.__array_namespace_info__().dtypes()
    assert ("float64" in dtypes) == (BACKEND == "tensorflow")
    backend = Keras()
    w = backend.asarray([[3.0, 0.3], [4.0, 0.4]], "float32")
    assert isinstance(w, Array) and w.__array_namespace__() is namespace
    assert backend.numpy(nc.MaxNorm(1.0, axis=0)(w)).round(6).tolist() == [[0.6, 0.3], [0.8, 0.4]]
