"""Max-norm in Lightning's Trainer, on scikit-learn's digits.

Run: python examples/torch_lightning.py
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import normconstraints as nc
from normconstraints_torch.lightning import ConstraintCallback


class Digits(pl.LightningModule):
    """A classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The loss of a batch."""
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = torch.as_tensor(images, dtype=torch.float32) / 16, torch.as_tensor(classes)
    pl.seed_everything(0, verbose=False)
    model = Digits()

    constraints = ConstraintCallback({"net.*.weight": nc.MaxNorm(1.5, axis="unit")})
    trainer = pl.Trainer(
        max_epochs=5,
        callbacks=[constraints],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x[:1500], y[:1500]), 64, shuffle=True))

    right = (model.net(x[1500:]).argmax(1) == y[1500:]).float().mean()
    print(f"{right:.1%} of the test images are right")
    for name, violation in constraints.violation().items():
        print(f"{name}: largest violation {violation.max():g}")


if __name__ == "__main__":
    main()
