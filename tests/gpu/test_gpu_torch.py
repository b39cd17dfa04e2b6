"""PyTorch on a CUDA device: optimizers that work there alone, graphs, streams, generated code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints.testing import BACKENDS  # noqa: E402
from normconstraints.testing.backends._torch import never_waiting  # noqa: E402
from normconstraints_torch import constrain, parametrize, penalty, project_  # noqa: E402

_MISSING = BACKENDS["torch cuda"].missing()
if _MISSING is not None:
    pytest.skip(_MISSING, allow_module_level=True)

# What compiles first makes torch import what uses its own deprecated functions.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

RULES: dict[str, Any] = {
    "0.weight": nc.MaxNorm(0.5, axis="unit"),
    "2.weight": nc.UnitNorm(axis="unit"),
    "4.weight": nc.L1Ball((1.0, 0.5, 0.25, 2.0), axis="unit"),
    "*.bias": nc.Box(-0.1, 0.1),
}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network() -> Any:
    torch.manual_seed(0)
    relu = torch.nn.ReLU
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(16, 32), relu(), linear(32, 32), relu(), linear(32, 4)).cuda()


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(64, 16, generator=rng, dtype=dtype).cuda() for _ in range(count)]


def take(model: Any, optimizer: Any, x: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=False)
    (-model(x).square().mean()).backward()  # grows
    optimizer.step()


def weights(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
    "SGD, fused": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9, fused=True),
    "Adam, foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW, fused and capturable": lambda p: torch.optim.AdamW(
        p, lr=0.1, fused=True, capturable=True
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bound_holds_after_each_step(name: str) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = constrain(model, RULES, optimizer)
    before = weights(model)
    for x in batches(10):
        take(model, optimizer, x)
        violations = handle.violation()
        assert len(violations) == 6
        assert all(v.is_cuda and not v.any() for v in violations.values())
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_the_step_and_its_projections_never_wait_for_the_device() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduled = nc.Scheduled(
        nc.MaxNorm(0.5, axis="unit"), {"max_value": Linear(0.5, 0.1, steps=4)}, every=2
    )
    radii = torch.full((4,), 0.5, device="cuda")
    beside = nc.MaxNorm(radii, axis="unit")
    rules = {**RULES, "0.weight": scheduled, "4.weight": beside & nc.L1Ball(0.75, axis="unit")}
    handle = constrain(model, rules, optimizer)
    x, *rest = batches(6)
    take(model, optimizer, x)  # what is allocated at the first step may wait
    with never_waiting():
        for x in rest:
            take(model, optimizer, x)
        handle.project_()
    with never_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        float(model[0].weight.detach().sum())  # it does see what waits


def test_a_gradient_scaler_that_skips_a_step() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    handle = constrain(model, RULES, optimizer)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    for i, x in enumerate(batches(8)):
        before = weights(model)
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = -model(x).float().square().mean()
        scaler.scale(loss).backward()
        if i == 3:
            model[0].weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        unchanged = all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
        assert unchanged == (i == 3)
        assert not any(v.any() for v in handle.violation().values())
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("name", ["SGD", "AdamW, fused and capturable"])
def test_a_whole_step_in_a_cuda_graph(name: str) -> None:
    """Replayed it gives the bits of the same steps without a graph, and the bounds hold."""

    def train(capture: bool) -> list[torch.Tensor]:
        model = network()
        optimizer = OPTIMIZERS[name](model.parameters())
        handle = constrain(model, RULES, optimizer)
        x, *rest = batches(9)
        static = x.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as torch asks for before a capture
            for _ in range(3):
                take(model, optimizer, static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if capture:
            with torch.cuda.graph(graph):
                take(model, optimizer, static)
        for x in rest:
            static.copy_(x)
            if capture:
                graph.replay()
            else:
                take(model, optimizer, static)
            assert not any(v.any() for v in handle.violation().values())
        return weights(model)

    for captured, plain in zip(train(True), train(False), strict=True):
        assert torch.equal(captured, plain)


def test_training_goes_as_it_does_on_the_cpu() -> None:
    found = []
    for device in ("cpu", "cuda"):
        model = network().to(device, torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        handle = constrain(model, RULES, optimizer)
        for x in batches(20, torch.float64):
            take(model, optimizer, x.to(device))
        assert not any(v.any() for v in handle.violation().values())
        found.append([w.cpu() for w in weights(model)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_a_model_that_moves_after_it_was_constrained() -> None:
    model = network().cpu()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = constrain(model, RULES, optimizer)
    take(model, optimizer, batches(1)[0].cpu())
    model.cuda()
    take(model, optimizer, batches(1)[0])
    assert all(v.is_cuda and not v.any() for v in handle.violation().values())


def test_small_weights_on_two_devices_are_not_stacked() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(8, 8, bias=False) for _ in range(4)])
    model[:2].cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    constrain(model, {"*": nc.MaxNorm(0.5, axis="unit")}, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    optimizer.step()
    assert [p.device.type for p in model.parameters()] == ["cuda"] * 2 + ["cpu"] * 2
    assert all(p.detach().norm(dim=1).max() <= 0.5 for p in model.parameters())


class Operations(TorchDispatchMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_weights_of_a_megabyte_are_stacked_on_a_device_only(device: str) -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(512, 512, bias=False) for _ in range(3)])
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    constrain(model, {"*": nc.MaxNorm(0.5, axis="unit")}, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    with Operations() as operations:
        optimizer.step()
    assert ("aten.stack.default" in operations.seen) == (device == "cuda")
    assert all(p.detach().norm(dim=1).max() <= 0.5 for p in model.parameters())


def test_on_a_stream_of_its_own() -> None:
    w = torch.randn(512, 512, device="cuda")
    c = nc.MaxNorm(1.0, axis=1)
    want = c(w)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        c.project_(w)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(w, want)


def test_reports_penalties_and_weights_that_are_computed() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = constrain(model, {"0.weight": RULES["0.weight"]}, optimizer, report_every=1)
    parametrize(model, "2.weight", nc.UnitNorm(axis="unit"))
    for x in batches(3):
        optimizer.zero_grad()
        loss = model(x).square().mean() + penalty(model, {"4.weight": RULES["4.weight"]})
        loss.backward()
        optimizer.step()
    assert [e.step for e in handle.report.entries] == [0, 1, 2]
    norms = model[2].weight.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-6, atol=0)
    project_(model, {"4.weight": RULES["4.weight"]})
    assert penalty(model, {"4.weight": RULES["4.weight"]}).item() == 0


MANY = [
    nc.MaxNorm(1.0, axis=1),
    nc.UnitNorm(axis=0),
    nc.MinMaxNorm(0.5, 1.0, rate=0.5, axis=1),
    nc.Box(-0.5, 0.5),
    nc.Simplex(axis=1),
    nc.L1Ball(1.0, axis=0),
    nc.TopK(3, axis=1),
    nc.Monotone(axis=0),
    nc.Symmetric(axis=(0, 1)),
]


@pytest.mark.filterwarnings("ignore")  # those of the compiler, of itself
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("c", MANY, ids=repr)
def test_generated_code(c: nc.Constraint, dtype: torch.dtype) -> None:
    """What torch.compile generates for the device: as near as the contract asks, and inside."""
    w = torch.randn(64, 64, dtype=torch.float64).to("cuda", dtype)
    compiled = torch.compile(c.project, fullgraph=True)
    eps = torch.finfo(dtype).eps
    for x in (w, 1e-3 * w, torch.zeros_like(w), 1e4 * w):
        found, want = compiled(x), c(x)
        assert found.dtype == dtype and found.is_cuda
        allowed = (8 + 6 / 4) * eps * float(want.abs().max())
        torch.testing.assert_close(found, want, rtol=0, atol=allowed)
        assert torch.equal(c(found), found) or isinstance(c, nc.Gradual)
