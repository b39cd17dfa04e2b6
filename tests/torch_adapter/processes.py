"""What several processes check together; test_processes.py starts them by torchrun.

Every function whose name begins with ``check_`` runs in all of them. The first process writes what
became of each to the file that is named on the command line, where "all" asks for all examples.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import normconstraints as nc
from normconstraints.constraint import Summed
from normconstraints_torch import constrain, project_

THOROUGH = sys.argv[2:] == ["all"]
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
SHAPES = ((6, 8), (8, 6), (8, 8), (6, 8, 5), (5,))
NORMS = (
    nc.MaxNorm(1.0, axis=0),
    nc.UnitNorm(axis=0),
    nc.FixedNorm(2.0, axis=0),
    nc.MinNorm(9.0, axis=0),
    nc.MinMaxNorm(0.5, 1.0, rate=0.5, axis=0),
    nc.UnitRMS(0.1, axis=0),
)


@contextmanager
def exchanged() -> Iterator[dict[str, int]]:
    """How often the processes exchange something, by the kind of exchange."""
    found: dict[str, int] = {}
    with CommDebugMode() as mode:
        yield found
    found.update({str(k).rpartition(".")[2]: v for k, v in mode.get_comm_counts().items()})


def line() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def weight(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The same in each process."""
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).to(dtype)


def examples() -> Iterator[nc.Constraint]:
    """All examples of all sets, or one of each."""
    count = None if THOROUGH else 1
    for name in nc.__all__:
        cls = getattr(nc, name)
        if isinstance(cls, type) and issubclass(cls, nc.Constraint):
            given = getattr(sys.modules[cls.__module__], "EXAMPLES", ())
            yield from [c for c in given if type(c) is cls][:count]


def fits(c: nc.Constraint, w: torch.Tensor) -> bool:
    try:
        c(w)
    except (TypeError, ValueError):
        return False
    return True


def same(found: torch.Tensor, expected: torch.Tensor, what: object) -> None:
    """Equal to a few units of the last place: torch adds in an order that depends on the shape."""
    eps = torch.finfo(expected.dtype).eps
    steps = 512 if expected.dtype == torch.float64 else 4  # nothing wider adds in double
    torch.testing.assert_close(
        found,
        expected,
        rtol=steps * eps,
        atol=steps * eps,
        equal_nan=True,
        msg=lambda m: f"{what}: {m}",
    )


# --------------------------------------------------------------------------------- single arrays


def check_every_set_projects_an_array_in_parts_as_the_whole_one() -> None:
    mesh, seen = line(), set()
    # In double a process without entries would be asked for the largest of them.
    cases = [((6, 8), torch.float64), ((8, 8), torch.float32)]
    if THOROUGH:
        cases += [(shape, torch.float32) for shape in SHAPES]
    for c in examples():
        for shape, dtype in cases:
            w = weight(shape, dtype)
            if not fits(c, w):
                continue
            expected, amount = c(w), c.violation(w)
            for axis in range(w.ndim):
                case = (c, shape, dtype, axis)
                x = distribute_tensor(w.clone(), mesh, [Shard(axis)])
                found = c(x)
                assert isinstance(found, DTensor), case
                assert found.placements == x.placements, case
                same(found.full_tensor(), expected, case)
                violation = c.violation(x)
                torch.testing.assert_close(
                    violation.full_tensor(), amount, rtol=1e-6, atol=1e-12, msg=str(case)
                )
                assert c.project_(x) is x
                assert x.placements == (Shard(axis),), case
                same(x.full_tensor(), expected, case)
                seen.add(type(c).__name__)
    assert len(seen) > 25, seen


def check_norms_across_the_parts_cost_one_all_reduce_and_along_units_none() -> None:
    mesh = line()
    for c in NORMS:
        for dtype in DTYPES:
            w = weight((8, 6), dtype)
            for axis in (0, 1):
                for call in (c, c.project_):
                    x = distribute_tensor(w.clone(), mesh, [Shard(axis)])
                    with exchanged() as counts:
                        found = call(x)
                    # In double the groups are brought near 1 by their largest entries first.
                    sums = 2 if dtype == torch.float64 else 1
                    assert counts == ({"all_reduce": sums} if axis == 0 else {}), (c, dtype, counts)
                    same(found.full_tensor(), c(w), (c, dtype, axis))


