"""Projection of trees of JAX arrays, inside JAX's transformations."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints_jax import penalty, project, violation  # noqa: E402

BOUND = 0.5
RULES = nc.Rules({"*kernel": nc.MaxNorm(BOUND, axis=0)})


def network(scale: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "layers": [
            {"kernel": jnp.asarray(scale * rng.normal(size=shape), jnp.float32), "bias": b}
            for shape, b in [((6, 5), jnp.full(5, 0.5)), ((5, 3), jnp.full(3, 0.5))]
        ]
    }


def largest(params: dict[str, Any]) -> float:
    """The largest norm of a unit, without the library's help."""
    kernels = [np.asarray(layer["kernel"], np.float64) for layer in params["layers"]]
    return float(max(np.linalg.norm(k, axis=0).max() for k in kernels))


# Without float64 a norm is measured in float32, and the bound is kept within its rounding.
NEARLY = BOUND * (1 + 4 * 2.0**-23)


def loss(params: dict[str, Any], x: Any) -> Any:
    for layer in params["layers"]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return -(x**2).sum()


def test_the_tree_stays_and_other_leaves_are_the_same_arrays() -> None:
    params = network()
    done = project(params, RULES)
    assert jax.tree.structure(done) == jax.tree.structure(params)
    assert largest(params) > 1
    assert BOUND * 0.999 < largest(done) <= NEARLY
    assert done["layers"][0]["bias"] is params["layers"][0]["bias"]


def test_the_violation_has_the_names_and_one_number_for_each_unit() -> None:
    params = network()
    found = violation(params, RULES)
    assert {name: v.shape for name, v in found.items()} == {
        "layers.0.kernel": (5,),
        "layers.1.kernel": (3,),
    }
    norms = np.linalg.norm(params["layers"][1]["kernel"], axis=0)
    np.testing.assert_allclose(found["layers.1.kernel"], norms - BOUND, rtol=1e-6)
    assert all(not v.any() for v in violation(project(params, RULES), RULES).values())


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dense:
    kernel: Any
    bias: Any


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_pytree_node_class
class Opaque:
    """A node that does not name its children."""

    def __init__(self, *children: Any) -> None:
        self.children = children

    def tree_flatten(self) -> tuple[Any, None]:
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> Opaque:
        return cls(*children)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        (lambda w: {"a": {"b": w}}, "a.b"),
        (lambda w: [None, (w,)], "1.0"),
        (lambda w: {3: w}, "3"),
        (lambda w: Dense(kernel=w, bias=None), "kernel"),
        (lambda w: {"block": [Dense(kernel=jnp.ones(()), bias=w)]}, "block.0.bias"),
        (lambda w: Pair(first=jnp.ones(2), second=w), "second"),
        (lambda w: Opaque(jnp.ones(2), w), "1"),
        (lambda w: w, ""),
    ],
)
def test_names_are_paths(tree: Any, name: str) -> None:
    w = jnp.array([[3.0], [4.0]])
    rules = nc.Rules({name: nc.MaxNorm(1.0, axis=0)})
    params = tree(w)
    assert list(violation(params, rules)) == [name]
    done = project(params, rules)
    assert jax.tree.structure(done) == jax.tree.structure(params)
    (changed,) = [leaf for leaf in jax.tree.leaves(done) if leaf.shape == w.shape]
    np.testing.assert_allclose(changed, [[0.6], [0.8]], rtol=1e-6)


def test_inside_jit_with_donated_weights_it_holds_after_every_step() -> None:
    @functools.partial(jax.jit, donate_argnums=0)
    def step(params: dict[str, Any], x: Any) -> dict[str, Any]:
        grads = jax.grad(loss)(params, x)
        return project(jax.tree.map(lambda p, g: p - g, params, grads), RULES)

    @jax.jit
    def free_step(params: dict[str, Any], x: Any) -> dict[str, Any]:
        return jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params, x))

    rng = np.random.default_rng(1)
    params, free = network(0.1), network(0.1)
    for _ in range(10):
        x = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
        before, params = params, step(params, x)
        assert before["layers"][0]["kernel"].is_deleted()
        free = free_step(free, x)
        assert largest(params) <= NEARLY
    assert step._cache_size() == 1
    assert largest(free) > 2 * BOUND  # or the test above says nothing


