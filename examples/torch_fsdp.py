"""Max-norm on a model that FSDP2 shards over processes, on scikit-learn's digits.

Run: torchrun --standalone --nproc-per-node=2 examples/torch_fsdp.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import normconstraints as nc
from normconstraints_torch import constrain


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    images, classes = load_digits(return_X_y=True)
    x, y = torch.as_tensor(images, dtype=torch.float32) / 16, torch.as_tensor(classes)

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    mesh = init_device_mesh("cpu", (world,))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    # Units are whole on each process: the first rule exchanges nothing. The inputs of the second
    # layer are cut over the processes: the norms of their outgoing weights need one sum.
    rules = {
        "0.weight": nc.MaxNorm(1.5, axis="unit"),
        "2.weight": nc.MaxNorm(1.5, axis="input"),
        "*.bias": nc.Box(-0.5, 0.5),
    }
    handle = constrain(model, rules, optimizer)

    for _ in range(10):
        for begin in range(0, 1500, 64):
            batch = slice(begin + rank, begin + 64, world)  # each process its own images
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    right = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
    violations = {name: v.full_tensor().max() for name, v in handle.violation().items()}  # type: ignore[attr-defined]
    if rank == 0:
        print(f"{right:.1%} of the test images are right")
        for name, violation in violations.items():
            print(f"{name}: largest violation {violation:g}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
