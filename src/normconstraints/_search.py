"""How far to go along a way, for Newton's methods that minimise convex functions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from normconstraints._array import Array


class Search(NamedTuple):
    """How far to go along a way on which a convex function first falls.

    Its slope rises; where it is half of what it was in the beginning, on either side of 0, that is
    far enough. It may bend anywhere, so that where it is 0 lies between two lengths that come
    nearer to each other: by secants, of which the one end that stays has its slope halved (the
    Illinois method).
    """

    step: Array
    low: Array
    high: Array
    first: Array
    """The slope in the beginning."""
    at_low: Array
    at_high: Array

    @classmethod
    def begun(cls, slope: Array) -> Search:
        """A search that tries the whole way first."""
        one = slope * 0.0 + 1.0
        return cls(one, 0.0 * one, math.inf * one, slope, slope, 0.0 * one)

    def found(self, slope: Array) -> Array:
        """Whether the step that was tried is right: its slope is given."""
        beyond = slope > -self.first / 2
        short = (slope < self.first / 2) & (self.high < math.inf)
        return ~(beyond | short) | (self.step < 1e-12)

    def following(self, slope: Array, fall: Array, over: Array, xp: Any) -> Search:
        """The next step to try; where this search is over one along a way that falls as given."""
        beyond, again = slope > 0, self.high < math.inf
        low = xp.where(beyond, self.low, self.step)
        high = xp.where(beyond, self.step, self.high)
        at_low = xp.where(beyond, xp.where(again, self.at_low / 2, self.at_low), slope)
        at_high = xp.where(beyond, slope, self.at_high / 2)
        width = xp.where(over, xp.zeros_like(low), high - low)
        rise = xp.where(over, xp.ones_like(low), at_high - at_low)
        fresh = Search.begun(fall)
        return Search(
            xp.where(over, fresh.step, low - width * at_low / rise),
            xp.where(over, fresh.low, low),
            xp.where(over, fresh.high, high),
            xp.where(over, fresh.first, self.first),
            xp.where(over, fresh.at_low, at_low),
            xp.where(over, fresh.at_high, at_high),
        )
