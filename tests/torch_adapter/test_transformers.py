"""Constraints in the Trainer of transformers and in loops of Accelerate, run for real."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from influence import check_influence
from thin import thin

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

import normconstraints as nc  # noqa: E402
from normconstraints.schedules import Linear  # noqa: E402
from normconstraints_torch import constrain  # noqa: E402
from normconstraints_torch._optimizers import unwrap_optimizer  # noqa: E402
from normconstraints_torch.transformers import ConstraintCallback  # noqa: E402

BOUND = 0.5
RULES = {"*.weight": nc.MaxNorm(BOUND, axis="unit")}
SHRINKING = nc.Scheduled(nc.MaxNorm(0.5, axis="unit"), {"max_value": Linear(0.5, 0.1, steps=20)})


class Classifier(torch.nn.Module):
    """What a Trainer takes: it gets the columns of the data by name and returns the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        return {"loss": loss, "logits": logits}


class Loud(Classifier):
    """Its gradients overflow at first."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": 100 * super().forward(x, labels)["loss"]}


def data(count: int = 32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(6, generator=generator),
            "labels": torch.randint(3, (), generator=generator),
        }
        for _ in range(count)
    ]


class Watch(transformers.TrainerCallback):
    """Stands after the constraints, and looks at the weights after each step of the optimizer."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.micro = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self.started = largest(model)
        unwrap_optimizer(kwargs["optimizer"]).register_step_post_hook(
            lambda *_: self.norms.append(largest(model))
        )

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.micro += 1


def largest(module: torch.nn.Module) -> float:
    """The largest norm of a unit, without the library's help."""
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    return max(float(w.detach().double().norm(dim=1).max()) for w in weights)


def trainer(model: Any, folder: Path, *callbacks: Any, train: Any = None, **options: Any) -> Any:
    defaults = {"max_steps": 8, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.5}
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **(defaults | options),
    )
    made = transformers.Trainer(
        model,
        arguments,
        train_dataset=data() if train is None else train,
        eval_dataset=data(8),
        callbacks=list(callbacks),
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Clipping, accumulation, and the forward pass in bfloat16 come before the step.
@pytest.mark.parametrize(
    "options",
    thin(
        [
            {"max_grad_norm": 0.0},
            {"max_grad_norm": 0.1, "learning_rate": 5.0},
            {"gradient_accumulation_steps": 3},
            {"bf16": True},
            {"optim": "adamw_torch"},
            {"optim": "adamw_torch_fused"},
        ],
        2,
    ),
    ids=str,
)
def test_the_constraint_holds_after_every_step(options: dict[str, Any], tmp_path: Path) -> None:
    callback, watch, free = ConstraintCallback(RULES), Watch(), Watch()
    for model, callbacks in ((Classifier(), [callback, watch]), (Classifier(), [free])):
        trainer(model, tmp_path, *callbacks, **options).train()
    assert len(watch.norms) == 8
    assert 0.99 * BOUND < watch.started <= BOUND  # initial weights too
    assert all(0.99 * BOUND < norm <= BOUND for norm in watch.norms)
    assert free.norms[-1] > 1.2 * BOUND  # or the test says nothing
    if "gradient_accumulation_steps" in options:
        assert watch.micro > 8
    assert callback.handle is not None
    assert callback.handle.step == 8
    assert list(callback.violation()) == ["net.0.weight", "net.2.weight"]
    assert not any(v.any() for v in callback.violation().values())


# Growing: the radius of step 0 is too small for the weights of the checkpoint.
@pytest.mark.parametrize("ends", [(0.5, 0.1), (0.1, 0.5)], ids=["shrinking", "growing"])
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(
    ends: tuple[float, float], tmp_path: Path
) -> None:
    radius = Linear(*ends, steps=20)
    rules = {"*.weight": nc.Scheduled(nc.MaxNorm(1.0, axis="unit"), {"max_value": radius})}
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "optim": "adamw_torch"}
    unbroken = Classifier()
    trainer(unbroken, tmp_path / "a", ConstraintCallback(rules), **options).train()
    first = trainer(Classifier(), tmp_path / "b", ConstraintCallback(rules), **options)

    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = state.global_step == 6
            return control

    first.add_callback(Stops())
    first.train()
    resumed, callback, watch = Classifier(), ConstraintCallback(rules), Watch()
    second = trainer(resumed, tmp_path / "b", callback, watch, **options)
    second.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-4"))
    assert same(unbroken, resumed)
    assert callback.handle is not None
    assert callback.handle.step == 8
    assert watch.norms == pytest.approx([radius(i) for i in range(4, 8)], rel=1e-6)


