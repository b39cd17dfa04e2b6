"""Constraints on weights, for arrays of every library that follows the array API standard."""

from normconstraints import layout, schedules, weights
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
from normconstraints.rules import Bound, Rules
from normconstraints.schedules import Scheduled
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
    "Bound",
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
    "Scheduled",
    "UnitNorm",
    "UnitRMS",
    "ZeroStays",
    "distance",
    "from_config",
    "is_satisfied",
    "layout",
    "penalty",
    "register",
    "schedules",
    "to_config",
    "tolerance",
    "weights",
]
