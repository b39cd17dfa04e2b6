"""What a constraint is: the template that every set fills in, and what only some can do."""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, final

from normconstraints import _array, _sharded, derivatives
from normconstraints._array import Array, Namespace, Precision
from normconstraints._parameters import WHOLE, Axis, Number, as_numbers, is_array
from normconstraints._random import Draw

_TEACH_AXIS = (
    "axis must be given by keyword: the axes that one group spans, as in numpy.sum(axis=). For the "
    "incoming weights of each unit write axis=1 for a weight of shape (out, in) (PyTorch, "
    "Equinox), axis=0 for (in, out) (Keras, Flax, scikit-learn), axis=(1, 2, 3) for (out, in, "
    "height, width), axis=(0, 1, 2) for (height, width, in, out); axis=None takes the whole array "
    'as one group, axis="unit" lets an adapter decide by the layer'
)


class Parametrised:
    """What has parameters: compared, hashed and pickled by them, and `axis` by keyword."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse to be built without `axis`, if the class has one."""
        # Python's own message would say that an argument is missing, not what to put there.
        field = getattr(cls, "__dataclass_fields__", {}).get("axis")
        required = field is not None and field.kw_only and field.default is dataclasses.MISSING
        if required and "axis" not in kwargs:
            raise TypeError(f"{cls.__name__}: {_TEACH_AXIS}")
        return super().__new__(cls)

    @final
    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            as_numbers(value) == as_numbers(getattr(other, name))
            for name, value in parameters(self).items()
        )

    @final
    def __hash__(self) -> int:
        values = parameters(self)
        for name, value in values.items():
            if is_array(value):
                raise TypeError(
                    f"{type(self).__name__}: {name} is an array, and arrays have no hash; give "
                    "nested tuples of numbers to get a hashable constraint"
                )
        return hash((type(self), *values.values()))

    @final
    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor: __new__ insists on its keyword, and what is checked stays
        # checked.
        return _rebuild, (type(self), parameters(self))


class Constraint(Parametrised, ABC):
    """A closed set of arrays, immutable; calling it returns the nearest member.

    A set fills in `_project` and `_violation`; what a caller uses is final and checks the input
    first. A subclass is a frozen dataclass whose fields are its parameters, so that it prints,
    compares, hashes and pickles by them::

        @register
        @final
        @dataclass(frozen=True, eq=False)
        class NonNeg(Constraint):
            def _project(self, w, xp): ...
            def _violation(self, w, xp): ...

    See Also
    --------
    normconstraints.testing.check_constraint : proves the contract for any subclass.
    """

    allows_complex: ClassVar[bool] = True
    """Whether the set has a meaning for complex numbers."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The functions of the `linalg` extension of the standard that it is made of."""

    @final
    def project(self, w: Array) -> Array:
        """The member of the set that is nearest to `w`, as a new array.

        Parameters
        ----------
        w : array
            Of any library that follows the array API standard, with a floating point dtype and any
            number of dimensions. It is not changed.

        Returns
        -------
        array
            Of the type, dtype, shape and device of `w`. What is inside already comes back bit for
            bit. A group that holds NaN or infinity comes back as it is (sets that bound each entry
            by itself keep NaN and clip infinity).

        Raises
        ------
        TypeError
            If `w` is not an array, or not of floating point.
        ValueError
            If an axis or the shape of a parameter does not fit `w`.
        """
        xp = _array.namespace(w, type(self).__name__)
        self._precision(w, xp)
        if _array.is_sharded(w):
            return _sharded.project(self, w, xp)
        if 0 in w.shape:
            self._violation(w, xp)  # so that a wrong axis is an error here too
            return _array.copy(w, xp)
        if derivatives._attached and isinstance(self, HasVJP):
            return _recorded(self, w, xp)
        return _array.as_array(self._project(w, xp), w, xp)

    __call__ = project

    @final
    def project_(self, w: Array) -> Array:
        """Replace `w` by the nearest member of the set, in place.

        Parameters
        ----------
        w : array
            As for `project`, and such that it can be changed.

        Returns
        -------
        array
            `w` itself, now bit for bit what ``project(w)`` would have returned.

        Raises
        ------
        TypeError
            If the library has immutable arrays, as JAX has.
        ValueError
            If `w` is read-only, or a torch tensor whose change autograd would record.
        """
        name = type(self).__name__
        xp = _array.namespace(w, name)
        self._precision(w, xp)
        _array.check_writable(w, xp, name)
        if _array.is_sharded(w):
            with _array.unrecorded(xp):
                _sharded.project_(self, w, xp)
        elif 0 in w.shape:
            self._violation(w, xp)
        elif isinstance(self, InPlace):
            with _array.unrecorded(xp):
                self._project_into(w, w, xp)
        else:
            with _array.unrecorded(xp):
                _array.write(w, self._project(w, xp))
        return w

    @final
    def violation(self, w: Array) -> Array:
        """How far each group is outside the set, in the units of the weights.

        Parameters
        ----------
        w : array
            As for `project`.

        Returns
        -------
        array
            One real number for each group: `w` without the axes of the groups. 0 exactly where
            `project` leaves the group alone; NaN where the group holds NaN or infinity (for sets
            that bound each entry by itself only where it holds NaN). Computed from the
            definition of the set, not from the projection.
        """
        xp = _array.namespace(w, type(self).__name__)
        self._precision(w, xp)
        if _array.is_sharded(w):
            return _sharded.violation(self, w, xp)
        return self._violation(w, xp)

    @final
    def __and__(self, other: Constraint) -> Constraint:
        """The set of what is in both: an `Intersection`."""
        if not isinstance(other, Constraint):
            return NotImplemented
        # By its name: it is made of constraints, so that this module cannot know it.
        intersection: Any = registered("Intersection")
        both: Constraint = intersection(self, other)
        return both

    @abstractmethod
    def _project(self, w: Array, xp: Namespace) -> Array:
        """The nearest member. `w` is an array of floating point with at least one entry."""

    @abstractmethod
    def _violation(self, w: Array, xp: Namespace) -> Array:
        """The distance of each group from the set by its definition, 0 inside."""

    def _span(self, ndim: int) -> tuple[int, ...]:
        """The axes that a group spans; all of them if that is not known."""
        return tuple(range(ndim))

    def _whole(self, ndim: int) -> tuple[int, ...]:
        """Those of them along which an array must not be cut over processes."""
        return self._span(ndim)

    def _can(self, kind: type) -> bool:
        """Whether the set is of a kind; one made of others may be by what these are."""
        return isinstance(self, kind)

    @final
    def _fits_parts(self) -> bool:
        """Whether no parameter belongs to a place in the array, so that any part has the same."""
        fields: dict[str, dataclasses.Field[Any]] = getattr(self, "__dataclass_fields__", {})
        for field in fields.values():
            value = getattr(self, field.name)
            if held := parts(value):
                if not all([part._fits_parts() for part in held]):  # noqa: C419 - for Dynamo
                    return False
            elif field.metadata.get("per") != WHOLE and (_has_shape(value) or _has_float(value)):
                return False
        return True

    @final
    def _precision(self, w: Array, xp: Namespace) -> Precision:
        name = type(self).__name__
        return _array.precision(w, xp, name, allow_complex=self.allows_complex)


