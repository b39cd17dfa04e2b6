"""Tied: against projection matrices, other sets that tie entries, and means in exact arithmetic."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import normconstraints as nc
import normconstraints_jax
import normconstraints_torch  # noqa: F401 - attaches derivatives
from normconstraints import Tied, derivatives
from normconstraints.functional import project_tied

RNG = np.random.default_rng


def normal(*shape: int) -> Any:
    return RNG(0).standard_normal(shape)


def slow(w: Any, ids: Any, axis: Any = None) -> Any:
    """Id by id, in the wider dtype."""
    axes = range(w.ndim) if axis is None else np.atleast_1d(axis) % w.ndim
    own = np.broadcast_to(ids, [w.shape[a] for a in sorted(axes)])
    wide = w.astype(np.result_type(w.dtype, np.float64))
    moved = np.moveaxis(wide, sorted(axes), range(len(axes))).copy()
    for i in np.unique(own):
        moved[own == i] = moved[own == i].mean(axis=0)
    return np.moveaxis(moved, range(len(axes)), sorted(axes))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_it_is_the_projection_matrix_of_the_subspace(count: int) -> None:
    ids = RNG(count).integers(-count, count, 12)
    c = Tied(ids)
    p = np.stack([c(e) for e in np.eye(12)])
    same = ids[:, None] == ids[None, :]
    np.testing.assert_allclose(p, same / same.sum(axis=0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(p @ p, p, atol=1e-15)
    assert np.linalg.matrix_rank(p) == np.unique(ids).size


@pytest.mark.parametrize(
    ("shape", "own", "axis"),
    [
        ((7,), (7,), None),
        ((4, 5), (4, 5), None),
        ((4, 5), (5,), None),
        ((4, 5), (4, 1), None),
        ((4, 5), (), None),
        ((4, 5), (1, 1), (0, 1)),
        ((4, 5), (5,), 1),
        ((4, 5), (4,), -2),
        ((4, 5), (1,), 0),
        ((3, 4, 5), (3, 5), (2, 0)),
        ((3, 4, 5), (5,), (-1, 0)),
        ((3, 4, 5), (3, 1, 5), None),
        ((3, 2, 2, 5), (2, 5), (1, 2, 3)),
    ],
    ids=str,
)
def test_ids_broadcast_against_a_group(shape: Any, own: Any, axis: Any) -> None:
    w, ids = normal(*shape), RNG(1).integers(0, 3, own)
    for x in (w, w.astype(np.float32), w + 1j * w[::-1]):
        c = Tied(ids, axis=axis)
        atol = 8 * np.finfo(x.dtype).eps
        np.testing.assert_allclose(c(x), slow(x, ids, axis), rtol=0, atol=atol)
        axes = tuple(range(x.ndim)) if axis is None else axis
        off = np.sqrt(np.sum(np.abs(x - slow(x, ids, axis)) ** 2, axis=axes))
        np.testing.assert_allclose(c.violation(x), off, rtol=1e-6)
        np.testing.assert_allclose(np.asarray(c(torch.tensor(x))), c(x), rtol=0, atol=atol)


def test_special_cases_are_sets_of_their_own() -> None:
    i, j = np.indices((6, 6))
    w = normal(2, 6, 6)
    for ids, c in [
        (np.minimum(i, j) * 6 + np.maximum(i, j), nc.Symmetric()),
        (j - i, nc.Toeplitz()),
        ((j - i) % 6, nc.Circulant()),
    ]:
        tied = Tied(ids, axis=(-2, -1))
        np.testing.assert_allclose(tied(w), c(w), rtol=0, atol=1e-15)
        np.testing.assert_allclose(tied.violation(w), c.violation(w), rtol=1e-14)
        np.testing.assert_allclose(
            nc.tangent(tied, c(w), w), nc.tangent(c, c(w), w), rtol=0, atol=1e-15
        )
    np.testing.assert_array_equal(Tied(np.arange(36).reshape(6, 6), axis=(1, 2))(w), w)


def test_filters_that_commute_with_a_turn() -> None:
    """Windows whose orbits under quarter turns are tied see a turned image as before, turned."""
    places = np.arange(9).reshape(3, 3)
    ids = np.min([np.rot90(places, k) for k in range(4)], axis=0)
    kernel = Tied(ids, axis=(2, 3))(normal(4, 2, 3, 3))
    image = torch.tensor(RNG(1).standard_normal((1, 2, 8, 8)))
    seen = torch.nn.functional.conv2d(image, torch.tensor(kernel))
    turned = torch.nn.functional.conv2d(torch.rot90(image, 1, (2, 3)), torch.tensor(kernel))
    torch.testing.assert_close(turned, torch.rot90(seen, 1, (2, 3)), rtol=0, atol=1e-13)
    assert len(np.unique(kernel[0, 0].round(12))) == 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_members_come_back_bit_for_bit(dtype: Any) -> None:
    ids = RNG(2).integers(0, 9, (40, 30))
    c = Tied(ids)
    # A mean of equal numbers is rounded: 0.1 three times over three is another number.
    member = RNG(3).standard_normal(9).astype(dtype)[ids]
    member[ids == 4] = np.copysign(0.0, RNG(4).standard_normal(np.sum(ids == 4)))
    np.testing.assert_array_equal(
        c(member).view(f"u{dtype().nbytes}"), member.view(f"u{dtype().nbytes}")
    )
    assert c.violation(member) == 0
    p = c(normal(40, 30).astype(dtype))
    np.testing.assert_array_equal(c(p), p)
    p[0, 0] = np.nextafter(p[0, 0], np.inf, dtype=dtype)
    assert c.violation(p) > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_means_neither_overflow_nor_lose_digits(dtype: Any) -> None:
    info = np.finfo(dtype)
    ids = (0, 0, 0, 1, 1, 1, 2, 2)
    w = np.array([info.max] * 3 + [info.max, -info.max, 1.0] + [info.max, info.max / 2], dtype)
    found = Tied(ids)(w)
    assert np.all(found[:3] == info.max)
    np.testing.assert_allclose(found[6:], info.max * dtype(0.75), rtol=info.eps)
    # A large offset, many entries, one id much more frequent than the others.
    counts = RNG(5).integers(0, 40, 5000) ** 2 // 300
    w = (1000 + RNG(6).standard_normal(5000)).astype(dtype)
    found = Tied(counts)(w)
    for i in np.unique(counts):
        own = [Fraction(float(x)) for x in w[counts == i]]
        exact = sum(own) / len(own)
        off = max(abs(Fraction(float(x)) - exact) for x in found[counts == i])
        assert off <= 4 * Fraction(float(np.spacing(dtype(1000))))


def test_a_mean_far_below_its_entries_is_right_in_the_widest_dtype() -> None:
    for shape, ids in [((301,), 0), ((7, 43), ((1,),)), ((300,), np.arange(300) % 2), ((6, 51), 0)]:
        w = 1e6 * normal(*shape)
        w -= w.mean()
        c = Tied(ids)
        own = np.broadcast_to(ids, shape)
        for i in np.unique(own):
            exact = sum(Fraction(float(x)) for x in w[own == i]) / int(np.sum(own == i))
            found = Fraction(float(c(w)[own == i][0]))
            assert abs(found - exact) <= 2 * Fraction(float(np.spacing(abs(float(exact)))))
    found = Tied(0)(torch.tensor([1e16, 1.0, -1e16, 1.0 + 2e16j, -2e16j]))
    assert torch.all(found == 0.4)


def test_tables_take_no_more_than_twice_the_entries() -> None:
    cases = [np.zeros(1000), np.arange(1000), np.minimum(np.arange(1000), 500)]
    cases += [RNG(k).zipf(1.3, 1000) for k in range(3)]
    for ids in cases:
        c = Tied(ids.astype(np.int64))
        assert sum(len(numbers) for numbers, _ in c._places.heaps) < 2 * 1000
        assert len(c._places.heaps) <= 11
        w = normal(1000)
        np.testing.assert_allclose(c(w), slow(w, ids), rtol=0, atol=1e-14)


# --------------------------------------------------------------------------------- ids and types


def test_ids_of_every_library_are_kept_as_tuples() -> None:
    plain = Tied(((0, 5), (5, -3)), axis=(0, 1))
    for ids in (
        [[0, 5], [5, -3]],
        np.array([[0, 5], [5, -3]]),
        np.array([[0, 5], [5, -3]], dtype=np.int8),
        torch.tensor([[0, 5], [5, -3]]),
        jax.numpy.asarray([[0, 5], [5, -3]]),
        ((np.int64(0), np.int32(5)), (5, -3)),
    ):
        c = Tied(ids, axis=(0, 1))
        assert c == plain
        assert hash(c) == hash(plain)
        assert repr(c) == "Tied(ids=((0, 5), (5, -3)), axis=(0, 1))"
        assert nc.from_config(json.loads(json.dumps(nc.to_config(c)))) == c
        assert pickle.loads(pickle.dumps(c)) == c
        np.testing.assert_array_equal(project_tied(np.ones((2, 2)), ids), np.ones((2, 2)))
    assert plain != Tied(((0, 5), (5, 3)), axis=(0, 1))
    # What counts is which are alike, but the parameters are what is compared.
    w = normal(2, 2)
    np.testing.assert_array_equal(Tied(((0, 1), (1, 2)))(w), Tied(((7, 10**30), (10**30, -1)))(w))


def test_ids_are_no_numbers_of_the_weights() -> None:
    c = Tied((0, 1, 0))
    assert jax.tree.leaves(c) == []
    with pytest.raises(ValueError, match="ids"):
        nc.Scheduled(c, {"ids": nc.schedules.Linear(1.0, 3.0, 10)})
    found = normconstraints_jax.project({"w": jax.numpy.asarray([1.0, 2.0, 5.0])}, {"w": c})
    np.testing.assert_array_equal(found["w"], [3.0, 2.0, 3.0])


def test_the_unit_and_stacks() -> None:
    c = nc.layout.resolve(Tied((0, 1, 0), axis="unit"), nc.layout.Layout("oi.."), (4, 2, 3, 3))
    assert c == Tied((0, 1, 0), axis=(1, 2, 3))
    stacked = nc.layout.stacked(c, 4)
    w = normal(2, 4, 2, 3, 3)
    assert stacked is not None
    np.testing.assert_allclose(stacked(w), [c(x) for x in w], rtol=0, atol=1e-15)


# ----------------------------------------------------------------------------------- derivatives

SUBSPACES = [
    Tied((0, 1, 2, 0, 1, 1), axis=-1),
    nc.Symmetric(),
    nc.SkewSymmetric(),
    nc.Toeplitz(),
    nc.Circulant(),
]


@pytest.mark.parametrize("c", SUBSPACES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("attached", [True, False])
def test_the_derivative_is_the_projection_on_the_set_too(
    c: Any, attached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not attached:
        monkeypatch.setattr(derivatives, "_attached", {})
    u = RNG(1).standard_normal((6, 6))
    # Autodiff alone has only means that are not rounded to go by, and leaves zeros as they are.
    members = [c(normal(6, 6))] if attached else []
    members.append(np.round(c(64 * normal(6, 6))))
    for w in (normal(6, 6), *members):
        want = c(u)
        if not attached and c.violation(w).max() == 0:
            want = np.where(w == 0, u, want)
        t = torch.tensor(w, requires_grad=True)
        c(t).backward(torch.tensor(u))
        assert t.grad is not None
        np.testing.assert_allclose(t.grad.numpy(), want, rtol=0, atol=1e-15)
        with jax.enable_x64(True):
            pull = jax.jit(lambda w, u: jax.vjp(c.project, w)[1](u)[0])
            np.testing.assert_allclose(pull(w, u), want, rtol=0, atol=1e-15)


def test_second_derivatives_and_groups_with_nan() -> None:
    c = SUBSPACES[0]
    w = torch.tensor(normal(3, 6))
    assert torch.autograd.gradcheck(c, w.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: c(x) ** 2, w.clone().requires_grad_())
    w[0, 0] = torch.nan
    w.requires_grad_()
    c(w).sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, torch.ones(3, 6, dtype=torch.float64))


def test_tables_are_kept_where_nobody_watches() -> None:
    c, w = Tied((0, 1, 0)), torch.tensor([1.0, 2.0, 5.0])
    want = torch.tensor([3.0, 2.0, 3.0])
    kept = c._places.kept

    def count() -> int:
        tables = [table for made in kept.values() for table in made.values()]
        for table in tables:
            assert type(table) is torch.Tensor
            assert not torch._C._functorch.is_functorch_wrapped_tensor(table)
            assert not table.is_inference()
        return len(tables)

    with FakeTensorMode():
        c(torch.ones(3))
    torch.vmap(c.project)(torch.ones(2, 3))
    jax.jit(c.project)(np.ones(3))
    with torch.inference_mode():
        assert c(torch.ones(3)).sum() == 3
    assert count() == 0
    torch.func.grad(lambda x: c(x).sum())(w)
    torch.vmap(torch.func.grad(lambda x: c(x).sum()))(torch.ones(2, 3))
    torch.testing.assert_close(c(w), want)
    first = count()
    assert first > 0
    torch.testing.assert_close(c(w), want)
    assert count() == first
    # And where somebody watches they do no harm.
    torch.testing.assert_close(torch.vmap(c.project)(w[None]), want[None])
    with FakeTensorMode():
        assert c(torch.ones(3)).shape == (3,)
    t = w.clone().requires_grad_()
    c(t)[0].backward()
    assert t.grad is not None
    assert t.grad.tolist() == [0.5, 0.0, 0.5]


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Tied((0.0, 1.0)), TypeError, r"Tied: ids must be integers, .* got \(0.0, 1.0\)"),
        (lambda: Tied("ab"), TypeError, "Tied: ids must be integers, .* got 'ab'"),
        (lambda: Tied(True), TypeError, "Tied: ids must be integers, .* got True"),
        (lambda: Tied(None), TypeError, "Tied: ids must be integers, .* got None"),
        (lambda: Tied(np.ones(2)), TypeError, "Tied: ids .* got an array of float64; cast it"),
        (lambda: Tied(np.ones(2, bool)), TypeError, "Tied: ids .* got an array of bool; cast it"),
        (lambda: Tied(()), ValueError, r"Tied: ids must be integers, .* got none: \(\)"),
        (lambda: Tied(((0, 1), (0,))), ValueError, "Tied: ids .*; rows must be equally long"),
        (lambda: Tied((0, (0,))), ValueError, "Tied: ids .*; rows must be equally long"),
        (
            lambda: Tied((0, 1, 0))(np.ones((3, 4))),
            ValueError,
            r"Tied: ids must broadcast against a group, got shape \(3,\) against \(3, 4\); give",
        ),
        (
            lambda: Tied(((0, 1), (1, 0)), axis=0).violation(np.ones((2, 4))),
            ValueError,
            r"Tied: ids must broadcast against a group, got shape \(2, 2\) against \(2,\)",
        ),
        (lambda: Tied((0, 1), axis=1)(np.ones(2)), ValueError, "Tied: axis must exist, got axis=1"),
        (
            lambda: jax.jit(lambda i: Tied(i).project(np.ones(2)))(np.array([0, 1])),
            TypeError,
            "Tied: ids must .*, got an array that a compiler traces; .* construct outside",
        ),
    ],
)
def test_bad_input(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_nothing_is_tied(shape: tuple[int, ...]) -> None:
    for c in (Tied(0), Tied(0, axis=0), Tied((4,), axis=-1)):
        assert c(np.zeros(shape)).shape == shape
        assert not np.any(c.violation(np.zeros(shape)))
