"""Constraints on the weights of PyTorch models, kept by the optimizer after each of its steps."""

from normconstraints_torch._attach import Handle, constrain, project_

__all__ = ["Handle", "constrain", "project_"]
