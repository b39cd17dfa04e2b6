"""Constraints on the weights of PyTorch models, kept by the optimizer after each of its steps.

Importing it declares the layers of torch.nn to `normconstraints.layout`, lets `Rules` bind and plan
a ``torch.nn.Module``, and gives autograd the derivatives that sets state themselves.
"""

from normconstraints_torch import _derivative as _derivative
from normconstraints_torch import _layouts as _layouts
from normconstraints_torch._attach import Handle, constrain, project_

__all__ = ["Handle", "constrain", "project_"]
