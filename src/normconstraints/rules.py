"""Which weights of a model get which constraint: patterns on names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from normconstraints.constraint import Constraint


class Rules:
    """Ordered patterns on the names of weights, each with a constraint.

    Parameters
    ----------
    rules : mapping of str to Constraint or None
        Keys are names or globs (``*``, ``?``, ``[...]``, matched against the whole name, with
        case). None exempts the weights that it matches from the rules after it.

    Raises
    ------
    TypeError
        If a key is no string, or a value neither a constraint nor None.

    Examples
    --------
    >>> import normconstraints as nc
    >>> rules = nc.Rules({"head.*": None, "*.weight": nc.MaxNorm(3.0, axis=1)})
    >>> rules.match(["body.weight", "body.bias", "head.weight"])
    {'body.weight': MaxNorm(max_value=3.0, axis=1)}
    """

    def __init__(self, rules: Mapping[str, Constraint | None]) -> None:
        if not isinstance(rules, Mapping):
            raise TypeError(f"Rules: rules must be a mapping of names, got {rules!r}")
        for pattern, constraint in rules.items():
            if not isinstance(pattern, str):
                raise TypeError(f"Rules: a pattern must be a string, got {pattern!r}")
            if not (constraint is None or isinstance(constraint, Constraint)):
                raise TypeError(
                    f"Rules: the value for {pattern!r} must be a constraint or None, got "
                    f"{constraint!r}"
                )
        self._rules = dict(rules)

    def __repr__(self) -> str:
        return f"Rules({self._rules!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rules):
            return NotImplemented
        return list(self._rules.items()) == list(other._rules.items())

    def __hash__(self) -> int:
        return hash(tuple(self._rules.items()))

    def __iter__(self) -> Iterator[tuple[str, Constraint | None]]:
        return iter(self._rules.items())

    def match(self, names: Iterable[str]) -> dict[str, Constraint]:
        """The constraint of each name that has one, in the order of the names.

        Raises
        ------
        ValueError
            If a pattern matches no name, or two constraints apply to one.
        """
        names = list(names)
        chosen: dict[str, tuple[str, Constraint | None]] = {}
        for pattern, constraint in self._rules.items():
            hits = [name for name in names if fnmatchcase(name, pattern)]
            if not hits:
                from difflib import get_close_matches  # here, for it is slow to import

                near = get_close_matches(pattern, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; the names are {names}"
                raise ValueError(f"Rules: {pattern!r} must match a weight, got none{hint}")
            for name in hits:
                first, other = chosen.setdefault(name, (pattern, constraint))
                if first != pattern and other is not None and constraint is not None:
                    raise ValueError(
                        f"Rules: {name!r} must have one constraint, got {first!r} and {pattern!r}; "
                        "make a pattern narrower, or exempt the weight with None before them"
                    )
        return {n: c for n in names if n in chosen and (c := chosen[n][1]) is not None}
