"""The sets, one in each file."""

from normconstraints.sets.box import Box
from normconstraints.sets.fixed_norm import FixedNorm
from normconstraints.sets.global_norm import GlobalNorm
from normconstraints.sets.linf_ball import LInfBall
from normconstraints.sets.max_norm import MaxNorm
from normconstraints.sets.min_max_norm import MinMaxNorm
from normconstraints.sets.min_norm import MinNorm
from normconstraints.sets.non_neg import NonNeg
from normconstraints.sets.non_pos import NonPos
from normconstraints.sets.simplex import Simplex
from normconstraints.sets.unit_norm import UnitNorm
from normconstraints.sets.unit_rms import UnitRMS

__all__ = [
    "Box",
    "FixedNorm",
    "GlobalNorm",
    "LInfBall",
    "MaxNorm",
    "MinMaxNorm",
    "MinNorm",
    "NonNeg",
    "NonPos",
    "Simplex",
    "UnitNorm",
    "UnitRMS",
]
