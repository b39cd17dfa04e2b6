"""Parts of digits: images as sums of few non-negative parts, each of which sums to 1.

Non-negative matrix factorisation of scikit-learn's digits: (pixels, images) is near
parts @ weights. The columns of parts are on the simplex, so that a weight is an amount of ink, and
weights are not negative. Each factor in turn takes a few projected steps, as long as its Gram
matrix allows.

Run: python examples/nmf_digits.py

On arrays of PyTorch, JAX or CuPy: change the line that begins with xp.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits

import normconstraints as nc

mpl.use("Agg")

import matplotlib.pyplot as plt

# Or array_api_compat.torch, jax.numpy, array_api_compat.cupy:
xp: Any = import_module("array_api_compat.numpy")

PARTS = nc.Simplex(axis=0)
WEIGHTS = nc.NonNeg()


def projected_steps(constraint: Any, factor: Any, gram: Any, cross: Any, steps: int) -> Any:
    """Accelerated steps towards the least (factor.T @ gram @ factor) / 2 - factor.T @ cross."""
    length = 1 / xp.linalg.matrix_norm(gram, ord=2)
    ahead, momentum = factor, 1.0
    for _ in range(steps):
        # The line that matters: a gradient step, and the nearest factor that is allowed.
        new = constraint(ahead - length * (gram @ ahead - cross))
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / grown * (new - factor)
        factor, momentum = new, grown
    return factor


def factorise(images: Any, count: int, iterations: int) -> tuple[Any, Any]:
    """Parts (pixels, count) and weights (count, images)."""
    rng = np.random.default_rng(0)
    parts = PARTS(xp.asarray(rng.random((images.shape[0], count)), dtype=images.dtype))
    weights = xp.zeros((count, images.shape[1]), dtype=images.dtype)
    for _ in range(iterations):
        weights = projected_steps(WEIGHTS, weights, parts.T @ parts, parts.T @ images, 10)
        # The other factor is the transposed problem; its columns are rows there.
        gram, cross = weights @ weights.T, weights @ images.T
        parts = projected_steps(nc.Simplex(axis=1), parts.T, gram, cross, 10).T
    return parts, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/nmf"), help="folder of the picture")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--parts", type=int, default=16)
    options = parser.parse_args()

    images = xp.asarray(load_digits().data.T / 16, dtype=xp.float32)
    parts, weights = factorise(images, options.parts, options.iterations)

    error = float(xp.sum((images - parts @ weights) ** 2) / xp.sum(images**2))
    used = float(xp.mean(xp.astype(weights > 0, xp.float32)))
    print(f"{1 - error:.1%} of the images' energy is in {options.parts} parts")
    print(f"an image is made of {used * options.parts:.1f} parts on average")
    print(f"parts: largest violation {float(xp.max(PARTS.violation(parts))):g}")
    print(f"weights: largest violation {float(xp.max(WEIGHTS.violation(weights))):g}")
    path = options.out / "nmf_digits.png"
    draw(host(images), host(parts), host(weights), path)
    print(f"Picture: {path}")


def host(x: Any) -> Any:
    """A NumPy array, for the picture."""
    return x.get() if hasattr(x, "get") else np.asarray(x)


def draw(images: Any, parts: Any, weights: Any, path: Path) -> None:
    """The parts, and digits above what the parts make of them."""
    columns = -(-parts.shape[1] // 2)
    figure: Any = plt.figure(figsize=(9, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
    for part, ax in zip(parts.T, above.subplots(2, columns).flat, strict=False):
        show(ax, part, part.max())
    above.suptitle(f"{parts.shape[1]} parts, each non-negative with sum 1", weight="bold")
    pairs = below.subplots(2, 10)
    for i, (top, bottom) in enumerate(pairs.T):
        show(top, images[:, i], 1.0)
        show(bottom, parts @ weights[:, i], 1.0)
    below.suptitle("Ten digits (above), and the sums of parts nearest to them", weight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def show(ax: Any, image: Any, largest: float) -> None:
    ax.imshow(image.reshape(8, 8), cmap="Greys", vmin=0, vmax=largest)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("0.8")


if __name__ == "__main__":
    main()
