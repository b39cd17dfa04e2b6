r"""The cap of singular values for float32 in torch's host memory, from cheaper eigenvectors.

Eigenvectors of the Gram matrix :math:`G = X^T X` in single precision take half of the time of those
in double. What is wrong with them is a small matrix, of which single precision tells enough once
double precision has told what it is. With the vectors of unit length as the columns of V,
:math:`\lambda_i = |X v_i|^2`, :math:`R = V^T V - I` and :math:`M = V^T (G V - V \Lambda)`, what the
cap takes away is to first order :math:`X V T V^T` with divided differences of :math:`h(\lambda) =
\max(0, 1 - r / \sqrt\lambda)`,

.. math:: T_{ij} = M_{ij} \, h[\lambda_i, \lambda_j] - h_i R_{ij}, \quad T_{ii} = h_i

which are bounded, so that close eigenvalues do no harm, but for those on both sides of the bend at
r: their vectors, which single precision takes for one another, are told apart in double first.
Where both values are below r, T is zero: only the vectors above r are multiplied in double. The
second order is about :math:`(10^{-6} (\sigma_1 / r)^2)^2`, so that it is nothing to float32 unless
singular values are far above r.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from normconstraints._array import Array

_FARTHEST = 16.0
"""The largest singular value, relative to the bound, for which the second order is left out."""
CLOSE = 1e-5
"""More than eigenvalues in single precision are off by, relative to the largest one."""


class Eigen(NamedTuple):
    """Eigenvectors of the Gram matrices of tall matrices, in single precision."""

    x: Array
    """The matrices themselves."""
    values: Array
    vectors: Array

    @property
    def largest(self) -> Array:
        """The largest eigenvalues in double precision, as the last axis of spectra."""
        return self.values[..., -1:].double().clamp(min=0)


def eigen(x: Array) -> Eigen:
    """Those of tall matrices in double precision."""
    torch = sys.modules["torch"]
    single = x.float()
    gram = single.mT @ single if _is_exact(torch) else (x.mT @ x).float()
    return Eigen(single, *torch.linalg.eigh(gram))


def _is_exact(torch: Any) -> bool:
    """Whether products in single precision are that, and not faster with fewer digits."""
    try:
        return bool(torch.get_float32_matmul_precision() == "highest")
    except RuntimeError:  # it was set by the newer interface, which has a place for each device
        return False


def capped(x: Array, bound: Array, eigen: Eigen) -> tuple[Array, Array]:
    """Tall matrices in double precision with singular values of at most `bound`, of which each
    has one as its last axis, and where the result is not to be used.
    """
    torch = sys.modules["torch"]
    single, values, v = eigen
    blur = CLOSE * values[..., -1:]
    count = int((values > bound.square() - blur).sum(dim=-1).max())
    low = values.shape[-1] - count

    above = v[..., low:].double()
    above /= torch.linalg.vector_norm(above, dim=-2, keepdim=True)
    near = ((values - bound.square()).abs() <= blur).reshape(-1, values.shape[-1]).any(dim=0)
    at = near.nonzero().flatten() - low
    if len(at) > 1:
        at = slice(int(at[0]), int(at[-1]) + 1)
        # In v they stay: a row of T is nearly the same for all of them, whichever span their space.
        above[..., at] = _turned(x, above[..., at])
    b = x @ above
    square = b.square().sum(dim=-2)
    rest = (x.mT @ b - above * square[..., None, :]).float()
    y = square.sqrt()
    over = y > bound
    h = torch.where(over, 1 - bound / y, 0.0)
    slope = torch.where(over, 0.5 * bound / (y * square), 0.0)

    # Rows of all vectors, columns of those above. Below h is zero, and so is its slope.
    none = torch.zeros_like(values[..., :low], dtype=x.dtype)
    run = torch.cat((values[..., :low].double(), square), dim=-1)[..., None] - square[..., None, :]
    rise = torch.cat((none, h), dim=-1)[..., None] - h[..., None, :]
    mean = 0.5 * (torch.cat((none, slope), dim=-1)[..., None] + slope[..., None, :])
    t = torch.where(run.abs() <= blur[..., None], mean, rise / run).float()
    t *= v.mT @ rest
    own = t[..., low:, :]
    own -= (h[..., None] * (above.mT @ above)).float()
    own.diagonal(dim1=-2, dim2=-1).zero_()

    outer = v[..., :low] @ t[..., :low, :]
    along = single @ (outer + v[..., low:] @ own)
    taken = (b * h[..., None, :] + along) @ above.mT
    taken += b.float() @ outer.mT
    return x - taken, y.amax(dim=-1, keepdim=True) > _FARTHEST * bound


def _turned(x: Array, v: Array) -> Array:
    """The space of some vectors by those of them that are eigenvectors within it."""
    linalg = sys.modules["torch"].linalg
    q = linalg.qr(v)[0]
    b = x @ q
    return q @ linalg.eigh(b.mT @ b)[1]
