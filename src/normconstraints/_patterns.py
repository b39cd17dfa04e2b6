"""Patterns of rules: which weights they choose, how they are written down, what they might mean."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from typing import Any

from normconstraints.weights import Place, Weight


class Matcher(ABC):
    """A pattern. No dataclass: five of them would take a tenth of the time to import all this."""

    def __init__(self, *key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.key == getattr(other, "key", None)

    def __hash__(self) -> int:
        return hash((type(self), self.key))

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def hits(self, place: Place, weight: Weight) -> bool:
        """Whether a place of a weight is meant."""

    def candidates(self, weights: list[Weight]) -> list[str]:
        """What could have been meant, for the error if nothing was."""
        return [place.name for weight in weights for place in weight.places]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The pattern as JSON data."""


class Names(Matcher):
    """Names that a glob matches."""

    def __str__(self) -> str:
        return repr(self.key[0])

    def hits(self, place: Place, weight: Weight) -> bool:
        return fnmatchcase(place.name, self.key[0])

    def config(self) -> dict[str, Any]:
        return {"names": self.key[0]}


class Regex(Matcher):
    """Names that a regular expression matches as a whole."""

    def __str__(self) -> str:
        return f"re.compile({self.key[0].pattern!r})"

    def hits(self, place: Place, weight: Weight) -> bool:
        return self.key[0].fullmatch(place.name) is not None

    def config(self) -> dict[str, Any]:
        # Flags such as (?i) can be written into the expression, so that text is all there is.
        if self.key[0].flags & ~re.UNICODE and not self.key[0].pattern.startswith("(?"):
            raise TypeError(
                f"Rules: a regular expression with flags cannot be written down, got {self}; put "
                "them into it, as (?i)"
            )
        return {"regex": self.key[0].pattern}


class Layer(Matcher):
    """Weights of layers of a class, by its name, so that a configuration never runs code."""

    def __str__(self) -> str:
        layer, attribute = self.key
        return layer if attribute == "*" else f"({layer}, {attribute!r})"

    def hits(self, place: Place, weight: Weight) -> bool:
        layer, attribute = self.key
        if place.layer is None or not fnmatchcase(place.attribute, attribute):
            return False
        return any(layer in (_qualified(k), k.__name__) for k in type(place.layer).__mro__)

    def candidates(self, weights: list[Weight]) -> list[str]:
        layers = [p.layer for w in weights for p in w.places if p.layer is not None]
        short = "." not in self.key[0]
        names = [type(x).__name__ if short else _qualified(type(x)) for x in layers]
        return list(dict.fromkeys(names))

    def config(self) -> dict[str, Any]:
        layer, attribute = self.key
        return {"layer": layer} if attribute == "*" else {"layer": layer, "attribute": attribute}


class Predicate(Matcher):
    """Weights of which a function says so."""

    def __str__(self) -> str:
        return str(getattr(self.key[0], "__qualname__", repr(self.key[0])))

    def hits(self, place: Place, weight: Weight) -> bool:
        return place is weight.place and bool(self.key[0](weight))

    def candidates(self, weights: list[Weight]) -> list[str]:
        return []

    def config(self) -> dict[str, Any]:
        raise TypeError(
            f"Rules: a function cannot be written down, got {self}; use a glob, a regular "
            "expression or a layer"
        )


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def matcher_of(pattern: Any) -> Matcher:
    if isinstance(pattern, Matcher):
        return pattern
    if isinstance(pattern, str):
        return Names(pattern)
    if isinstance(pattern, re.Pattern):
        return Regex(pattern)
    if isinstance(pattern, type):
        return Layer(_qualified(pattern), "*")
    if isinstance(pattern, tuple) and len(pattern) == 2:
        kind, attribute = pattern
        if isinstance(kind, type) and isinstance(attribute, str):
            return Layer(_qualified(kind), attribute)
    if callable(pattern):
        return Predicate(pattern)
    raise TypeError(
        "Rules: a pattern must be a string, a compiled regular expression, a layer class (or a "
        f"pair of that and a string) or a function of a weight, got {pattern!r}"
    )


def no_match(matcher: Matcher, weights: list[Weight]) -> str:
    text = matcher.config() if not isinstance(matcher, Predicate) else {}
    wanted = text.get("layer") or text.get("names") or text.get("regex") or ""
    return f"Rules: {nothing(str(matcher), wanted, matcher.candidates(weights))}"


def nothing(what: str, wanted: str, candidates: list[str]) -> str:
    from difflib import get_close_matches  # here, for it is slow to import

    near = get_close_matches(wanted, candidates, n=1)
    few = ", ".join(repr(name) for name in candidates[:10])
    more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
    hint = f"did you mean {near[0]!r}?" if near else f"there are {few or 'none'}{more}"
    return f"{what} must match a weight, got none; {hint}"
