"""One rule for Keras, PyTorch, Flax and Equinox: the same weights get the same norms.

The weights of layers of Keras are brought by hand into the axes of the other frameworks. There the
same rules bind them through layers of that framework. The axes of the norms are written down here
once more, and not asked of the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import normconstraints as nc
import normconstraints_keras  # noqa: F401 - the layouts
from normconstraints.weights import weights_of

if keras.backend.backend() == "tensorflow":
    pytest.skip("about tensors of PyTorch and JAX", allow_module_level=True)

BOUND = 1.5
ULPS = 4 * np.spacing(np.float32(BOUND))
RULES = nc.Rules({lambda weight: len(weight.shape) > 1: nc.MaxNorm(BOUND, axis="unit")})

L = keras.layers
Weights = dict[str, tuple[np.ndarray, Any]]
"""By their names in a layer, with the axes of the norms."""


def lengths(w: np.ndarray, axis: Any) -> np.ndarray:
    return np.sqrt((w.astype(np.float64) ** 2).sum(axis=axis)).ravel()


def in_keras() -> dict[str, tuple[Any, Weights]]:
    """Layers with weights of which some units are outside and others are not."""
    every = {
        "conv": (L.Conv2D(6, (2, 3)), [(None, 5, 5, 3)], {"kernel": (0, 1, 2)}),
        "transposed": (L.Conv2DTranspose(6, (2, 3)), [(None, 5, 5, 3)], {"kernel": (0, 1, 3)}),
        "dense": (L.Dense(6), [(None, 5)], {"kernel": 0}),
        "lstm": (
            L.LSTM(4),
            [(None, 2, 3)],
            {"lstm_cell.kernel": 0, "lstm_cell.recurrent_kernel": 0},
        ),
        "embedding": (L.Embedding(6, 4), [(None, 2)], {"embeddings": 1}),
        "attention": (
            L.MultiHeadAttention(2, 3, use_bias=False),
            [(None, 5, 6), (None, 5, 6)],
            {
                "query.kernel": 0,
                "key.kernel": 0,
                "value.kernel": 0,
                "attention_output.kernel": (0, 1),
            },
        ),
    }
    rng, found = np.random.default_rng(0), {}
    for title, (layer, shapes, axes) in every.items():
        layer.build(*shapes)
        weights: Weights = {}
        shape = {weight.name: weight.shape for weight in weights_of(layer)}
        for name, axis in axes.items():
            w = rng.normal(size=shape[name])
            weights[name] = ((BOUND * w / np.median(lengths(w, axis))).astype(np.float32), axis)
        found[title] = (layer, weights)
    return found


KERAS = in_keras()


def arrays(title: str) -> list[np.ndarray]:
    return [w for w, _ in KERAS[title][1].values()]


def constrained(model: Any, weights: Weights, to: Callable[[np.ndarray], Any]) -> np.ndarray:
    """The norms of all units after the constraints that the rules bind to a model."""
    bound = {b.name: b for b in RULES.bind(model)}
    assert bound.keys() == weights.keys()
    found = []
    for name, (w, axis) in weights.items():
        assert bound[name].weight.shape == w.shape
        after = bound[name].at(0).project(to(w))
        found.append(
            lengths(np.asarray(after.detach() if hasattr(after, "detach") else after), axis)
        )
    return np.concatenate(found)


def check(title: str, found: np.ndarray) -> None:
    layer, weights = KERAS[title]
    expected = constrained(layer, weights, keras.ops.convert_to_tensor)
    outside = np.concatenate([lengths(*weight) for weight in weights.values()]) > BOUND
    assert outside.any() and not outside.all()
    assert (abs(expected[outside] - BOUND) <= ULPS).all()
    assert found.shape == expected.shape
    assert (abs(found - expected) <= ULPS).all()


def conv_to_torch(w: np.ndarray) -> np.ndarray:
    """(h, w, in, out) to (out, in, h, w), and (h, w, out, in) to (in, out, h, w)."""
    return np.transpose(w, (3, 2, 0, 1))


def heads_in(w: np.ndarray) -> np.ndarray:
    """(model, heads, size) to (heads * size, model)."""
    return w.reshape(w.shape[0], -1).T


def heads_out(w: np.ndarray) -> np.ndarray:
    """(heads, size, model) to (model, heads * size)."""
    return w.reshape(-1, w.shape[-1]).T


@pytest.mark.parametrize("title", KERAS)
def test_pytorch(title: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("normconstraints_torch")
    nn, w = torch.nn, arrays(title)
    model, weights = {
        "conv": lambda: (nn.Conv2d(3, 6, (2, 3)), {"weight": (conv_to_torch(w[0]), (1, 2, 3))}),
        "transposed": lambda: (
            nn.ConvTranspose2d(3, 6, (2, 3)),
            {"weight": (conv_to_torch(w[0]), (0, 2, 3))},
        ),
        "dense": lambda: (nn.Linear(5, 6), {"weight": (w[0].T, 1)}),
        "lstm": lambda: (
            nn.LSTM(3, 4),
            {"weight_ih_l0": (w[0].T, 1), "weight_hh_l0": (w[1].T, 1)},
        ),
        "embedding": lambda: (nn.Embedding(6, 4), {"weight": (w[0], 1)}),
        "attention": lambda: (
            nn.MultiheadAttention(6, 2),
            {
                "in_proj_weight": (np.concatenate([heads_in(x) for x in w[:3]]), 1),
                "out_proj.weight": (heads_out(w[3]), 1),
            },
        ),
    }[title]()
    check(title, constrained(model, weights, lambda x: torch.tensor(x.copy())))


@pytest.mark.parametrize("title", KERAS)
def test_flax_nnx(title: str) -> None:
    nnx = pytest.importorskip("flax.nnx")
    pytest.importorskip("normconstraints_jax.nnx")
    import jax.numpy as jnp

    w = arrays(title)
    make, weights = {
        "conv": lambda: (
            lambda rngs: nnx.Conv(3, 6, (2, 3), rngs=rngs),
            {"kernel": (w[0], (0, 1, 2))},
        ),
        "transposed": lambda: (
            lambda rngs: nnx.ConvTranspose(3, 6, (2, 3), rngs=rngs),
            {"kernel": (np.transpose(w[0], (0, 1, 3, 2)), (0, 1, 2))},
        ),
        "dense": lambda: (lambda rngs: nnx.Linear(5, 6, rngs=rngs), {"kernel": (w[0], 0)}),
        "lstm": lambda: (
            lambda rngs: nnx.OptimizedLSTMCell(3, 4, rngs=rngs),
            {"dense_i.kernel": (w[0], 0), "dense_h.kernel": (w[1], 0)},
        ),
        "embedding": lambda: (lambda rngs: nnx.Embed(6, 4, rngs=rngs), {"embedding": (w[0], 1)}),
        "attention": lambda: (
            lambda rngs: nnx.MultiHeadAttention(2, 6, use_bias=False, decode=False, rngs=rngs),
            {
                "query.kernel": (w[0], 0),
                "key.kernel": (w[1], 0),
                "value.kernel": (w[2], 0),
                "out.kernel": (w[3], (0, 1)),
            },
        ),
    }[title]()
    # Shapes are enough to bind rules, and no numbers need to be drawn.
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    check(title, constrained(model, weights, jnp.asarray))


@pytest.mark.parametrize("title", KERAS)
def test_equinox(title: str) -> None:
    eqx = pytest.importorskip("equinox")
    pytest.importorskip("normconstraints_jax.equinox")
    import jax
    import jax.numpy as jnp

    nn, w = eqx.nn, arrays(title)
    make, weights = {
        "conv": lambda: (
            lambda key: nn.Conv2d(3, 6, (2, 3), use_bias=False, key=key),
            {"weight": (conv_to_torch(w[0]), (1, 2, 3))},
        ),
        "transposed": lambda: (
            lambda key: nn.ConvTranspose2d(3, 6, (2, 3), use_bias=False, key=key),
            {"weight": (np.transpose(w[0], (2, 3, 0, 1)), (1, 2, 3))},
        ),
        "dense": lambda: (lambda key: nn.Linear(5, 6, key=key), {"weight": (w[0].T, 1)}),
        "lstm": lambda: (
            lambda key: nn.LSTMCell(3, 4, key=key),
            {"weight_ih": (w[0].T, 1), "weight_hh": (w[1].T, 1)},
        ),
        "embedding": lambda: (lambda key: nn.Embedding(6, 4, key=key), {"weight": (w[0], 1)}),
        "attention": lambda: (
            lambda key: nn.MultiheadAttention(2, 6, key=key),
            {
                "query_proj.weight": (heads_in(w[0]), 1),
                "key_proj.weight": (heads_in(w[1]), 1),
                "value_proj.weight": (heads_in(w[2]), 1),
                "output_proj.weight": (heads_out(w[3]), 1),
            },
        ),
    }[title]()
    model = eqx.filter_eval_shape(make, jax.random.key(0))
    check(title, constrained(model, weights, jnp.asarray))
