"""Constraints in Lightning's Trainer, run for real."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.loggers.logger import Logger  # noqa: E402

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_torch import Handle, constrain  # noqa: E402
from normconstraints_torch._optimizers import unwrap_optimizer  # noqa: E402
from normconstraints_torch.lightning import ConstraintCallback  # noqa: E402

pytestmark = [
    # Lightning's advice on loaders and intervals.
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    # It uses what torch has deprecated.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

BOUND = 0.5
RULES = {"*.weight": nc.MaxNorm(BOUND, axis="unit")}
# Another radius at each step: to be off by one is to end somewhere else.
SHRINKING = nc.Scheduled(nc.MaxNorm(0.5, axis="unit"), {"max_value": Linear(0.5, 0.1, steps=20)})
BATCHES = 4


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def data() -> Any:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8 * BATCHES, 6, generator=generator)
    y = torch.randint(3, (8 * BATCHES,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)


class One(pl.LightningModule):
    """One optimizer, which Lightning asks to step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = network()

    def loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x.to(self.dtype)).float(), y)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


class Two(pl.LightningModule):
    """Two optimizers that the module steps itself, the second twice as often."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.maker, self.critic = network(), network()
        self.free = torch.nn.Linear(6, 2)  # of no optimizer

    def training_step(self, batch: Any, _: int) -> None:
        makes, judges = self.optimizers()
        x, _ = batch
        for optimizer, sign in ((judges, 1), (judges, 1), (makes, -1)):
            optimizer.zero_grad()
            self.manual_backward(sign * (self.critic(x) - self.maker(x)).square().mean())
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.maker.parameters(), lr=0.1),
            torch.optim.SGD(self.critic.parameters(), lr=0.3, momentum=0.9),
        ]


class Watch(pl.Callback):
    """Stands after the constraints, and looks at the weights after each step of an optimizer."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.first_validated: float | None = None

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self.first_validated = largest(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.started = largest(pl_module)
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.norms.append(largest(pl_module)))


def largest(module: torch.nn.Module) -> float:
    """The largest norm of a unit, without the library's help."""
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    return max(float(w.detach().double().norm(dim=1).max()) for w in weights)


def trainer(*callbacks: Any, package: Any = pl, **options: Any) -> Any:
    options = {"max_epochs": 2, "logger": False, **options}
    return package.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **options,
    )


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def hooks(trainer: Any) -> int:
    return sum(len(optimizer._optimizer_step_post_hooks) for optimizer in trainer.optimizers)


def test_the_constraint_holds_after_every_step() -> None:
    callback, watch, free = ConstraintCallback(RULES), Watch(), Watch()
    trainer(callback, watch).fit(One(), data())
    trainer(free).fit(One(), data())
    assert len(watch.norms) == 2 * BATCHES
    assert 0.99 * BOUND < watch.started <= BOUND  # initial weights too
    assert all(0.99 * BOUND < norm <= BOUND for norm in watch.norms)
    assert free.norms[-1] > 2 * BOUND  # or the test says nothing
    assert {name: int(v.count_nonzero()) for name, v in callback.violation().items()} == {
        "net.0.weight": 0,
        "net.2.weight": 0,
    }


def test_the_first_validation_sees_projected_weights() -> None:
    class Validated(One):
        def validation_step(self, batch: Any, _: int) -> None:
            self.loss(batch)

    watch = Watch()
    trainer(ConstraintCallback(RULES), watch).fit(Validated(), data(), data())
    assert watch.first_validated is not None
    assert watch.first_validated <= BOUND
    assert max(watch.norms) <= BOUND


