"""Roles of axes: what each word spans, views of shared axes, declarations."""

from __future__ import annotations

import math
import sys

import array_api_strict
import numpy as np
import pytest
import torch

import normconstraints as nc
from normconstraints import layout
from normconstraints.layout import InView, Layout, LayoutError

UNIT = nc.MaxNorm(1.0, axis="unit")


@pytest.mark.parametrize(
    ("roles", "ndim", "word", "axes"),
    [
        ("oi", 2, "unit", (1,)),
        ("oi", 2, "filter", (1,)),
        ("oi", 2, "input", (0,)),
        ("oi", 2, "tensor", (0, 1)),
        ("io", 2, "unit", (0,)),
        ("oi..", 3, "unit", (1, 2)),
        ("oi..", 5, "unit", (1, 2, 3, 4)),
        ("oi..", 2, "unit", (1,)),
        ("ois..", 4, "unit", (1, 2, 3)),
        ("o i s s", 4, "input", (0, 2, 3)),
        ("s..io", 4, "unit", (0, 1, 2)),
        ("s..io", 4, "kernel", (0, 1)),
        ("s..oi", 4, "unit", (0, 1, 3)),
        ("ssoo", 4, "unit", (0, 1)),
        ("ioo", 3, "unit", (0,)),
        ("iio", 3, "unit", (0, 1)),
        ("oii", 3, "unit", (1, 2)),
        ("te", 2, "unit", (1,)),
        ("te", 2, "row", (1,)),
        ("te", 2, "input", (1,)),
        ("te", 2, "tensor", (0, 1)),
        ("lio", 3, "unit", (1,)),
        ("lio", 3, "tensor", (1, 2)),
        ("gio..", 5, "unit", (1, 3, 4)),
    ],
)
def test_the_axes_of_a_word(roles: str, ndim: int, word: str, axes: tuple[int, ...]) -> None:
    assert Layout(roles).axes(word, ndim) == axes


@pytest.mark.parametrize(
    ("roles", "word"),
    [
        ("o", "unit"),
        ("oi", "row"),
        ("oi", "kernel"),
        ("oi..", "row"),
        ("te", "kernel"),
        ("o", "input"),
    ],
)
def test_a_word_without_meaning_for_the_weight(roles: str, word: str) -> None:
    ndim = len(roles.replace("..", "s"))
    with pytest.raises(LayoutError, match=rf"axis='{word}' is .* does not have; give the axis as"):
        Layout(roles).axes(word, ndim)


def test_a_kernel_without_spatial_axes_has_none() -> None:
    with pytest.raises(LayoutError, match="axis='kernel' is one spatial kernel"):
        Layout("oi..").axes("kernel", 2)


@pytest.mark.parametrize("roles", ["ox", "o..i..", "(oi)", "(go", "oi)", "(gs)o"])
def test_roles_that_are_none(roles: str) -> None:
    with pytest.raises(LayoutError, match="Layout: roles must be a letter of"):
        Layout(roles)


@pytest.mark.parametrize("groups", [0, -1, 1.5, True])
def test_groups_that_are_none(groups: object) -> None:
    with pytest.raises(LayoutError, match="Layout: groups must be a positive integer"):
        Layout("(gi)o", groups)  # type: ignore[arg-type]


def test_another_number_of_axes() -> None:
    with pytest.raises(
        LayoutError, match="'oi' must have a role for each axis, got a weight with 3"
    ):
        Layout("oi").fit(3)
    with pytest.raises(LayoutError, match=r"'ois\.\.' must have a role for each axis"):
        Layout("oi..").fit(1)


def test_shared_axes_are_taken_apart_only_where_a_word_needs_it() -> None:
    grouped = Layout("(gi)o..", groups=3)
    assert grouped.view("unit", (6, 4, 5)) == (3, 2, 4, 5)
    assert grouped.axes("unit", 3) == (1, 3)
    assert grouped.view("input", (6, 4, 5)) is None
    assert grouped.axes("input", 3) == (1, 2)
    assert grouped.view("tensor", (6, 4, 5)) is None
    assert Layout("(go)i..", groups=3).view("unit", (6, 4, 5)) is None
    assert Layout("(go)i..", groups=3).view("input", (6, 4, 5)) == (3, 2, 4, 5)
    assert Layout("(gi)o..", groups=1).view("unit", (6, 4, 5)) is None
    with pytest.raises(LayoutError, match="4 groups must divide 6"):
        Layout("(gi)o..", groups=4).view("unit", (6, 4, 5))


def test_a_resolved_constraint_of_a_grouped_transposed_convolution() -> None:
    w = np.random.default_rng(0).standard_normal((6, 4, 5))
    c = layout.resolve(UNIT, Layout("(gi)o..", groups=3), w.shape)
    assert c == InView(nc.MaxNorm(1.0, axis=(1, 3)), (3, 2, 4, 5))
    # Wider than the weights: float64's own norm and quotient would be as far off as the result.
    expected = w.astype(np.longdouble)
    for g in range(3):
        for o in range(4):
            part = expected[2 * g : 2 * g + 2, o]
            part *= min(np.longdouble(1), 1 / np.sqrt(np.sum(part * part)))
    np.testing.assert_allclose(c(w), expected.astype(float), rtol=nc.tolerance(w, 10))
    assert c.violation(w).shape == (3, 4)
    np.testing.assert_array_equal(c.violation(c(w)), 0.0)
    again = w.copy()
    assert c.project_(again) is again
    np.testing.assert_array_equal(again, c(w))
    tensor = torch.tensor(w, dtype=torch.float32).requires_grad_()
    c(tensor).sum().backward()
    assert torch.isfinite(tensor.grad).all()
    strict = array_api_strict.asarray(w)
    np.testing.assert_allclose(np.from_dlpack(c(strict)), expected, rtol=1e-15)
    with pytest.raises(ValueError, match=r"InView: w must fit the shape \(3, 2, 4, 5\), got"):
        c(np.ones((2, 2)))


