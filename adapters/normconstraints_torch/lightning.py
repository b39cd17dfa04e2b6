"""Constraints in Lightning's Trainer."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, final

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints_torch._attach import Handle, constrain

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
        Record what the projections do, at steps 0, `report_every` and so on, in
        ``callback.handle.report``, and log it to the loggers of the Trainer.

    Attributes
    ----------
    handle : Handle or None
        What training attached, to all optimizers; still there when it is over.

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
        self.handle: Handle | None = None
        self._rules = Rules.of(rules)
        self._report_every = report_every
        self._counts: list[int] | None = None  # of a checkpoint, or of the run before
        self._logged = 0
        self._trainer: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"ConstraintCallback({self._rules!r})"

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights."""
        return {} if self.handle is None else self.handle.violation()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget the counts of another Trainer."""
        if stage == "fit" and (self._trainer is None or self._trainer() is not trainer):
            self._trainer = weakref.ref(trainer)
            self.handle, self._counts = None, None

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
        if self._report_every is None or self.handle is None:
            return
        new = list(islice(self.handle.report.scalars(), self._logged, None))
        self._logged += len(new)
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
        return {"steps": self._counts if self.handle is None else list(self.handle.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the counts of a checkpoint."""
        self.handle, self._counts = None, state_dict["steps"]

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
        self.handle = constrain(
            module, self._rules, optimizers, step=counts, report_every=self._report_every
        )
        self._logged = 0

    def _remove(self) -> None:
        if self.handle is not None:
            self.handle.remove()
