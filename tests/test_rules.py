"""Rules: patterns, what they refuse, configurations, schedules, and the walk over plain arrays."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normconstraints as nc
from normconstraints import layout
from normconstraints.layout import Layout, LayoutError
from normconstraints.schedules import Cosine, Linear
from normconstraints.weights import Place, Weight, tie, weights_of

C = nc.MaxNorm(3.0, axis=1)
D = nc.NonNeg()
UNIT = nc.MaxNorm(3.0, axis="unit")


class Dense:
    """A layer of some framework."""


class Gated(Dense):
    """One that inherits."""


class Norm:
    """A layer without inputs."""


@pytest.fixture(autouse=True)
def layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers above are declared, for one test."""
    monkeypatch.setattr(layout, "_layers", dict(layout._layers))
    layout.declare(Dense, weight="oi", bias="o")
    layout.declare(Norm, scale="o")


def model() -> list[Weight]:
    """Weights of two dense layers and a norm."""
    first, second, norm = Dense(), Gated(), Norm()
    return [
        Weight(np.ones((4, 3)), Place("body.0.weight", first, "weight")),
        Weight(np.ones(4), Place("body.0.bias", first, "bias")),
        Weight(np.ones((2, 4)), Place("head.weight", second, "weight")),
        Weight(np.ones(2), Place("head.bias", second, "bias")),
        Weight(np.ones(4), Place("norm.scale", norm, "scale")),
    ]


def chosen(rules: Any, of: Any = None) -> list[str]:
    """Names that the rules constrain."""
    return list(nc.Rules.of(rules).match(model() if of is None else of))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("head.weight", ["head.weight"]),
        ("*.weight", ["body.0.weight", "head.weight"]),
        ("body.?.bias", ["body.0.bias"]),
        (re.compile(r".*\.(weight|bias)"), 4),
        (re.compile(r"head\.w.+"), ["head.weight"]),
        (Gated, ["head.weight", "head.bias"]),
        (Dense, 4),
        ((Dense, "w*"), ["body.0.weight", "head.weight"]),
        (lambda w: len(w.shape) == 1 and "norm" not in w.name, ["body.0.bias", "head.bias"]),
    ],
)
def test_patterns(pattern: Any, names: Any) -> None:
    found = chosen({pattern: D})
    assert len(found) == names if isinstance(names, int) else found == names


def test_a_layer_with_a_word_passes_over_weights_without_such_groups() -> None:
    found = nc.Rules({Dense: UNIT}).match(model())
    assert found == dict.fromkeys(["body.0.weight", "head.weight"], nc.MaxNorm(3.0, axis=1))
    with pytest.raises(
        ValueError, match=r"cannot serve 'body.0.bias' of shape \(4,\): axis='unit'"
    ):
        nc.Rules({"*": UNIT}).bind(model())


