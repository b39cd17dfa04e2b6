"""Constraints in Lightning's Trainer."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, final

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints_torch._attach import Handle, constrain
from normconstraints_torch._weights import unwrap

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        # The same library under its other name. A Trainer of the one takes callbacks of the other.
        try:
            from pytorch_lightning import Callback
        except ImportError as error:
            raise ImportError(
                "normconstraints_torch.lightning needs Lightning; run: "
                'pip install "normconstraints[lightning]"'
            ) from error

__all__ = ["ConstraintCallback"]


@final
class ConstraintCallback(Callback):
    """Project weights of a LightningModule after every step of its optimizers.

    Parameters
    ----------
    rules : Rules or mapping to Constraint, Scheduled or None
        Which weights get which constraint, as for `normconstraints_torch.constrain`. Names are
        those of the parameters of the LightningModule.
    report_every : int, optional
        Record what the projections do, at steps 0, `report_every` and so on, in ``handle.report``
        of each of the `handles`, and log it to the loggers of the Trainer.

    Attributes
    ----------
    handles : tuple of Handle
        What training attached, one for each optimizer; still there when it is over.

    Raises
    ------
    TypeError
        If `rules` are none.

    Notes
    -----
    It attaches when the weights have been made, loaded and moved, before the first validation, and
    projects them then; when training ends, well or not, it takes itself off. What Lightning calls
    after a batch is called for each micro-batch of an accumulated gradient, so the steps are those
    that the optimizers themselves report: gradient accumulation, manual optimization, mixed
    precision and closures make no difference.

    With several optimizers each weight is projected after the steps of the one that updates it, and
    these are the steps that its `Scheduled` constraint counts; one that none updates goes with the
    first. The counts are saved in checkpoints, and go on with ``fit(ckpt_path=...)``. From a
    checkpoint without them a single optimizer goes on from ``trainer.global_step``, several begin
    at 0.

    A Trainer takes one ConstraintCallback; put all rules into it.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from normconstraints_torch.lightning import ConstraintCallback
    >>> ConstraintCallback({"*.weight": nc.MaxNorm(1.0, axis="unit")})
    ConstraintCallback(Rules({'*.weight': MaxNorm(max_value=1.0, axis='unit')}))
    """

    def __init__(
        self,
        rules: Rules | Mapping[Any, Constraint | Scheduled | None],
        *,
        report_every: int | None = None,
    ) -> None:
        self.handles: tuple[Handle, ...] = ()
        self._rules = Rules.of(rules)
        self._report_every = report_every
        self._counts: list[int] | None = None  # of a checkpoint, or of the run before
        self._logged: list[int] = []
        self._trainer: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"ConstraintCallback({self._rules!r})"

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights."""
        return {name: v for handle in self.handles for name, v in handle.violation().items()}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget the counts of another Trainer."""
        if stage == "fit" and (self._trainer is None or self._trainer() is not trainer):
            self._trainer = weakref.ref(trainer)
            self.handles, self._counts = (), None

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach before the first validation, if there is one."""
        self._attach(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach."""
        self._attach(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was recorded, if anything was."""
        if self._report_every is None:
            return
        for i, handle in enumerate(self.handles):
            new = list(islice(handle.report.scalars(), self._logged[i], None))
            self._logged[i] += len(new)
            for step, scalars in groupby(new, key=itemgetter(2)):
                metrics = {tag: value for tag, value, _ in scalars}
                for logger in trainer.loggers:
                    logger.log_metrics(metrics, step=step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the constraints off; the weights stay as they are."""
        self._remove()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the constraints off."""
        self._remove()

    def state_dict(self) -> dict[str, Any]:
        """The counts of steps, one for each optimizer."""
        return {"steps": [handle.step for handle in self.handles] or self._counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the counts of a checkpoint."""
        self.handles, self._counts = (), state_dict["steps"]

    def _attach(self, trainer: Any, module: torch.nn.Module) -> None:
        optimizers = trainer.optimizers
        counts = self.state_dict()["steps"]
        if counts is None:
            counts = [trainer.global_step if len(optimizers) == 1 else 0] * len(optimizers)
        if len(counts) != len(optimizers):
            raise ValueError(
                "ConstraintCallback: the checkpoint must have a count of steps for each of "
                f"{len(optimizers)} optimizers, got {counts}; train on with the optimizers of "
                "before, or load the weights alone"
            )
        self._remove()
        self.handles = tuple(
            constrain(module, rules, optimizer, step=count, report_every=self._report_every)
            for optimizer, rules, count in zip(
                optimizers, _shares(self._rules, module, optimizers), counts, strict=True
            )
        )
        self._logged = [0] * len(optimizers)

    def _remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _shares(
    rules: Rules, module: torch.nn.Module, optimizers: list[torch.optim.Optimizer]
) -> list[Rules]:
    """The rules of the weights that each optimizer updates; the first also has those of none."""
    if len(optimizers) == 1:
        return [rules]  # as they were written, for the errors
    owners = {
        id(parameter): i
        for i, optimizer in enumerate(optimizers)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    shares: list[dict[Any, Constraint | Scheduled | None]] = [{} for _ in optimizers]
    for bound in rules.bind(unwrap(module)):
        owner = owners.get(id(bound.weight.array), 0)
        shares[owner][re.compile(re.escape(bound.name))] = bound.constraint
    return [Rules(share) for share in shares]
