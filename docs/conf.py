"""How sphinx builds the documentation: ``sphinx-build --fail-on-warning docs out/docs``."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

root = Path(__file__).resolve().parents[1]
# Without an installation the sources serve as well.
for folder, package in (("src", "normconstraints"), ("adapters", "normconstraints_torch")):
    if find_spec(package) is None:
        sys.path.insert(0, str(root / folder))

# Else Keras asks for TensorFlow, which is not needed to read docstrings.
os.environ.setdefault("KERAS_BACKEND", "torch")

project = "normconstraints"
author = "the authors of normconstraints"
project_copyright = author
release = version = "0.1.0"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "normconstraints"
html_static_path = ["_static"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False


def _signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str | None, str | None]:
    """The parameters of a set, where sphinx would find those of the base's `__new__`."""
    if what != "class" or obj.__module__.partition(".")[0] != "normconstraints":
        return signature, returns
    if inspect.isabstract(obj):
        return None, None
    found = inspect.signature(obj.__init__ if dataclasses.is_dataclass(obj) else obj)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(inspect.Signature(bare)), None


def setup(app: Any) -> None:
    """Called by sphinx."""
    app.connect("autodoc-process-signature", _signature)