def _recorded(constraint: HasVJP, w: Array, xp: Namespace) -> Array:
    """The projection, with the derivative that the set states where an adapter has registered."""

    def project(w: Array) -> Array:
        return _array.as_array(constraint._project(w, xp), w, xp)

    attach = derivatives.attachment(xp, parameters(constraint).values())
    if attach is None:
        return project(w)

    def vjp(w: Array, result: Array, g: Array) -> Array:
        with _array.quiet(xp):
            return _array.as_array(constraint._vjp(w, result, g, xp), w, xp)

    return attach(project, vjp, w)


def parameters(constraint: Parametrised) -> dict[str, Any]:
    """The fields of a constraint by name."""
    if not dataclasses.is_dataclass(constraint):
        return {}
    return {field.name: getattr(constraint, field.name) for field in dataclasses.fields(constraint)}


def _has_shape(value: Any) -> bool:
    """Whether a parameter is an array of more than one number, such as a schedule gives."""
    return is_array(value) and tuple(value.shape) != ()


def _has_float(value: Any) -> bool:
    """Whether a parameter is nested tuples of numbers: axes and places are integers."""
    if isinstance(value, tuple):
        return any([_has_float(v) or isinstance(v, float | bool) for v in value])  # noqa: C419
    return False


def parts(value: Any) -> tuple[Constraint, ...]:
    """The constraints that a parameter holds: itself, those of a tuple, or none."""
    members = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in members if isinstance(v, Constraint))


def with_parts(value: Any, change: Callable[[Constraint], Constraint]) -> Any:
    """A parameter that holds constraints with each of them changed."""
    return tuple(change(c) for c in value) if isinstance(value, tuple) else change(value)


def _rebuild(cls: type[Parametrised], values: dict[str, Any]) -> Parametrised:
    return cls(**values)


_C = TypeVar("_C", bound=type[Any])
_registered: dict[str, type[Any]] = {}
"""The classes that a configuration may name, so far as their modules are imported."""
_announced: dict[str, str] = {}
"""The modules of those that may not be."""


def announce(modules: dict[str, str]) -> None:
    """Say which module registers a class of a name, for it to be imported when it is asked for."""
    _announced.update(modules)


def registered_names() -> list[str]:
    """The names of all classes that a configuration may name."""
    return sorted({*_registered, *_announced})