def test_an_accumulated_gradient_is_one_step() -> None:
    callback, watch = ConstraintCallback({"*.weight": SHRINKING}), Watch()
    trainer(callback, watch, accumulate_grad_batches=2, max_epochs=3).fit(One(), data())
    assert callback.handle is not None
    assert callback.handle.step == len(watch.norms) == 3 * BATCHES // 2
    assert watch.norms == pytest.approx([0.5, 0.48, 0.46, 0.44, 0.42, 0.4], rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true"])
def test_reduced_precision_keeps_the_bound(precision: str) -> None:
    watch = Watch()
    module = One()
    trainer(ConstraintCallback(RULES), watch, precision=precision).fit(module, data())
    assert module.net[0].weight.dtype == {
        "bf16-true": torch.bfloat16,
        "16-true": torch.float16,
    }.get(precision, torch.float32)
    assert len(watch.norms) == 2 * BATCHES
    assert max(watch.norms) <= BOUND


def test_steps_that_a_scaler_skips_are_not_counted() -> None:
    # precision="16-mixed" on a CPU becomes bf16-mixed, which needs no scaler; the plugin has one.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=1000)
    half = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)
    callback, watch = ConstraintCallback({"*.weight": SHRINKING}), Watch()
    running = trainer(callback, watch, plugins=[half])
    running.fit(One(), data())
    assert running.global_step == 2 * BATCHES
    taken = callback.handle.step
    assert 0 < taken < 2 * BATCHES
    assert watch.norms == pytest.approx([0.5 - 0.02 * i for i in range(taken)], rel=1e-6)


def test_a_closure_that_is_called_many_times_ends_inside() -> None:
    class Quasi(One):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=1.0, max_iter=5)

    callback, watch = ConstraintCallback(RULES), Watch()
    trainer(callback, watch).fit(Quasi(), data())
    assert callback.handle.step == len(watch.norms) == 2 * BATCHES
    assert max(watch.norms) <= BOUND


def test_a_compiled_module_keeps_its_names() -> None:
    watch = Watch()
    compiled = torch.compile(One(), backend="eager")
    trainer(ConstraintCallback({"net.*.weight": RULES["*.weight"]}), watch).fit(compiled, data())
    assert len(watch.norms) == 2 * BATCHES
    assert max(watch.norms) <= BOUND
    torch._dynamo.reset()


# -------------------------------------------------------------------------- several optimizers


def test_each_of_several_optimizers_projects_its_own_weights_and_counts_its_own_steps() -> None:
    class Apart(pl.Callback):
        """The radii after each step."""

        def __init__(self) -> None:
            self.seen: dict[str, list[float]] = {"maker": [], "critic": []}

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for name, optimizer in zip(self.seen, trainer.optimizers, strict=True):
                optimizer.register_step_post_hook(
                    lambda *_, name=name: self.seen[name].append(
                        largest(pl_module.get_submodule(name))
                    )
                )

    radius = Linear(0.5, 0.1, steps=40)
    rule = nc.Scheduled(nc.FixedNorm(0.5, axis="unit"), {"value": radius})
    callback, apart = ConstraintCallback({"*.weight": rule}), Apart()
    trainer(callback, apart).fit(Two(), data())
    assert callback.handle is not None
    assert callback.handle.steps == (2 * BATCHES, 4 * BATCHES)
    assert apart.seen["maker"] == pytest.approx([radius(i) for i in range(8)], rel=1e-5)
    assert apart.seen["critic"] == pytest.approx([radius(i) for i in range(16)], rel=1e-5)
    # What no optimizer updates is projected with the first.
    assert set(callback.violation()) == {
        *(f"{name}.{i}.weight" for name in apart.seen for i in (0, 2)),
        "free.weight",
    }
    assert not any(v.abs().max() > 1e-6 for v in callback.violation().values())


# ---------------------------------------------------------------------- checkpoints and resume


