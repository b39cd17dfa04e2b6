"""Constraints on weights, for arrays of every library that follows the array API standard."""

import importlib
import typing

from normconstraints import derivatives, layout, schedules, sets, weights
from normconstraints.config import from_config, to_config
from normconstraints.constraint import (
    Ball,
    Constraint,
    Convex,
    Decomposed,
    DropsMinusInfinity,
    Entrywise,
    Gradual,
    Grouped,
    HasDualNorm,
    HasLMO,
    HasSample,
    HasTangent,
    HasVJP,
    InPlace,
    Quadratic,
    Summed,
    ZeroStays,
    register,
)
from normconstraints.constraint import announce as _announce
from normconstraints.constraint import registered as _registered
from normconstraints.modes import (
    distance,
    dual_norm,
    is_satisfied,
    lmo,
    penalty,
    sample,
    tangent,
    tolerance,
)
from normconstraints.rules import Bound, Rules
from normconstraints.schedules import Scheduled

if typing.TYPE_CHECKING:
    from normconstraints import functional
    from normconstraints.as_matrix import AsMatrix
    from normconstraints.compose import Intersection, Sequence
    from normconstraints.sets.affine import Affine
    from normconstraints.sets.birkhoff import Birkhoff
    from normconstraints.sets.box import Box
    from normconstraints.sets.capped_simplex import CappedSimplex
    from normconstraints.sets.circulant import Circulant
    from normconstraints.sets.conv_operator_ball import ConvOperatorBall
    from normconstraints.sets.correlation import Correlation
    from normconstraints.sets.fixed_norm import FixedNorm
    from normconstraints.sets.fixed_sum import FixedSum
    from normconstraints.sets.global_norm import GlobalNorm
    from normconstraints.sets.group_l1_ball import GroupL1Ball
    from normconstraints.sets.group_top_k import GroupTopK
    from normconstraints.sets.half_space import HalfSpace
    from normconstraints.sets.hyperplane import Hyperplane
    from normconstraints.sets.l1_ball import L1Ball
    from normconstraints.sets.l1_inf_ball import L1InfBall
    from normconstraints.sets.l1_sphere import L1Sphere
    from normconstraints.sets.linf_ball import LInfBall
    from normconstraints.sets.mask import Mask
    from normconstraints.sets.max_norm import MaxNorm
    from normconstraints.sets.max_rank import MaxRank
    from normconstraints.sets.min_max_norm import MinMaxNorm
    from normconstraints.sets.min_norm import MinNorm
    from normconstraints.sets.monotone import Monotone
    from normconstraints.sets.n_of_m import NOfM
    from normconstraints.sets.non_neg import NonNeg
    from normconstraints.sets.non_neg_unit_norm import NonNegUnitNorm
    from normconstraints.sets.non_pos import NonPos
    from normconstraints.sets.nuclear_ball import NuclearBall
    from normconstraints.sets.orthogonal import Orthogonal
    from normconstraints.sets.positive_semidefinite import PositiveSemidefinite
    from normconstraints.sets.second_order_cone import SecondOrderCone
    from normconstraints.sets.sign_pattern import SignPattern
    from normconstraints.sets.simplex import Simplex
    from normconstraints.sets.singular_values import SingularValues
    from normconstraints.sets.skew_symmetric import SkewSymmetric
    from normconstraints.sets.slab import Slab
    from normconstraints.sets.solid_simplex import SolidSimplex
    from normconstraints.sets.sparse_simplex import SparseSimplex
    from normconstraints.sets.special_orthogonal import SpecialOrthogonal
    from normconstraints.sets.spectral_ball import SpectralBall
    from normconstraints.sets.spectral_sphere import SpectralSphere
    from normconstraints.sets.spectraplex import Spectraplex
    from normconstraints.sets.symmetric import Symmetric
    from normconstraints.sets.tied import Tied
    from normconstraints.sets.toeplitz import Toeplitz
    from normconstraints.sets.top_k import TopK
    from normconstraints.sets.transport import Transport
    from normconstraints.sets.triangular import Triangular
    from normconstraints.sets.unit_norm import UnitNorm
    from normconstraints.sets.unit_rms import UnitRMS
    from normconstraints.sets.weighted_l1_ball import WeightedL1Ball
    from normconstraints.sets.zero_mean import ZeroMean
    from normconstraints.wrappers import Masked, Relaxed, Translated

__all__ = [
    "Affine",
    "AsMatrix",
    "Ball",
    "Birkhoff",
    "Bound",
    "Box",
    "CappedSimplex",
    "Circulant",
    "Constraint",
    "ConvOperatorBall",
    "Convex",
    "Correlation",
    "Decomposed",
    "DropsMinusInfinity",
    "Entrywise",
    "FixedNorm",
    "FixedSum",
    "GlobalNorm",
    "Gradual",
    "GroupL1Ball",
    "GroupTopK",
    "Grouped",
    "HalfSpace",
    "HasDualNorm",
    "HasLMO",
    "HasSample",
    "HasTangent",
    "HasVJP",
    "Hyperplane",
    "InPlace",
    "Intersection",
    "L1Ball",
    "L1InfBall",
    "L1Sphere",
    "LInfBall",
    "Mask",
    "Masked",
    "MaxNorm",
    "MaxRank",
    "MinMaxNorm",
    "MinNorm",
    "Monotone",
    "NOfM",
    "NonNeg",
    "NonNegUnitNorm",
    "NonPos",
    "NuclearBall",
    "Orthogonal",
    "PositiveSemidefinite",
    "Quadratic",
    "Relaxed",
    "Rules",
    "Scheduled",
    "SecondOrderCone",
    "Sequence",
    "SignPattern",
    "Simplex",
    "SingularValues",
    "SkewSymmetric",
    "Slab",
    "SolidSimplex",
    "SparseSimplex",
    "SpecialOrthogonal",
    "SpectralBall",
    "SpectralSphere",
    "Spectraplex",
    "Summed",
    "Symmetric",
    "Tied",
    "Toeplitz",
    "TopK",
    "Translated",
    "Transport",
    "Triangular",
    "UnitNorm",
    "UnitRMS",
    "WeightedL1Ball",
    "ZeroMean",
    "ZeroStays",
    "derivatives",
    "distance",
    "dual_norm",
    "from_config",
    "functional",
    "is_satisfied",
    "layout",
    "lmo",
    "penalty",
    "register",
    "sample",
    "schedules",
    "tangent",
    "to_config",
    "tolerance",
    "weights",
]

_COMBINED = {
    "AsMatrix": "normconstraints.as_matrix",
    "Intersection": "normconstraints.compose",
    "Masked": "normconstraints.wrappers",
    "Relaxed": "normconstraints.wrappers",
    "Sequence": "normconstraints.compose",
    "Translated": "normconstraints.wrappers",
}
_announce(_COMBINED)

if not typing.TYPE_CHECKING:  # or a type checker would take every name for one

    def __getattr__(name: str) -> typing.Any:
        """What takes long to import is when it is asked for: sets, and what is made of them."""
        if name == "functional":
            return importlib.import_module("normconstraints.functional")
        if name not in sets.FILES and name not in _COMBINED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = _registered(name)
        return found


def __dir__() -> list[str]:
    return __all__
