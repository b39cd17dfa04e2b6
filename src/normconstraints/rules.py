"""Which weights of a model get which constraint: ordered patterns on names, layers and weights."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from normconstraints import layout
from normconstraints._array import normalise_axis
from normconstraints.config import from_config, to_config
from normconstraints.constraint import Constraint, Grouped
from normconstraints.layout import Layout, LayoutError
from normconstraints.schedules import Scheduled
from normconstraints.weights import Place, Weight, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from normconstraints.plan import Plan

__all__ = ["Bound", "Rules"]

Value: TypeAlias = Constraint | Scheduled | None
Pattern: TypeAlias = "str | re.Pattern[str] | type | tuple[type, str] | Callable[[Weight], bool]"


class _Matcher(ABC):
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


class _Names(_Matcher):
    """Names that a glob matches."""

    def __str__(self) -> str:
        return repr(self.key[0])

    def hits(self, place: Place, weight: Weight) -> bool:
        return fnmatchcase(place.name, self.key[0])

    def config(self) -> dict[str, Any]:
        return {"names": self.key[0]}


class _Regex(_Matcher):
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


class _Layer(_Matcher):
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


class _Predicate(_Matcher):
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


@dataclass(frozen=True, eq=False)
class Bound:
    """A weight with its constraint, the axes resolved."""

    weight: Weight
    rule: str
    """The pattern that chose it."""
    constraint: Constraint | Scheduled

    @property
    def name(self) -> str:
        """The name of the weight."""
        return self.weight.name

    def at(self, step: Any) -> Constraint:
        """The constraint as it is at a step."""
        c = self.constraint
        return c.at(step) if isinstance(c, Scheduled) else c

    def due(self, step: Any) -> Any:
        """Whether it acts at a step."""
        return self.constraint.due(step) if isinstance(self.constraint, Scheduled) else True

    def check(self, array: Any = None, step: int = 0) -> Any:
        """The violation of the weight, which can only be had if it fits the constraint.

        Parameters
        ----------
        array : array, optional
            What the weight is now, where that is not the array of `weight`.
        step : int, default 0
            For a constraint that changes.

        Raises
        ------
        TypeError, ValueError
            As the constraint does, with a note that names the rule and the weight.
        """
        try:
            return self.at(step).violation(self.weight.array if array is None else array)
        except (TypeError, ValueError) as error:
            error.add_note(f"This is about the weight {self.name!r}, chosen by {self.rule}.")
            raise


class Rules:
    """Ordered patterns, each with the constraint of the weights that it chooses.

    Parameters
    ----------
    rules : mapping, or list of pairs
        From patterns to constraints. A pattern is

        - a string: a name, or a glob (``*``, ``?``, ``[...]``) for the whole name, with case;
        - a compiled regular expression for the whole name;
        - a layer class, for the weights of its layers, or a pair of that and a glob for their names
          in the layer. If the constraint has a word for its axis, weights without such groups (a
          bias has no incoming weights) are passed over;
        - a function of a `Weight` that says whether it is meant.

        A value is a constraint, a `Scheduled` one, or None, which exempts the weights that it
        chooses from all other rules.
    layouts : mapping of str to str or Layout, optional
        The roles of the axes of weights by their names or globs, for ``axis="unit"`` where no layer
        is known, as in a plain dict of arrays, or is another than declared.

    Raises
    ------
    TypeError
        If a pattern or a value is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> weights = {"conv": {"kernel": np.ones((3, 3, 1, 8))}, "head": {"kernel": np.ones((8, 2))}}
    >>> rules = nc.Rules(
    ...     {"*.kernel": nc.MaxNorm(3.0, axis="unit")},
    ...     layouts={"conv.kernel": "s..io", "head.kernel": "io"},
    ... )
    >>> rules.match(weights)
    {'conv.kernel': MaxNorm(max_value=3.0, axis=(0, 1, 2)), 'head.kernel': \
MaxNorm(max_value=3.0, axis=0)}
    """

    def __init__(
        self,
        rules: Mapping[Any, Value] | Iterable[tuple[Any, Value]],
        *,
        layouts: Mapping[str, str | Layout] | None = None,
    ) -> None:
        pairs = rules.items() if isinstance(rules, Mapping) else rules
        try:
            pairs = [(pattern, value) for pattern, value in pairs]
        except (TypeError, ValueError):
            raise TypeError(
                f"Rules: rules must be a mapping, or a list of pairs, got {rules!r}"
            ) from None
        self._rules = [(_matcher(pattern), _value(pattern, value)) for pattern, value in pairs]
        self._layouts = {
            name: Layout(roles) if isinstance(roles, str) else roles
            for name, roles in (layouts or {}).items()
        }

    def __repr__(self) -> str:
        rules = ", ".join(f"{matcher}: {value!r}" for matcher, value in self._rules)
        layouts = {name: found.roles for name, found in self._layouts.items()}
        return f"Rules({{{rules}}}{f', layouts={layouts}' if layouts else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rules):
            return NotImplemented
        return self._rules == other._rules and self._layouts == other._layouts

    def __hash__(self) -> int:
        return hash((tuple(self._rules), tuple(self._layouts.items())))

    @classmethod
    def of(cls, rules: Rules | Mapping[Any, Value]) -> Rules:
        """Rules themselves, or a mapping made to rules."""
        return rules if isinstance(rules, Rules) else cls(rules)

    # ------------------------------------------------------------------------------- binding

    def match(self, model: Any) -> dict[str, Constraint | Scheduled]:
        """The constraints of the weights of a model by name, with their axes resolved.

        Parameters
        ----------
        model : dict, list or tuple of arrays, or a model of a framework
            As for `normconstraints.weights.weights_of`.

        Raises
        ------
        ValueError
            As `bind` does.
        """
        return {bound.name: bound.constraint for bound in self.bind(model)}

    def bind(self, model: Any) -> list[Bound]:
        """The weights of a model that have a constraint, in the order of the model.

        Parameters
        ----------
        model : dict, list or tuple of arrays, or a model of a framework
            As for `normconstraints.weights.weights_of`. No weight is read or changed.

        Returns
        -------
        list of Bound
            Weights with their constraints, the axes resolved.

        Raises
        ------
        ValueError
            If a pattern chooses no weight, two rules choose one, the axes of a weight are not
            known or do not exist, or a weight is shared by layers that differ in them.
        """
        weights = weights_of(model)
        chosen: dict[int, list[tuple[int, _Matcher, Constraint | Scheduled]]] = {}
        exempt: set[int] = set()
        for number, (matcher, value) in enumerate(self._rules):
            hits = [i for i, weight in enumerate(weights) if self._hits(matcher, value, weight)]
            if not hits:
                raise ValueError(_no_match(matcher, weights))
            for i in hits:
                if value is None:
                    exempt.add(i)
                else:
                    chosen.setdefault(i, []).append((number, matcher, value))
        self._check_layouts(weights)
        for number, (matcher, value) in enumerate(self._rules):
            mine = [i for i, found in chosen.items() if number in [n for n, _, _ in found]]
            if value is not None and exempt.issuperset(mine):
                raise ValueError(
                    f"Rules: {matcher} must choose a weight, and all that it matches are exempted "
                    "by a rule with None"
                )
        bound = []
        for i, weight in enumerate(weights):
            if i not in chosen or i in exempt:
                continue
            (_, matcher, value), *others = chosen[i]
            if others:
                raise ValueError(
                    f"Rules: {weight.name!r} must have one constraint, got those of {matcher} and "
                    f"{others[0][1]}; make a pattern narrower, or exempt the weight with None"
                )
            bound.append(Bound(weight, str(matcher), self._resolved(matcher, value, weight)))
        return bound

    def plan(self, model: Any) -> Plan:
        """What the rules will do to a model, as a table to print before training.

        Parameters
        ----------
        model : dict, list or tuple of arrays, or a model of a framework
            As for `bind`. Nothing is changed.

        Returns
        -------
        Plan
            Prints as a table; its rows are plain data.
        """
        from normconstraints.plan import make_plan

        return make_plan(self, model)

    def layout_of(self, place: Place) -> Layout:
        """The roles of the axes of a weight: given with the rules, or by its layer.

        Raises
        ------
        LayoutError
            If neither knows them.
        """
        for pattern, found in self._layouts.items():
            if fnmatchcase(place.name, pattern):
                return found
        return place.layout()

    def _hits(self, matcher: _Matcher, value: Value, weight: Weight) -> bool:
        places = [place for place in weight.places if matcher.hits(place, weight)]
        if isinstance(matcher, _Layer) and value is not None:
            word = layout.axis_word(_inner(value))
            if word is not None:
                return any(self.layout_of(place).has(word) for place in places)
        return bool(places)

    def _resolved(
        self, matcher: _Matcher, value: Constraint | Scheduled, weight: Weight
    ) -> Constraint | Scheduled:
        constraint = _inner(value)
        try:
            found = constraint
            if layout.axis_word(constraint) is not None:
                first, *others = [
                    layout.resolve(constraint, self.layout_of(place), weight.shape)
                    for place in weight.places
                ]
                if any(other != first for other in others):
                    names = " and ".join(repr(place.name) for place in weight.places)
                    raise LayoutError(
                        f"{names} are one weight, and their layers use its axes differently; give "
                        "the axis as a number"
                    )
                found = first
            elif isinstance(constraint, Grouped):
                normalise_axis(constraint.axis, len(weight.shape), type(constraint).__name__)
        except ValueError as error:
            raise type(error)(
                f"Rules: {matcher} cannot serve {weight.name!r} of shape {weight.shape}: {error}"
            ) from error
        if not isinstance(value, Scheduled):
            return found
        return Scheduled(found, value.changing, every=value.every, start=value.start)

    def _check_layouts(self, weights: list[Weight]) -> None:
        names = [place.name for weight in weights for place in weight.places]
        for pattern in self._layouts:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"Rules: layouts: {_nothing(repr(pattern), pattern, names)}")

    # ----------------------------------------------------------------------- configurations

    def to_config(self) -> dict[str, Any]:
        """The rules as data that `json.dumps` writes.

        Raises
        ------
        TypeError
            If a pattern is a function, a schedule is, or a constraint's class is not registered.

        Examples
        --------
        >>> import normconstraints as nc
        >>> rules = nc.Rules({"head.*": None, "*.weight": nc.MaxNorm(3.0, axis=1)})
        >>> rules.to_config()["rules"][0]
        {'names': 'head.*', 'exempt': True}
        >>> nc.Rules.from_config(rules.to_config()) == rules
        True
        """
        rules = [{**matcher.config(), **_value_config(value)} for matcher, value in self._rules]
        if not self._layouts:
            return {"rules": rules}
        layouts = {
            name: found.roles if found.groups == 1 else [found.roles, found.groups]
            for name, found in self._layouts.items()
        }
        return {"rules": rules, "layouts": layouts}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The rules that `to_config` wrote down.

        Raises
        ------
        TypeError, ValueError
            If `config` is not of that form; the rule is named.
        """
        if not isinstance(config, Mapping) or not {"rules"} <= set(config) <= {"rules", "layouts"}:
            raise ValueError(
                "Rules: config must be a mapping with the key 'rules', and perhaps 'layouts', got "
                f"{config!r}"
            )
        if not isinstance(config["rules"], list | tuple):
            raise ValueError(f"Rules: 'rules' must be a list of rules, got {config['rules']!r}")
        pairs = [_rule_from_config(i, rule) for i, rule in enumerate(config["rules"])]
        layouts = {
            name: Layout(*roles) if isinstance(roles, list | tuple) else roles
            for name, roles in config.get("layouts", {}).items()
        }
        return cls(pairs, layouts=layouts)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Rules from a file in TOML or JSON, by its ending.

        Raises
        ------
        ValueError
            If the ending is another, the file is not well formed, or holds no rules.

        Examples
        --------
        A file ``rules.toml``::

            [[rules]]
            names = "head.*"
            exempt = true

            [[rules]]
            layer = "Linear"
            constraint = "MaxNorm"
            parameters = { max_value = 3.0, axis = "unit" }
        """
        import json
        import tomllib
        from pathlib import Path

        path = Path(path)
        readers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
        if path.suffix not in readers:
            raise ValueError(f"Rules: path must end in .toml or .json, got {str(path)!r}")
        text = path.read_text(encoding="utf-8")
        try:
            config = readers[path.suffix](text)
        except ValueError as error:
            raise ValueError(f"Rules: {str(path)!r} is not well formed: {error}") from error
        try:
            return cls.from_config(config)
        except (ValueError, TypeError) as error:
            error.add_note(f"This is about the file {str(path)!r}.")
            raise


def _inner(value: Constraint | Scheduled) -> Constraint:
    return value.constraint if isinstance(value, Scheduled) else value


def _matcher(pattern: Any) -> _Matcher:
    if isinstance(pattern, _Matcher):
        return pattern
    if isinstance(pattern, str):
        return _Names(pattern)
    if isinstance(pattern, re.Pattern):
        return _Regex(pattern)
    if isinstance(pattern, type):
        return _Layer(_qualified(pattern), "*")
    if isinstance(pattern, tuple) and len(pattern) == 2:
        kind, attribute = pattern
        if isinstance(kind, type) and isinstance(attribute, str):
            return _Layer(_qualified(kind), attribute)
    if callable(pattern):
        return _Predicate(pattern)
    raise TypeError(
        "Rules: a pattern must be a string, a compiled regular expression, a layer class (or a "
        f"pair of that and a string) or a function of a weight, got {pattern!r}"
    )


def _value(pattern: Any, value: Any) -> Value:
    if value is None or isinstance(value, Constraint | Scheduled):
        return value
    raise TypeError(
        f"Rules: the value for {_matcher(pattern)} must be a constraint or None, got {value!r}"
    )


def _no_match(matcher: _Matcher, weights: list[Weight]) -> str:
    text = matcher.config() if not isinstance(matcher, _Predicate) else {}
    wanted = text.get("layer") or text.get("names") or text.get("regex") or ""
    return f"Rules: {_nothing(str(matcher), wanted, matcher.candidates(weights))}"


def _nothing(what: str, wanted: str, candidates: list[str]) -> str:
    from difflib import get_close_matches  # here, for it is slow to import

    near = get_close_matches(wanted, candidates, n=1)
    few = ", ".join(repr(name) for name in candidates[:10])
    more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
    hint = f"did you mean {near[0]!r}?" if near else f"there are {few or 'none'}{more}"
    return f"{what} must match a weight, got none; {hint}"


def _value_config(value: Value) -> dict[str, Any]:
    if value is None:
        return {"exempt": True}
    if not isinstance(value, Scheduled):
        return to_config(value)
    config: dict[str, Any] = to_config(value.constraint)
    for name, schedule in dict(value.changing).items():
        try:
            config.setdefault("changing", {})[name] = to_config(schedule)  # type: ignore[arg-type]
        except TypeError as error:
            raise TypeError(
                f"Rules: the schedule of {name} cannot be written down, got {schedule!r}; use "
                "normconstraints.schedules, or register a class of your own"
            ) from error
    return {**config, "every": value.every, "start": value.start}


_VALUE_KEYS = {"constraint", "parameters", "changing", "every", "start", "exempt"}


def _rule_from_config(number: int, rule: Any) -> tuple[_Matcher, Value]:
    what = f"Rules: rule {number + 1}"
    if not isinstance(rule, Mapping):
        raise ValueError(f"{what} must be a mapping, got {rule!r}")
    pattern = {k: v for k, v in rule.items() if k not in _VALUE_KEYS}
    if not all(isinstance(v, str) for v in pattern.values()):
        raise ValueError(f"{what}: patterns must be strings, got {pattern!r}")
    matcher: _Matcher
    if set(pattern) == {"names"}:
        matcher = _Names(pattern["names"])
    elif set(pattern) == {"regex"}:
        try:
            matcher = _Regex(re.compile(pattern["regex"]))
        except re.error as error:
            raise ValueError(
                f"{what}: regex must be a regular expression, got {pattern['regex']!r}: {error}"
            ) from error
    elif {"layer"} <= set(pattern) <= {"layer", "attribute"}:
        matcher = _Layer(pattern["layer"], pattern.get("attribute", "*"))
    else:
        raise ValueError(
            f"{what} must have one of the keys 'names', 'regex' and 'layer' (perhaps with "
            f"'attribute'), and for its constraint {', '.join(sorted(_VALUE_KEYS))}; got "
            f"{', '.join(sorted(map(str, rule)))}"
        )
    if rule.get("exempt") is True and set(rule) - set(pattern) == {"exempt"}:
        return matcher, None
    try:
        constraint = from_config(
            {"constraint": rule.get("constraint"), "parameters": rule.get("parameters", {})}
        )
        changing = {k: from_config(v) for k, v in rule.get("changing", {}).items()}
        if not set(rule) & {"changing", "every", "start"}:
            return matcher, _value(matcher, constraint)
        every, start = rule.get("every", 1), rule.get("start", 0)
        return matcher, Scheduled(constraint, changing, every=every, start=start)
    except (TypeError, ValueError) as error:
        error.add_note(f"This is about rule {number + 1}, for {matcher}.")
        raise
