"""Constraints on the weights of JAX models, whatever tree they come in.

`normconstraints_jax.equinox`, `.nnx`, `.linen` and `.haiku` know the layers of these libraries;
import the one you use. None is loaded here, unless the program has loaded the library before.
"""

from normconstraints_jax import _tree
from normconstraints_jax._project import project, record, violation, weights

__all__ = ["project", "record", "violation", "weights"]

_tree.load()
