"""Constraints on the weights of PyTorch models: after each step, in the forward pass, in the loss.

Importing it declares the layers of torch.nn to `normconstraints.layout`, lets `Rules` bind and plan
a ``torch.nn.Module``, and gives autograd the derivatives that sets state themselves.
"""

try:
    import torch as _torch  # noqa: F401 - to say below what is missing
except ImportError as error:
    raise ImportError(
        'normconstraints_torch needs PyTorch; run: pip install "normconstraints[torch]"'
    ) from error

from normconstraints_torch import _derivative as _derivative
from normconstraints_torch import _layouts as _layouts
from normconstraints_torch._attach import Handle, constrain, project_
from normconstraints_torch._averaged import project_averaged, projected
from normconstraints_torch._parametrize import Recentering, parametrize, recenter, recenter_
from normconstraints_torch._penalty import Penalty, penalty

__all__ = [
    "Handle",
    "Penalty",
    "Recentering",
    "constrain",
    "parametrize",
    "penalty",
    "project_",
    "project_averaged",
    "projected",
    "recenter",
    "recenter_",
]