def test_steps_are_those_that_the_trainer_counts_also_if_a_scaler_skips_some(
    tmp_path: Path,
) -> None:
    callback, watch = ConstraintCallback({"*.weight": SHRINKING}), Watch()
    made = trainer(Loud(), tmp_path, callback, watch)
    # What fp16=True makes on a GPU.
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    made.train()
    skipped = 8 - len(watch.norms)
    assert 0 < skipped < 8
    assert watch.norms == pytest.approx([0.5 - 0.02 * i for i in range(skipped, 8)], rel=1e-6)


def test_loaded_weights_of_a_free_training_are_projected(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 8}
    trainer(free := Classifier(), tmp_path, **options).train()
    assert largest(free) > BOUND
    watch = Watch()
    after = trainer(Classifier(), tmp_path, ConstraintCallback(RULES), watch, max_steps=10)
    after.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert len(watch.norms) == 2
    assert max(watch.started, *watch.norms) <= BOUND


def test_the_best_model_is_inside_when_training_ends(tmp_path: Path) -> None:
    model = Classifier()
    callback = ConstraintCallback({"*.weight": SHRINKING})
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "eval_strategy": "steps",
        "save_steps": 2,
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": True,  # so that the best is none of the last
    }
    made = trainer(model, tmp_path, callback, **options)
    made.train()
    best = Path(made.state.best_model_checkpoint)
    assert best.name != "checkpoint-8"
    stored = Classifier()
    stored.load_state_dict(
        pytest.importorskip("safetensors.torch").load_file(best / "model.safetensors")
    )
    radius = 0.5 - 0.02 * 7
    assert largest(stored) > radius + 0.01  # it was saved with a larger radius
    assert radius * 0.999 < largest(model) <= radius
    assert not any(v.any() for v in callback.violation().values())


def test_it_takes_itself_off_when_training_ends(tmp_path: Path) -> None:
    made = trainer(Classifier(), tmp_path, ConstraintCallback(RULES))
    made.train()
    assert not unwrap_optimizer(made.optimizer)._optimizer_step_post_hooks
    made.train()  # attaches again
    assert not unwrap_optimizer(made.optimizer)._optimizer_step_post_hooks


def test_a_report_is_kept(tmp_path: Path) -> None:
    callback = ConstraintCallback(RULES, report_every=4)
    trainer(Classifier(), tmp_path, callback).train()
    assert callback.handle is not None
    assert [(e.step, e.name) for e in callback.handle.report.entries] == [
        (step, name) for step in (0, 4) for name in ("net.0.weight", "net.2.weight")
    ]


def test_a_name_that_matches_nothing_is_refused_before_training(tmp_path: Path) -> None:
    model = Classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrong = ConstraintCallback({"net.0.wieght": RULES["*.weight"]})
    with pytest.raises(ValueError, match=r"'net\.0\.wieght'.*did you mean 'net\.0\.weight'"):
        trainer(model, tmp_path, wrong).train()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_before_training_there_is_nothing_attached() -> None:
    callback = ConstraintCallback(RULES)
    assert callback.handle is None
    assert callback.violation() == {}
    with pytest.raises(TypeError, match="must be a constraint or None, got 3"):
        ConstraintCallback({"*.weight": 3})


