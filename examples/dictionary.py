"""A dictionary for a photograph: unit-norm atoms of which every patch needs only five.

Dictionary learning on scikit-learn's picture of a temple, in patches of 8 x 8 without their means:
(pixels, patches) is near atoms @ codes. The atoms have norm 1, without which they can grow while
the codes shrink; a code has at most five entries that are not zero. Both factors take steps along
their gradients, each followed by the projection.

Run: python examples/dictionary.py

On arrays of PyTorch, JAX or CuPy: change the line that begins with xp.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import normconstraints as nc

mpl.use("Agg")

import matplotlib.pyplot as plt

# Or array_api_compat.torch, jax.numpy, array_api_compat.cupy:
xp: Any = import_module("array_api_compat.numpy")

SIDE = 8
FEW = 5
ATOMS = nc.UnitNorm(axis=0)
CODES = nc.TopK(FEW, axis=0)


def learn(patches: Any, count: int, iterations: int) -> tuple[Any, Any]:
    """Atoms (pixels, count) and codes (count, patches)."""
    busiest = xp.argsort(-xp.sum(patches**2, axis=0))[: 4 * count]
    atoms = ATOMS(xp.take(patches, busiest[::4], axis=1))
    codes = xp.zeros((count, patches.shape[1]), dtype=patches.dtype)
    for _ in range(iterations):
        gram, cross = atoms.T @ atoms, atoms.T @ patches
        length = 1 / xp.linalg.matrix_norm(gram, ord=2)
        for _ in range(10):
            codes = CODES(codes - length * (gram @ codes - cross))
        gram, cross = codes @ codes.T, patches @ codes.T
        for _ in range(5):
            # Each atom has a step of its own, for some are in many patches and some in few.
            lengths = 1 / (xp.sum(xp.abs(gram), axis=0) + 1e-6)
            atoms = ATOMS(atoms - (atoms @ gram - cross) * lengths)
    return atoms, codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/dictionary"), help="of the picture")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--atoms", type=int, default=64)
    options = parser.parse_args()

    photo = load_sample_image("china.jpg").mean(axis=2) / 255
    photo = photo[: photo.shape[0] // SIDE * SIDE, : photo.shape[1] // SIDE * SIDE]
    patches = in_patches(photo)
    means = patches.mean(axis=0)
    atoms, codes = learn(
        xp.asarray(patches - means, dtype=xp.float32), options.atoms, options.iterations
    )

    made = host(atoms) @ host(codes) + means
    noise = np.square(made - patches).mean()
    print(f"{FEW} of {options.atoms} atoms a patch: {-10 * np.log10(noise):.1f} dB")
    print(f"atoms: largest violation {float(xp.max(ATOMS.violation(atoms))):g}")
    print(f"codes: largest violation {float(xp.max(CODES.violation(codes))):g}")
    path = options.out / "dictionary.png"
    draw(host(atoms), photo, as_photo(made, photo.shape), path)
    print(f"Picture: {path}")


def in_patches(photo: Any) -> Any:
    """Each patch as a column."""
    rows, columns = (n // SIDE for n in photo.shape)
    grid = photo.reshape(rows, SIDE, columns, SIDE).transpose(1, 3, 0, 2)
    return grid.reshape(SIDE * SIDE, rows * columns)


def as_photo(patches: Any, shape: tuple[int, ...]) -> Any:
    """The columns where they were."""
    grid = patches.reshape(SIDE, SIDE, shape[0] // SIDE, shape[1] // SIDE)
    return grid.transpose(2, 0, 3, 1).reshape(shape)


def host(x: Any) -> Any:
    """A NumPy array, for the picture."""
    return x.get() if hasattr(x, "get") else np.asarray(x)


def draw(atoms: Any, photo: Any, made: Any, path: Path) -> None:
    """The atoms, and a part of the photograph beside what they make of it."""
    figure: Any = plt.figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.9))
    columns = int(np.ceil(np.sqrt(atoms.shape[1])))
    for ax in (grid := left.subplots(columns, columns, squeeze=False)).flat:
        ax.set_axis_off()
    for ax, atom in zip(grid.flat, atoms.T, strict=False):
        largest = abs(atom).max()
        ax.imshow(atom.reshape(SIDE, SIDE), cmap="gray", vmin=-largest, vmax=largest)
    left.suptitle(f"{atoms.shape[1]} atoms of norm 1", weight="bold")
    part = slice(80, 320), slice(200, 440)
    titles = ("A part of the photograph", f"Made of its means and {FEW} atoms a patch")
    for ax, picture, title in zip(right.subplots(1, 2), (photo, made), titles, strict=True):
        ax.imshow(picture[part], cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    with Image.open(path) as picture:  # a palette makes it small enough for a page
        small = picture.convert("RGB").quantize(64)
    small.save(path, optimize=True)
    plt.close(figure)


if __name__ == "__main__":
    main()
