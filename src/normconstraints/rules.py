"""Which weights of a model get which constraint: ordered patterns on names, layers and weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from normconstraints import layout
from normconstraints._patterns import (
    Layer,
    Matcher,
    Names,
    Regex,
    matcher_of,
    no_match,
    nothing,
)
from normconstraints.config import from_config, to_config
from normconstraints.constraint import Constraint
from normconstraints.layout import Layout, LayoutError
from normconstraints.schedules import Scheduled
from normconstraints.weights import Place, Weight, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from normconstraints.plan import Plan

__all__ = ["Bound", "Rules"]

Value: TypeAlias = Constraint | Scheduled | None
_ITSELF = "the model itself"
"""What stands for a pattern where a model says itself what holds of a weight."""
Pattern: TypeAlias = "str | re.Pattern[str] | type | tuple[type, str] | Callable[[Weight], bool]"


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
        chooses from all other rules, and from what the model itself says.
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
        self._rules = [(matcher_of(pattern), _value(pattern, value)) for pattern, value in pairs]
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
            If a pattern chooses no weight, two rules choose one, or one that has a constraint by
            the model itself, the axes of a weight are not known or do not exist, or a weight is
            shared by layers that differ in them.
        """
        weights = weights_of(model)
        chosen: dict[int, list[tuple[int, Matcher | str, Constraint | Scheduled]]] = {
            i: [(-1, _ITSELF, weight.constraint)]
            for i, weight in enumerate(weights)
            if weight.constraint is not None
        }
        exempt: set[int] = set()
        for number, (matcher, value) in enumerate(self._rules):
            hits = [i for i, weight in enumerate(weights) if self._hits(matcher, value, weight)]
            if not hits:
                raise ValueError(no_match(matcher, weights))
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
            (_, chooser, value), *others = chosen[i]
            if others:
                raise ValueError(
                    f"Rules: {weight.name!r} must have one constraint, got those of {chooser} and "
                    f"{others[0][1]}; make a pattern narrower, or exempt the weight with None"
                )
            bound.append(Bound(weight, str(chooser), self._resolved(chooser, value, weight)))
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

    def _hits(self, matcher: Matcher, value: Value, weight: Weight) -> bool:
        places = [place for place in weight.places if matcher.hits(place, weight)]
        if isinstance(matcher, Layer) and value is not None:
            word = layout.axis_word(_inner(value))
            if word is not None:
                return any(self.layout_of(place).has(word) for place in places)
        return bool(places)

    def _resolved(
        self, matcher: Matcher | str, value: Constraint | Scheduled, weight: Weight
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
            else:
                constraint._span(len(weight.shape))  # so that a wrong axis is an error here too
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
                raise ValueError(f"Rules: layouts: {nothing(repr(pattern), pattern, names)}")

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


def _value(pattern: Any, value: Any) -> Value:
    if value is None or isinstance(value, Constraint | Scheduled):
        return value
    raise TypeError(
        f"Rules: the value for {matcher_of(pattern)} must be a constraint or None, got {value!r}"
    )


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


def _rule_from_config(number: int, rule: Any) -> tuple[Matcher, Value]:
    what = f"Rules: rule {number + 1}"
    if not isinstance(rule, Mapping):
        raise ValueError(f"{what} must be a mapping, got {rule!r}")
    pattern = {k: v for k, v in rule.items() if k not in _VALUE_KEYS}
    if not all(isinstance(v, str) for v in pattern.values()):
        raise ValueError(f"{what}: patterns must be strings, got {pattern!r}")
    matcher: Matcher
    if set(pattern) == {"names"}:
        matcher = Names(pattern["names"])
    elif set(pattern) == {"regex"}:
        try:
            matcher = Regex(re.compile(pattern["regex"]))
        except re.error as error:
            raise ValueError(
                f"{what}: regex must be a regular expression, got {pattern['regex']!r}: {error}"
            ) from error
    elif {"layer"} <= set(pattern) <= {"layer", "attribute"}:
        matcher = Layer(pattern["layer"], pattern.get("attribute", "*"))
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