def test_resolving_leaves_the_rest_of_a_constraint_alone() -> None:
    given = nc.MinMaxNorm(0.5, 2.0, rate=0.5, axis="unit")
    found = layout.resolve(given, Layout("io"), (3, 4))
    assert found == nc.MinMaxNorm(0.5, 2.0, rate=0.5, axis=0)
    plain = nc.MaxNorm(1.0, axis=1)
    assert layout.resolve(plain, Layout("io"), (3, 4)) is plain
    box = nc.Box(0.0, 1.0)
    assert layout.resolve(box, Layout("o"), (3,)) is box


@pytest.mark.parametrize("word", ["unit", "filter", "input", "row", "kernel", "tensor"])
def test_every_word_is_refused_on_a_bare_array(word: str) -> None:
    with pytest.raises(ValueError, match=f'MaxNorm: axis="{word}" depends on the layer'):
        nc.MaxNorm(1.0, axis=word)(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"axis must be an int, .* got 'units'"):
        nc.MaxNorm(1.0, axis="units")


class _Dense:
    def __init__(self, roles: str = "oi") -> None:
        self.roles = roles


class _Wide(_Dense):
    pass


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declarations of this test go with it."""
    monkeypatch.setattr(layout, "_layers", dict(layout._layers))


@pytest.mark.usefixtures("clean")
def test_declarations_are_inherited_matched_in_order_and_may_ask_the_layer() -> None:
    assert not layout.declared(_Wide)
    layout.declare(_Dense, {"weight_*": lambda layer: layer.roles}, bias="o", weight_x="io")
    assert layout.declared(_Wide)
    assert layout.of(_Wide("io"), "weight_ih") == Layout("io")
    assert layout.of(_Dense(), "weight_x") == Layout("oi")  # the first that matches
    assert layout.of(_Dense(), "bias") == Layout("o")
    layout.declare(_Wide, weight_ih="oii")
    assert layout.of(_Wide(), "weight_ih") == Layout("oii")
    assert layout.of(_Wide(), "bias") == Layout("o")


def test_an_unknown_layer_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(LayoutError, match=r'layout\.declare\(_Dense, kernel="oi"\)'):
        layout.of(_Dense(), "kernel")


@pytest.mark.usefixtures("clean")
def test_a_wrong_declaration() -> None:
    with pytest.raises(TypeError, match="declare: cls must be a class"):
        layout.declare(_Dense(), weight="oi")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="declare: the roles of 'weight' must be a string"):
        layout.declare(_Dense, weight=3)  # type: ignore[arg-type]
    with pytest.raises(LayoutError, match="Layout: roles must be"):
        layout.declare(_Dense, weight="xy")
    assert not layout.declared(_Dense)


def test_groups_of_the_issue_that_started_this() -> None:
    """Keras' default axis 0 on Conv2D(32, (3, 3)) of one channel: 96 norms of 3 numbers."""
    shape = (3, 3, 1, 32)
    assert math.prod(nc.MaxNorm(3.0, axis=0).violation(np.ones(shape)).shape) == 96
    c = layout.resolve(nc.MaxNorm(3.0, axis="unit"), Layout("s..io"), shape)
    assert c.violation(np.ones(shape)).shape == (32,)


def _examples() -> list[nc.Constraint]:
    classes = [getattr(nc, name) for name in nc.__all__]
    sets = [c for c in classes if isinstance(c, type) and issubclass(c, nc.Constraint)]
    return [
        example
        for cls in sets
        for example in getattr(sys.modules[cls.__module__], "EXAMPLES", ())
        if type(example) is cls
    ]


def test_a_stack_of_weights_is_projected_as_each_of_them() -> None:
    rng, seen = np.random.default_rng(0), set()
    for c in _examples():
        for shape in ((6, 8), (8, 8), (8, 6), (6, 8, 3)):
            weights = 2 * rng.standard_normal((3, *shape)).astype(np.float32)
            stacked = layout.stacked(c, len(shape))
            try:
                expected = [c(w) for w in weights]
            except ValueError:
                continue  # not the shape of this example
            if stacked is None:
                assert isinstance(
                    c,
                    nc.AsMatrix
                    | nc.ConvOperatorBall
                    | nc.Intersection
                    | nc.Masked
                    | nc.Relaxed
                    | nc.Sequence
                    | nc.Translated,
                )
                continue
            np.testing.assert_allclose(stacked(weights), expected, rtol=4e-7, atol=4e-7)
            seen.add(type(c))
    assert len(seen) > 30
    assert layout.stacked(UNIT, 2) is None
    assert layout.stacked(InView(nc.MaxNorm(1.0, axis=0), (4, 3)), 2) is None