# -------------------------------------------------------------------------------- GPT-2's layer


def test_the_linear_layer_of_gpt_2_has_its_inputs_first() -> None:
    torch.manual_seed(0)
    layer = transformers.pytorch_utils.Conv1D(5, 3)  # 5 outputs of 3 inputs
    x = torch.randn(3)
    derivative = torch.autograd.functional.jacobian(
        lambda weight: torch.func.functional_call(layer, {"weight": weight}, (x,)), layer.weight
    )
    check_influence(nc.layout.of(layer, "weight"), derivative)
    with pytest.raises(ValueError, match="incoming weights of one unit"):
        nc.Rules({"bias": RULES["*.weight"]}).bind(layer)


def test_a_language_model_with_tied_weights_stays_inside(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=11,
            n_positions=8,
            n_embd=8,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            loss_type="ForCausalLM",
        )
    )
    bound = 0.01  # below the initial norms, at which some weights stay
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    callback = ConstraintCallback(
        {"*.c_*.weight": nc.MaxNorm(bound, axis="unit"), "lm_head.weight": nc.UnitNorm(axis="unit")}
    )
    tokens = torch.randint(11, (16, 8), generator=torch.Generator().manual_seed(1))
    train = [{"input_ids": row, "labels": row} for row in tokens]
    trainer(model, tmp_path, callback, train=train, max_steps=4).train()
    block = model.transformer.h[0]
    norms = [block.get_submodule(n).weight.detach().double().norm(dim=0) for n in layers]
    assert all(float(n.max()) <= bound for n in norms)
    assert all(float(n.max()) > 0.99 * bound for n in norms)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight.detach().norm(dim=1).tolist() == pytest.approx([1.0] * 11)


# ----------------------------------------------------------------------------------- Accelerate


def test_a_loop_of_accelerate_projects_after_the_steps_that_it_takes() -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Classifier()
    plain = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = torch.utils.data.DataLoader(data(), batch_size=4)
    prepared, optimizer, loader = accelerator.prepare(model, plain, loader)
    assert optimizer is not plain
    handle = constrain(prepared, RULES, optimizer)
    for batch in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
        assert largest(model) <= BOUND
    assert handle.step == 4
    assert largest(model) > 0.99 * BOUND


def test_a_loop_of_fabric_projects_after_its_steps() -> None:
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu")
    module = Classifier()
    model, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.5))
    handle = constrain(model, RULES, optimizer)
    for row in torch.utils.data.DataLoader(data(), batch_size=8):
        optimizer.zero_grad()
        fabric.backward(model(**row)["loss"])
        optimizer.step()
        assert largest(module) <= BOUND
    assert handle.step == 4


def test_wrappers_around_wrappers_are_looked_through() -> None:
    plain = torch.optim.SGD(Classifier().parameters(), lr=0.5)
    accelerator = accelerate.Accelerator(cpu=True)
    assert unwrap_optimizer(accelerator.prepare(plain)) is plain
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu")
    assert unwrap_optimizer(fabric.setup_optimizers(plain)) is plain
    assert (
        unwrap_optimizer(accelerate.optimizer.AcceleratedOptimizer(accelerator.prepare(plain)))
        is plain
    )


class AcceleratedOptimizer(torch.optim.SGD):
    """Of the same name, and no wrapper."""

    optimizer = None


def test_an_optimizer_of_the_same_name_is_itself() -> None:
    own = AcceleratedOptimizer(Classifier().parameters(), lr=0.5)
    assert unwrap_optimizer(own) is own
    assert unwrap_optimizer(None) is None


# ------------------------------------------------------------------------------------- imports


def test_without_it_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    spec = importlib.util.find_spec("normconstraints_torch.transformers")
    assert spec is not None
    assert spec.loader is not None
    expected = r'needs transformers; run: pip install "normconstraints\[transformers\]"'
    with pytest.raises(ImportError, match=expected):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
