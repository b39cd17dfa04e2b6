"""Constraints on the weights of JAX models, whatever tree they come in.

`normconstraints_jax.equinox`, `.nnx`, `.linen` and `.haiku` know the layers of these libraries;
import the one you use. None is loaded here, unless the program has loaded the library before.
`normconstraints_jax.optax` has constraints in optimizers, `.projections` those of optax by name.

To import it makes constraints trees of JAX, whose leaves are their numbers, and gives JAX the
derivatives that sets state themselves.
"""

try:
    import jax as _jax  # noqa: F401 - to say below what is missing
except ImportError as error:
    raise ImportError(
        'normconstraints_jax needs JAX; run: pip install "normconstraints[jax]"'
    ) from error

from normconstraints_jax import _derivative as _derivative
from normconstraints_jax import _pytrees as _pytrees
from normconstraints_jax import _tree
from normconstraints_jax._project import penalty, project, record, violation, weights

__all__ = ["penalty", "project", "record", "violation", "weights"]

_tree.load()
