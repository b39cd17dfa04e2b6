"""Write the snapshot of CuPy's namespace that the CuPy double checks calls against.

Run it with a Python that has a real CuPy wheel (a GPU is not needed, nothing is computed)::

    python scripts/snapshot_cupy.py

The result, ``cupy_signatures.json``, holds names and signatures only, one name a line, so that
the difference between two CuPy versions reads as a list of changed names.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

TARGET = Path(__file__).parents[1] / "src/normconstraints/testing/backends/cupy_signatures.json"
# What array_api_compat.cupy imports from or looks into; other submodules are listed by name only.
MODULES = ("cupy", "cupy.linalg", "cupy.fft", "cupy.cuda", "cupy.cuda.runtime")
# Of the some three hundred names of the CUDA runtime only these matter to array code.
RUNTIME_NAMES = ("deviceSynchronize", "getDevice", "getDeviceCount", "setDevice")
# Phrases with which CuPy's own documentation marks a function that waits for the device.
SYNCHRONISES = ("this function may synchronize", "this function performs device synchronization")
# A type of a compiled function's documented parameter comes before the name: "int axis=-1".
PARAMETER = re.compile(r"^(?P<stars>\*{0,2})(?:.*\s)?(?P<name>\w+)\s*(?:=\s*(?P<default>.*))?$")


def literal(text: str) -> str:
    """A default value as it can be written in a snapshot, else an ellipsis."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return "..."
    return text


def from_signature(signature: inspect.Signature) -> str:
    parameters = [
        p.replace(
            annotation=inspect.Parameter.empty,
            # An inspect.Parameter prints the repr of its default, which need not be a literal.
            default=p.default if p.default is p.empty or literal(repr(p.default)) != "..." else ...,
        )
        for p in signature.parameters.values()
    ]
    shown = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return shown.replace("Ellipsis", "...")


def from_doc(doc: str) -> str | None:
    """The signature in the first line of a compiled function's docstring, or None."""
    found = re.match(r"^[\w.]+\((.*?)\)(?:\s*->.*)?$", doc.strip().split("\n")[0])
    if found is None:
        return None
    shown = []
    for part in filter(None, (p.strip() for p in found[1].split(","))):
        if part in ("*", "/"):
            shown.append(part)
        elif (match := PARAMETER.match(part)) is not None:
            default = match["default"]
            shown.append(
                match["stars"] + match["name"] + (f"={literal(default)}" if default else "")
            )
        else:
            return None
    return f"({', '.join(shown)})"


def signature_of(obj: Any) -> str | None:
    try:
        return from_signature(inspect.signature(obj))
    except (TypeError, ValueError):
        return from_doc(inspect.getdoc(obj) or "")


def numpy_path(name: str, obj: Any) -> str | None:
    """Where NumPy keeps an object that CuPy merely hands on, or None."""
    module = getattr(obj, "__module__", None) or ""
    if module.split(".")[0] != "numpy":
        return None
    for candidate in (name, getattr(obj, "__name__", name)):
        if getattr(np, candidate, None) is obj:
            return candidate
    return f"{module}.{obj.__name__}".removeprefix("numpy.")


def describe(name: str, obj: Any) -> dict[str, Any] | None:
    if isinstance(obj, ModuleType):
        return {"module": obj.__name__} if obj.__name__.startswith("cupy") else None
    if type(obj).__name__ == "ufunc":
        return {"ufunc": [obj.name, obj.nin, obj.nout], "types": " ".join(obj.types)}
    if callable(obj):
        if (path := numpy_path(name, obj)) is not None:
            return {"numpy": path}
        entry: dict[str, Any] = {"def": signature_of(obj)}
        if isinstance(obj, type):
            entry["class"] = True
        elif any(phrase in (obj.__doc__ or "").lower() for phrase in SYNCHRONISES):
            entry["sync"] = True
        return entry
    if isinstance(obj, float):
        return {"float": repr(obj)}  # JSON has no word for inf and nan
    if obj is None or isinstance(obj, bool | int | str):
        return {"value": obj}
    return None


def module_entries(module: ModuleType) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    if hasattr(module, "__all__"):
        entries["__all__"] = {"value": sorted(module.__all__)}
    names = RUNTIME_NAMES if module.__name__.endswith(".runtime") else dir(module)
    for name in names:
        if not name.startswith("_"):
            entry = describe(name, getattr(module, name))
            if entry is not None:
                entries[name] = entry
    return entries


def class_entries(cls: type) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    inherited = {*dir(object), "__module__", "__slots__", "__pyx_vtable__"}
    for name in dir(cls):
        member = getattr(cls, name)
        if name.startswith("__"):
            # Object machinery says nothing about arrays; __eq__ and its kin do.
            if name not in inherited or name in {"__eq__", "__ge__", "__gt__", "__le__", "__lt__"}:
                entries[name] = {"slot": True}
        elif name.startswith("_"):
            continue
        elif callable(member):
            entries[name] = {"def": signature_of(member)}
        else:
            entries[name] = {"property": True}
    return entries


def main() -> None:
    cupy = importlib.import_module("cupy")
    blocks = {name: module_entries(importlib.import_module(name)) for name in MODULES}
    blocks["cupy.ndarray"] = class_entries(cupy.ndarray)
    blocks["cupy.cuda.Device"] = class_entries(cupy.cuda.Device)
    lines = ["{", f' "version": {json.dumps(cupy.__version__)},', ' "names": {']
    for i, (block, entries) in enumerate(sorted(blocks.items())):
        lines.append(f"  {json.dumps(block)}: {{")
        body = [f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(entries.items())]
        lines.append(",\n".join(body))
        lines.append("  }" + ("," if i + 1 < len(blocks) else ""))
    lines += [" }", "}"]
    text = "\n".join(lines) + "\n"
    json.loads(text)
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: CuPy {cupy.__version__}, {sum(map(len, blocks.values()))} names")


if __name__ == "__main__":
    main()
