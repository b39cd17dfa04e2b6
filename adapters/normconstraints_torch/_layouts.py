"""The roles of the axes of the weights of torch.nn's layers.

What has no incoming weights (biases, the scales of norms) is declared too, as all output units, so
that ``axis="unit"`` is refused for it by that name and not as something unknown.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from normconstraints.layout import Layout, declare


def _conv(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Layout:
    return Layout("(go)i.." if layer.groups > 1 else "oi..", groups=layer.groups)


def _conv_transpose(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
) -> Layout:
    return Layout("(gi)o.." if layer.groups > 1 else "io..", groups=layer.groups)


def _normalised(layer: nn.LayerNorm | nn.RMSNorm) -> str:
    return "o" * len(layer.normalized_shape)


declare(nn.Linear, weight="oi", bias="o")
declare(nn.Bilinear, weight="oii", bias="o")
for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
    declare(conv, weight=_conv, bias="o")
for transposed in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    declare(transposed, weight=_conv_transpose, bias="o")
for embedding in (nn.Embedding, nn.EmbeddingBag):
    declare(embedding, weight="te")
# Input, hidden state and projection of each layer and direction. The gates stand on one axis: each
# unit of each gate has its own incoming weights.
for recurrent in (nn.RNNBase, nn.RNNCellBase):
    declare(recurrent, {"weight_*": "oi", "bias_*": "o"})
# Queries, keys and values stand on one axis too. bias_k and bias_v are a key and a value more, of
# shape (1, 1, embedding): what no input is multiplied with.
declare(
    nn.MultiheadAttention,
    {"*_proj_weight": "oi", "in_proj_bias": "o", "bias_k": "ooo", "bias_v": "ooo"},
)
# The common base of batch and instance norms, lazy ones and those of other libraries too.
for norm in (_NormBase, nn.GroupNorm):
    declare(norm, weight="o", bias="o")
declare(nn.LayerNorm, weight=_normalised, bias=_normalised)
declare(nn.RMSNorm, weight=_normalised)
declare(nn.PReLU, weight="o")
