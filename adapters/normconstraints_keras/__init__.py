"""Constraints on the weights of Keras models: which axes the weights of its layers have.

To import it is enough: `normconstraints.Rules` then knows the models and layers of Keras, on every
backend::

    import keras
    import normconstraints as nc
    import normconstraints_keras

    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(32, (3, 3))])
    print(nc.Rules({keras.layers.Conv2D: nc.MaxNorm(3.0, axis="unit")}).plan(model))

The name of a weight is the path to it through the names of the layers and its own, joined with
dots and without the name of the model: ``encoder.attention.query.kernel``. So ``"*.kernel"`` means
what it means in other frameworks. Names that Keras makes up count on from model to model
(``dense_7``); give layers a ``name`` if rules shall name them. The weights of an LSTM belong to its
cell (``lstm.lstm_cell.kernel``, of the class LSTMCell), those of an attention layer to the
EinsumDense layers inside it.
"""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    # Where Keras is there and its backend is not, its own message is the one that helps.
    if error.name is None or error.name.partition(".")[0] != "keras":
        raise
    raise ImportError(
        'normconstraints_keras needs Keras; run: pip install "normconstraints[keras]"'
    ) from error

from normconstraints_keras import _layouts, _weights  # noqa: F401 - to import them is to register

__all__: list[str] = []
