"""Estimators of scikit-learn that are projected after each of their steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import normconstraints as nc
from normconstraints_numpy.sklearn import ConstrainedPartialFit

CAP = nc.MaxNorm(50.0, axis="unit")
NOT_EQUIVALENT = "a weight of 2 is one step twice as long, not two steps: so it is in the estimator"
UNWEIGHTED = {
    f"check_sample_weight_equivalence_on_{kind}_data": NOT_EQUIVALENT
    for kind in ("dense", "sparse")
}


def perceptron(cls: Any) -> Any:
    return cls(hidden_layer_sizes=(16,), learning_rate_init=0.05, random_state=0)


@pytest.mark.parametrize(
    ("estimator", "weights", "epochs", "expected"),
    [
        (SGDClassifier(random_state=0), "coef_", 5, UNWEIGHTED),
        (SGDRegressor(random_state=0), "coef_", 5, UNWEIGHTED),
        (perceptron(MLPClassifier), "coefs_.*", 30, {}),
        (perceptron(MLPRegressor), "coefs_.*", 30, {}),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore")  # the checks warn of what they try on purpose
def test_the_checks_of_scikit_learn(
    estimator: Any, weights: str, epochs: int, expected: dict[str, str]
) -> None:
    # One row in a call, as in the tests below, is the same training and takes two minutes more.
    batch_size = 20 if isinstance(estimator, SGDClassifier | SGDRegressor) else "step"
    constrained = ConstrainedPartialFit(
        estimator, {weights: CAP}, batch_size=batch_size, epochs=epochs, random_state=0
    )
    results: Any = check_estimator(
        constrained, expected_failed_checks=expected, on_fail=None, on_skip=None
    )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(expected)
    assert sum(r["status"] == "passed" for r in results) > 40


def digits() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return x[:600] / 16, y[:600]


class Watched(MLPClassifier):  # type: ignore[misc]
    """Takes down after each call how many steps its optimizer has made."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:  # noqa: N803
        MLPClassifier.partial_fit(self, X, y, classes=classes)
        self.updates_ = [*getattr(self, "updates_", ()), self._optimizer.t]
        return self


def test_each_call_is_one_step_of_the_optimizer() -> None:
    x, y = digits()
    model = ConstrainedPartialFit(
        Watched(hidden_layer_sizes=(16,), batch_size=50, random_state=0),
        {"coefs_.0": nc.MaxNorm(0.3, axis="unit")},
        epochs=2,
        random_state=0,
    ).fit(x, y)
    assert model.estimator_.updates_ == list(range(1, 25))
    # All rows at once are as many steps, and one projection.
    model.set_params(batch_size=None, epochs=1).fit(x, y)
    assert model.estimator_.updates_ == [12]
    assert model.projector_.step == 1


@pytest.mark.parametrize("batch_size", ["step", 30, None])
def test_the_constraint_holds_after_every_call(batch_size: Any) -> None:
    x, y = digits()
    rules = {
        "coefs_.*": nc.MaxNorm(0.5, axis="unit"),
        "intercepts_.*": nc.Box(-0.05, 0.05),
    }
    model = ConstrainedPartialFit(perceptron(MLPClassifier), rules, batch_size=batch_size)
    for _ in range(3):
        model.partial_fit(x, y, classes=np.unique(y))
        found = model.projector_.violation(model.estimator_)
        assert set(found) == {"coefs_.0", "coefs_.1", "intercepts_.0", "intercepts_.1"}
        assert all((v == 0).all() for v in found.values())


def test_the_constraint_makes_a_difference_and_learns() -> None:
    x, y = digits()
    free = perceptron(MLPClassifier).fit(x, y)
    rules = {"coefs_.*": nc.MaxNorm(1.5, axis="unit")}
    held = ConstrainedPartialFit(perceptron(MLPClassifier), rules, random_state=0).fit(x, y)
    assert np.linalg.norm(free.coefs_[0], axis=0).max() > 1.6
    assert np.linalg.norm(held.estimator_.coefs_[0], axis=0).max() <= 1.5 * (1 + 1e-15)
    assert held.score(x, y) > 0.9


def test_a_linear_model_of_one_row_in_a_call() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    model = ConstrainedPartialFit(
        SGDRegressor(random_state=0), {"coef_": nc.Simplex(axis="unit")}, random_state=0
    ).fit(x, x @ [0.7, 0.5, -1.0])
    assert model.projector_.step == 2000
    np.testing.assert_allclose(model.estimator_.coef_, [0.6, 0.4, 0.0], atol=0.05)


def test_in_a_pipeline_and_cloned() -> None:
    x, y = digits()
    inner = ConstrainedPartialFit(
        perceptron(MLPClassifier), {"coefs_.0": nc.MaxNorm(1.0, axis="unit")}, random_state=0
    )
    pipeline = clone(make_pipeline(StandardScaler(), inner)).fit(x, y)
    assert (pipeline.predict(x) == y).mean() > 0.9
    assert pipeline[-1].rules == inner.rules
    assert not hasattr(inner, "estimator_")


def test_weights_of_rows_reach_the_estimator() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 2))
    y = np.where(np.arange(100) < 50, x[:, 0], -x[:, 0])
    weights = np.where(np.arange(100) < 50, 1.0, 0.0)
    model = ConstrainedPartialFit(
        SGDRegressor(random_state=0), {"coef_": nc.Box(-2.0, 2.0)}, random_state=0
    ).fit(x, y, weights)
    assert model.estimator_.coef_[0] > 0.5
    assert model.set_params().fit(x, y).estimator_.coef_[0] < 0.2


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, got 0"),
        ({"epochs": True}, ValueError, "epochs must be"),
        ({"batch_size": 0}, ValueError, 'batch_size must be a positive integer, "step" or None'),
        ({"batch_size": "steps"}, ValueError, "batch_size must be"),
        ({"estimator": LinearRegression()}, TypeError, "must have a partial_fit, got LinearRegr"),
        ({"rules": {"coefs_.7": CAP}}, ValueError, "coefs_.7"),
        ({"rules": {"coefs_.0": nc.MaxNorm(1.0, axis=3)}}, ValueError, "axis"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    model = ConstrainedPartialFit(perceptron(MLPClassifier), {"coefs_.0": CAP})
    with pytest.raises(error, match=words):
        model.set_params(**change).fit(*digits())
    assert not hasattr(model, "estimator_")


@pytest.mark.parametrize("weights", [np.zeros(600), np.ones(3)], ids=["zeros", "of another length"])
def test_bad_weights_of_rows(weights: Any) -> None:
    x, y = digits()
    model = ConstrainedPartialFit(SGDClassifier(), {"coef_": CAP})
    with pytest.raises(ValueError, match="sample_weight must"):
        model.fit(x, y, weights)


def test_what_the_estimator_cannot_do_is_not_there() -> None:
    model = ConstrainedPartialFit(SGDClassifier(), {"coef_": CAP})
    assert hasattr(model, "decision_function")
    assert not hasattr(model, "predict_proba")  # the hinge has no probabilities
    with pytest.raises(NotFittedError):
        model.predict(digits()[0])
