"""What an import costs and loads, what is public, and what the wheel holds."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import normconstraints as nc
from normconstraints import testing

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("numpy", "torch", "jax", "cupy", "keras", "tensorflow", "sklearn", "scipy")


def _python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_core_loads_no_framework() -> None:
    loaded = _python(
        f"import sys, normconstraints; print([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    )
    assert loaded == "[]"


def test_importing_the_core_loads_little_of_the_standard_library() -> None:
    """What it costs is measured by ``make bench``; this keeps out what would make it slow."""
    loaded = _python(
        "import sys, numpy; known = set(sys.modules); import normconstraints; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - known})"
    )
    ours = {"normconstraints", "__future__", "bisect", "copy", "dataclasses", "fnmatch"}
    assert {m for m in loaded.split() if not m.startswith("_")} <= ours
    assert "normconstraints" in loaded.split()


def test_sets_are_imported_when_they_are_asked_for() -> None:
    loaded = _python(
        "import sys, normconstraints as nc; sets = 'normconstraints.sets.'; "
        "loaded = lambda: {m.removeprefix(sets) for m in sys.modules if m.startswith(sets)}; "
        "first = loaded(); config = {'constraint': 'TopK', 'parameters': {'k': 1, 'axis': 0}}; "
        "print(len(first), nc.from_config(config), nc.UnitNorm.__name__, loaded() - first)"
    )
    count, _, rest = loaded.partition(" ")
    assert int(count) == 0
    assert rest.startswith("TopK(k=1, axis=0) UnitNorm {")
    assert set(rest.partition("{")[2][:-1].split(", ")) == {"'top_k'", "'unit_norm'"}


def test_every_name_of_a_set_leads_to_its_file() -> None:
    assert set(nc.sets.FILES) <= set(nc.__all__) == set(dir(nc))
    files = {p.stem for p in Path(nc.sets.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(nc.sets.FILES.values()) == files
    for name, file in nc.sets.FILES.items():
        cls = getattr(nc, name)
        assert (cls.__name__, cls.__module__) == (name, f"normconstraints.sets.{file}")
    with pytest.raises(AttributeError, match="module 'normconstraints' has no attribute 'MaxNrm'"):
        nc.MaxNrm  # noqa: B018


def test_what_is_made_of_sets_is_imported_when_it_is_asked_for() -> None:
    late = _python(
        "import sys, normconstraints as nc; late = ('as_matrix', 'compose', 'wrappers'); "
        "print([m for m in late if f'normconstraints.{m}' in sys.modules], "
        "nc.from_config({'constraint': 'Relaxed', 'parameters': {'constraint': "
        "{'constraint': 'NonNeg', 'parameters': {}}}}), nc.NonNeg() & nc.NonPos())"
    )
    assert late == ("[] Relaxed(constraint=NonNeg(), rate=1.0) Intersection(NonNeg(), NonPos())")


@pytest.mark.parametrize(
    "call",
    [
        "functional.project_max_norm(w, 1.0, axis=0)",
        "NonNeg()(w)",
        "Masked(nc.NonNeg(), ((0, 2, None),))(w)",
    ],
)
def test_a_set_may_be_asked_for_in_a_function_that_is_compiled(call: str) -> None:
    pytest.importorskip("torch")
    done = _python(
        "import torch, normconstraints as nc; w = -torch.ones(4, 3); nc.tolerance(w); "
        f"compiled = torch.compile(lambda w: nc.{call}, fullgraph=True, backend='eager'); "
        f"print(torch.equal(compiled(w), nc.{call}))"
    )
    assert done == "True"


def test_the_name_of_a_set_that_is_not_imported_is_taken() -> None:
    message = _python(
        "import normconstraints as nc\n"
        "try:\n    nc.register(type('TopK', (nc.Constraint,), {}))\n"
        "except ValueError as error:\n    print(error)"
    )
    assert message == "register: the name TopK is taken by normconstraints.sets.top_k"


def test_numpy_arrays_need_no_other_framework() -> None:
    loaded = _python(
        "import sys, numpy, normconstraints as nc; nc.UnitNorm(axis=0)(numpy.ones((2, 3))); "
        "print([m for m in ('torch', 'jax', 'cupy') if m in sys.modules])"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("module", [nc, testing])
def test_all_is_what_is_public(module: object) -> None:
    for name in module.__all__:  # type: ignore[attr-defined]
        getattr(module, name)  # which loads it
    names = vars(module)
    public = {
        name
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, type(sys))
    }
    modules = {n for n in names["__all__"] if isinstance(names[n], type(sys))}
    assert all(names[n].__name__ == f"{names['__name__']}.{n}" for n in modules)
    assert public == set(names["__all__"]) - modules
    assert sorted(names["__all__"]) == list(names["__all__"])


def test_every_set_is_final_and_has_its_file() -> None:
    for cls in (getattr(nc, name) for name in nc.__all__):
        if isinstance(cls, type) and cls.__module__.startswith("normconstraints.sets."):
            assert getattr(cls, "__final__", False), cls
            module = importlib.import_module(cls.__module__)
            if issubclass(cls, nc.Constraint):
                assert any(type(c) is cls for c in module.EXAMPLES)
                if cls is not nc.ConvOperatorBall:  # its own tests have Dykstra's method and cvxpy
                    assert module.slow_projection.__doc__
                    assert module.slow_violation.__doc__
                assert any(name.startswith("project_") for name in vars(module))


def test_nothing_implemented_is_overridden() -> None:
    """Every class is abstract or final, and what a base class implements stays."""
    for name in nc.__all__:
        cls = getattr(nc, name)
        if not (isinstance(cls, type) and issubclass(cls, nc.Constraint)):
            continue
        abstract = bool(getattr(cls, "__abstractmethods__", ()))
        assert abstract or getattr(cls, "__final__", False), cls
        for base in cls.__mro__[1:]:
            if base.__module__ != "normconstraints.constraint":
                continue
            for member, value in vars(base).items():
                if getattr(value, "__final__", False):
                    assert member not in vars(cls), (cls, member)


def test_docstrings_say_what_they_must() -> None:
    for name in nc.__all__:
        cls = getattr(nc, name)
        if isinstance(cls, type) and cls.__module__.startswith("normconstraints.sets."):
            doc = cls.__doc__ or ""
            for part in (".. math::", "Raises", "Notes", "Gradient", "NaN", "References", ">>>"):
                assert part in doc, (name, part)


def test_the_core_depends_on_array_api_compat_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [d.split(">")[0] for d in project["dependencies"]] == ["array-api-compat"]
    assert {"torch", "jax", "keras", "sklearn", "demo", "dev"} <= set(
        project["optional-dependencies"]
    )


def test_the_wheel_holds_the_core_and_the_adapters(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {
        "normconstraints",
        "normconstraints_jax",
        "normconstraints_keras",
        "normconstraints_numpy",
        "normconstraints_torch",
    }
    assert "normconstraints/py.typed" in names
    assert "normconstraints/testing/backends/cupy_signatures.json" in names
