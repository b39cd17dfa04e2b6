"""AsMatrix: against matrices that are made and put back entry by entry, and what it hands on."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch
from test_mutants import Mutant, planted

import normconstraints as nc
import normconstraints_jax
from normconstraints import AsMatrix, layout
from normconstraints.optimize import frank_wolfe, projected_gradient
from normconstraints.testing import check_constraint

KERNEL = (3, 2, 4, 2)


def normal(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------ slow, and right


def places(shape: tuple[int, ...], axes: tuple[int, ...]) -> Iterator[dict[int, int]]:
    """Every place along some axes, the last one fastest."""
    for place in itertools.product(*[range(shape[a]) for a in axes]):
        yield dict(zip(axes, place, strict=True))


def matrices_of(w: Any, rows: Any, cols: Any) -> tuple[Any, Any]:
    """The matrices of a weight, and where in the weight each of their entries stands."""
    ndim = w.ndim
    sides = [[a % ndim for a in ((s,) if isinstance(s, int) else s or ())] for s in (rows, cols)]
    rest = [a for a in range(ndim) if a not in sides[0] + sides[1]]
    if rows is None or cols is None:
        sides, rest = [s or rest for s in sides], []
    found, where = [], []
    for b in places(w.shape, tuple(rest)):
        for r in places(w.shape, tuple(sides[0])):
            for c in places(w.shape, tuple(sides[1])):
                at = {**b, **r, **c}
                index = tuple(at[a] for a in range(ndim))
                found.append(w[index])
                where.append(index)
    sizes = [int(np.prod([w.shape[a] for a in s])) for s in sides]
    return np.array(found).reshape([w.shape[a] for a in rest] + sizes), where


def put_back(matrices: Any, where: Any, w: Any) -> Any:
    result = np.empty_like(w)
    for value, index in zip(np.ravel(matrices), where, strict=True):
        result[index] = value
    return result


SIDES: list[tuple[Any, Any]] = [
    (0, None),
    (-1, None),
    (None, 0),
    (None, (1, -1)),
    ((2, 0), None),
    ((0, 1), (2, 3)),
    ((3, 1), (2, 0)),
    ((0, -3, 2), 3),
    (3, (2, 0, 1)),
    (2, 0),
    (-1, 1),
    (1, (3, 0)),
]
SETS: list[Any] = [
    nc.MaxNorm(0.7, axis=-1),
    nc.MaxNorm(0.7, axis=-2),
    nc.MaxNorm(0.7, axis=(-2, -1)),
    nc.Monotone(axis=-1),
    nc.TopK(1, axis=-2),
    nc.Triangular(),
    nc.Box(-0.5, 0.25),
    nc.NonNeg() & nc.MaxNorm(0.7, axis=-1),
]


@pytest.mark.parametrize("c", SETS, ids=repr)
def test_the_matrices_are_projected_and_put_back(c: Any) -> None:
    w = normal(KERNEL)
    for rows, cols in SIDES:
        shown, where = matrices_of(w, rows, cols)
        kernel = AsMatrix(c, rows=rows, cols=cols)
        want = put_back(c(shown), where, w)
        np.testing.assert_allclose(kernel(w), want, rtol=0, atol=4e-16, err_msg=f"{rows} {cols}")
        np.testing.assert_allclose(kernel.violation(w), c.violation(shown), rtol=4e-16, atol=1e-16)
        assert np.shape(kernel.violation(w)) == np.shape(c.violation(shown))


def test_parameters_belong_to_rows_and_columns_of_the_matrix() -> None:
    """In the order given, which is what tells rows=(2, 0) from rows=(0, 2)."""
    w = normal(KERNEL)
    for rows, cols in SIDES:
        shown, where = matrices_of(w, rows, cols)
        radii = tuple(np.linspace(0.1, 1.0, shown.shape[-2]).tolist())
        bounds = tuple(np.linspace(0.1, 1.0, shown.shape[-1]).tolist())
        for c in (nc.MaxNorm(radii, axis=-1), nc.Box(-0.5, bounds)):
            want = put_back(c(shown), where, w)
            found = AsMatrix(c, rows=rows, cols=cols)(w)
            np.testing.assert_allclose(found, want, rtol=0, atol=4e-16)


@pytest.mark.parametrize("c", [nc.Symmetric(), nc.Circulant(), nc.Birkhoff()], ids=repr)
def test_square_matrices(c: Any) -> None:
    w = normal((2, 3, 3, 2))
    for rows, cols in [((0, 1), (3, 2)), ((0, 1), (2, 3)), (1, 2), (0, -1), ((2, 3), (0, 1))]:
        shown, where = matrices_of(w, rows, cols)
        found = AsMatrix(c, rows=rows, cols=cols)(w)
        np.testing.assert_allclose(found, put_back(c(shown), where, w), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"AsMatrix: \w+: w must .*, got"):
        AsMatrix(c, rows=0)(w)


def test_spectral_norms_of_kernels() -> None:
    w = normal((4, 3, 2, 2))
    ball = AsMatrix(nc.SpectralBall(1.0), rows=0)
    p = ball(w)
    assert np.linalg.norm(p.reshape(4, 12), 2) <= 1 + 1e-14
    np.testing.assert_allclose(p.reshape(4, 12), nc.SpectralBall(1.0)(w.reshape(4, 12)), atol=1e-15)
    keras = AsMatrix(nc.SpectralBall(1.0), rows=-1, cols=(2, 0, 1))
    np.testing.assert_allclose(keras(w.transpose(2, 3, 1, 0)), p.transpose(2, 3, 1, 0), atol=1e-14)
    # What spectral optimisers ask of a kernel: the nearest matrix with singular values of 1.
    v = nc.lmo(ball, w).reshape(4, 12)
    np.testing.assert_allclose(v @ v.T, np.eye(4), atol=1e-14)
    assert nc.dual_norm(ball, w) == pytest.approx(np.linalg.norm(w.reshape(4, 12), "nuc"))
    # Singular values that are all the same have a derivative, which the set states.
    import normconstraints_torch  # noqa: F401 - attaches it

    t = torch.tensor(2.0 * v.reshape(w.shape), requires_grad=True)
    ball(t).backward(torch.tensor(w))
    assert t.grad is not None
    assert torch.all(torch.isfinite(t.grad))


def test_what_is_left_out_has_the_other_axes() -> None:
    w, c = normal(KERNEL), nc.MaxNorm(0.7, axis=-1)
    for left, whole in [
        (AsMatrix(c, rows=0), AsMatrix(c, rows=0, cols=(1, 2, 3))),
        (AsMatrix(c, rows=-1), AsMatrix(c, rows=3, cols=(0, 1, 2))),
        (AsMatrix(c, cols=(3, 1)), AsMatrix(c, rows=(0, 2), cols=(3, 1))),
    ]:
        np.testing.assert_array_equal(left(w), whole(w))
        assert left != whole  # for a weight with another number of axes they differ
    # As it was there before, for the two usual layouts.
    np.testing.assert_array_equal(AsMatrix(c, rows=0)(w), nc.MaxNorm(0.7, axis=(1, 2, 3))(w))
    np.testing.assert_array_equal(AsMatrix(c, rows=-1)(w), nc.MaxNorm(0.7, axis=(0, 1, 2))(w))


def test_libraries_agree_and_what_is_inside_stays() -> None:
    w = normal(KERNEL)
    for c, (rows, cols) in zip(SETS[:4], SIDES[2::3], strict=True):
        kernel = AsMatrix(c, rows=rows, cols=cols)
        want = kernel(w)
        np.testing.assert_allclose(kernel(torch.tensor(w)).numpy(), want, rtol=0, atol=1e-15)
        with jax.enable_x64(True):
            found = jax.jit(kernel.project)(jax.numpy.asarray(w))
            np.testing.assert_allclose(np.asarray(found), want, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(kernel(want), want)
        strided = np.asfortranarray(w)
        assert kernel.project_(strided) is strided
        np.testing.assert_array_equal(strided, want)


def test_gradients_are_those_of_differences() -> None:
    w, u, v = normal(KERNEL), normal(KERNEL, 1), normal(KERNEL, 2)
    for c in SETS:
        kernel = AsMatrix(c, rows=(2, 0), cols=1)
        t = torch.tensor(w, requires_grad=True)
        kernel(t).backward(torch.tensor(u))
        assert t.grad is not None
        h = 1e-6
        slope = np.sum(u * (kernel(w + h * v) - kernel(w - h * v))) / (2 * h)
        np.testing.assert_allclose(np.sum(t.grad.numpy() * v), slope, rtol=1e-6, atol=1e-8)


def test_a_stated_derivative_is_kept() -> None:
    """The adapters attach it to the constraint inside: nothing of n squared is remembered."""
    kernel = AsMatrix(nc.Monotone(axis=-1), rows=0)
    saved: list[int] = []

    def pack(x: Any) -> Any:
        saved.append(x.numel())
        return x

    w = torch.randn(2, 10, 10, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        import normconstraints_torch  # noqa: F401

        kernel(w).sum().backward()
    assert sum(saved) <= 2 * w.numel()


# ----------------------------------------------------------------------------- what it hands on


def test_it_can_what_its_constraint_can() -> None:
    g, like = normal(KERNEL, 3), np.empty(KERNEL)
    for c, (rows, cols) in itertools.product(
        [nc.MaxNorm(0.7, axis=-1), nc.L1Ball(1.0, axis=(-2, -1)), nc.Simplex(axis=-2)], SIDES
    ):
        kernel = AsMatrix(c, rows=rows, cols=cols)
        shown, where = matrices_of(g, rows, cols)
        np.testing.assert_array_equal(nc.lmo(kernel, g), put_back(nc.lmo(c, shown), where, g))
        w = normal(KERNEL, 4)
        of_w, _ = matrices_of(w, rows, cols)
        want = put_back(nc.tangent(c, of_w, shown), where, g)
        np.testing.assert_allclose(nc.tangent(kernel, w, g), want, rtol=0, atol=1e-15)
        drawn = nc.sample(c, like=shown, seed=5)
        found = nc.sample(kernel, like=like, seed=5)
        np.testing.assert_allclose(found, put_back(drawn, where, g), rtol=0, atol=1e-15)
        if isinstance(c, nc.HasDualNorm):
            np.testing.assert_array_equal(nc.dual_norm(kernel, g), nc.dual_norm(c, shown))


def test_it_cannot_what_its_constraint_cannot() -> None:
    w = normal((3, 4))
    for call, lack in [
        (lambda: nc.lmo(AsMatrix(nc.TopK(1, axis=-1), rows=0), w), "lmo: .* HasLMO, got AsMatrix"),
        (lambda: nc.dual_norm(AsMatrix(nc.Simplex(axis=-1), rows=0), w), "HasDualNorm, got AsM"),
        (lambda: nc.tangent(AsMatrix(nc.Birkhoff(), rows=0), w, w), "HasTangent, got AsMatrix"),
        (lambda: nc.sample(AsMatrix(nc.NonNeg(), rows=0), like=w, seed=0), "HasSample, got AsM"),
    ]:
        with pytest.raises(TypeError, match=lack):
            call()


def test_it_is_convex_where_its_constraint_is() -> None:
    both = AsMatrix(nc.Simplex(axis=-1), rows=0) & nc.Box(upper=0.5)
    assert not both.exact
    assert np.all(both.violation(both(normal((3, 2, 2)))) <= 1e-6)
    with pytest.raises(ValueError, match=r"Intersection: .* must be convex .* got AsMatrix"):
        AsMatrix(nc.UnitNorm(axis=-1), rows=0) & nc.Box(upper=0.5)


def test_functions_are_minimised_over_it() -> None:
    goal = normal((3, 2, 2))

    def distance(x: Any) -> tuple[Any, Any]:
        return np.sum((x - goal) ** 2) / 2, x - goal

    simplices = AsMatrix(nc.Simplex(axis=-1), rows=0)
    for minimise in (projected_gradient, frank_wolfe):
        found = minimise(distance, np.zeros((3, 2, 2)), simplices, tol=1e-3)
        assert found.success
        np.testing.assert_allclose(found.x, simplices(goal), atol=1e-2)
    with pytest.raises(TypeError, match="frank_wolfe: constraint must be convex, got AsMatrix"):
        frank_wolfe(distance, goal, AsMatrix(nc.UnitNorm(axis=-1), rows=0))


def test_one_inside_another_and_inside_others() -> None:
    w = normal(KERNEL)
    inner = AsMatrix(nc.MaxNorm(0.7, axis=-1), rows=-1, cols=-2)
    assert nc.lmo(AsMatrix(inner, rows=0), w).shape == w.shape
    want = np.moveaxis(nc.MaxNorm(0.7, axis=0)(w.reshape(3, 16)), 0, 0).reshape(KERNEL)
    np.testing.assert_array_equal(AsMatrix(inner, rows=0)(w), want)
    kernel = AsMatrix(nc.MaxNorm(0.7, axis=-1), rows=0)
    np.testing.assert_allclose(nc.Relaxed(kernel, 0.5)(w), (w + kernel(w)) / 2, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        nc.Translated(kernel, 0.25)(w), 0.25 + kernel(w - 0.25), rtol=0, atol=1e-15
    )
    np.testing.assert_array_equal(nc.Masked(kernel, np.s_[1:])(w)[1:], kernel(w[1:]))


# ------------------------------------------------------------------------ the rest of the house

ALL = [
    AsMatrix(nc.MaxNorm(0.7, axis=-1), rows=0),
    AsMatrix(nc.Symmetric(), rows=[0, 1], cols=[-1, -2]),
    AsMatrix(nc.NonNeg() & nc.MaxNorm(0.7, axis=-2), cols=(1, 2)),
]


@pytest.mark.parametrize("c", ALL, ids=repr)
def test_round_trips(c: Any) -> None:
    again = pickle.loads(pickle.dumps(c))
    assert again == nc.from_config(json.loads(json.dumps(nc.to_config(c)))) == c
    assert hash(again) == hash(c)
    assert repr(again) == repr(c)
    assert c != AsMatrix(c.constraint, rows=2)


def test_repr() -> None:
    assert repr(ALL[0]) == (
        "AsMatrix(constraint=MaxNorm(max_value=0.7, axis=-1), rows=0, cols=None)"
    )


def test_the_axes_that_a_group_spans() -> None:
    rows = AsMatrix(nc.MaxNorm(0.7, axis=-1), rows=0)
    assert rows._span(4) == (1, 2, 3)
    assert AsMatrix(nc.MaxNorm(0.7, axis=-2), rows=(3, 1), cols=0)._span(4) == (1, 3)
    assert AsMatrix(nc.Triangular(), rows=1, cols=3)._span(5) == (1, 3)
    assert AsMatrix(nc.MaxNorm(0.7, axis=0), rows=1, cols=3)._span(5) == (0,)
    assert AsMatrix(nc.NonNeg(), rows=1)._span(3) == ()
    # What is flattened is whole; a single axis may be cut, and sums exchanged along it.
    assert rows._whole(4) == (1, 2, 3)
    assert rows._whole(2) == ()
    assert AsMatrix(nc.TopK(1, axis=-1), rows=0)._whole(2) == (1,)


def test_schedules_change_the_numbers_and_not_the_axes() -> None:
    scheduled = nc.Scheduled(ALL[0], {"max_value": nc.schedules.Linear(1.0, 3.0, 10)})
    assert scheduled.at(10) == AsMatrix(nc.MaxNorm(3.0, axis=-1), rows=0)
    with pytest.raises(ValueError, match="rows"):
        nc.Scheduled(ALL[0], {"rows": nc.schedules.Linear(1.0, 3.0, 10)})


def test_rules_and_plans() -> None:
    weights = {"conv": {"kernel": 9 * normal(KERNEL)}, "bias": normal((3,))}
    kernel = AsMatrix(nc.MaxNorm(0.7, axis=-1), rows=-1)
    plan = nc.Rules({"*.kernel": kernel, "bias": None}).plan(weights)
    assert "AsMatrix" in str(plan)
    with pytest.raises(
        ValueError, match=r"Rules: '\*' cannot serve 'bias' .*: AsMatrix: cols must"
    ):
        nc.Rules({"*": kernel}).bind(weights)
    with pytest.raises(ValueError, match=r"Rules: .* AsMatrix: rows must exist, got rows=4"):
        nc.Rules({"*.kernel": AsMatrix(nc.NonNeg(), rows=4), "bias": None}).bind(weights)
    assert layout.stacked(kernel, 4) is None


def test_a_tree_of_jax_has_the_numbers_for_leaves() -> None:
    w = jax.numpy.asarray(normal(KERNEL), jax.numpy.float32)
    compiled = 0

    @jax.jit
    def project(c: Any, w: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return normconstraints_jax.project({"w": w}, {"w": c})["w"]

    for radius in (0.5, 0.7):
        c = AsMatrix(nc.MaxNorm(radius, axis=-1), rows=(0, 1))
        assert jax.tree.leaves(c) == [radius]
        np.testing.assert_allclose(project(c, w), c(np.asarray(w)), rtol=1e-6)
    assert compiled == 1


@pytest.mark.parametrize(
    "c",
    [
        AsMatrix(nc.MaxNorm(0.5, axis=-1), rows=(2, 0), cols=(3, 1)),
        AsMatrix(nc.TopK(2, axis=(-2, -1)), rows=1, cols=(0, 3)),
    ],
    ids=repr,
)
def test_contract_of_kernels(c: Any) -> None:
    results = check_constraint(c, backends=["numpy", "torch"], shape=KERNEL, brief=True)
    assert [r for r in results if r.status == "failed"] == []


BALL = nc.MaxNorm(1.0, axis=-1)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AsMatrix(BALL), TypeError, "AsMatrix: rows or cols must be given by keyword"),
        (lambda: AsMatrix(1.0, rows=0), TypeError, "AsMatrix: constraint must be .*, got 1.0"),
        (lambda: AsMatrix(BALL, rows="unit"), TypeError, "AsMatrix: rows must .*, got 'unit'; row"),
        (lambda: AsMatrix(BALL, cols=True), TypeError, "AsMatrix: cols must be an int or .* True"),
        (lambda: AsMatrix(BALL, cols=(0, False)), TypeError, r"cols must .*, got \(0, False\)"),
        (lambda: AsMatrix(BALL, rows=0.0), TypeError, "AsMatrix: rows must be .*, got 0.0"),
        (lambda: AsMatrix(BALL, rows=()), ValueError, r"rows must .* \(\); name one axis at least"),
        (lambda: AsMatrix(BALL, rows=(0, 0)), ValueError, "must name each axis once"),
        (lambda: AsMatrix(BALL, rows=0, cols=(1, 0)), ValueError, "must name each axis once"),
        (
            lambda: AsMatrix(nc.MaxNorm(1.0, axis="unit"), rows=0),
            ValueError,
            'AsMatrix: constraint must have axes that are numbers, got axis="unit" in MaxNorm.*-1',
        ),
        (
            lambda: AsMatrix(BALL, rows=0, cols=-2)(np.ones((2, 2))),
            ValueError,
            "AsMatrix: rows and cols must name each axis once, got rows=0 and cols=-2 for an array",
        ),
        (
            lambda: AsMatrix(BALL, rows=2).violation(np.ones((2, 2))),
            ValueError,
            "AsMatrix: rows must exist, got rows=2 for an array with 2 dimensions; use -2 to 1",
        ),
        (
            lambda: AsMatrix(BALL, rows=0)(np.ones(2)),
            ValueError,
            "AsMatrix: cols must have an axis, got rows=0, which leaves none of an array with 1 d",
        ),
        (
            lambda: AsMatrix(BALL, cols=(0, 1))(np.ones((2, 0))),
            ValueError,
            r"AsMatrix: rows must have an axis, got cols=\(0, 1\), which leaves none of",
        ),
        (
            lambda: AsMatrix(nc.MaxNorm(1.0, axis=2), rows=0)(np.ones((2, 2, 2))),
            ValueError,
            "AsMatrix: MaxNorm: axis must exist, got axis=2 for an array with 2 dimensions",
        ),
        (
            lambda: AsMatrix(nc.NonNeg(), rows=0)(np.ones((2, 2), dtype=complex)),
            TypeError,
            "AsMatrix: w must be real, got complex128",
        ),
    ],
)
def test_bad_input(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("bug", "right", "wrong"),
    [
        (
            "put back in the order in which it is shown",
            "tuple([order.index(i) for i in range(w.ndim)])",
            "tuple(order)",
        ),
        (
            "flattened in the order of the weight, not in that given",
            "return tuple([axis % ndim for axis in axes])",
            "return tuple(sorted([axis % ndim for axis in axes]))",
        ),
        (
            "the batch flattened into the rows",
            "            return rest, rows, cols\n",
            "            return (), (*rest, *rows), cols\n",
        ),
        (
            "rows and columns mistaken for each other",
            "return (), rows or rest, cols or rest",
            "return (), cols or rest, rows or rest",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_planted_bug_is_found(bug: str, right: str, wrong: str) -> None:
    def compare() -> None:
        for c in SETS:
            test_the_matrices_are_projected_and_put_back(c)
        test_parameters_belong_to_rows_and_columns_of_the_matrix()

    compare()
    mutant = Mutant(bug, "as_matrix", right, wrong, ALL[0])
    with planted(mutant), pytest.raises((AssertionError, ValueError)):
        compare()
