"""The optimizers inside the wrappers of Lightning, Fabric and Accelerate."""

from __future__ import annotations

from typing import Any

# Known by name, so that none of their libraries is imported.
_WRAPPERS = {
    ("accelerate", "AcceleratedOptimizer"),
    ("lightning", "LightningOptimizer"),
    ("lightning", "_FabricOptimizer"),
    ("lightning_fabric", "_FabricOptimizer"),
    ("pytorch_lightning", "LightningOptimizer"),
}


def unwrap_optimizer(optimizer: Any) -> Any:
    """The optimizer that takes the steps; what is no known wrapper comes back as it is.

    All of them claim to be optimizers. ``AcceleratedOptimizer`` has no table of hooks, so that to
    register one fails; the others are made anew by each call that asks for them, so that what is
    remembered for one is lost.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or a wrapper of one
        Of Accelerate, Lightning or Fabric, any number of them around each other.

    Returns
    -------
    torch.optim.Optimizer
        If there is one inside: whether there is, the caller has to check.
    """
    while any(
        (cls.__module__.partition(".")[0], cls.__name__) in _WRAPPERS
        for cls in type(optimizer).__mro__
    ):
        optimizer = optimizer.optimizer
    return optimizer
