"""The sets, one in each file, which is imported when it is first asked for.

Most of what an import would take is theirs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from normconstraints.constraint import announce

if TYPE_CHECKING:
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

__all__ = [
    "Affine",
    "Birkhoff",
    "Box",
    "CappedSimplex",
    "Circulant",
    "ConvOperatorBall",
    "Correlation",
    "FixedNorm",
    "FixedSum",
    "GlobalNorm",
    "GroupL1Ball",
    "GroupTopK",
    "HalfSpace",
    "Hyperplane",
    "L1Ball",
    "L1InfBall",
    "L1Sphere",
    "LInfBall",
    "Mask",
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
    "SecondOrderCone",
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
    "Symmetric",
    "Tied",
    "Toeplitz",
    "TopK",
    "Transport",
    "Triangular",
    "UnitNorm",
    "UnitRMS",
    "WeightedL1Ball",
    "ZeroMean",
]

FILES = {
    "Affine": "affine",
    "Birkhoff": "birkhoff",
    "Box": "box",
    "CappedSimplex": "capped_simplex",
    "Circulant": "circulant",
    "ConvOperatorBall": "conv_operator_ball",
    "Correlation": "correlation",
    "FixedNorm": "fixed_norm",
    "FixedSum": "fixed_sum",
    "GlobalNorm": "global_norm",
    "GroupL1Ball": "group_l1_ball",
    "GroupTopK": "group_top_k",
    "HalfSpace": "half_space",
    "Hyperplane": "hyperplane",
    "L1Ball": "l1_ball",
    "L1InfBall": "l1_inf_ball",
    "L1Sphere": "l1_sphere",
    "LInfBall": "linf_ball",
    "Mask": "mask",
    "MaxNorm": "max_norm",
    "MaxRank": "max_rank",
    "MinMaxNorm": "min_max_norm",
    "MinNorm": "min_norm",
    "Monotone": "monotone",
    "NOfM": "n_of_m",
    "NonNeg": "non_neg",
    "NonNegUnitNorm": "non_neg_unit_norm",
    "NonPos": "non_pos",
    "NuclearBall": "nuclear_ball",
    "Orthogonal": "orthogonal",
    "PositiveSemidefinite": "positive_semidefinite",
    "SecondOrderCone": "second_order_cone",
    "SignPattern": "sign_pattern",
    "Simplex": "simplex",
    "SingularValues": "singular_values",
    "SkewSymmetric": "skew_symmetric",
    "Slab": "slab",
    "SolidSimplex": "solid_simplex",
    "SparseSimplex": "sparse_simplex",
    "SpecialOrthogonal": "special_orthogonal",
    "SpectralBall": "spectral_ball",
    "SpectralSphere": "spectral_sphere",
    "Spectraplex": "spectraplex",
    "Symmetric": "symmetric",
    "Tied": "tied",
    "Toeplitz": "toeplitz",
    "TopK": "top_k",
    "Transport": "transport",
    "Triangular": "triangular",
    "UnitNorm": "unit_norm",
    "UnitRMS": "unit_rms",
    "WeightedL1Ball": "weighted_l1_ball",
    "ZeroMean": "zero_mean",
}
"""The module of each."""
announce({name: f"{__name__}.{file}" for name, file in FILES.items()})

if not TYPE_CHECKING:  # or every name would be one

    def __getattr__(name: str) -> Any:
        if name not in FILES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{FILES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *FILES})
