"""The plan before training and the report during it, against numbers by hand."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rich.console import Console

import normconstraints as nc
from normconstraints.report import Report

RULES = nc.Rules(
    {
        "a.kernel": nc.MaxNorm(2.0, axis="unit"),
        "b": nc.MaxNorm(50.0, axis=0),
        "c": nc.Box(0.0, 1.0),
    },
    layouts={"a.kernel": "io"},
)


def weights() -> dict[str, object]:
    """Columns of the norms 5, 1 and 0; ones; entries beyond a box; a bias."""
    return {
        "a": {"kernel": np.array([[3.0, 1.0, 0.0], [4.0, 0.0, 0.0]]), "bias": np.zeros(3)},
        "b": np.ones((4, 2), np.float32),
        "c": np.array([-1.0, 0.5, 2.0, 0.25]),
    }


def test_a_plan_says_what_will_happen() -> None:
    plan = RULES.plan(weights())
    kernel, bias, b, c = plan.rows
    assert (kernel.name, kernel.shape, kernel.roles) == ("a.kernel", (2, 3), "io")
    assert kernel.constraint == "MaxNorm(max_value=2.0, axis=0)"
    assert (kernel.groups, kernel.outside, kernel.norms) == (3, 1 / 3, (0.0, 1.0, 5.0))
    assert kernel.note == ""
    assert (bias.constraint, bias.groups, bias.note) == ("", None, "no constraint")
    assert (b.groups, b.outside, b.norms) == (2, 0.0, (2.0, 2.0, 2.0))
    assert b.note == "will hardly bind: 3 times as long they would still be inside"
    assert (c.groups, c.outside, c.norms, c.note) == (4, 0.5, None, "")
    assert plan.unconstrained == ["a.bias"]
    assert json.loads(json.dumps(plan.as_data()))[0]["name"] == "a.kernel"


def test_a_plan_of_other_libraries_is_the_same() -> None:
    expected = [(r.name, r.groups, r.outside, r.norms) for r in RULES.plan(weights()).rows]
    for convert in (torch.tensor, jnp.asarray, lambda x: torch.tensor(x, requires_grad=True)):
        given = {
            "a": {k: convert(v) for k, v in weights()["a"].items()},  # type: ignore[attr-defined]
            "b": convert(weights()["b"]),
            "c": convert(weights()["c"]),
        }
        found = [(r.name, r.groups, r.outside, r.norms) for r in RULES.plan(given).rows]
        assert found == expected


def test_a_plan_changes_nothing_and_flags_what_is_odd() -> None:
    given = weights()
    RULES.plan(given)
    np.testing.assert_array_equal(given["c"], weights()["c"])
    shared = np.full((2, 2), math.nan)
    plan = nc.Rules({"x": nc.MaxNorm(1.0, axis=0)}).plan({"x": shared, "y": shared})
    assert plan.rows[0].note == "tied to y; holds NaN or infinity"
    assert nc.Rules({}).plan({"z": np.ones(2)}).unconstrained == ["z"]


def test_a_cap_is_flagged_only_where_it_is_far() -> None:
    def note(bound: float, constraint: type = nc.MaxNorm) -> str:
        rules = nc.Rules({"w": constraint(bound, axis=1)})
        return rules.plan({"w": np.ones((2, 4))}).rows[0].note

    assert note(5.9) == ""
    assert note(6.1).startswith("will hardly bind")
    assert note(0.6, nc.MinNorm).startswith("will hardly bind")
    assert note(0.7, nc.MinNorm) == ""
    assert nc.Rules({"w": nc.NonNeg()}).plan({"w": np.ones(3)}).rows[0].note == ""


def test_tables() -> None:
    text = str(RULES.plan(weights()))
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0].split() == [
        "weight", "shape", "roles", "constraint", "groups", "outside", "norms", "note",
    ]  # fmt: skip
    assert "a.kernel  2x3    io     MaxNorm(max_value=2.0, axis=0)   3       33%      0 1 5" in text
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(RULES.plan(weights()))
    assert "MaxNorm(max_value=2.0, axis=0)" in console.export_text()


def report() -> Report:
    """Two weights, two steps."""
    found = Report()
    c = nc.MaxNorm(2.0, axis=0)
    w = np.array([[3.0, 1.0], [4.0, 0.0]])
    found.record(0, "a", c, w, c(w))
    found.record(0, "b", c, w / 10, w / 10)
    found.record(5, "a", c, c(w), c(w))
    return found


def test_entries_of_a_report() -> None:
    first, second, third = report().entries
    assert (first.step, first.name, first.at_bound, first.violation) == (0, "a", 0.5, 3.0)
    assert first.change == pytest.approx(3 / math.sqrt(26), rel=1e-15)
    assert (second.at_bound, second.violation, second.change) == (0.0, 0.0, 0.0)
    assert (third.step, third.at_bound, third.violation, third.change) == (5, 0.5, 0.0, 0.0)
    assert report().latest()["a"].step == 5
    assert json.loads(json.dumps(report().as_data()))[1]["name"] == "b"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_report_of_huge_and_short_weights(dtype: str) -> None:
    w = torch.full((4, 2), 3e4, dtype=getattr(torch, dtype))
    c = nc.MaxNorm(1.0, axis=0)
    found = Report()
    found.record(1, "w", c, w, c(w))
    (entry,) = found.entries
    assert entry.at_bound == 1.0
    assert entry.violation == pytest.approx(6e4, rel=0.01)
    assert entry.change == pytest.approx(1.0, rel=0.01)
    zero = torch.zeros_like(w)
    found.record(2, "w", c, zero, zero)
    assert found.entries[-1].change == 0.0


def test_scalars_are_what_a_writer_takes() -> None:
    scalars = list(report().scalars())
    assert scalars[:3] == [
        ("normconstraints/at_bound/a", 0.5, 0),
        ("normconstraints/violation/a", 3.0, 0),
        ("normconstraints/change/a", report().entries[0].change, 0),
    ]
    assert len(scalars) == 9


def test_the_picture(tmp_path: Path) -> None:
    for quantity in ("at_bound", "violation", "change"):
        figure = report().picture(quantity)
        axes, _ = figure.axes
        assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
        grid = axes.collections[0].get_array()
        assert grid.shape == (2, 2)
        assert grid[0, 0] == getattr(report().entries[0], quantity)
        assert np.ma.is_masked(grid[1, 1])  # nothing was recorded there
        figure.savefig(tmp_path / f"{quantity}.png")
    with pytest.raises(
        ValueError, match="Report: quantity must be one of at_bound, violation, cha"
    ):
        report().picture("norm")
    with pytest.raises(ValueError, match="none was recorded yet"):
        Report().picture()
