"""The derivative that a set states itself, as autograd takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from thin import thin

torch = pytest.importorskip("torch")

import normconstraints as nc  # noqa: E402
import normconstraints_torch  # noqa: E402, F401 - registers how
from normconstraints import derivatives  # noqa: E402
from normconstraints.testing import check_constraint  # noqa: E402

SETS = [nc.Monotone(axis=0), nc.Monotone(axis=1, increasing=False)]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def weight(*shape: int, dtype: Any = None) -> Any:
    return torch.randn(*(shape or (7, 5)), dtype=dtype or torch.float64)


@contextmanager
def plain() -> Iterator[None]:
    """Without the registration: autograd through the algorithm."""
    attach = derivatives._attached.pop("torch")
    try:
        yield
    finally:
        derivatives._attached["torch"] = attach


def gradient(function: Callable[[Any], Any], w: Any) -> Any:
    w = w.clone().requires_grad_()
    return torch.autograd.grad(function(w), w)[0]


# Forward mode, at its first use, makes torch import what uses its own deprecated functions.
FORWARD = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
# Dynamo makes an instance of each Function that it traces, of which torch itself warns.
TRACED = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@FORWARD
@pytest.mark.parametrize("constraint", SETS)
def test_it_is_what_finite_differences_say(constraint: nc.Constraint) -> None:
    w = weight().requires_grad_()
    assert torch.autograd.gradcheck(constraint, w, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda w: constraint(w) ** 3, w)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constraint", SETS)
def test_it_is_that_of_the_algorithm(constraint: nc.Constraint, dtype: Any) -> None:
    w, u = weight(40, 30, dtype=dtype), weight(40, 30, dtype=dtype)
    w[:, 0], w[0] = torch.linspace(-1, 1, 40), torch.linspace(1, -1, 30)  # groups in order
    w[:, 1], w[1] = 0.5, 0.5  # and with ties

    def loss(w: Any) -> Any:
        return (constraint(w) * u).sum()

    own = gradient(loss, w)
    with plain():
        through = gradient(loss, w)
    assert own.dtype == dtype
    assert (own != u).any()
    assert torch.allclose(own, through, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)


def test_blocks_whose_means_are_rounded_to_one_number_stay_apart() -> None:
    quantum = 2.0**-7  # of bfloat16 above 1
    w = torch.tensor([2.0, 1.0, 1.5 + quantum, 1.5, 1.5], dtype=torch.bfloat16)
    assert set(nc.Monotone(axis=0)(w).tolist()) == {1.5}  # the second mean is 1.5 + quantum / 3
    u = torch.tensor([1.0, 1.0, 3.0, 3.0, 3.0], dtype=torch.bfloat16)
    assert gradient(lambda w: (nc.Monotone(axis=0)(w) * u).sum(), w).tolist() == u.tolist()


def test_groups_in_order_pass_the_gradient_and_bad_groups_do_not_spread() -> None:
    w = torch.tensor(
        [[1.0, 2.0, 2.0], [torch.nan, 1.0, 0.0], [3.0, 1.0, torch.inf], [2.0, 1.0, 0.0]]
    )
    u = torch.tensor([[1.0, 2.0, 4.0]] * 4)
    found = gradient(lambda w: (nc.Monotone(axis=1)(w) * u).sum(), w)
    assert found[0].tolist() == [1, 2, 4]  # equal entries are in order: the identity
    assert found[3].tolist() == pytest.approx([7 / 3] * 3)


def test_a_huge_gradient_does_not_overflow() -> None:
    w, huge = torch.tensor([3.0, 2.0, 1.0]).double(), 1e308
    found = gradient(lambda w: (nc.Monotone(axis=0)(w) * huge).sum(), w)
    assert found.tolist() == pytest.approx([huge] * 3)


def kept_bytes(constraint: nc.Constraint, size: int) -> int:
    """The memory that the forward pass keeps for the backward pass, each storage once."""
    found: dict[int, int] = {}

    def pack(x: Any) -> Any:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    w = weight(size).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = constraint(w)
    result.sum().backward()
    assert w.grad is not None
    return sum(found.values())


def test_the_backward_pass_keeps_the_weight_and_the_result_alone() -> None:
    constraint = nc.Monotone(axis=0)
    assert [kept_bytes(constraint, n) for n in (100, 1000)] == [2 * 8 * 100, 2 * 8 * 1000]
    with plain():
        assert kept_bytes(constraint, 1000) > 1000**2  # a mask of n squared at least


@FORWARD
@pytest.mark.parametrize("constraint", SETS)
def test_functions_of_torch_func_see_it(constraint: nc.Constraint) -> None:
    stack = weight(3, 7, 5)

    def loss(w: Any) -> Any:
        return (constraint(w) ** 3).sum()

    expected = torch.stack([gradient(loss, w) for w in stack])
    batched = torch.func.vmap(torch.func.grad(loss))(stack)
    assert torch.allclose(batched, expected)
    outside = torch.func.grad(lambda s: torch.func.vmap(loss)(s).sum())(stack)
    assert torch.allclose(outside, expected)
    assert torch.allclose(torch.func.jacrev(loss)(stack[0]), expected[0])
    assert torch.allclose(torch.func.jacfwd(loss)(stack[0]), expected[0])
    with plain():
        hessian = torch.func.hessian(loss)(stack[0])
    assert torch.allclose(torch.func.hessian(loss)(stack[0]), hessian)
    assert hessian.abs().sum() > 0


@TRACED
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_to_one_graph(backend: str) -> None:
    constraint, w = nc.Monotone(axis=0), weight()

    def loss(w: Any) -> Any:
        return (constraint(w) ** 3).sum()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    assert torch.allclose(gradient(compiled, w), gradient(loss, w))
    assert torch.allclose(compiled(w), loss(w))


def test_the_gradient_of_a_gradient_goes_through_it() -> None:
    constraint, w = nc.Monotone(axis=0), weight().requires_grad_()
    (first,) = torch.autograd.grad((constraint(w) ** 3).sum(), w, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), w)
    with plain():
        (first,) = torch.autograd.grad((constraint(w) ** 3).sum(), w, create_graph=True)
        (through,) = torch.autograd.grad(first.square().sum(), w)
    assert torch.allclose(second, through)
    assert second.any()


def test_nothing_is_attached_where_nothing_is_recorded() -> None:
    w = weight()
    assert nc.Monotone(axis=0)(w).grad_fn is None
    with torch.no_grad():
        assert nc.Monotone(axis=0)(w.requires_grad_()).grad_fn is None
    assert "_Eager" in type(nc.Monotone(axis=0)(w).grad_fn).__name__


@pytest.mark.parametrize("backend", thin(["torch grad", "torch vmap", "torch compile", "torch"], 4))
def test_the_contract_holds_with_it(backend: str) -> None:
    results = check_constraint(nc.Monotone(axis=0), backends=[backend], brief=True)
    assert [r for r in results if r.status != "passed"] == []
