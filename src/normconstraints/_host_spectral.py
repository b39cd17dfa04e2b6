r"""The cap of singular values for float32 in torch's host memory, from cheaper eigenvectors.

Eigenvectors of the Gram matrix in single precision take a third of the time of those in double.
With them, of unit length, as the columns of V, the matrices :math:`S = V^T X^T X V` and :math:`V^T
V = I + R` are diagonal but for rounding in single precision, and double precision tells what that
is. To first order of it the matrix with capped singular values is :math:`X V T V^T` with divided
differences of :math:`\rho(\lambda) = \min(1, r / \sqrt\lambda)`,

.. math:: T_{ij} = S_{ij} \, \rho[\lambda_i, \lambda_j] - R_{ij} \, (\lambda \rho)[\lambda_i,
    \lambda_j], \quad T_{ii} = \rho(\lambda_i), \quad \lambda_i = S_{ii}

which are bounded, so that close eigenvalues do no harm. The second order is about :math:`(10^{-6}
(\sigma_1 / r)^2)^2`, so that it is nothing to float32 unless singular values are far above r.
"""

from __future__ import annotations

import sys

from normconstraints._array import Array

_FARTHEST = 16.0
"""The largest singular value, relative to the bound, for which the second order is left out."""


def capped(x: Array, bound: Array) -> tuple[Array, Array]:
    """Tall matrices in double precision with singular values of at most `bound`, of which each
    has one as its last axis, and where the result is not to be used.
    """
    torch = sys.modules["torch"]
    single = x.float()
    _, v = torch.linalg.eigh(single.mT @ single)
    v = v.double()
    v /= torch.linalg.vector_norm(v, dim=-2, keepdim=True)
    b = x @ v
    s, r = _gram(b), _gram(v)
    square = s.diagonal(dim1=-2, dim2=-1)
    y = square.sqrt()
    over = y > bound
    rho = torch.where(over, bound / y, 1.0)
    slope = torch.where(over, -0.5 * rho / square, 0.0)
    # What is not diagonal is small: single precision is enough for it.
    largest = square.amax(dim=-1, keepdim=True)
    run = (square[..., None] - square[..., None, :]).float()
    close = run.abs() <= (1e-5 * largest[..., None]).float()
    run.masked_fill_(close, 1.0)

    def divided(values: Array, slopes: Array) -> Array:
        rise = (values[..., None] - values[..., None, :]).float()
        mean = (0.5 * (slopes[..., None] + slopes[..., None, :])).float()
        return torch.where(close, mean, rise.div_(run))

    t = s.float().mul_(divided(rho, slope))
    t -= r.float().mul_(divided(square * rho, rho + square * slope))
    t.diagonal(dim1=-2, dim2=-1).zero_()
    part = b * rho[..., None, :]
    part += (b.float() @ t).double()
    return part @ v.mT, y.amax(dim=-1, keepdim=True) > _FARTHEST * bound


def _gram(x: Array) -> Array:
    """The products of the columns with each other; NumPy takes half of them and mirrors them."""
    if x.ndim > 2:
        return x.mT @ x
    a = x.numpy()
    return sys.modules["torch"].from_numpy(a.T @ a)
