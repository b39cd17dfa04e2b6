"""A training that saves as it goes and may be killed at any time; run as a program by a test.

``killed.py FOLDER STEPS PAUSE`` trains to STEPS from what is in FOLDER, waits PAUSE seconds in each
step, so that there is time to kill it, and leaves the weights in ``FOLDER/final.pt``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

import normconstraints as nc
from normconstraints.schedules import Linear
from normconstraints_torch import constrain

EVERY = 5
RULES = {
    # At each step another radius: to go on from a wrong step is to end somewhere else.
    "0.weight": nc.Scheduled(
        nc.MaxNorm(1.0, axis="unit"), {"max_value": Linear(1.0, 0.2, steps=60)}
    ),
    "2.weight": nc.Scheduled(nc.L1Ball(1.0, axis="unit"), start=12),
    "2.bias": nc.Simplex(1.0, axis=0),
}


def save(path: Path, state: object) -> None:
    """In one piece or not at all."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def main(folder: Path, steps: int, pause: float) -> None:
    """Train."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    data = torch.Generator().manual_seed(1)
    checkpoint = folder / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        data.set_state(state["data"])
        step = state["step"]
    print("from", step, flush=True)
    handle = constrain(model, RULES, optimizer, step=step)
    while handle.step < steps:
        x = torch.randn(32, 6, generator=data)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
        loss.backward()
        optimizer.step()
        time.sleep(pause)
        if handle.step % EVERY == 0:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "data": data.get_state(),
                "step": handle.step,
            }
            save(checkpoint, state)
            print("saved", handle.step, flush=True)
    save(folder / "final.pt", model.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
