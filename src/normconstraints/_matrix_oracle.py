"""Singular values and eigenvalues in decimal arithmetic, by rotations of Jacobi, for the oracles.

Complex matrices become real ones of twice the size, in which every value is there twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from normconstraints._oracle import Group, differences, length

if TYPE_CHECKING:
    from decimal import Decimal

Matrix: TypeAlias = "list[list[Decimal]]"
"""Of rows."""
Vector: TypeAlias = "list[Decimal]"
Map: TypeAlias = Callable[["list[Decimal]"], "list[Decimal]"]
"""What a set makes of a spectrum that begins with its largest value."""


def with_singular_values(group: Group, shape: tuple[int, ...], change: Map) -> Group:
    """The matrix with other singular values."""
    columns, right, values, wide = _singular(group, shape)
    with _digits(group):
        size = len(values)
        order = sorted(range(size), key=lambda i: -values[i])
        changed = _once(change, [values[i] for i in order], group)
        found = [[x * 0 for x in row] for row in _rows(columns)]
        left = [[x / values[i] for x in columns[i]] if values[i] else [] for i in range(size)]
        _complete(left, columns[0])
        for i, value in zip(order, changed, strict=True):
            for a, row in zip(left[i], found, strict=True):
                for j, b in enumerate(right[i]):
                    row[j] += value * a * b
        return group_of(_rows(found) if wide else found, group)


def singular_values(group: Group, shape: tuple[int, ...]) -> Vector:
    """From the largest on."""
    _, _, values, _ = _singular(group, shape)
    return _each_once(sorted(values, reverse=True), group)


def with_eigenvalues(group: Group, shape: tuple[int, ...], change: Map) -> Group:
    """The self-adjoint part of the matrix with other eigenvalues."""
    vectors, values = _eigen(group, shape)
    with _digits(group):
        order = sorted(range(len(values)), key=lambda i: -values[i])
        changed = _once(change, [values[i] for i in order], group)
        found = [[x * 0 for x in row] for row in _rows(vectors)]
        for i, value in zip(order, changed, strict=True):
            for a, row in zip(vectors[i], found, strict=True):
                for j, b in enumerate(vectors[i]):
                    row[j] += value * a * b
        return group_of(found, group)


def eigenvalues(group: Group, shape: tuple[int, ...]) -> Vector:
    """Those of the self-adjoint part, from the largest on."""
    _, values = _eigen(group, shape)
    return _each_once(sorted(values, reverse=True), group)


def asymmetry(group: Group, shape: tuple[int, ...]) -> Decimal:
    """The length of the part that is no self-adjoint matrix."""
    return length(differences(group, group_of(_symmetric(real_matrix(group, shape)), group)))


def determinant_sign(group: Group, shape: tuple[int, ...]) -> int:
    """1 or -1 as the determinant of a real matrix is, 1 if it is 0, by elimination."""
    rows, sign = [list(row) for row in real_matrix(group, shape)], 1
    with _digits(group):
        for i in range(len(rows)):
            pivot = max(range(i, len(rows)), key=lambda j: abs(rows[j][i]))
            if not rows[pivot][i]:
                return 1
            if pivot != i:
                rows[i], rows[pivot], sign = rows[pivot], rows[i], -sign
            sign = -sign if rows[i][i] < 0 else sign
            for j in range(i + 1, len(rows)):
                t = rows[j][i] / rows[i][i]
                rows[j] = [a - t * b for a, b in zip(rows[j], rows[i], strict=True)]
    return sign


# ------------------------------------------------------------------------------------ rotations


def _singular(group: Group, shape: tuple[int, ...]) -> tuple[Matrix, Matrix, Vector, bool]:
    """Columns at right angles, the right vectors, the lengths, and whether it is transposed."""
    matrix = real_matrix(group, shape)
    wide = len(matrix) < len(matrix[0])
    columns = matrix if wide else _rows(matrix)

    with _digits(group) as context:
        columns = [list(c) for c in columns]
        right = _unit(len(columns), columns[0][0])
        small = (columns[0][0] * 0 + 10) ** (5 - context.prec)
        # What is left of columns that depend on others is rounding, whose angles are too.
        nothing = small * small * sum((dot(c, c) for c in columns), columns[0][0] * 0)
        moving = True
        while moving:
            moving = False
            for p in range(len(columns)):
                for q in range(p + 1, len(columns)):
                    a, b = dot(columns[p], columns[p]), dot(columns[q], columns[q])
                    c = dot(columns[p], columns[q])
                    if min(a, b) <= nothing or abs(c) <= small * (a * b).sqrt():
                        continue
                    moving = True
                    turn = _rotation(a, b, c)
                    _rotate(columns, p, q, turn)
                    _rotate(right, p, q, turn)
        columns = [c if dot(c, c) > nothing else [x * 0 for x in c] for c in columns]
        return columns, right, [dot(c, c).sqrt() for c in columns], wide


def _eigen(group: Group, shape: tuple[int, ...]) -> tuple[Matrix, Vector]:
    """The eigenvectors and the eigenvalues of the self-adjoint part."""
    with _digits(group):
        return eigensystem(_symmetric(real_matrix(group, shape)))


def eigensystem(a: Matrix) -> tuple[Matrix, Vector]:
    """The eigenvectors and the eigenvalues of a symmetric matrix, to the digits of the context."""
    import decimal

    n = len(a)
    vectors = _unit(n, a[0][0])
    size = sum((dot(row, row) for row in a), a[0][0] * 0).sqrt()
    small = size * (size * 0 + 10) ** (5 - decimal.getcontext().prec)
    moving = True
    while moving:
        moving = False
        for p in range(n):
            for q in range(p + 1, n):
                if abs(a[p][q]) <= small:
                    continue
                moving = True
                turn = _rotation(a[p][p], a[q][q], a[p][q])
                _rotate(a, p, q, turn)
                a = _rows(a)
                _rotate(a, p, q, turn)
                a = _rows(a)
                _rotate(vectors, p, q, turn)
    return vectors, [a[i][i] for i in range(n)]


def _rotation(a: Decimal, b: Decimal, c: Decimal) -> tuple[Decimal, Decimal]:
    """Cosine and sine of the rotation that makes (a, c; c, b) diagonal."""
    zeta = (b - a) / (2 * c)
    tangent = 1 / (abs(zeta) + (1 + zeta * zeta).sqrt())
    tangent = -tangent if zeta < 0 else tangent
    cosine = 1 / (1 + tangent * tangent).sqrt()
    return cosine, cosine * tangent


def _rotate(rows: Matrix, p: int, q: int, turn: tuple[Decimal, Decimal]) -> None:
    c, s = turn
    x, y = rows[p], rows[q]
    rows[p] = [c * a - s * b for a, b in zip(x, y, strict=True)]
    rows[q] = [s * a + c * b for a, b in zip(x, y, strict=True)]


def _complete(vectors: Matrix, like: Vector) -> None:
    """Fill in what is empty, with directions at right angles to all others."""
    size = len(like)
    one = like[0] * 0 + 1
    for i, v in enumerate(vectors):
        if v:
            continue
        for place in range(size):
            x = [one * (j == place) for j in range(size)]
            for u in [u for u in vectors if u] * 2:
                t = dot(u, x)
                x = [a - t * b for a, b in zip(x, u, strict=True)]
            if (square := dot(x, x)) > one / (2 * size):
                vectors[i] = [a / square.sqrt() for a in x]
                break


# --------------------------------------------------------------------------------------- shapes


def _digits(group: Group) -> AbstractContextManager[Any]:
    """As many digits as the smallest entries need beside the largest."""
    import decimal

    context = decimal.getcontext().copy()
    sizes = [x.adjusted() for entry in group for x in entry if x]
    context.prec = 60 + (max(sizes) - min(sizes) if sizes else 0)
    return decimal.localcontext(context)


def _once(change: Map, values: Vector, group: Group) -> Vector:
    """A change of values of which each is there twice if they are of a complex matrix."""
    times = len(group[0])
    return [x for x in change(_each_once(values, group)) for _ in range(times)]


def _each_once(values: Vector, group: Group) -> Vector:
    return values[:: len(group[0])]


def real_matrix(group: Group, shape: tuple[int, ...]) -> Matrix:
    """A group as a real matrix, (a, -b; b, a) if it is a + ib."""
    rows, cols = shape
    parts = [
        [[group[i * cols + j][part] for j in range(cols)] for i in range(rows)]
        for part in range(len(group[0]))
    ]
    if len(parts) == 1:
        return parts[0]
    re, im = parts
    top = [[*a, *[-x for x in b]] for a, b in zip(re, im, strict=True)]
    return top + [[*b, *a] for a, b in zip(re, im, strict=True)]


def group_of(matrix: Matrix, group: Group) -> Group:
    """The group of a real matrix."""
    if len(group[0]) == 1:
        return [(x,) for row in matrix for x in row]
    rows, cols = len(matrix) // 2, len(matrix[0]) // 2
    return [(matrix[i][j], matrix[rows + i][j]) for i in range(rows) for j in range(cols)]


def _symmetric(matrix: Matrix) -> Matrix:
    return [
        [(x + y) / 2 for x, y in zip(row, column, strict=True)]
        for row, column in zip(matrix, _rows(matrix), strict=True)
    ]


def _rows(columns: Matrix) -> Matrix:
    return [list(row) for row in zip(*columns, strict=True)]


def _unit(size: int, like: Decimal) -> Matrix:
    return [[like * 0 + int(i == j) for j in range(size)] for i in range(size)]


def dot(a: Vector, b: Vector) -> Decimal:
    products = [x * y for x, y in zip(a, b, strict=True)]
    return sum(products[1:], products[0])


def solved(matrix: Matrix, right: Vector) -> Vector:
    """The solution of a linear system, by elimination with pivots."""
    n = len(right)
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for a in range(n):
        pivot = max(range(a, n), key=lambda i: abs(rows[i][a]))
        rows[a], rows[pivot] = rows[pivot], rows[a]
        for b in range(a + 1, n):
            factor = rows[b][a] / rows[a][a]
            rows[b] = [x - factor * y for x, y in zip(rows[b], rows[a], strict=True)]
    found: Vector = []
    for row in reversed([row[i:] for i, row in enumerate(rows)]):
        known = dot(row[1:-1], found) if found else row[0] * 0
        found = [(row[-1] - known) / row[0], *found]
    return found
