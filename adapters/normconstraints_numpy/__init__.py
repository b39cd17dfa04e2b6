"""Constraints on the weights of hand-written training loops, in place, for NumPy and CuPy.

On those of fitted scikit-learn estimators too; see `normconstraints_numpy.sklearn`, which is to be
imported where `normconstraints.Rules` alone shall know them. A `Projector` does that by itself.
"""

from normconstraints_numpy._projector import Projector

__all__ = ["Projector"]