def test_inside_scan_and_vmap() -> None:
    def body(params: dict[str, Any], x: Any) -> tuple[dict[str, Any], Any]:
        grads = jax.grad(loss)(params, x)
        params = project(jax.tree.map(lambda p, g: p - g, params, grads), RULES)
        return params, jnp.stack([v.max() for v in violation(params, RULES).values()])

    xs = jnp.asarray(np.random.default_rng(2).normal(size=(5, 8, 6)), jnp.float32)
    _, violations = jax.lax.scan(body, network(0.1), xs)
    assert violations.shape == (5, 2)
    assert not violations.any()
    several = jax.tree.map(lambda *ws: jnp.stack(ws), network(), network(0.01))
    done = jax.vmap(lambda p: project(p, RULES))(several)
    one = project(network(), RULES)
    np.testing.assert_allclose(
        done["layers"][0]["kernel"][0], one["layers"][0]["kernel"], rtol=1e-6
    )
    np.testing.assert_array_equal(
        done["layers"][0]["kernel"][1], network(0.01)["layers"][0]["kernel"]
    )


def test_the_gradient_goes_through() -> None:
    target = jnp.array([[1.0, 1.0], [0.0, 0.0]])
    rules = {"w": nc.MaxNorm(1.0, axis=0)}

    def objective(params: dict[str, Any]) -> Any:
        return (project(params, rules)["w"] * target).sum()

    w = {"w": jnp.array([[3.0, 0.3], [4.0, 0.4]])}
    (found,) = jax.tree.leaves(jax.jit(jax.grad(objective))(w))
    # Outside (r / n) (I - u u^T) e, inside the identity.
    np.testing.assert_allclose(
        found, [[(1 - 0.36) / 5, 1.0], [-0.48 / 5, 0.0]], rtol=1e-5, atol=1e-7
    )


def test_rules_may_be_a_static_argument() -> None:
    done = jax.jit(project, static_argnums=1)(network(), RULES)
    assert largest(done) <= NEARLY


def test_a_wrong_name_comes_with_a_suggestion() -> None:
    rules = {"layers.0.kernal": nc.MaxNorm(1.0, axis=0)}
    for apply in (project, violation, jax.jit(lambda p, r=rules: project(p, r))):
        with pytest.raises(
            ValueError, match=r"'layers\.0\.kernal' .* did you mean 'layers\.0\.ker"
        ):
            apply(network(), rules) if apply in (project, violation) else apply(network())


def test_a_wrong_shape_is_refused_with_the_name_of_the_weight() -> None:
    with pytest.raises(
        ValueError, match=r"cannot serve 'layers\.1\.bias'.*axis must exist, got axis=1"
    ):
        project(network(), {"layers.1.bias": nc.MaxNorm(1.0, axis=1)})


def test_two_leaves_of_one_name_are_refused() -> None:
    params = {"a": {"b": jnp.ones(2)}, "a.b": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"its own name, got 'a\.b' twice"):
        project(params, {"a.b": nc.NonNeg()})


def test_without_jax_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['jax'] = None; import normconstraints_jax"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        'ImportError: normconstraints_jax needs JAX; run: pip install "normconstraints[jax]"'
        in (done.stderr)
    )


@pytest.mark.parametrize("mode", [project, violation, penalty])
def test_errors_of_a_constraint_name_the_weight(mode: Any) -> None:
    rules = {"w*": nc.MaxNorm((1.0, 2.0, 3.0), axis=0)}
    with pytest.raises(ValueError, match="must broadcast against the groups") as caught:
        mode({"w2": jnp.ones((3, 4))}, rules)
    assert caught.value.__notes__ == ["This is about the weight 'w2', chosen by 'w*'."]
