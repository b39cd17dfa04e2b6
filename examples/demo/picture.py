"""The norms of the units of the first layer while it trains."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")

import matplotlib.pyplot as plt

from .task import BOUND

# Okabe and Ito's blue and vermilion: told apart with every kind of colour vision.
_UNITS, _BOUND = "#0072B2", "#D55E00"
_DASHES = (0, (4, 2))


def save(free: npt.NDArray[np.float64], bounded: npt.NDArray[np.float64], path: Path) -> None:
    """Draw both trainings, given as arrays of norms (steps, units), and save the picture."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout="constrained")
    panels = [("Without a constraint", free), (f"With MaxNorm({BOUND})", bounded)]
    for ax, (title, history) in zip(axes, panels, strict=True):
        ax.plot(history, color=_UNITS, linewidth=0.6, alpha=0.4)
        ax.plot(np.median(history, axis=1), color="black", linewidth=1.8)
        ax.axhline(BOUND, color=_BOUND, linewidth=1.8, linestyle=_DASHES, zorder=3)
        ends = history[-1]
        share = (ends >= 0.999 * BOUND).mean()
        where = "at the bound" if history is bounded else "beyond the bound"
        ax.set_title(title, loc="left", fontweight="bold")
        ax.set_title(f"at the end {share:.0%} {where}", loc="right", fontsize=10)
        ax.set_xlabel("training step")
        ax.set_xlim(0, len(history) - 1)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("norm of a unit's incoming weights")
    axes[1].plot([], color=_UNITS, linewidth=0.8, label=f"each of the {free.shape[1]} units")
    axes[1].plot([], color="black", linewidth=1.8, label="their median")
    axes[1].plot([], color=_BOUND, linewidth=1.8, linestyle=_DASHES, label="the bound")
    axes[1].legend(loc="upper right", frameon=False)
    # What goes on below the bound is too flat to be seen on the scale of the other panel.
    zoom = axes[1].inset_axes((0.16, 0.36, 0.8, 0.34))
    zoom.plot(bounded, color=_UNITS, linewidth=0.6, alpha=0.5)
    zoom.axhline(BOUND, color=_BOUND, linewidth=1.8, linestyle=_DASHES, zorder=3)
    zoom.set_xlim(0, len(bounded) // 3)
    zoom.set_ylim(bounded.min() - 0.03, BOUND + 0.04)
    zoom.tick_params(labelsize=8)
    axes[1].indicate_inset_zoom(zoom, edgecolor="0.4")
    figure.suptitle("First hidden layer, SGD with momentum on 600 digits (NumPy, first seed)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