def test_none_exempts_wherever_it_stands() -> None:
    for pairs in ([("head.*", None), ("*.weight", C)], [("*.weight", C), ("head.*", None)]):
        assert chosen(pairs) == ["body.0.weight"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"*.wieght": C}, r"Rules: '\*\.wieght' must match a weight, got none; did you mean"),
        ({"head.wieght": C}, "did you mean 'head.weight'"),
        (
            {"conv": None},
            "Rules: 'conv' must match a weight, got none; there are 'body.0.weight', ",
        ),
        ({re.compile("head"): C}, r"re\.compile\('head'\) must match a weight"),
        ({int: C}, r"Rules: builtins\.int must match a weight, got none; there are '.*Dense', "),
        ({lambda w: False: C}, "<lambda> must match a weight"),
        (
            {"head.*": C, "*.weight": D},
            "'head.weight' must have one constraint, got those of 'head",
        ),
        (
            {"*": None, "head.weight": C},
            "'head.weight' must choose a weight, and all that it matches",
        ),
        (
            {"*.bias": C},
            r"'\*\.bias' cannot serve 'body\.0\.bias' of shape \(4,\): .*axis must exist",
        ),
        ({"norm.*": UNIT}, r"cannot serve 'norm\.scale' of shape \(4,\): axis='unit' is"),
    ],
)
def test_refused_before_training(rules: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nc.Rules(rules).bind(model())


def test_what_the_model_itself_says_counts_as_one_more_rule() -> None:
    said = [replace(w, constraint=UNIT) if w.name == "body.0.weight" else w for w in model()]
    own = nc.MaxNorm(3.0, axis=1)
    assert nc.Rules({}).match(said) == {"body.0.weight": own}
    assert nc.Rules({"head.weight": D}).match(said) == {"body.0.weight": own, "head.weight": D}
    assert nc.Rules({"body.0.weight": None, "head.weight": D}).match(said) == {"head.weight": D}
    (bound,) = nc.Rules({}).bind(said)
    assert bound.rule == "the model itself"
    assert nc.Rules({}).plan(said).unconstrained == [w.name for w in model()[1:]]
    with pytest.raises(
        ValueError,
        match=r"'body\.0\.weight' must have one constraint, got those of the model itself and "
        r"'\*\.weight'; make a pattern narrower, or exempt",
    ):
        nc.Rules({"*.weight": C}).bind(said)
    with pytest.raises(ValueError, match="all that it matches are exempted by a rule with None"):
        nc.Rules({"head.weight": D, "head.*": None}).bind(said)
    said[1] = replace(said[1], constraint=nc.Scheduled(UNIT, every=2))
    with pytest.raises(LayoutError, match=r"the model itself cannot serve 'body\.0\.bias'"):
        nc.Rules({}).bind(said)


def test_names_and_layouts_of_a_plain_dict() -> None:
    weights = {"conv": {"kernel": np.ones((3, 3, 2, 8))}, "layers": [np.ones((4, 2)), np.ones(3)]}
    rules = nc.Rules(
        {"*.kernel": UNIT, "layers.0": UNIT}, layouts={"*.kernel": "s..io", "layers.0": "io"}
    )
    assert rules.match(weights) == {
        "conv.kernel": nc.MaxNorm(3.0, axis=(0, 1, 2)),
        "layers.0": nc.MaxNorm(3.0, axis=0),
    }
    with pytest.raises(LayoutError, match=r"layouts=\{'layers\.0': \"oi\"\}"):
        nc.Rules({"layers.0": UNIT}).bind(weights)
    with pytest.raises(ValueError, match=r"layouts: 'layer\.0' must match .*'layers\.0'"):
        nc.Rules({"layers.0": C}, layouts={"layer.0": "io"}).bind(weights)
    with pytest.raises(ValueError, match=r"its own name, got 'a\.b' twice"):
        nc.Rules({"*": D}).bind({"a": {"b": np.ones(1)}, "a.b": np.ones(1)})
    with pytest.raises(TypeError, match="weights_of: model must be a dict or list of arrays"):
        nc.Rules({"*": D}).bind(Dense())


def test_layouts_given_with_the_rules_win_over_the_layer() -> None:
    rules = nc.Rules({"head.weight": UNIT}, layouts={"head.*": "io"})
    assert rules.match(model()) == {"head.weight": nc.MaxNorm(3.0, axis=0)}


def test_tied_weights() -> None:
    shared, dense = np.ones((4, 4)), Dense()
    other = Norm()
    same = tie(
        [
            (shared, Place("a.weight", dense, "weight")),
            (shared, Place("b.weight", Gated(), "weight")),
        ]
    )
    assert [w.name for w in same] == ["a.weight"]
    assert chosen({"b.weight": UNIT}, same) == ["a.weight"]
    assert chosen({"*.weight": UNIT}, same) == ["a.weight"]
    with pytest.raises(
        ValueError, match=r"'a.weight' must have one constraint, got those of 'a.wei"
    ):
        chosen({"a.weight": UNIT, "b.weight": D}, same)
    layout.declare(Norm, weight="io")
    differ = tie(
        [(shared, Place("a.weight", dense, "weight")), (shared, Place("c", other, "weight"))]
    )
    with pytest.raises(
        LayoutError, match=r"'a.weight' and 'c' are one weight, and their layers use"
    ):
        chosen({"a.weight": UNIT}, differ)
    assert chosen({"a.weight": C}, differ) == ["a.weight"]
    assert [len(w.ties) for w in weights_of({"x": shared, "y": [shared, np.ones(2)]})] == [1, 0]


def test_a_class_is_known_by_name_so_that_a_file_runs_no_code() -> None:
    by_class = nc.Rules({Dense: UNIT})
    name = f"{Dense.__module__}.{Dense.__qualname__}"
    assert by_class.to_config()["rules"][0]["layer"] == name
    for layer in (name, "Dense"):
        rule = {
            "layer": layer,
            "constraint": "MaxNorm",
            "parameters": {"max_value": 3, "axis": "unit"},
        }
        assert chosen(nc.Rules.from_config({"rules": [rule]})) == chosen(by_class)


FULL = nc.Rules(
    [
        ("head.*", None),
        (re.compile(r"(?i)BODY.*weight"), UNIT),
        ((Dense, "bias"), nc.Box((0.0, -np.inf), 1.0)),
        (
            "norm.scale",
            nc.Scheduled(
                nc.MinMaxNorm(0.5, 2.0, axis=0),
                {"max_value": Linear(2.0, 1.0, 10), "rate": Cosine(0.1, 1.0, 5)},
                every=2,
                start=3,
            ),
        ),
    ],
    layouts={"body.0.weight": "oi", "norm.scale": Layout("(gi)o..", 3)},
)


def test_configurations_go_through_json_and_pickle() -> None:
    again = nc.Rules.from_config(json.loads(json.dumps(FULL.to_config())))
    assert again == FULL
    assert hash(again) == hash(FULL)
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert again != nc.Rules({"a": C})
    assert repr(again) == repr(FULL)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(json.dumps(FULL.to_config()))
    assert nc.Rules.from_file(tmp_path / "rules.json") == FULL
    (tmp_path / "rules.toml").write_text(
        """
        [layouts]
        "body.0.weight" = "oi"

        [[rules]]
        names = "head.*"
        exempt = true

        [[rules]]
        layer = "Dense"
        attribute = "weight"
        constraint = "MaxNorm"
        parameters = { max_value = 3.0, axis = "unit" }
        every = 2

        [rules.changing.max_value]
        constraint = "Linear"
        parameters = { start = 3, end = 1, steps = 9 }
        """
    )
    found = nc.Rules.from_file(str(tmp_path / "rules.toml")).match(model())
    schedule = {"max_value": Linear(3.0, 1.0, 9)}
    assert found == {"body.0.weight": nc.Scheduled(nc.MaxNorm(3.0, axis=1), schedule, every=2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules.yaml", r"Rules: path must end in \.toml or \.json"),
        ("rules = 3", "must be a list of rules, got 3"),
        ("x = 1", "Rules: config must be a mapping with the key 'rules'"),
        ("[[rules]]\nnames = 'a'", "from_config: constraint must be one of"),
        ("[[rules]]\nname = 'a'\nexempt = true", "rule 1 must have one of the keys 'names', "),
        ("[[rules]]\nnames = 'a'\nexempt = false", "from_config: constraint must be one of"),
        ("[[rules]]\nnames = 3\nexempt = true", "rule 1: patterns must be strings"),
        ("[[rules]]\nregex = '('\nexempt = true", "rule 1: regex must be a regular expression"),
        (
            "[[rules]]\nnames='a'\nconstraint='MaxNorm'\nparameters={max_value=-1,axis=0}",
            "MaxNorm: max_value must be",
        ),
        ("[[rules]", "Rules: .*is not well formed"),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    if text == "rules.yaml":
        path = tmp_path / text
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        nc.Rules.from_file(path)


def test_what_cannot_be_written_down() -> None:
    for rules, message in [
        ({lambda w: True: C}, "Rules: a function cannot be written down"),
        ({re.compile("a", re.IGNORECASE): C}, r"regular expression with flags .* \(\?i\)"),
        (
            {"a": nc.Scheduled(C, {"max_value": lambda step: 1.0})},
            "schedule of max_value cannot be",
        ),
    ]:
        with pytest.raises(TypeError, match=message):
            nc.Rules(rules).to_config()


# ---------------------------------------------------------------------------------- schedules


def test_ramps() -> None:
    assert [Linear(3.0, 1.0, 4)(s) for s in (-1, 0, 1, 2, 4, 9)] == [3.0, 3.0, 2.5, 2.0, 1.0, 1.0]
    assert Cosine(3.0, 1.0, 4)(2) == pytest.approx(2.0, rel=1e-15)
    for ramp in (Linear(3.0, 1.0, 4), Cosine(3.0, 1.0, 4)):
        for step in range(-2, 8):
            assert float(ramp(np.asarray(step))) == pytest.approx(ramp(step), rel=1e-6)
        assert ramp(0) == 3.0
        assert ramp(4) == 1.0


def test_when_and_with_what_a_scheduled_constraint_acts() -> None:
    c = nc.Scheduled(C, {"max_value": Linear(4.0, 2.0, 10)}, every=3, start=2)
    assert [step for step in range(12) if c.due(step)] == [2, 5, 8, 11]
    assert [s for s in range(12) if bool(c.due(np.asarray(s)))] == [2, 5, 8, 11]
    assert c.at(5) == nc.MaxNorm(3.0, axis=1)
    w = np.full((1, 4), 4.0)
    np.testing.assert_array_equal(c.project(w, 4), w)
    np.testing.assert_allclose(np.linalg.norm(c.project(w, 5)), 3.0, rtol=1e-15)
    np.testing.assert_array_equal(c.project(w, np.asarray(5)), c.project(w, 5))
    assert not c.always
    assert nc.Scheduled(C).always
    assert pickle.loads(pickle.dumps(c)) == c
    assert hash(c) == hash(nc.Scheduled(C, c.changing, every=3, start=2))


def test_a_schedule_reaches_the_constraint_in_a_view() -> None:
    rules = nc.Rules(
        {"w": nc.Scheduled(UNIT, {"max_value": Linear(3.0, 1.0, 2)})},
        layouts={"w": Layout("(gi)o..", 2)},
    )
    (bound,) = rules.bind({"w": np.ones((4, 3, 5))})
    assert bound.at(2) == layout.InView(nc.MaxNorm(1.0, axis=(1, 3)), (2, 2, 3, 5))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: nc.Scheduled(3), TypeError, "Scheduled: constraint must be a constraint, got 3"),
        (lambda: nc.Scheduled(C, every=0), ValueError, "Scheduled: every must be an integer >= 1"),
        (lambda: nc.Scheduled(C, start=-1), ValueError, "Scheduled: start must be an integer >= 0"),
        (
            lambda: nc.Scheduled(C, {"radius": Linear(1, 2, 3)}),
            ValueError,
            r"\(max_value\), got 'radi",
        ),
        (lambda: nc.Scheduled(D, {"x": Linear(1, 2, 3)}), ValueError, "it has none"),
        (lambda: nc.Scheduled(C, {"max_value": 3.0}), TypeError, "must be a function of the step"),
        (
            lambda: nc.Scheduled(C, {"max_value": Linear(-1, 2, 3)}),
            ValueError,
            "max_value must be a",
        ),
        (lambda: Linear(1.0, float("nan"), 3), ValueError, "Linear: end must be a finite number"),
        (lambda: Cosine("1", 2.0, 3), ValueError, "Cosine: start must be a finite number"),
        (lambda: Linear(1.0, 2.0, 0), ValueError, "Linear: steps must be a positive integer"),
    ],
)
def test_wrong_schedules(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
