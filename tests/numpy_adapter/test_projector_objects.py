"""Projection in place of the arrays in the attributes of objects, and of arrays of every layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import SGDRegressor

import normconstraints as nc
from normconstraints_numpy import Projector

CAP = nc.MaxNorm(1.0, axis=0)


class Dense:
    def __init__(self, fill: float = 3.0) -> None:
        self.kernel = np.full((4, 2), fill)
        self.bias = np.full(2, fill)
        self.rate, self.name, self.count = np.float64(0.1), "dense", 3
        self.losses = [1.0, 0.5]
        self.log = logging.getLogger("dense")
        self.loss = lambda x: x
        self._scratch = np.full(2, fill)


@dataclass
class Network:
    layers: list[Dense] = field(default_factory=lambda: [Dense(), Dense(5.0)])
    head: dict[str, Any] = field(default_factory=lambda: {"w": np.full(3, 7.0), "act": "relu"})
    parent: Any = None


class Slotted:
    __slots__ = ("missing", "w")

    def __init__(self) -> None:
        self.w = np.full(3, 2.0)


class Slots(Slotted):
    __slots__ = "v"

    def __init__(self) -> None:
        super().__init__()
        self.v = np.full(3, 4.0)


def names(weights: Any) -> list[str]:
    return [row.name for row in Projector({}).plan(weights).rows]


def test_the_arrays_in_the_attributes_of_an_object() -> None:
    model = Dense()
    kernel = model.kernel
    assert Projector({"kernel": CAP})(model) is model
    assert model.kernel is kernel
    np.testing.assert_allclose(kernel, 0.5)
    np.testing.assert_array_equal(model.bias, 3.0)


def test_names_are_paths_and_what_holds_no_arrays_has_none() -> None:
    network = Network()
    network.parent = network
    expected = ["layers.0.kernel", "layers.0.bias", "layers.1.kernel", "layers.1.bias", "head.w"]
    assert names(network) == expected
    assert names({"net": [network]}) == [f"net.0.{name}" for name in expected]
    projector = Projector({"layers.*.kernel": CAP, "head.w": nc.Simplex(axis=0)})
    projector(network)
    assert list(projector.violation(network)) == [expected[0], expected[2], expected[4]]
    assert not any(v.any() for v in projector.violation(network).values())
    assert network.layers[1].bias.tolist() == [5, 5]


def test_slots() -> None:
    model = Slots()
    assert set(names(model)) == {"w", "v"}
    Projector({"?": nc.Box(0.0, 1.0)})(model)
    assert model.w.tolist() == model.v.tolist() == [1, 1, 1]


class Pair(NamedTuple):
    w: Any
    b: Any


class Paired:
    def __init__(self) -> None:
        self.pair = Pair(np.full(3, 2.0), np.full(3, 2.0))


def test_named_tuples_in_objects() -> None:
    assert names(Paired()) == ["pair.w", "pair.b"]


def test_one_array_in_two_attributes_is_one_weight() -> None:
    model = Dense()
    model.tied = model.kernel  # type: ignore[attr-defined]
    (row,) = [r for r in Projector({"kernel": CAP}).plan(model).rows if r.name == "kernel"]
    assert row.note == "tied to tied"


def test_the_unit_of_a_class_of_ones_own() -> None:
    class Layer:
        def __init__(self) -> None:
            self.kernel = np.full((4, 2), 3.0)
            self.gates = [np.full((4, 2), 3.0)]

    rule = nc.MaxNorm(1.0, axis="unit")
    with pytest.raises(ValueError, match=r"layout\.declare\(.*Layer, kernel="):
        Projector({"layer.kernel": rule})({"layer": Layer()})
    nc.layout.declare(Layer, {"kernel": "io", "gates.*": "oi"})
    layer = Layer()
    Projector({"layer.kernel": rule, "layer.gates.0": rule})({"layer": layer})
    np.testing.assert_allclose(layer.kernel, 0.5)
    np.testing.assert_allclose(layer.gates[0], 0.5**0.5)
    # The class is a pattern too.
    Projector({(Layer, "kernel"): nc.NonPos()})(layer)
    assert not layer.kernel.any()


def test_an_estimator_inside_a_structure_has_its_own_names() -> None:
    x = np.random.default_rng(0).standard_normal((50, 3))
    fitted = SGDRegressor(random_state=0).fit(x, x @ [1.0, -2.0, 3.0])
    weights = {"scale": np.full(3, 2.0), "model": fitted}
    Projector({"model.coef_": nc.MaxNorm(1.0, axis="unit"), "scale": nc.Box(0.0, 1.0)})(weights)
    assert np.linalg.norm(fitted.coef_) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="SGDRegressor must be fitted"):
        Projector({"*": CAP})({"model": SGDRegressor()})


@pytest.mark.parametrize(
    "wrong", [3, "w", None, np.ones(3), np, Dense, len, object(), np.float64()]
)
def test_what_holds_no_arrays_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"Projector: weights must be a dict .* in a dict$"):
        Projector({"*": CAP})(wrong)


def test_the_plan_changes_nothing_and_names_the_rule() -> None:
    model = Dense()
    text = str(Projector({"kernel": CAP}).plan(model))
    assert "MaxNorm" in text and "bias" in text
    assert (model.kernel == 3).all()


# Layouts in memory


def grid() -> Any:
    return np.arange(1.0, 25.0).reshape(4, 6)


LAYOUTS: dict[str, Callable[[], Any]] = {
    "transposed": lambda: grid().T,
    "backwards": lambda: grid()[::-1, ::-2],
    "Fortran": lambda: np.asfortranarray(grid()),
    "sliced": lambda: grid()[1:3, ::3],
    "swapped bytes": lambda: grid().astype(">f8"),
    "a field": lambda: np.full((4, 3), 2.0, dtype=[("a", "f8"), ("b", "i1")])["a"],
    "unaligned": lambda: np.frombuffer(bytearray(b"\1" * 193), np.uint8)[1:].view("f8")[:, None],
    "one row": lambda: np.broadcast_to(grid()[:1], (1, 6)).copy()[:, ::2],
    "no entries": lambda: np.ones((0, 3))[:, ::2],
    "no axes": lambda: grid()[2, 2, ...],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_in_memory(layout: str) -> None:
    w, c = LAYOUTS[layout](), nc.MaxNorm(1.0, axis=None)
    expected = c(np.array(w, dtype=np.float64))
    assert Projector({"w": c})({"w": w})["w"] is w
    np.testing.assert_allclose(w, expected, rtol=1e-15)


def test_what_is_beside_a_view_stays() -> None:
    whole = grid()
    Projector({"w": CAP})({"w": whole[:, ::2]})
    np.testing.assert_array_equal(whole[:, 1::2], grid()[:, 1::2])
    assert np.linalg.norm(whole[:, 0]) == pytest.approx(1.0)


def test_a_mapped_file_is_changed(tmp_path: Any) -> None:
    path = tmp_path / "w"
    w: Any = np.memmap(path, "f8", "w+", shape=(3,))
    w[:] = 2.0
    Projector({"w": nc.Box(0.0, 1.0)})({"w": w})
    w.flush()
    assert np.fromfile(path).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="'w' must be an array that can be changed"):
        Projector({"w": CAP})({"w": np.memmap(path, "f8", "r")})


@pytest.mark.parametrize("strides", [(8, 8), (0, 8), (8, 0), (4, 32)])
def test_entries_that_share_memory_are_refused(strides: tuple[int, int]) -> None:
    shared = np.lib.stride_tricks.as_strided(np.arange(1.0, 30.0), (3, 4), strides)
    weights = {"a": np.full(3, 2.0), "b": shared}
    with pytest.raises(ValueError, match=r"'b' must be an array whose entries have each their own"):
        Projector({"*": CAP})(weights)
    assert weights["a"].tolist() == [2, 2, 2]


# What is checked, and how often


def test_a_weight_is_measured_once_and_again_when_it_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[Any] = []
    violation = nc.MaxNorm._violation

    def counted(self: Any, w: Any, xp: Any) -> Any:
        measured.append(w.shape)
        return violation(self, w, xp)

    monkeypatch.setattr(nc.MaxNorm, "_violation", counted)
    projector = Projector({"w": CAP})
    for shape in ((2, 2), (2, 2), (3, 2), (2, 2)):
        projector({"w": np.ones(shape)})
    assert measured == [(2, 2), (3, 2)]
    for wrong in (np.ones((2, 2), int), np.ones((2, 2), complex).astype(object)):
        with pytest.raises((TypeError, ValueError), match="floating"):
            projector({"w": wrong})
