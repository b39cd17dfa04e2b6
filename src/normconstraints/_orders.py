"""Orders in which projections onto several sets give the nearest member of all.

Each table is one lemma, with its proof above it. `Intersection` uses them; see
docs/adr/0011-intersections.md.
"""

from __future__ import annotations

from typing import Any

from normconstraints.constraint import Constraint, is_registered

# Sets are looked up by their registered names, so that this module needs none of them. What is
# proved of two sets is proved of each group, and of a cone in larger groups than its own: a product
# of cones is a cone.
#
# Intervals. Along one coordinate, clipping to [a, b] and then to [c, d] is clipping to what they
# have in common, if there is anything. So is shrinking a complex number to one disc around 0 and
# then to another.
_INTERVALS = {"Box", "LInfBall", "Mask", "NonNeg", "NonPos", "SignPattern", "Triangular"}

# Signs and supports first, then a set that contains with each member also the member with some
# entries replaced by 0 ("hereditary"): let w' be w with the entries at 0 that the signs do not
# allow. A common member with one of these entries not 0 becomes nearer to w by making it 0, so the
# nearest has 0 there and is for the rest the nearest to w'. The nearest to w' in the hereditary set
# alone has 0 where w' has, and for the rest the signs of w' or 0, as again 0 would be nearer.
# L1 balls: J. Duchi et al., ICML 2008, section 4.
_SIGNS = {"Mask", "NonNeg", "NonPos", "SignPattern", "Triangular"}
_HEREDITARY = _SIGNS | {
    "GroupL1Ball",
    "GroupTopK",
    "L1Ball",
    "L1InfBall",
    "LInfBall",
    "MaxNorm",
    "NOfM",
    "SolidSimplex",
    "TopK",
    "WeightedL1Ball",
}

# A closed cone K, convex or not, and then a ball around 0 whose groups hold those of the cone: with
# a unit vector u and t >= 0, |w - t u|^2 = |w|^2 - 2 t <w, u> + t^2. For every t the best u in K is
# p / |p| with p = P_K(w), as <w, u> is largest there, namely |p|; then t = min(|p|, r) is best. If
# p is 0, no <w, u> is positive and 0 is nearest. H. Bauschke, M. Bui, X. Wang, "Projecting onto the
# intersection of a cone and a sphere", SIAM J. Optim. 28 (2018).
_CONES: dict[str, dict[str, float]] = {
    "Circulant": {},
    "FixedSum": {"total": 0.0},
    "GroupTopK": {},
    "HalfSpace": {"offset": 0.0},
    "Hyperplane": {"offset": 0.0},
    "Mask": {},
    "NOfM": {},
    "NonNeg": {},
    "NonPos": {},
    "PositiveSemidefinite": {"minimum": 0.0},
    "SecondOrderCone": {},
    "SignPattern": {},
    "SkewSymmetric": {},
    "Symmetric": {},
    "Tied": {},
    "Toeplitz": {},
    "TopK": {},
    "Triangular": {},
    "ZeroMean": {},
}

# A union of subspaces and then any set of lengths, as above. Where p is 0 every direction in K is
# as near; the group stays at 0, as it does in the set of lengths. (In other cones one direction
# would be nearest, which the sphere cannot know: NonNeg, then UnitNorm is not here.) Hermitian
# matrices are a subspace of the real and imaginary parts, which lengths scale alike.
_SUBSPACES = {
    "Circulant",
    "FixedSum",
    "GroupTopK",
    "Hyperplane",
    "Mask",
    "NOfM",
    "SkewSymmetric",
    "Symmetric",
    "Tied",
    "Toeplitz",
    "TopK",
    "Triangular",
    "ZeroMean",
}
_LENGTHS: dict[str, dict[str, float]] = {
    "FixedNorm": {},
    "MaxNorm": {},
    "MinMaxNorm": {"rate": 1.0},
    "MinNorm": {},
    "UnitNorm": {},
    "UnitRMS": {},
}

# The largest moduli first, then a hereditary ball that does not tell entries of one group from
# another: where a smaller modulus was kept and a larger one not, exchanging them is nearer.
# A. Kyrillidis et al., "Sparse projections onto the simplex", ICML 2013. (Not the simplex: it gives
# to entries that are 0.)
_LARGEST = {"NOfM", "TopK"}
_SYMMETRIC = {"L1Ball", "LInfBall"}

# A subspace S, and then sets that lie in it: for z in S, with p = P_S(w), |w - z|^2 is
# |w - p|^2 + |p - z|^2, so that the nearest z to w is the nearest to p.
_OF_SYMMETRIC = {"Correlation", "PositiveSemidefinite", "Spectraplex"}

# Balls of one norm lie in each other: the smaller one counts, in whichever order. (For L1 balls the
# thresholds add up.)
_NESTED = {"L1Ball", "LInfBall", "MaxNorm", "SolidSimplex"}


def exact_order(parts: tuple[Constraint, ...]) -> tuple[Constraint, ...] | None:
    """The order in which projections give the nearest common member, None if none is known."""
    kinds = [kind_of(c) for c in parts]
    if len(parts) == 1 or set(kinds) <= _INTERVALS:
        return parts
    for i, one in enumerate(parts):
        rest = parts[:i] + parts[i + 1 :]
        others = set(kinds[:i] + kinds[i + 1 :])
        hereditary = kinds[i] in _SIGNS and others <= _HEREDITARY
        largest = kinds[i] in _LARGEST and others <= _SYMMETRIC
        if hereditary or (largest and all(_groups_hold(c, one) for c in rest)):
            order = exact_order(rest)
            if order is not None:
                return (one, *order)
        within = kinds[i] == "Symmetric" and others <= _OF_SYMMETRIC
        if within and all(_groups_hold(one, c) for c in rest):
            order = exact_order(rest)
            if order is not None:
                return (one, *order)
        lengths = _fits(one, _LENGTHS) and others <= _SUBSPACES
        radial = lengths or kinds[i] == "MaxNorm"
        if radial and all(_fits(c, _CONES) and _groups_hold(one, c) for c in rest):
            order = exact_order(rest)
            if order is not None:
                return (*order, one)
    nested = len(set(kinds)) == 1 and kinds[0] in _NESTED
    same = nested and all(_axis(c) == _axis(parts[0]) for c in parts)
    return parts if same else None


def kind_of(constraint: Constraint) -> str:
    """The registered name of the class, "" of a class that only happens to have it."""
    name = type(constraint).__name__
    return name if is_registered(type(constraint)) else ""


def _fits(constraint: Constraint, table: dict[str, dict[str, float]]) -> bool:
    """Whether the set is in a table, with the parameters that are asked for there."""
    asked = table.get(kind_of(constraint))
    if asked is None:
        return False
    values = [(getattr(constraint, name, None), value) for name, value in asked.items()]
    return all(type(given) is float and given == value for given, value in values)


def _axis(constraint: Constraint) -> Any:
    return getattr(constraint, "axis", "?")


def _groups_hold(outer: Constraint, inner: Constraint) -> bool:
    """Whether each group of `outer` is made of whole groups of `inner`, for any weight."""
    wide, narrow = _axis(outer), _axis(inner)
    if wide is None or kind_of(inner) in _SIGNS or wide == narrow:
        return True
    if narrow is None or isinstance(wide, str) or isinstance(narrow, str):
        return False
    # 0 and -2 may be one axis or two, which only the weight tells: equal signs are asked for.
    big = set(wide if isinstance(wide, tuple) else (wide,))
    small = set(narrow if isinstance(narrow, tuple) else (narrow,))
    return small <= big and len({a < 0 for a in big}) == 1
