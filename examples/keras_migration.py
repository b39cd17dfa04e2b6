"""Keras' constraints and ours side by side, each number asked of both.

Run: KERAS_BACKEND=torch python examples/keras_migration.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

import normconstraints as nc
import normconstraints_keras as ours
from normconstraints_keras import ConstrainedEMA, KernelConstraint

theirs = keras.constraints
Constrain = Callable[[Any], Any]


def numpy_of(tensor: Any) -> np.ndarray:
    """A tensor or variable as an array in double precision."""
    tensor = ops.cast(ops.convert_to_tensor(tensor), "float32")
    return np.array(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor, float)


def norm_left(constraint: Constrain, entries: Any, dtype: str = "float32", calls: int = 1) -> float:
    """The norm of a column after so many calls."""
    w = ops.cast(ops.convert_to_tensor(np.reshape(entries, (-1, 1)).astype("float32")), dtype)
    for _ in range(calls):
        w = constraint(w)
    return float(np.linalg.norm(numpy_of(w)))


def largest_unit(kernel: Any) -> float:
    """The largest norm of a unit after the constraint of a kernel whose entries all were large."""
    kernel.assign(np.full(kernel.shape, 10.0, "float32"))
    kernel.assign(kernel.constraint(kernel))
    # The last axis counts the units, here of a convolution and of what joins heads.
    return float(np.linalg.norm(numpy_of(kernel).reshape(-1, kernel.shape[-1]), axis=0).max())


def of_filters(constraint: Any) -> float:
    """Of a convolution of images in colour."""
    layer = keras.layers.Conv2D(8, 3, kernel_constraint=constraint)
    layer.build((None, 9, 9, 3))
    return largest_unit(layer.kernel)


def of_attention(constraint: Any) -> float:
    """Of what joins the heads of an attention."""
    layer = keras.layers.MultiHeadAttention(2, 16, kernel_constraint=constraint)
    layer.build((None, 5, 8), (None, 5, 8))
    return largest_unit(layer.output_dense.kernel)


def slope_at_zero(constraint: Constrain) -> float:
    """The derivative of a column of zeros, by PyTorch."""
    import torch

    w = torch.zeros((3, 1), requires_grad=True)
    constraint(w).sum().backward()
    assert w.grad is not None
    return float(w.grad[0, 0])


def norm_after_fit(constraint: Any, callbacks: list[Any]) -> float:
    """The largest norm of a unit that an optimizer with averages leaves."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(4, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((8,)), dense])
    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), "mse")
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = 5 * x[:, :4]
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
    return float(np.linalg.norm(numpy_of(dense.kernel), axis=0).max())


def refusal(make: Callable[[], Any]) -> str:
    """The error that it raises, or what it does to a column of norm 5."""
    try:
        constraint = make()
    except ValueError as error:
        return type(error).__name__
    w = ops.convert_to_tensor(np.array([[3.0], [4.0]], np.float32))
    return ", ".join(f"{x:.1f}" for x in numpy_of(constraint(w)).ravel())


def shown(constraint: Any) -> str:
    """The repr, without the module and the address of an object that has no other."""
    return re.sub(r"<.*\.(\w+ object at) .*>", r"<\1 ...>", repr(constraint))


def rows() -> Iterator[tuple[str, str, str]]:
    """What is asked, Keras' answer and ours."""

    def row(title: str, ask: Callable[..., Any], keras_has: Any, we_have: Any) -> Any:
        answers = ask(keras_has), ask(we_have)
        return (title, *(f"{a:.6g}" if isinstance(a, float) else str(a) for a in answers))

    def norm(title: str, name: str, entries: Any, *arguments: Any, **how: Any) -> Any:
        pair = (getattr(module, name)(*arguments) for module in (theirs, ours))
        return row(title, lambda c: norm_left(c, entries, **how), *pair)

    half, many = {"dtype": "float16"}, np.random.default_rng(0).normal(size=1000)
    yield norm("MaxNorm(2), norm 0.01, 10,000 calls", "MaxNorm", (0.006, 0.008), calls=10**4)
    yield norm("UnitNorm(), norm 1e-7", "UnitNorm", (6e-8, 8e-8))
    yield norm("MaxNorm(2), norm 1e20", "MaxNorm", (6e19, 8e19))
    yield norm("MaxNorm(2), norm 600, float16", "MaxNorm", [300] * 4, **half)
    yield norm("UnitNorm(), norm 2e-4, float16", "UnitNorm", [1e-4] * 4, **half)
    yield norm("MaxNorm(1), 1,000 entries, bfloat16", "MaxNorm", many, 1, dtype="bfloat16")
    yield norm("UnitNorm(), norm 0", "UnitNorm", (0, 0, 0))
    yield row("UnitNorm(), norm 0, slope", slope_at_zero, theirs.UnitNorm(), ours.UnitNorm())
    yield row("MaxNorm(2), norm 0, slope", slope_at_zero, theirs.MaxNorm(), ours.MaxNorm())
    yield row(
        "MaxNorm(-1) of 3, 4", refusal, *((lambda m=m: m.MaxNorm(-1)) for m in (theirs, ours))
    )
    pair = theirs.MaxNorm(3), KernelConstraint(nc.MaxNorm(3.0, axis="unit"))
    yield row("Conv2D on RGB, largest filter", of_filters, *pair)
    yield row("attention, largest unit of the output", of_attention, *pair)
    yield row(
        "MaxNorm(1), use_ema, largest norm after fit",
        lambda given: norm_after_fit(*given),
        (theirs.MaxNorm(1), []),
        (ours.MaxNorm(1), [ConstrainedEMA()]),
    )
    yield row("MaxNorm(2) == MaxNorm(2)", lambda m: m.MaxNorm(2) == m.MaxNorm(2), theirs, ours)
    yield row("repr(MaxNorm(2))", lambda m: shown(m.MaxNorm(2)), theirs, ours)


if __name__ == "__main__":
    print(f"{'':<45}{'keras.constraints':<25}normconstraints_keras")
    for title, keras_says, we_say in rows():
        print(f"{title:<45}{keras_says:<25}{we_say}")