@pytest.mark.parametrize("module", [One, Two])
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(
    module: Callable[[], Any], tmp_path: Path
) -> None:
    rules = {"*.weight": SHRINKING}
    unbroken = module()
    trainer(ConstraintCallback(rules), max_epochs=4).fit(unbroken, data())
    first = trainer(ConstraintCallback(rules), max_epochs=2)
    first.fit(module(), data())
    first.save_checkpoint(tmp_path / "last.ckpt")
    callback, resumed = ConstraintCallback(rules), module()
    second = trainer(callback, max_epochs=4)
    second.fit(resumed, data(), ckpt_path=tmp_path / "last.ckpt")
    assert same(unbroken, resumed)
    counts = [4 * BATCHES] if module is One else [4 * BATCHES, 8 * BATCHES]
    assert callback.handle is not None
    assert list(callback.handle.steps) == counts
    # The count is plain data, which torch.load takes with weights_only.
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["ConstraintCallback"]
    assert saved == {"steps": [count // 2 for count in counts]}

    # And it is what makes the difference.
    class Forgets(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for share in forgetful.handle._shares:
                share.step = 0

    forgetful, other = ConstraintCallback(rules), module()
    third = trainer(forgetful, Forgets(), max_epochs=4)
    third.fit(other, data(), ckpt_path=tmp_path / "last.ckpt")
    assert not same(unbroken, other)


def test_loaded_weights_of_a_free_training_are_projected_and_its_steps_count(
    tmp_path: Path,
) -> None:
    before = trainer(max_epochs=2)
    before.fit(free := One(), data())
    before.save_checkpoint(tmp_path / "free.ckpt")
    assert largest(free) > BOUND
    callback, watch = ConstraintCallback(RULES), Watch()
    after = trainer(callback, watch, max_epochs=3)
    after.fit(One(), data(), ckpt_path=tmp_path / "free.ckpt")
    assert max(watch.started, *watch.norms) <= BOUND
    assert callback.handle.step == 3 * BATCHES


def test_a_checkpoint_with_other_counts_is_refused(tmp_path: Path) -> None:
    first = trainer(ConstraintCallback(RULES))
    first.fit(One(), data())
    first.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["ConstraintCallback"]["steps"] = [3, 4]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"count of steps for each of 1 optimizers, got \[3, 4\]"):
        trainer(ConstraintCallback(RULES), max_epochs=4).fit(
            One(), data(), ckpt_path=tmp_path / "last.ckpt"
        )


def test_a_second_fit_of_a_trainer_goes_on_and_another_trainer_begins() -> None:
    callback, module = ConstraintCallback({"*.weight": SHRINKING}), Two()
    running = trainer(callback)
    running.fit(module, data())
    running.fit_loop.max_epochs = 3
    running.fit(module, data())
    assert callback.handle is not None
    assert callback.handle.steps == (3 * BATCHES, 6 * BATCHES)
    trainer(callback).fit(module, data())
    assert callback.handle is not None
    assert callback.handle.steps == (2 * BATCHES, 4 * BATCHES)


def test_a_checkpoint_written_after_each_step_holds_projected_weights(tmp_path: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    running = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver, ConstraintCallback(RULES)],
    )
    running.fit(One(), data())
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == BATCHES
    for file in files:
        weights = torch.load(file, weights_only=True)["state_dict"]
        assert float(weights["net.0.weight"].norm(dim=1).max()) <= BOUND * (1 + 1e-6)


# ------------------------------------------------------------------------------- begin and end


def test_it_takes_itself_off_when_training_ends() -> None:
    running = trainer(ConstraintCallback(RULES))
    running.fit(One(), data())
    assert hooks(running) == 0


def test_it_takes_itself_off_when_training_fails() -> None:
    class Fails(One):
        def training_step(self, batch: Any, i: int) -> torch.Tensor:
            if i == 2:
                raise RuntimeError("on purpose")
            return super().training_step(batch, i)

    callback = ConstraintCallback(RULES)
    running = trainer(callback)
    with pytest.raises(RuntimeError, match="on purpose"):
        running.fit(Fails(), data())
    assert hooks(running) == 0
    assert callback.handle.step == 2


def test_a_name_that_matches_nothing_is_refused_before_training() -> None:
    module = One()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"'net\.0\.wieght'.*did you mean 'net\.0\.weight'"):
        trainer(ConstraintCallback({"net.0.wieght": RULES["*.weight"]})).fit(module, data())
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_rules_are_looked_at_when_the_callback_is_made() -> None:
    with pytest.raises(TypeError, match="must be a constraint or None, got 3"):
        ConstraintCallback({"*.weight": 3})