def check_other_sets_gather_the_parts_once_and_only_across_them() -> None:
    mesh, gathering = line(), set()
    for c in examples():
        w = weight((8, 8), torch.float32)
        if not fits(c, w) or type(c).__name__ in ("Intersection", "Sequence"):
            continue
        for axis in (0, 1):
            x = distribute_tensor(w, mesh, [Shard(axis)])
            with exchanged() as counts:
                c(x)
            if axis in c._whole(2):
                assert counts == {"all_gather_into_tensor": 1}, (c, axis, counts)
                gathering.add(type(c).__name__)
            elif isinstance(c, Summed):
                assert counts in ({}, {"all_reduce": 1}), (c, axis, counts)
            elif not isinstance(c, nc.AsMatrix | nc.Relaxed):
                assert counts == {}, (c, axis, counts)
    # A process that has nothing of an array has no largest entry to tell.
    x = distribute_tensor(weight((1, 6), torch.float64), mesh, [Shard(0)])
    with exchanged() as counts:
        found = nc.MaxNorm(1.0, axis=0)(x)
    assert counts == {"all_gather_into_tensor": 1}, counts
    same(found.full_tensor(), whole(x).clip(-1, 1), "one row")
    assert {"L1Ball", "Simplex", "TopK", "Monotone", "SecondOrderCone"} <= gathering


def check_bounds_of_each_group_go_with_their_parts() -> None:
    mesh, w = line(), weight((6, 8), torch.float32)
    for bounds in ((0.1, 1.0, 2.5, 0.0, 3.0, 9.0), torch.tensor([0.1, 1.0, 2.5, 0.0, 3.0, 9.0])):
        c = nc.MaxNorm(bounds, axis=1)
        for axis in (0, 1):
            x = distribute_tensor(w, mesh, [Shard(axis)])
            same(c(x).full_tensor(), c(w), (c, axis))
    mask = nc.Mask(tuple(bool(i % 3) for i in range(8)))
    same(mask(distribute_tensor(w, mesh, [Shard(1)])).full_tensor(), mask(w), mask)


