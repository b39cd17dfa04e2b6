"""Derivatives that sets state themselves: what the core asks of an adapter."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import normconstraints as nc
from normconstraints import derivatives


@final
@dataclass(frozen=True, eq=False)
class Cap(nc.HasVJP):
    """All entries at most a bound, with a derivative that is wrong on purpose: twice the right one.

    So that it shows whether it was asked.
    """

    bound: Any
    _: KW_ONLY

    def _project(self, w: Any, xp: Any) -> Any:
        return xp.where(w < self.bound, w, self.bound)

    def _violation(self, w: Any, xp: Any) -> Any:
        return xp.where(w > self.bound, w - self.bound, 0.0)

    def _vjp(self, w: Any, result: Any, g: Any, xp: Any) -> Any:
        return xp.where(w == result, 2 * g, 0.0)


def attach_in_jax(project: Any, vjp: Any, w: Any) -> Any:
    """What the docstring of `register` shows."""
    attached = jax.custom_jvp(project)

    @attached.defjvp
    def jvp(primals: Any, tangents: Any) -> Any:
        result = attached(*primals)
        return result, vjp(*primals, result, *tangents)

    return attached(w)


@pytest.fixture
def jax_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(derivatives._attached, "jax", None)  # taken back afterwards
    derivatives.register("jax", attach_in_jax)


W = jnp.asarray([3.0, 1.0, 2.0])


def test_without_an_adapter_the_algorithm_is_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(derivatives._attached, "jax", raising=False)
    assert jax.grad(lambda w: Cap(2.5)(w).sum())(W).tolist() == [0, 1, 1]


def test_what_is_registered_is_asked(jax_attached: None) -> None:
    def loss(w: Any) -> Any:
        return Cap(2.5)(w).sum()

    assert Cap(2.5)(W).tolist() == [2.5, 1, 2]
    assert jax.grad(loss)(W).tolist() == [0, 2, 2]
    assert jax.jit(jax.grad(loss))(W).tolist() == [0, 2, 2]
    assert jax.vmap(jax.grad(loss))(W[None]).tolist() == [[0, 2, 2]]
    assert jax.jacfwd(loss)(W).tolist() == [0, 2, 2]


def test_one_registration_serves_both_modes_and_second_derivatives(jax_attached: None) -> None:
    def loss(w: Any) -> Any:
        return (nc.Monotone(axis=0)(w) ** 3).sum()

    # At (3, 1, 2) all three get their mean, 2.
    assert jax.grad(loss)(W).tolist() == pytest.approx([12, 12, 12])
    assert jax.jacfwd(loss)(W).tolist() == pytest.approx([12, 12, 12])
    assert np.allclose(jax.hessian(loss)(W), 4)
    assert np.allclose(jax.jacrev(jax.jacrev(loss))(W), 4)


def test_a_parameter_with_a_derivative_takes_the_way_through_the_algorithm(
    jax_attached: None,
) -> None:
    def loss(w: Any, bound: Any) -> Any:
        return Cap(bound)(w).sum()

    by_w, by_bound = jax.grad(loss, argnums=(0, 1))(W, jnp.asarray(2.5))
    assert by_w.tolist() == [0, 1, 1]
    assert float(by_bound) == 1
    # An array that is a constant needs none.
    assert jax.grad(lambda w: loss(w, jnp.asarray(2.5)))(W).tolist() == [0, 2, 2]


def test_arguments_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(TypeError, match="library must be the name of a library"):
        derivatives.register(attach_in_jax, "jax")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="attach must be a function"):
        derivatives.register("jax", "jax")  # type: ignore[arg-type]
