"""What the documentation shows is run: docstrings, and every python block of the pages."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import normconstraints
import normconstraints.optimize
import normconstraints.parts
import normconstraints.plan
import normconstraints.report
import normconstraints.testing
import normconstraints_jax
import normconstraints_jax.equinox
import normconstraints_jax.haiku
import normconstraints_jax.linen
import normconstraints_jax.nnx
import normconstraints_jax.optax
import normconstraints_jax.projections
import normconstraints_keras
import normconstraints_numpy
import normconstraints_numpy.sklearn
import normconstraints_torch
import normconstraints_torch.lightning
import normconstraints_torch.transformers

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = (
    normconstraints,
    normconstraints_torch,
    normconstraints_jax,
    normconstraints_keras,
    normconstraints_numpy,
)
# See tests/keras_adapter/conftest.py.
NUMPY_OF_TORCH = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
ROOTS = (
    *PACKAGES,
    normconstraints.derivatives,
    normconstraints.functional,
    normconstraints_jax.equinox,
    normconstraints_jax.haiku,
    normconstraints_jax.linen,
    normconstraints_jax.nnx,
    normconstraints_jax.optax,
    normconstraints_jax.projections,
    normconstraints_numpy.sklearn,
    normconstraints_torch.lightning,
    normconstraints_torch.transformers,
    normconstraints.layout,
    normconstraints.optimize,
    normconstraints.parts,
    normconstraints.plan,
    normconstraints.report,
    normconstraints.schedules,
    normconstraints.testing,
    normconstraints.weights,
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
REQUIRED_EXAMPLES = 60
"""Lines after a prompt in docstrings."""
REQUIRED_BLOCKS = 15
"""Blocks on pages."""
CONTINUES = "<!-- continues -->"
"""On the line before a block that shares the names of the block before it."""


def _modules() -> list[str]:
    found = []
    for package in PACKAGES:
        walk = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        # What is run by `python -m` sets up the process that it is run in.
        found += [package.__name__, *(m.name for m in walk if not m.name.endswith("__main__"))]
    return found


def _tests(module: ModuleType) -> list[doctest.DocTest]:
    return [t for t in doctest.DocTestFinder(exclude_empty=True).find(module) if t.examples]


def _run(test: doctest.DocTest) -> None:
    lines: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=lines.append, clear_globs=False)
    assert result.attempted == len(test.examples)
    assert not result.failed, "".join(lines)


@pytest.mark.filterwarnings(NUMPY_OF_TORCH)
@pytest.mark.parametrize("name", _modules())
def test_docstrings(name: str) -> None:
    for test in _tests(importlib.import_module(name)):
        _run(test)


def test_there_are_enough_docstrings() -> None:
    modules = [importlib.import_module(name) for name in _modules()]
    assert sum(len(t.examples) for m in modules for t in _tests(m)) >= REQUIRED_EXAMPLES


@dataclass(frozen=True)
class Block:
    """A python block of a page."""

    page: Path
    line: int
    text: str
    continues: bool

    @property
    def place(self) -> str:
        """Where it is, for the id of a test."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    start = None
    for i, line in enumerate(lines):
        if start is None and line == "```python":
            start = i + 1
        elif start is not None and line == "```":
            text = "\n".join(lines[start:i]) + "\n"
            found.append(Block(page, start + 1, text, lines[start - 2] == CONTINUES))
            start = None
    assert start is None, f"{page}: a block without an end"
    return found


def _chains() -> list[list[Block]]:
    """Blocks, each with those that share its names."""
    chains: list[list[Block]] = []
    for page in PAGES:
        fresh = True
        for block in _blocks(page):
            if block.continues and not fresh:
                chains[-1].append(block)
            else:
                chains.append([block])
            fresh = False
    return chains


@pytest.mark.filterwarnings(NUMPY_OF_TORCH)
@pytest.mark.parametrize("chain", _chains(), ids=lambda chain: chain[0].place)
def test_pages(chain: list[Block], tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in chain:
        if ">>>" in block.text:
            parser = doctest.DocTestParser()
            test = parser.get_doctest(block.text, names, block.place, str(block.page), block.line)
            assert test.examples
            _run(test)
            names.update(test.globs)
        elif re.search(r"^def test_", block.text, re.MULTILINE):
            _run_as_tests(block.text, tmp_path)
        else:
            exec(compile(block.text, block.place, "exec"), names)


def _run_as_tests(text: str, folder: Path) -> None:
    """A block that is a test module, in a process of its own."""
    (folder / "test_block.py").write_text(text, encoding="utf-8")
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout


def test_no_block_is_left_out() -> None:
    assert sum(len(_blocks(page)) for page in PAGES) >= REQUIRED_BLOCKS
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # Other ways to write a python block would not be seen above.
        other = re.findall(
            r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*(?:python|py|pycon|doctest)\b.*", text, re.MULTILINE
        )
        assert set(other) <= {"```python"}, page
        assert len(other) == len(_blocks(page)), page


def test_the_reference_names_everything_public() -> None:
    listed = re.findall(
        r"^\.\. (?:currentmodule|auto\w+|data):: (\w[\w.]*)",
        (ROOT / "docs/api.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for module in ROOTS:
        start = listed.index(module.__name__) + 1
        names = set()
        for name in listed[start:]:
            if name in {m.__name__ for m in ROOTS}:
                break
            names.add(name)
        modules = {n for n in module.__all__ if isinstance(getattr(module, n), ModuleType)}
        assert names == set(module.__all__) - modules


def test_the_page_of_sets_names_them_all() -> None:
    page = (ROOT / "docs/sets.md").read_text(encoding="utf-8")
    for name in normconstraints.__all__:
        found = getattr(normconstraints, name)
        if getattr(found, "__final__", False) and issubclass(found, normconstraints.Constraint):
            assert f"`{name}(" in page, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
