"""Max-norm in the Trainer of transformers: a small vision transformer on scikit-learn's digits.

Run: python examples/torch_trainer.py
"""

from __future__ import annotations

import tempfile

import torch
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import normconstraints as nc
from normconstraints_torch.transformers import ConstraintCallback


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.as_tensor(classes)
    data = [{"pixel_values": one, "labels": label} for one, label in zip(x, y, strict=True)]
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    config.num_labels = 10
    model = ViTForImageClassification(config)

    constraints = ConstraintCallback({(torch.nn.Linear, "weight"): nc.MaxNorm(1.0, axis="unit")})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=5,
            per_device_train_batch_size=16,
            learning_rate=0.003,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=data[:1500], callbacks=[constraints])
        trainer.train()

    logits = model(x[1500:]).logits
    right = (logits.argmax(1) == y[1500:]).float().mean()
    print(f"{right:.1%} of the test images are right")
    for name, violation in constraints.violation().items():
        print(f"{name}: largest violation {violation.max():g}")


if __name__ == "__main__":
    main()
