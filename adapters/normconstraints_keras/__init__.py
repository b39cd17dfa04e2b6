"""Constraints on the weights of Keras models, on every backend: TensorFlow, PyTorch and JAX.

`MaxNorm`, `UnitNorm`, `MinMaxNorm` and `NonNeg` take the place of those of `keras.constraints`;
`KernelConstraint` makes one of any constraint::

    import keras
    import normconstraints as nc
    from normconstraints_keras import KernelConstraint

    conv = keras.layers.Conv2D(
        32, (3, 3), kernel_constraint=KernelConstraint(nc.MaxNorm(3.0, axis="unit"))
    )

`constrain` sets constraints on a model that is built, by rules. `normconstraints.Rules` knows the
models and layers of Keras once this is imported::

    print(nc.Rules({keras.layers.Conv2D: nc.MaxNorm(3.0, axis="unit")}).plan(model))

The name of a weight is the path to it through the names of the layers and its own, joined with
dots and without the name of the model: ``encoder.attention.query.kernel``. So ``"*.kernel"`` means
what it means in other frameworks. Names that Keras makes up count on from model to model
(``dense_7``); give layers a ``name`` if rules shall name them. The weights of an LSTM belong to its
cell (``lstm.lstm_cell.kernel``, of the class LSTMCell), those of an attention layer to the
EinsumDense layers inside it.
"""

try:
    import keras as _keras  # noqa: F401 - to say below what is missing
except ImportError as error:
    # Where Keras is there and its backend is not, its own message is the one that helps.
    if error.name is None or error.name.partition(".")[0] != "keras":
        raise
    raise ImportError(
        'normconstraints_keras needs Keras; run: pip install "normconstraints[keras]"'
    ) from error

from normconstraints_keras import _layouts  # noqa: F401 - to import it is to register
from normconstraints_keras._apply import apply_constraints, constrain, projected, violation
from normconstraints_keras._averages import ConstrainedEMA
from normconstraints_keras._constraints import (
    KernelConstraint,
    MaxNorm,
    MinMaxNorm,
    NonNeg,
    UnitNorm,
    max_norm,
    min_max_norm,
    non_neg,
    unit_norm,
)

__all__ = [
    "ConstrainedEMA",
    "KernelConstraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "apply_constraints",
    "constrain",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "projected",
    "unit_norm",
    "violation",
]
