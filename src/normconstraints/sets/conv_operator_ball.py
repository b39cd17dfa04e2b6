"""Convolution operator ball: the norm of the convolution with a kernel is at most a bound."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, final

from normconstraints._array import Array, Namespace
from normconstraints._convolution import Kernel
from normconstraints._parameters import PLACES, Number, assign, check_count, check_number
from normconstraints.constraint import Convex, Decomposed, HasVJP, register


def project_conv_operator_ball(
    w: Array, radius: Number, *, spatial: tuple[int, ...], roles: str = "oiss"
) -> Array:
    """The nearest kernel with a convolution of norm at most `radius`; see `ConvOperatorBall`."""
    return Kernel(w, spatial, roles, "ConvOperatorBall").nearest(radius)


@register
@final
@dataclass(frozen=True, eq=False)
class ConvOperatorBall(Decomposed, Convex, HasVJP):
    r"""The operator norm of the circular convolution with the kernel is at most `radius`.

    .. math:: \{ W : \sigma_1(\hat W(f)) \le r \text{ for every } f \}, \quad
        \hat W(f)_{oi} = \sum_x W_{oix} \exp(-2 \pi \mathrm{i} \, f \cdot x / N)

    The norm of the layer as a linear map of inputs on the grid `spatial`, which the largest
    singular value of the kernel as a matrix is not: that may be 1 where the layer stretches an
    input by 1.6 (three equal taps: by the root of 3). Strides and dilation are not considered, of a
    convolution in groups each group is a kernel of its own. Whether the kernel is turned round, as
    in frameworks, makes no difference.

    The convolution is circular. With zeros around the input it is a part of the circular one on the
    grid that is larger by the kernel less 1 along every axis, so that the norm on that grid is a
    bound for it.

    Parameters
    ----------
    radius : float
        The bound r, in the units of the weights; also an array without axes.
    spatial : tuple of int
        The size N of the input along every axis of space, at least that of the kernel.
    roles : str, default "oiss"
        A letter for each axis of the kernel: o for the output channels, i for the input channels, s
        for the axes of space, in the order of `spatial`. PyTorch has "oiss", Keras and Flax "ssio";
        in one dimension it is "ois" and "sio". The whole weight is one kernel.

    Raises
    ------
    TypeError
        If `radius` is no number, `spatial` no tuple of integers or `roles` no string, or at the
        call if the weight is complex.
    ValueError
        If `radius` is negative, a number of `spatial` is below 1, or `roles` has other letters, or
        at the call if the weight has not as many axes or is larger than the grid.

    Notes
    -----
    The projection is unique. To cap the singular values of every frequency, transform back and cut
    off what is outside the kernel is not the projection, and does not even end in the set. Here it
    is found by Newton's methods on its equations (`normconstraints/_convolution.py` says how). Each
    step decomposes the matrices of half of the frequencies, and solves a linear system of the size
    of the kernel, for more than 256 entries by 64 rounds of conjugate gradients. Measured on 1200
    normal kernels of six shapes with norms from 1.5 to 1e20 times the bound, it takes some 20
    steps, 30 to 50 for one in ten, of the 128 that there are at most. The equations then hold to
    some units of rounding. For 8 of the 1200 the steps were too few: the result is a member, but
    the equations held to between 1e-12 and 1e-2 of the norm only, so that it may not be the nearest
    by as much. That is frequent where the entries are of many sizes: of kernels with entries from
    1e-8 to 1e8 it was one in three, to 2e-4 at worst. For a layer of 16 times 16 channels and 3
    times 3 on 16 times 16 points it takes seconds: this is for small layers, or for once in a
    while.

    The last step divides by the norm that is left above the bound, so that the result is a member
    however near it came: half precision and float32, computed in float64, within 4 eps of the
    bound. What was projected, and what is inside, comes back bit for bit. Arrays in host memory
    stop as soon as nothing is left to do, and so does code that JAX compiled unless `vmap` is in
    between; what PyTorch compiles, and arrays on GPUs of other libraries, take all steps;
    ``torch.compile`` has each of them in its trace, which takes it a minute or more.

    Gradient: that of the equations, at a kernel that is outside, finite where singular values are
    equal (`HasVJP`); it takes the steps once more, and is right to the cube root of the rounding
    squared, some 1e-10 in float64, 1e-6 by conjugate gradients. Without an adapter the library
    differentiates the algorithm, which gives NaN. A kernel with NaN or infinity comes back as it
    is. The violation is the norm less the bound.

    References
    ----------
    H. Sedghi, V. Gupta, P. Long, "The singular values of convolutional layers", ICLR 2019. B.
    Delattre et al., "Efficient bound of Lipschitz constant for convolutional layers by Gram
    iteration", ICML 2023, for a bound that costs less. D. Bertsekas, "Constrained optimization and
    Lagrange multiplier methods", 1982.

    Examples
    --------
    >>> import numpy as np
    >>> constraint = ConvOperatorBall(1.0, spatial=(8,), roles="ois")
    >>> kernel = np.ones((1, 1, 3))
    >>> constraint.violation(kernel)
    array(2.)
    >>> constraint(kernel).round(4)
    array([[[0.3333, 0.3333, 0.3333]]])
    """

    radius: Number
    _: KW_ONLY
    spatial: tuple[int, ...] = field(metadata=PLACES)
    roles: str = field(default="oiss", metadata=PLACES)
    axis = None
    needs: ClassVar[tuple[str, ...]] = ("svd", "solve")
    allows_complex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        assign(
            self,
            radius=check_number(self, "radius", self.radius, above=0, strict=False),
            spatial=_check_spatial(self, self.spatial),
        )
        _check_roles(self, self.roles, len(self.spatial))

    def _project(self, w: Array, xp: Namespace) -> Array:
        return project_conv_operator_ball(w, self.radius, spatial=self.spatial, roles=self.roles)

    def _violation(self, w: Array, xp: Namespace) -> Array:
        return Kernel(w, self.spatial, self.roles, "ConvOperatorBall").violation(self.radius)

    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        kernel = Kernel(w, self.spatial, self.roles, "ConvOperatorBall")
        return kernel.pulled_back(self.radius, g)


def _check_spatial(owner: object, value: Any) -> tuple[int, ...]:
    """A tuple of integers >= 1."""
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(
            f"{type(owner).__name__}: spatial must be a tuple of integers, the sizes of the input "
            f"that is convolved, got {value!r}"
        )
    return tuple(check_count(owner, "spatial", n) for n in value)


def _check_roles(owner: object, value: Any, count: int) -> None:
    """One o, one i, and as many s as there are numbers in `spatial`."""
    rule = (
        f"{type(owner).__name__}: roles must be a word with a letter for each axis of the kernel: "
        f"o for the output channels, i for the input channels, s for each of the {count} of spatial"
    )
    if not isinstance(value, str):
        raise TypeError(f"{rule}, got {value!r}")
    if sorted(value) != sorted("oi" + "s" * count):
        raise ValueError(f"{rule}, got {value!r}")


SHAPE = (2, 2, 3)
"""That of most inputs of the suite."""

EXAMPLES: tuple[Any, ...] = (
    ConvOperatorBall(1.0, spatial=(5,), roles="ois"),
    ConvOperatorBall(0.3, spatial=(4,), roles="sio"),
)
