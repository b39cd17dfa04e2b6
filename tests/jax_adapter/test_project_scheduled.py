"""Constraints that change with the step, the report, and what importing loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.report import Report  # noqa: E402
from normconstraints.schedules import Cosine, Linear  # noqa: E402
from normconstraints_jax import project, record, violation  # noqa: E402

W = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
PARAMS = {"a": W, "b": 2 * W, "c": W}


def rules(**options: Any) -> nc.Rules:
    radius = Linear(2.0, 0.5, steps=16)
    return nc.Rules(
        {"[ab]": nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": radius}, **options)}
    )


def wanted(step: int, every: int, start: int) -> dict[str, Any]:
    """By hand."""
    if step < start or (step - start) % every:
        return PARAMS
    radius = 2.0 - 1.5 * min(step, 16) / 16
    norms = {name: np.linalg.norm(PARAMS[name], axis=0) for name in "ab"}
    done = {name: PARAMS[name] * np.minimum(1, radius / norms[name]) for name in "ab"}
    return {**done, "c": W}


def close(found: Any, expected: Any) -> None:
    for name, w in expected.items():
        np.testing.assert_allclose(found[name], w, rtol=1e-5)


RHYTHMS = [(1, 0), (3, 0), (1, 4), (5, 2)]


@pytest.mark.parametrize(("every", "start"), RHYTHMS)
def test_twenty_steps_are_compiled_once(every: int, start: int) -> None:
    traces = []

    @jax.jit
    def compiled(params: Any, step: Any) -> Any:
        traces.append(step)
        return project(params, rules(every=every, start=start), step=step)

    for step in range(20):
        found = compiled(PARAMS, step)
        close(found, wanted(step, every, start))
    assert len(traces) == 1


@pytest.mark.parametrize(("every", "start"), RHYTHMS[::3])
def test_inside_scan_over_the_steps(every: int, start: int) -> None:
    def body(params: Any, step: Any) -> Any:
        found = project(PARAMS, rules(every=every, start=start), step=step)
        return found, {name: jnp.linalg.norm(found[name], axis=0) for name in "ab"}

    _, norms = jax.lax.scan(body, PARAMS, jnp.arange(20))
    for step in range(20):
        expected = wanted(step, every, start)
        for name in "ab":
            np.testing.assert_allclose(
                norms[name][step], np.linalg.norm(expected[name], axis=0), rtol=1e-5
            )


def test_a_step_that_is_no_array_is_decided_while_tracing() -> None:
    for step in (0, np.int64(7), jnp.asarray(7)):
        close(project(PARAMS, rules(every=7), step=step), wanted(int(step), 7, 0))
    assert project(PARAMS, rules(every=7), step=3)["a"] is W
    text = str(jax.make_jaxpr(lambda p: project(p, rules(every=7), step=7))(PARAMS))
    assert "cond[" not in text
    text = str(jax.make_jaxpr(lambda p, s: project(p, rules(every=7), step=s))(PARAMS, 7))
    assert text.count("cond[") == 1  # one for both weights


def test_gradients_and_batches_go_through() -> None:
    def objective(params: Any, step: Any) -> Any:
        return (project(params, rules(every=2), step=step)["a"] ** 2).sum()

    due = jax.jit(jax.grad(objective))(PARAMS, 16)["a"]
    assert np.abs(due).max() < 1e-5  # on the sphere, where a longer weight changes nothing
    np.testing.assert_allclose(jax.jit(jax.grad(objective))(PARAMS, 15)["a"], 2 * W, rtol=1e-6)
    batch = jax.vmap(lambda s: project(PARAMS, rules(every=2), step=s)["b"])(jnp.arange(6))
    for step in range(6):
        np.testing.assert_allclose(batch[step], wanted(step, 2, 0)["b"], rtol=1e-5)


@pytest.mark.parametrize("apply", [project, violation])
def test_a_missing_step_is_asked_for(apply: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"step must be given .*'a' by '\[ab\]'.*step=step"):
        apply(PARAMS, rules())


def test_a_constraint_that_only_waits_needs_the_step_too() -> None:
    waiting = {"a": nc.Scheduled(nc.MaxNorm(1.0, axis=0), start=3)}
    with pytest.raises(ValueError, match="step must be given"):
        project(PARAMS, waiting)
    always = {"a": nc.Scheduled(nc.MaxNorm(1.0, axis=0))}
    assert np.linalg.norm(project(PARAMS, always)["a"], axis=0).max() < 1.00001


@pytest.mark.parametrize("step", [1.5, "3", jnp.arange(3), jnp.asarray(2.0)])
def test_a_step_is_one_integer(step: Any) -> None:
    with pytest.raises(TypeError, match="step must be one integer"):
        project(PARAMS, rules(), step=step)


def test_the_violation_is_of_the_step() -> None:
    radius = Cosine(2.0, 0.5, steps=10)
    found = {"a": nc.Scheduled(nc.MaxNorm(1.0, axis=0), {"max_value": radius})}
    norms = np.linalg.norm(W, axis=0)
    for step, bound in [(0, 2.0), (5, 1.25), (10, 0.5)]:
        np.testing.assert_allclose(
            violation(PARAMS, found, step=step)["a"], np.maximum(norms - bound, 0), atol=1e-6
        )


def test_the_report_has_what_was_due() -> None:
    report, bound = Report(), rules(every=8)
    for step in range(17):
        record(report, PARAMS, project(PARAMS, bound, step=step), bound, step=step)
    assert [(e.step, e.name) for e in report.entries] == [
        (step, name) for step in (0, 8, 16) for name in "ab"
    ]
    last = report.latest()["b"]
    norms = np.linalg.norm(2 * W, axis=0)
    assert last.at_bound == 1.0
    assert last.violation == pytest.approx(norms.max() - 0.5, rel=1e-5)
    change = np.linalg.norm(norms - 0.5) / np.linalg.norm(norms)
    assert last.change == pytest.approx(change, rel=1e-5)
    with pytest.raises(ValueError, match="after must hold 'b'"):
        record(report, PARAMS, {"a": W}, bound, step=0)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


MODEL = """
import jax, normconstraints as nc
model = equinox.nn.Linear(2, 3, key=jax.random.key(0))
rules = nc.Rules({equinox.nn.Linear: nc.MaxNorm(1.0, axis='unit')})
"""
ROLES = "print([row.roles for row in rules.plan(model).rows])\n"


def test_importing_loads_no_library_of_layers_and_a_call_knows_those_that_came_later() -> None:
    pytest.importorskip("equinox")
    code = "import sys, numpy, normconstraints_jax, normconstraints as nc\n"
    code += "normconstraints_jax.project({'w': numpy.ones((2, 2), 'f')}, {'w': nc.NonNeg()})\n"
    code += "print([x for x in ('flax', 'haiku', 'equinox') if x in sys.modules])\n"
    code += f"import equinox{MODEL}normconstraints_jax.project(model, rules)\n{ROLES}"
    assert run(code).split("\n") == ["[]", "['oi', 'o']"]


def test_a_library_that_is_loaded_needs_no_further_import() -> None:
    pytest.importorskip("equinox")
    assert run(f"import equinox, normconstraints_jax{MODEL}{ROLES}") == "['oi', 'o']"
