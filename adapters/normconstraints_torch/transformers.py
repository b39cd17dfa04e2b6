"""Constraints in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch

from normconstraints import Constraint, Rules, Scheduled
from normconstraints.layout import declare
from normconstraints_torch._attach import Handle, constrain

try:
    from transformers import TrainerCallback
    from transformers.pytorch_utils import Conv1D
except ImportError as error:
    raise ImportError(
        "normconstraints_torch.transformers needs transformers; run: "
        'pip install "normconstraints[transformers]"'
    ) from error

__all__ = ["ConstraintCallback"]

# A linear layer, and no convolution: the weights of GPT-2 are (in, out).
declare(Conv1D, weight="io", bias="o")


@final
class ConstraintCallback(TrainerCallback):
    """Project weights of a model after every step of the optimizer of a Trainer.

    Parameters
    ----------
    rules : Rules or mapping to Constraint, Scheduled or None
        Which weights get which constraint, as for `normconstraints_torch.constrain`.
    report_every : int, optional
        Record what the projections do in ``callback.handle.report``, at steps 0, `report_every` and
        so on.

    Attributes
    ----------
    handle : Handle or None
        What training attached; still there when it is over.

    Raises
    ------
    TypeError
        If `rules` are none.

    Notes
    -----
    It attaches when training begins, to the optimizer inside Accelerate's wrapper, and then
    projects the weights, loaded ones too. Clipping, accumulation and mixed precision come before.
    When training ends it projects once more, for ``load_best_model_at_end`` loads weights after the
    last step, and takes itself off: a best model of an earlier step is held to what a `Scheduled`
    constraint demands at the end.

    Steps are those of ``trainer.state.global_step``, so that they go on with
    ``train(resume_from_checkpoint=...)``. The Trainer counts a step that a GradScaler skips too.

    Examples
    --------
    >>> import normconstraints as nc
    >>> from normconstraints_torch.transformers import ConstraintCallback
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

    def __repr__(self) -> str:
        return f"ConstraintCallback({self._rules!r})"

    def violation(self) -> dict[str, torch.Tensor]:
        """How far each group of each weight is outside, by the names of the weights."""
        return {} if self.handle is None else self.handle.violation()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach."""
        self._remove()
        self.handle = constrain(
            kwargs["model"],
            self._rules,
            kwargs["optimizer"],
            step=state.global_step,
            report_every=self._report_every,
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count as the Trainer does, which a resumed training goes on from."""
        if self.handle is not None:
            self.handle.step = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Project what was loaded as the best model, and take the constraints off."""
        if self.handle is not None:
            self.handle.project_()
        self._remove()

    def _remove(self) -> None:
        if self.handle is not None:
            self.handle.remove()
