"""The decompositions in decimal arithmetic that spectral sets are checked against."""

from __future__ import annotations

import decimal

import numpy as np
import pytest

from normconstraints._matrix_oracle import singular_values, with_singular_values
from normconstraints.testing._exact import digits, to_group


@pytest.mark.parametrize("seed", range(12))
def test_columns_that_depend_on_others_are_no_directions(seed: int) -> None:
    """Their angles are rounding for ever; the rotations did not end, or overflowed."""
    rng = np.random.default_rng(seed)
    w = np.outer(rng.integers(-3, 4, 5), rng.integers(-3, 4, 3)) * 1.0
    with digits():
        values = singular_values(to_group(w), w.shape)
        assert values[1:] == [0, 0]
        assert float(values[0]) == pytest.approx(np.linalg.norm(w))
        one = with_singular_values(to_group(w), w.shape, lambda s: [decimal.Decimal(1)] * len(s))
    u = np.reshape([float(x) for (x,) in one], w.shape)
    np.testing.assert_allclose(u.T @ u, np.eye(3), atol=1e-15)


def test_small_singular_values_are_no_rounding() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    w = rotation * np.array([[1e300], [1.0], [1e-300]])
    with digits():
        found = [float(x) for x in singular_values(to_group(w), w.shape)]
    # The product of all is that of the diagonal.
    assert np.sum(np.log10(found)) == pytest.approx(0, abs=1e-6)
    assert found[2] > 0
