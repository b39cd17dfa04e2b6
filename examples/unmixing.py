"""Unmixing the colours of a photograph: shares on the simplex, of colours that are mixtures too.

Archetypal analysis of scikit-learn's picture of a flower: (pixels, colours) is near
shares @ archetypes, and each row of shares is on the simplex, so that a pixel is a mixture of the
archetypes. The archetypes are mixtures of pixels themselves, again with weights on the simplex, so
that they are colours that occur. Each problem is convex where the other is held, and is given to
`projected_gradient`.

Run: python examples/unmixing.py

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
from normconstraints.optimize import projected_gradient

mpl.use("Agg")

import matplotlib.pyplot as plt

# Or array_api_compat.torch, jax.numpy, array_api_compat.cupy:
xp: Any = import_module("array_api_compat.numpy")

SHARES = nc.Simplex(axis=1)


def unmix(pixels: Any, archetypes: Any) -> Any:
    """The shares of the archetypes that are nearest to each pixel."""

    def function(shares: Any) -> tuple[Any, Any]:
        r = shares @ archetypes - pixels
        return xp.sum(r * r) / 2, r @ archetypes.T

    count = archetypes.shape[0]
    first = xp.full((pixels.shape[0], count), 1 / count, dtype=pixels.dtype)
    return projected_gradient(function, first, SHARES, max_iter=200).x


def find_archetypes(pixels: Any, count: int, rounds: int) -> Any:
    """Mixtures of pixels of which all pixels are nearly mixtures."""
    # Begin with pixels that are far from each other.
    chosen = [int(xp.argmin(xp.sum(pixels, axis=1)))]
    nearest = xp.full((pixels.shape[0],), xp.inf, dtype=pixels.dtype)
    for _ in range(count):
        far = xp.sum((pixels - pixels[chosen[-1], :]) ** 2, axis=1)
        nearest = xp.minimum(nearest, far)
        chosen.append(int(xp.argmax(nearest)))
    weights = SHARES(xp.eye(pixels.shape[0], dtype=pixels.dtype)[xp.asarray(chosen[:count]), :])
    for _ in range(rounds):
        shares = unmix(pixels, weights @ pixels)

        def function(weights: Any, shares: Any = shares) -> tuple[Any, Any]:
            r = shares @ (weights @ pixels) - pixels
            return xp.sum(r * r) / 2, (shares.T @ r) @ pixels.T

        weights = projected_gradient(function, weights, SHARES, max_iter=100).x
    return weights @ pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/unmixing"), help="of the picture")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--archetypes", type=int, default=4)
    parser.add_argument("--every", type=int, default=2, help="take one pixel of so many")
    options = parser.parse_args()

    photo = load_sample_image("flower.jpg")[:: options.every, :: options.every] / 255
    colours = photo.reshape(-1, 3)
    some = np.random.default_rng(0).choice(len(colours), min(1000, len(colours)), replace=False)
    archetypes = find_archetypes(
        xp.asarray(colours[some], dtype=xp.float32), options.archetypes, options.rounds
    )
    shares = unmix(xp.asarray(colours, dtype=xp.float32), archetypes)

    made = host(shares) @ host(archetypes)
    spread = np.square(colours - colours.mean(axis=0)).sum()
    print(f"{1 - np.square(made - colours).sum() / spread:.1%} of the variance is mixtures")
    print(f"shares: largest violation {float(xp.max(SHARES.violation(shares))):g}")
    path = options.out / "unmixing.png"
    draw(photo, host(archetypes), host(shares), path)
    print(f"Picture: {path}")


def host(x: Any) -> Any:
    """A NumPy array, for the picture."""
    return x.get() if hasattr(x, "get") else np.asarray(x)


def draw(photo: Any, archetypes: Any, shares: Any, path: Path) -> None:
    """The photograph, and the share of each archetype in each pixel, in its colour."""
    figure, axes = plt.subplots(
        1, 1 + len(archetypes), figsize=(2.4 * (1 + len(archetypes)), 1.92), layout="constrained"
    )
    axes[0].imshow(photo)
    axes[0].set_title("The photograph", fontsize=10)
    for ax, colour, share in zip(axes[1:], archetypes, shares.T, strict=True):
        ax.imshow(share.reshape(photo.shape[:2]), cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"{share.mean():.0%} of this colour", fontsize=10)
        sample = ax.inset_axes((0.03, 0.05, 0.16, 0.22))
        sample.set(facecolor=np.clip(colour, 0, 1), xticks=[], yticks=[])
        sample.spines[:].set_color("white")
    for ax in axes:
        ax.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    with Image.open(path) as picture:  # a palette makes it small enough for a page
        small = picture.convert("RGB").quantize(192)
    small.save(path, optimize=True)
    plt.close(figure)


if __name__ == "__main__":
    main()
