"""The contract on TensorFlow: eager, in graphs, compiled by XLA, and differentiated by a tape.

A brief look at one example of each set; eager, ``WHOLE=1`` takes all of it at all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import normconstraints as nc
from normconstraints.testing import Result, examples, parametrize_with_checks

pytest.importorskip("keras", reason="Keras is not installed")

from keras_backends import BACKEND, Keras, TensorFlowGraph, TensorFlowTape, TensorFlowXla

if BACKEND != "tensorflow":
    pytest.skip(
        f"about Keras on TensorFlow, and this process has it on {BACKEND}; set KERAS_BACKEND",
        allow_module_level=True,
    )

Check = Callable[[], list[Result]]
Record = Callable[[str, object], None]

WHOLE = bool(os.environ.get("WHOLE"))
# Thousands of operations, each of which is dear: a brief look. More than five minutes take some.
LONGEST = (nc.Correlation, nc.ConvOperatorBall)
LONG = (nc.Birkhoff, nc.Transport, *LONGEST)
SLOW = [c for c in examples() if isinstance(c, LONG) or getattr(c, "method", "") == "polar"]
ALL = [c for c in examples() if c not in SLOW]
FIRST = list({type(c): c for c in reversed(ALL)}.values())
# What Keras has, and one of each kind: sums, sorts, selections, several at once, parts.
FEW = [
    c
    for c in FIRST
    if isinstance(
        c,
        nc.MaxNorm
        | nc.UnitNorm
        | nc.MinMaxNorm
        | nc.NonNeg
        | nc.Box
        | nc.Simplex
        | nc.L1Ball
        | nc.TopK
        | nc.Monotone
        | nc.Intersection
        | nc.Masked
        | nc.AsMatrix
        | nc.Tied
        | nc.SpectralBall
        | nc.PositiveSemidefinite,
    )
]


@parametrize_with_checks(ALL if WHOLE else FIRST, backends=[Keras()], brief=not WHOLE)
def test_contract(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


@pytest.mark.timeout(3600 if WHOLE else 300)
@parametrize_with_checks(
    [c for c in SLOW if WHOLE or not isinstance(c, LONGEST)], backends=[Keras()], brief=True
)
def test_contract_of_slow_ones(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


@parametrize_with_checks(FEW, backends=[TensorFlowGraph(), TensorFlowXla()], brief=True)
def test_contract_in_graphs(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))


@parametrize_with_checks(FIRST, backends=[TensorFlowTape()], brief=True)
def test_contract_with_derivatives(check: Check, record_property: Record) -> None:
    record_property("checks", len(check()))
