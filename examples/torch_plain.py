"""Max-norm in a plain loop of PyTorch, on scikit-learn's digits.

Run: python examples/torch_plain.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

import normconstraints as nc
from normconstraints_torch import constrain


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = torch.as_tensor(images, dtype=torch.float32) / 16, torch.as_tensor(classes)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    # The five lines: which weights, which sets, and that is all; the loop stays as it is.
    rules = {
        "*.weight": nc.MaxNorm(1.5, axis="unit"),
        "*.bias": nc.Box(-0.5, 0.5),
    }
    handle = constrain(model, rules, optimizer)

    for _ in range(10):
        for begin in range(0, 1500, 64):
            batch = slice(begin, begin + 64)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    right = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
    print(f"{right:.1%} of the test images are right")
    for name, violation in handle.violation().items():
        print(f"{name}: largest violation {violation.max():g}")


if __name__ == "__main__":
    main()
