"""Which step a call of the projector is, and what it takes down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normconstraints as nc
from normconstraints.schedules import Linear
from normconstraints_numpy import Projector

RAMP = nc.Scheduled(nc.MaxNorm(4.0, axis=0), {"max_value": Linear(4.0, 1.0, steps=3)})


def weights() -> dict[str, Any]:
    return {"w": np.array([[30.0, 0.3], [40.0, 0.4]])}


def norm_after(projector: Projector, **step: Any) -> float:
    return float(np.linalg.norm(projector(weights(), **step)["w"][:, 0]))


def test_it_counts_its_calls() -> None:
    projector = Projector({"w": RAMP})
    assert projector.step == 0
    assert [norm_after(projector) for _ in range(5)] == pytest.approx([4.0, 3.0, 2.0, 1.0, 1.0])
    assert projector.step == 5


def test_it_can_be_told_the_step_and_goes_on_from_there() -> None:
    projector = Projector({"w": RAMP})
    assert norm_after(projector, step=2) == pytest.approx(2.0)
    assert projector.step == 3
    assert norm_after(projector, step=np.int64(1)) == pytest.approx(3.0)
    assert norm_after(projector) == pytest.approx(2.0)
    assert type(projector.step) is int


def test_a_step_that_is_not_due_changes_nothing() -> None:
    rule = nc.Scheduled(nc.MaxNorm(1.0, axis=0), every=2, start=1)
    projector = Projector({"w": rule})
    assert [norm_after(projector) for _ in range(4)] == pytest.approx([50.0, 1.0, 50.0, 1.0])


def test_a_failed_call_is_no_step() -> None:
    projector, frozen = Projector({"w": RAMP}, report_every=1), weights()
    frozen["w"].setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        projector(frozen)
    assert projector.step == 0
    assert projector.report.entries == ()


def test_the_violation_is_that_of_the_last_step_or_of_one_that_is_asked() -> None:
    projector = Projector({"w": RAMP})
    assert projector.violation(weights())["w"].tolist() == pytest.approx([46.0, 0.0])
    projector(weights(), step=2)
    assert projector.violation(weights())["w"].tolist() == pytest.approx([48.0, 0.0])
    assert projector.violation(weights(), step=3)["w"].tolist() == pytest.approx([49.0, 0.0])
    assert projector.step == 3


def test_the_report_has_every_nth_step_from_before_the_projection() -> None:
    projector = Projector({"w": RAMP, "b": nc.NonNeg()}, report_every=2)
    for _ in range(4):
        projector({**weights(), "b": np.array([-1.0, 1.0])})
    found = [(e.step, e.name, e.violation) for e in projector.report.entries]
    assert found == [
        (0, "w", pytest.approx(46.0)),
        (0, "b", 1.0),
        (2, "w", pytest.approx(48.0)),
        (2, "b", 1.0),
    ]
    assert projector.report.latest()["w"].at_bound == 0.5


def test_without_report_every_there_is_no_entry() -> None:
    projector = Projector({"w": RAMP})
    projector(weights())
    assert projector.report.entries == ()
    assert repr(projector) == f"Projector({nc.Rules({'w': RAMP})!r})"
    assert "report_every=2" in repr(Projector({"w": RAMP}, report_every=2))


def test_the_report_leaves_out_what_is_not_due() -> None:
    projector = Projector({"w": nc.Scheduled(nc.MaxNorm(1.0, axis=0), every=2)}, report_every=1)
    for _ in range(3):
        projector(weights())
    assert [e.step for e in projector.report.entries] == [0, 2]


@pytest.mark.parametrize("step", [-1, 1.5, True, "1"])
def test_a_step_must_be_a_count(step: Any) -> None:
    projector, given = Projector({"w": RAMP}), weights()
    with pytest.raises(ValueError, match=r"Projector: step must be an integer, 0 or more, got"):
        projector(given, step=step)
    assert given["w"].tolist() == weights()["w"].tolist()


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_report_every_must_be_a_count(every: Any) -> None:
    with pytest.raises(ValueError, match=r"report_every must be a positive integer or None, got"):
        Projector({"w": RAMP}, report_every=every)