def test_two_of_them_in_one_trainer_are_refused() -> None:
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer(ConstraintCallback(RULES), ConstraintCallback(RULES))


# --------------------------------------------------------------------------------- the reports


class Memory(Logger):
    """Keeps what is logged of the constraints."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        found = {k: v for k, v in metrics.items() if k.startswith("normconstraints/")}
        if found:
            self.seen.append((step, found))

    def log_hyperparams(self, *_: Any) -> None:
        pass


def test_reports_go_to_the_loggers_once() -> None:
    memory, callback = Memory(), ConstraintCallback(RULES, report_every=2)
    running = trainer(callback, logger=memory, accumulate_grad_batches=2, max_epochs=4)
    running.fit(One(), data())
    assert [step for step, _ in memory.seen] == [0, 2, 4, 6]
    expected: dict[int, dict[str, float]] = {}
    for tag, value, step in callback.handle.report.scalars():
        expected.setdefault(step, {})[tag] = value
    assert dict(memory.seen) == expected  # type: ignore[arg-type]
    assert "normconstraints/at_bound/net.0.weight" in expected[0]
    silent = Memory()
    trainer(ConstraintCallback(RULES), logger=silent).fit(One(), data())
    assert silent.seen == []


# -------------------------------------------------------------------------------- the packages


def test_the_other_name_of_the_library_takes_it_too() -> None:
    other = pytest.importorskip("pytorch_lightning")

    class Other(other.LightningModule):
        __init__ = One.__init__
        loss = One.loss
        training_step = One.training_step
        configure_optimizers = One.configure_optimizers

    # One's __init__ calls super() of its own class.
    def make() -> Any:
        module = Other.__new__(Other)
        other.LightningModule.__init__(module)
        torch.manual_seed(0)
        module.net = network()
        return module

    callback = ConstraintCallback(RULES)
    assert not isinstance(callback, other.Callback)
    module, twin = make(), One()
    trainer(callback, package=other).fit(module, data())
    trainer(ConstraintCallback(RULES)).fit(twin, data())
    assert callback.handle.step == 2 * BATCHES
    assert same(module, twin)


def anew() -> Any:
    """The module as it is if it is imported now."""
    spec = importlib.util.find_spec("normconstraints_torch.lightning")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_lightning_its_other_name_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = pytest.importorskip("pytorch_lightning")
    assert not issubclass(anew().ConstraintCallback, other.Callback)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    assert issubclass(anew().ConstraintCallback, other.Callback)


def test_without_either_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    expected = r'needs Lightning; run: pip install "normconstraints\[lightning\]"'
    with pytest.raises(ImportError, match=expected):
        anew()


def test_importing_the_adapter_loads_neither_trainer() -> None:
    code = (
        "import sys, normconstraints_torch; print([m for m in "
        "('lightning', 'pytorch_lightning', 'transformers', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_optimizer_of_a_module_is_found_in_its_wrapper() -> None:
    found: list[Any] = []

    class Looks(One):
        def on_train_start(self) -> None:
            found.append((self.optimizers(), self.trainer.optimizers[0]))

    trainer(max_epochs=1).fit(Looks(), data())
    ((wrapper, optimizer),) = found
    assert type(wrapper) is not type(optimizer)
    assert unwrap_optimizer(wrapper) is optimizer
    assert unwrap_optimizer(optimizer) is optimizer
    # So that a module may do without the callback.
    module = One()
    constrain(module, RULES, wrapper)
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_before_training_there_is_nothing_attached() -> None:
    callback = ConstraintCallback(RULES)
    assert callback.handle is None
    assert callback.violation() == {}
    trainer(callback, max_epochs=1).fit(One(), data())
    assert isinstance(callback.handle, Handle)
