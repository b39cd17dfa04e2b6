"""Constraints on weights, for arrays of every library that follows the array API standard."""

from normconstraints.config import from_config, to_config
from normconstraints.constraint import (
    Ball,
    Constraint,
    Convex,
    Entrywise,
    Gradual,
    Grouped,
    InPlace,
    ZeroStays,
    register,
)
from normconstraints.modes import distance, is_satisfied, penalty, tolerance
from normconstraints.rules import Rules
from normconstraints.sets import (
    Box,
    FixedNorm,
    GlobalNorm,
    LInfBall,
    MaxNorm,
    MinMaxNorm,
    MinNorm,
    NonNeg,
    NonPos,
    UnitNorm,
    UnitRMS,
)

__all__ = [
    "Ball",
    "Box",
    "Constraint",
    "Convex",
    "Entrywise",
    "FixedNorm",
    "GlobalNorm",
    "Gradual",
    "Grouped",
    "InPlace",
    "LInfBall",
    "MaxNorm",
    "MinMaxNorm",
    "MinNorm",
    "NonNeg",
    "NonPos",
    "Rules",
    "UnitNorm",
    "UnitRMS",
    "ZeroStays",
    "distance",
    "from_config",
    "is_satisfied",
    "penalty",
    "register",
    "to_config",
    "tolerance",
]
