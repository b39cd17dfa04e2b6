"""Constraints on the weights of JAX models, whatever tree they come in."""

from normconstraints_jax._project import project, violation

__all__ = ["project", "violation"]