def registered(name: str) -> type[Any] | None:
    """The class of that name."""
    if name not in _registered and name in _announced:
        importlib.import_module(_announced[name])
    return _registered.get(name)


def is_registered(cls: type[Any]) -> bool:
    """Whether the class is the one that its name stands for."""
    return _registered.get(cls.__name__) is cls


def register(cls: _C) -> _C:
    """Make a class known to `from_config` by its name; a decorator.

    Raises
    ------
    ValueError
        If another class has that name.
    """
    name, known = cls.__name__, _registered.get(cls.__name__)
    owner = known.__module__ if known else _announced.get(name, cls.__module__)
    # The same class again is an edited module that was reloaded, in a notebook say.
    if owner != cls.__module__ or (known and known.__qualname__ != cls.__qualname__):
        raise ValueError(f"register: the name {name} is taken by {owner}")
    _registered[name] = cls
    return cls


# -------------------------------------------------------------------------------- capabilities


class Grouped(Constraint):
    """A set of vectors: it applies to each group, the slice of the array that `axis` spans."""

    axis: Axis

    def _span(self, ndim: int) -> tuple[int, ...]:
        return _array.normalise_axis(self.axis, ndim, type(self).__name__)


class Summed(Grouped):
    """A set that needs only sums over its groups: of an array in parts, the parts stay there."""

    def _whole(self, ndim: int) -> tuple[int, ...]:
        self._span(ndim)  # so that a wrong axis is an error here too
        return ()


class Entrywise(Constraint):
    """A set that bounds each entry by itself: NaN stays, infinity is clipped, nothing spreads."""

    def _span(self, ndim: int) -> tuple[int, ...]:
        return ()


class Convex(Constraint):
    """A convex set: the nearest member is unique and the projection never spreads points apart."""


class Ball(Convex):
    """A ball of a norm around 0. Where a wider dtype measures, the projection never leaves it."""


class Gradual(Constraint):
    """A set that is approached by `rate` of the way at each call, reached at once if that is 1."""

    rate: Number


class ZeroStays(Constraint):
    """A set without 0 that leaves an all-zero group at zero, for it has no direction."""


class DropsMinusInfinity(Grouped):
    """An entry of minus infinity is one that is left out: it becomes 0, the others are projected.

    So a mask of minus infinities works as it does in front of a softmax.
    """


class Quadratic(Grouped):
    """A set whose projection takes memory that grows with the square of the group."""


class Decomposed(Grouped):
    """A set of matrices that is reached by a decomposition, whose error the weight decides.

    A decomposition is exact for a matrix that rounding, relative to the largest singular value,
    takes from the given one. So the result is as far off as the exact projection moves when the
    weight is rounded, however small that result is.
    """

    needs: ClassVar[tuple[str, ...]] = ("svd",)

    @property
    def roundings(self) -> int:
        """How many times the errors of a decomposition its own are."""
        return 1


class HasLMO(Constraint):
    """A bounded set over which a linear function is minimised in closed form."""

    @abstractmethod
    def _lmo(self, g: Array, xp: Namespace) -> Array:
        """A member v with the smallest inner product with `g`, group by group."""


class HasDualNorm(Convex):
    """A ball of a norm around 0 whose dual norm is known."""

    @abstractmethod
    def _dual_norm(self, g: Array, xp: Namespace) -> Array:
        """The largest inner product of each group with a group whose norm is 1."""


class HasTangent(Constraint):
    """A set whose tangent cones are known."""

    @abstractmethod
    def _tangent(self, w: Array, g: Array, xp: Namespace) -> Array:
        """The part of `g` such that ``w - t * part`` leaves the set only to second order in t."""


class HasSample(Constraint):
    """A set from which members are drawn at random."""

    @abstractmethod
    def _sample(self, like: Array, draw: Draw, xp: Namespace) -> Array:
        """An array of any dtype near the set; it is cast and projected onto the set afterwards."""


class HasVJP(Constraint):
    """A set that states the derivative of its projection itself, instead of by its algorithm.

    For where the algorithm is wrong or wasteful to differentiate: it meets 0 / 0 where the
    projection is smooth, or all that it computes would be kept for the backward pass.
    """

    @abstractmethod
    def _vjp(self, w: Array, result: Array, g: Array, xp: Namespace) -> Array:
        """The product of `g` with the Jacobian of the projection at `w`, which is symmetric.

        `result` is the projection of `w`. All are of one shape and dtype. Made of operations that
        can be differentiated in `w`, `result` and `g`, as it has to serve for second derivatives.
        """


class InPlace(Constraint):
    """A set that can be projected onto without memory for a second array."""

    @abstractmethod
    def _project_into(self, w: Array, out: Array, xp: Namespace) -> None:
        """Write the nearest member to `out`, which may be `w`."""
