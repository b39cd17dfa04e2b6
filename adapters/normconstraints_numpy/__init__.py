"""Constraints on the weights of hand-written training loops, in place, for NumPy and CuPy."""

from normconstraints_numpy._projector import Projector

__all__ = ["Projector"]
