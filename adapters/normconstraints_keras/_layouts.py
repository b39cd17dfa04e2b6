"""The roles of the axes of the weights of Keras' layers."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from normconstraints.layout import Layout, LayoutError, declare

layers = keras.layers


def _of_outputs(weight: str) -> Any:
    """A weight with an entry, or several, for each output and none for an input: a bias."""
    return lambda layer: "o" * len(getattr(layer, weight).shape)


def _conv(layer: Any) -> Layout:
    # The inputs are those of one group; the groups stand one after the other among the outputs.
    return Layout("s..io") if layer.groups == 1 else Layout("s..i(go)", layer.groups)


def _einsum(layer: Any) -> str:
    """The roles of the kernel from the equation, ``"abc,cde->abde"``: c is summed over."""
    left, outputs = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    roles = {(True, False): "i", (False, True): "o", (True, True): "g"}
    # The remaining case, an axis in the kernel alone, is one that Keras refuses.
    return "".join(roles[axis in inputs, axis in outputs] for axis in kernel)


# A low-rank update is a @ b over the last axis of the kernel. The numbers between the two are
# outputs of `a` where that axis counts outputs, and of `b` where it counts inputs.


def _einsum_lora_a(layer: Any) -> str:
    roles = _einsum(layer)
    return roles[:-1] + ("i" if roles.endswith("i") else "o")


def _einsum_lora_b(layer: Any) -> str:
    return "oi" if _einsum(layer).endswith("i") else "io"


def _normalised_axes(layer: Any) -> str:
    return "o" * (len(layer.axis) if isinstance(layer.axis, list | tuple) else 1)


def _overwritten(layer: Any) -> Layout:
    inner = type(layer.layer).__name__
    raise LayoutError(
        f"SpectralNormalization divides the weight of its {inner} by the largest singular value in "
        "every forward pass of training, which undoes what a constraint did to it; exempt it with "
        "None, take the wrapper away, or give the axis as a number if you mean it"
    )


declare(layers.Dense, kernel="io", bias="o", lora_kernel_a="io", lora_kernel_b="io")
declare(
    layers.EinsumDense,
    kernel=_einsum,
    bias=_of_outputs("bias"),
    lora_kernel_a=_einsum_lora_a,
    lora_kernel_b=_einsum_lora_b,
)
for _cls in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
    # All groups share the numbers between the two factors of a low-rank update.
    declare(_cls, kernel=_conv, bias="o", lora_kernel_a="s..io", lora_kernel_b="io")
for _cls in (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose):
    declare(_cls, kernel="s..oi", bias="o")
for _cls in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
    # Each output is counted by an input and a multiplier, and has a kernel of its own.
    declare(_cls, kernel="s..oo", bias="o")
for _cls in (layers.SeparableConv1D, layers.SeparableConv2D):
    declare(_cls, depthwise_kernel="s..oo", pointwise_kernel="s..io", bias="o")
for _cls in (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell):
    # The gates stand one after the other among the outputs.
    declare(_cls, kernel="io", recurrent_kernel="io", bias=_of_outputs("bias"))
declare(ConvLSTMCell, kernel="s..io", recurrent_kernel="s..io", bias="o")
# The vector of a token is embeddings_a[token] @ embeddings_b.
declare(layers.Embedding, embeddings="te", lora_embeddings_a="te", lora_embeddings_b="io")
declare(
    layers.ReversibleEmbedding,
    embeddings="te",
    reverse_embeddings="io",
    lora_embeddings_a="te",
    lora_embeddings_b="io",
)
declare(layers.Attention, scale="", concat_score_weight="")
# A score is the sum of tanh(query + key), each times its entry of the scale.
declare(layers.AdditiveAttention, scale="i")
# A filter of a spectrogram: frames, one channel, frequencies.
declare(layers.STFTSpectrogram, {"*_kernel": "sio"})
for _cls in (layers.BatchNormalization, layers.GroupNormalization):
    declare(_cls, {"*": "o"})
for _cls in (layers.LayerNormalization, layers.RMSNormalization):
    declare(_cls, {"*": _normalised_axes})
declare(layers.PReLU, alpha=_of_outputs("alpha"))
declare(layers.SpectralNormalization, kernel=_overwritten, embeddings=_overwritten)
