"""The contract on libraries that are heavy or odd; `make test-extended` installs them.

A brief look at one example of each set, and with ``WHOLE=1`` all of it at all of them: hours, for
every operation is a graph on dask, a kernel on dpnp, a model in ONNX.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normconstraints as nc
from normconstraints.testing import BACKENDS, Result, examples, parametrize_with_checks

WHOLE = bool(os.environ.get("WHOLE"))
FIRST = list({type(c): c for c in reversed(examples())}.values())
CHOSEN = examples() if WHOLE else FIRST

Check = Callable[[], list[Result]]
Record = Callable[[str, object], None]
# Thousands of operations for each input, which take dpnp minutes.
LONG = () if WHOLE else (nc.Correlation, nc.ConvOperatorBall)

# >>> x = dask.array.ones((8, 6), chunks=(5, 4))[0:6:2]  # rows in chunks of 3 and of none
# >>> x.max(axis=0).compute() raises a ValueError of concatenate, x.sum(axis=0) does not
EMPTY_CHUNK = "dask takes no maximum over an axis with a chunk of no entries, and Masked makes one"
STEPPED = [c for c in FIRST if type(c) is nc.Masked]


@parametrize_with_checks([c for c in FIRST if c not in STEPPED], backends=["dask"], brief=not WHOLE)
def test_dask(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


@parametrize_with_checks(
    STEPPED, backends=["dask"], expected_failures={"traceable": EMPTY_CHUNK}, brief=not WHOLE
)
def test_dask_with_chunks_of_no_entries(check: Check, record_property: Record) -> None:
    results = check()
    raised = [r.message for r in results if r.status == "expected failure"]
    assert raised
    assert all("dimensions except for the concatenation axis" in message for message in raised)
    record_property("checks", sum(r.status == "passed" for r in results))


@pytest.mark.timeout(3600 if WHOLE else 300)
@parametrize_with_checks(
    [c for c in FIRST if not isinstance(c, LONG)], backends=["dpnp"], brief=not WHOLE
)
def test_dpnp(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


POLAR = [c for c in examples() if getattr(c, "method", "") == "polar"]


@parametrize_with_checks([c for c in CHOSEN if c not in POLAR], backends=["mlx"], brief=not WHOLE)
def test_contract(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


# >>> mx.exp(mx.array(10.1, dtype=mx.float64)) - math.exp(10.1) is 0.0081 on MLX 0.32
FLOAT32_EXP = "MLX computes exp and sin of float64 in float32"


@parametrize_with_checks(
    POLAR,
    backends=["mlx"],
    expected_failures=dict.fromkeys(
        ("nearest", "feasible", "violation", "agreement", "idempotent", "arrives"), FLOAT32_EXP
    ),
)
def test_mlx_by_products(check: Check, record_property: Record) -> None:
    results = check()
    assert {r.dtype for r in results if r.status == "expected failure"} <= {"float64"}
    record_property("checks", sum(r.status == "passed" for r in results))


# The example with a radius of 0, by which entries below become -0.0.
TO_ZERO = [c for c in examples() if isinstance(c, nc.LInfBall) and isinstance(c.radius, tuple)]
# That with a part in which zeros with a sign are chosen among others.
SIGNED = [c for c in examples() if type(c) is nc.Masked and type(c.constraint) is nc.MaxNorm]

# That whose last step decides by a norm of what was just rounded.
ROUNDED = [c for c in examples() if type(c) is nc.Intersection and c.rounds == 6]


# Not the long products: a model of them takes minutes for each shape, and numbers of 50 digits too.
QUICK = [c for c in CHOSEN if c not in (*TO_ZERO, *SIGNED, *ROUNDED, *POLAR)]


@parametrize_with_checks(QUICK, backends=["ndonnx"], brief=not WHOLE)
def test_ndonnx(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


# onnxruntime 1.32, without any optimisation: the model of where(w < 0, -0.0, w) gives 0.0 for -1.0.
NO_SIGN = "the operator Where of onnxruntime loses the sign of -0.0"


@parametrize_with_checks(
    TO_ZERO,
    backends=["ndonnx"],
    expected_failures={"agreement": NO_SIGN},
)
def test_ndonnx_clipped_to_zero(check: Check, record_property: Record) -> None:
    results = check()
    record_property("checks", sum(r.status == "passed" for r in results))


@parametrize_with_checks(
    SIGNED, backends=["ndonnx"], expected_failures=dict.fromkeys(("inside", "violation"), NO_SIGN)
)
def test_ndonnx_with_zeros_in_a_part(check: Check, record_property: Record) -> None:
    results = check()
    assert {r.regime for r in results if r.status == "expected failure"} == {"zeros"}
    record_property("checks", sum(r.status == "passed" for r in results))


# onnxruntime 1.32, without any optimisation: it has no Where in float16, and with the casts that it
# puts around its own it drops ours. With h = astype(w, float16), float64 in, the model of
# astype(where(h > 0, h, -h), float64) gives w, not rounded.
NOT_ROUNDED = "onnxruntime drops a cast to float16 between others, and with it the rounding"


@parametrize_with_checks(
    ROUNDED,
    backends=["ndonnx"],
    expected_failures=dict.fromkeys(("arrives", "idempotent"), NOT_ROUNDED),
)
def test_ndonnx_rounded_on_the_way(check: Check, record_property: Record) -> None:
    results = check()
    assert {r.dtype for r in results if r.status == "expected failure"} == {"float16"}
    record_property("checks", sum(r.status == "passed" for r in results))


# >>> mpmath.mpf(-0.0) is stored as (0, 0, 0, 0), and math.copysign(1, mpmath.mpf(-0.0)) is 1.0
NO_NEGATIVE_ZERO = "mpmath has no negative zero, so that the sign is lost on the way in"


UNSIGNED = dict.fromkeys(
    ("kept", "inside", "zero groups", "violation", "agreement"), NO_NEGATIVE_ZERO
)


@parametrize_with_checks(TO_ZERO, backends=["mparray"], expected_failures=UNSIGNED)
def test_mparray_clipped_to_zero(check: Check, record_property: Record) -> None:
    results = check()
    record_property("checks", sum(r.status == "passed" for r in results))


@parametrize_with_checks(
    [*QUICK, *ROUNDED], backends=["mparray"], expected_failures=UNSIGNED, brief=not WHOLE
)
def test_mparray(check: Check, record_property: Record) -> None:
    results = check()
    expected = [r for r in results if r.status == "expected failure"]
    # Nowhere but where there are negative zeros; on a boundary of radius 0 too.
    assert {r.regime for r in expected} <= {"zeros", "sparse", "boundary"}, expected
    record_property("checks", sum(r.status == "passed" for r in results))


@pytest.mark.parametrize(
    ("constraint", "shape"),
    [
        (nc.NonNeg(), (None, None)),
        (nc.Box(-0.5, 0.25), (None, None)),
        (nc.MaxNorm(1.0, axis=1), (None, 6)),
        (nc.UnitNorm(axis=0), (8, None)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_one_model_for_any_number_of_groups(
    constraint: Any, shape: tuple[int | None, ...], dtype: str
) -> None:
    """Only the length of the groups must be known when a model is exported."""
    if (reason := BACKENDS["ndonnx"].missing()) is not None:
        pytest.skip(reason)
    import ndonnx
    import onnxruntime

    w = ndonnx.argument(shape=shape, dtype=getattr(ndonnx, dtype))
    model = ndonnx.build(
        {"w": w}, {"nearest": constraint.project(w), "outside": constraint.violation(w)}
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["NoopElimination"],  # see the backend
    )
    for groups in (1, 5, 40):
        size = tuple(groups if s is None else s for s in shape)
        x = np.random.default_rng(groups).standard_normal(size).astype(dtype)
        nearest, outside = session.run(None, {"w": x})
        ulp = np.finfo(dtype).eps
        np.testing.assert_allclose(nearest, constraint.project(x), rtol=8 * ulp)
        np.testing.assert_allclose(outside, constraint.violation(x), rtol=64 * ulp, atol=64 * ulp)