def check_meshes_of_two_dimensions() -> None:
    if (world := dist.get_world_size()) < 4:
        return
    mesh, w = init_device_mesh("cpu", (2, world // 2)), weight((8, 6), torch.float32)
    cases = {
        (Shard(0), Shard(1)): {"all_reduce": 1},
        (Shard(1), Shard(0)): {"all_reduce": 1},
        (Shard(0), Shard(0)): {},
        (Replicate(), Shard(1)): {"all_reduce": 1},
        (Replicate(), Shard(0)): {},
    }
    for placements, expected in cases.items():
        for c in (nc.MaxNorm(1.0, axis=1), nc.L1Ball(1.0, axis=1), nc.TopK(2, axis=0)):
            x = distribute_tensor(w, mesh, placements)
            with exchanged() as counts:
                found = c(x)
            assert found.placements == placements
            same(found.full_tensor(), c(w), (c, placements))
            if isinstance(c, Summed):
                assert counts == expected, (placements, counts)


def check_the_derivative_passes_through() -> None:
    mesh = line()
    for c in (nc.MaxNorm(1.0, axis=1), nc.Simplex(1.0, axis=1), nc.Monotone(axis=1), nc.NonNeg()):
        for axis in (0, 1):
            w = weight((6, 8), torch.float64)
            plain = w.clone().requires_grad_()
            (c(plain) * w.cos()).sum().backward()
            x = distribute_tensor(w, mesh, [Shard(axis)]).requires_grad_()
            factor = distribute_tensor(w.cos(), mesh, [Shard(axis)])
            (c(x) * factor).sum().backward()
            assert x.grad is not None
            assert plain.grad is not None
            torch.testing.assert_close(x.grad.full_tensor(), plain.grad, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------------------- trainings


RULES: dict[str, nc.Constraint] = {
    "0.weight": nc.MaxNorm(0.5, axis="unit"),
    "2.weight": nc.UnitNorm(axis="unit"),
    "4.weight": nc.L1Ball(1.0, axis="unit"),
    "0.bias": nc.Box(-0.01, 0.01),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range = range(6)) -> None:
    for step in steps:
        data = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 6, generator=data), torch.randint(4, (8,), generator=data)
        optimizer.zero_grad()
        nn.functional.cross_entropy(5 * model(x), y).backward()
        optimizer.step()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def trained_alone() -> nn.Module:
    model = network()
    optimizer = sgd(model)
    constrain(model, RULES, optimizer)
    train(model, optimizer)
    return model


def as_alone(model: nn.Module) -> None:
    for (name, found), expected in zip(
        model.named_parameters(), trained_alone().parameters(), strict=True
    ):
        torch.testing.assert_close(whole(found), expected.detach(), rtol=1e-4, atol=1e-6, msg=name)


def sharded(model: nn.Module) -> nn.Module:
    for layer in (model[0], model[2], model[4]):
        fully_shard(layer, mesh=line())
    return fully_shard(model, mesh=line())


def check_fsdp2_trains_as_one_process_does() -> None:
    model = sharded(network())
    optimizer = sgd(model)
    handle = constrain(model, RULES, optimizer)
    train(model, optimizer)
    as_alone(model)
    assert not any(v.full_tensor().any() for v in handle.violation().values())
    with exchanged() as counts:
        handle.project_()
    assert counts == {}, counts  # rows are what FSDP2 leaves whole


def check_fsdp2_across_its_shards() -> None:
    for c, expected in (
        (nc.MaxNorm(0.5, axis=0), {"all_reduce": 1}),
        (nc.Simplex(1.0, axis=0), {"all_gather_into_tensor": 1}),
    ):
        model = sharded(network())
        optimizer = sgd(model)
        handle = constrain(model, {"2.weight": c}, optimizer)
        train(model, optimizer, range(2))
        with exchanged() as counts:
            handle._after_step(handle._shares[0])
        assert counts == expected, (c, counts)
        assert float(c.violation(whole(model[2].weight)).max()) < 1e-6


def check_tensor_parallel_trains_as_one_process_does() -> None:
    model = network()
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, line(), plan)
    assert model[0].weight.placements == (Shard(0),)
    assert model[2].weight.placements == (Shard(1),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, foreach=False)
    handle = constrain(model, RULES, optimizer)
    train(model, optimizer)
    as_alone(model)
    with exchanged() as counts:
        handle._after_step(handle._shares[0])
    assert counts == {"all_reduce": 1}, counts  # the rows of the second layer


def check_ddp_and_zero_keep_the_ranks_alike() -> None:
    for make in (
        sgd,
        lambda m: ZeroRedundancyOptimizer(m.parameters(), torch.optim.SGD, lr=0.2, momentum=0.9),
    ):
        model = nn.parallel.DistributedDataParallel(network())
        optimizer = make(model)
        handle = constrain(model, RULES, optimizer)
        with exchanged() as counts:
            handle.project_()
        assert counts == {}
        train(model, optimizer)
        as_alone(model.module)
        for parameter in model.parameters():
            every = [torch.empty_like(parameter) for _ in range(dist.get_world_size())]
            dist.all_gather(every, parameter.detach().contiguous())
            assert all(torch.equal(one, every[0]) for one in every)


def check_a_distributed_checkpoint_goes_on_bit_for_bit() -> None:
    places = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(places)
    try:
        unbroken = sharded(network())
        optimizer = sgd(unbroken)
        constrain(unbroken, RULES, optimizer)
        train(unbroken, optimizer, range(3))
        weights, state = get_state_dict(unbroken, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=places[0])
        train(unbroken, optimizer, range(3, 6))

        resumed = sharded(network())
        optimizer = sgd(resumed)
        weights, state = get_state_dict(resumed, optimizer)
        held = {"model": weights, "optimizer": state}
        dcp.load(held, checkpoint_id=places[0])
        set_state_dict(
            resumed,
            optimizer,
            model_state_dict=held["model"],
            optim_state_dict=held["optimizer"],
        )
        before = copy.deepcopy([whole(p).clone() for p in resumed.parameters()])
        constrain(resumed, RULES, optimizer, step=3)
        for parameter, loaded in zip(resumed.parameters(), before, strict=True):
            assert torch.equal(whole(parameter), loaded)  # what was saved is inside
        train(resumed, optimizer, range(3, 6))
        for found, expected in zip(resumed.parameters(), unbroken.parameters(), strict=True):
            assert torch.equal(whole(found), whole(expected))
    finally:
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(places[0])


def check_project_once_reaches_sharded_weights() -> None:
    model, alone = sharded(network()), network()
    for one in (model, alone):
        project_(one, RULES)
    for found, expected in zip(model.parameters(), alone.parameters(), strict=True):
        same(whole(found), expected.detach(), "project_")


def outcomes() -> dict[str, str]:
    found = {}
    checks: dict[str, Callable[[], Any]] = {
        name: value for name, value in globals().items() if name.startswith("check_")
    }
    for name, check in checks.items():
        try:
            check()
            found[name] = ""
        except Exception:  # reported by the test that started this
            found[name] = traceback.format_exc()
            break  # the processes may be out of step from here on
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = outcomes()
    rank = os.environ["RANK"]
    Path(f"{sys.argv[1]}.{rank}").write_text(json.dumps(found))
    if any(found.values()):
        os._exit(1)  # another process may wait for this one
    dist.destroy_process_group()
