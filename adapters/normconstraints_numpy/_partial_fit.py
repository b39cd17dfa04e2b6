"""An estimator of scikit-learn that is projected after each of its steps."""

# ruff: noqa: N803, N806 - X is the name that scikit-learn gives to data

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Self, TypeVar, cast

import numpy as np
import sklearn.linear_model
import sklearn.neural_network
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from normconstraints import Constraint, Rules, Scheduled
from normconstraints_numpy._projector import Projector

_MLP = (sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor)
_SGD = (
    sklearn.linear_model.SGDClassifier,
    sklearn.linear_model.SGDRegressor,
    sklearn.linear_model.Perceptron,
)


Method = TypeVar("Method", bound=Callable[..., Any])


def _has(name: str) -> Callable[[Method], Method]:
    """Makes a method one that is there only if the estimator has it."""

    def check(self: Any) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), name)  # its own error, if it has none
        return True

    return cast("Callable[[Method], Method]", available_if(check))


class ConstrainedPartialFit(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Trains an estimator by its `partial_fit`, with its weights projected after each call.

    Parameters
    ----------
    estimator : estimator with partial_fit
        For example `SGDClassifier`, `SGDRegressor`, `MLPClassifier`, `MLPRegressor`. It is cloned.
    rules : Rules or mapping
        Names of the weights, as ``coef_`` and ``coefs_.0``, or globs, with their constraints.
    batch_size : int, "step" or None, default "step"
        How many rows one call of the estimator's `partial_fit` gets. The constraint holds after
        each call. With "step" each call is one step of the optimizer, so that it holds after each
        step: as many rows as the `batch_size` of a multilayer perceptron, one row for the linear
        models, which make a step for each. None passes all rows on: fewest calls, and between them
        the estimator goes its own way.
    epochs : int, default 10
        How often `fit` goes over the data; `partial_fit` does so once.
    shuffle : bool, default True
        Whether `fit` takes the rows in another order in each epoch.
    random_state : int, RandomState instance or None, default None
        For the order. The estimator has its own.

    Attributes
    ----------
    estimator_ : estimator
        The fitted clone, whose weights fulfil the rules.
    projector_ : Projector
        What projects, with `violation` and the count of steps.
    classes_ : array
        The labels, of a classifier.
    n_features_in_ : int
        The number of features.

    Raises
    ------
    TypeError, ValueError
        From `fit` and `partial_fit`: if the estimator has no `partial_fit`, a parameter is out of
        its range, a pattern matches no weight, or a weight does not fit its constraint.

    Notes
    -----
    A linear model with one row in a call is slow, as each call checks its input. Early stopping and
    schedules of the estimator that count its epochs see one epoch for each call.

    Examples
    --------
    >>> import numpy as np
    >>> import normconstraints as nc
    >>> from normconstraints_numpy.sklearn import ConstrainedPartialFit
    >>> from sklearn.linear_model import SGDRegressor
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> model = ConstrainedPartialFit(
    ...     SGDRegressor(random_state=0), {"coef_": nc.NonNeg()}, random_state=0
    ... )
    >>> model.fit(x, x @ [1.0, -2.0, 0.5]).estimator_.coef_.round(1)
    array([1. , 0. , 0.5])
    """

    estimator_: Any
    projector_: Projector

    def __init__(
        self,
        estimator: Any,
        rules: Rules | Mapping[Any, Constraint | Scheduled | None],
        *,
        batch_size: Any = "step",
        epochs: int = 10,
        shuffle: bool = True,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.rules = rules
        self.batch_size = batch_size
        self.epochs = epochs
        self.shuffle = shuffle
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the start.

        Parameters
        ----------
        X : array of shape (rows, features)
            The data.
        y : array of shape (rows,) or (rows, outputs)
            The labels or targets.
        sample_weight : array of shape (rows,), optional
            Only if the `partial_fit` of the estimator takes them.

        Returns
        -------
        ConstrainedPartialFit
            Itself.
        """
        if not _is_count(self.epochs):
            raise ValueError(
                f"ConstrainedPartialFit: epochs must be a positive integer, got {self.epochs!r}"
            )
        X, y, sample_weight = self._checked(X, y, sample_weight, first=True)
        if hasattr(self, "estimator_"):
            del self.estimator_
        classes = unique_labels(y) if is_classifier(self) else None
        random = check_random_state(self.random_state)
        for _ in range(self.epochs):
            order = random.permutation(X.shape[0]) if self.shuffle else None
            self._go_over(X, y, classes, sample_weight, order)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go over some rows once more.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array, optional
            All labels, for the first call of a classifier.

        Returns
        -------
        ConstrainedPartialFit
            Itself.
        """
        first = not hasattr(self, "estimator_")
        X, y, sample_weight = self._checked(X, y, sample_weight, first=first)
        return self._go_over(X, y, classes, sample_weight, None)

    def _checked(self, X: Any, y: Any, sample_weight: Any, *, first: bool) -> tuple[Any, Any, Any]:
        X, y = validate_data(self, X, y, accept_sparse="csr", multi_output=True, reset=first)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sample_weight is None:
            return X, y, None
        sample_weight = check_array(
            sample_weight, ensure_2d=False, input_name="sample_weight", dtype="float64"
        )
        if sample_weight.shape != (X.shape[0],):
            raise ValueError(
                "ConstrainedPartialFit: sample_weight must have one entry for each row, got shape "
                f"{sample_weight.shape} for {X.shape[0]} rows"
            )
        counts = sample_weight != 0  # the estimator refuses a call in which no row counts
        if not counts.any():
            raise ValueError(
                "ConstrainedPartialFit: sample_weight must contain at least one non-zero number, "
                "got zeros only; leave out the call"
            )
        return X[counts], y[counts], sample_weight[counts]

    def _go_over(self, X: Any, y: Any, classes: Any, sample_weight: Any, order: Any) -> Self:
        rows = self._rows_in_a_call(X.shape[0])
        first = not hasattr(self, "estimator_")
        estimator: Any = clone(self.estimator) if first else self.estimator_
        projector = Projector(self.rules) if first else self.projector_
        if not hasattr(estimator, "partial_fit"):
            raise TypeError(
                "ConstrainedPartialFit: estimator must have a partial_fit, got "
                f"{type(estimator).__name__}; it is projected between the calls of that"
            )
        order = np.arange(X.shape[0]) if order is None else order
        for begin in range(0, X.shape[0], rows):
            chosen = order[begin : begin + rows]
            more = {} if classes is None else {"classes": classes}
            if sample_weight is not None:
                more["sample_weight"] = sample_weight[chosen]
            estimator.partial_fit(X[chosen], y[chosen], **more)
            projector(estimator)
        self.estimator_, self.projector_ = estimator, projector
        return self

    def _rows_in_a_call(self, rows: int) -> int:
        if self.batch_size is None:
            return rows
        if self.batch_size == "step":
            if isinstance(self.estimator, _SGD):
                return 1
            size = getattr(self.estimator, "batch_size", "auto")
            return 200 if size == "auto" else int(size)
        if not _is_count(self.batch_size):
            raise ValueError(
                'ConstrainedPartialFit: batch_size must be a positive integer, "step" or None, got '
                f"{self.batch_size!r}"
            )
        return int(self.batch_size)

    @_has("predict")
    def predict(self, X: Any) -> Any:
        """What the estimator predicts."""
        return self._fitted().predict(X)

    @_has("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        """The probabilities that the estimator gives."""
        return self._fitted().predict_proba(X)

    @_has("decision_function")
    def decision_function(self, X: Any) -> Any:
        """The scores that the estimator gives."""
        return self._fitted().decision_function(X)

    @_has("score")
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The score of the estimator."""
        return float(self._fitted().score(X, y, sample_weight))

    @property
    def classes_(self) -> Any:
        """The labels."""
        return self.estimator_.classes_

    def _fitted(self) -> Any:
        check_is_fitted(self)
        return self.estimator_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "target_tags"):
            setattr(tags, name, getattr(inner, name))
        tags.input_tags = inner.input_tags
        return tags


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
