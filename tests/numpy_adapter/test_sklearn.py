"""The weights of scikit-learn's estimators: their names, what they mean, and changes in place."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from influence import check_influence
from sklearn.base import BaseEstimator, is_classifier
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import (
    NMF,
    PCA,
    DictionaryLearning,
    MiniBatchDictionaryLearning,
    MiniBatchNMF,
    MiniBatchSparsePCA,
    SparsePCA,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.utils import all_estimators

import normconstraints as nc
import normconstraints_numpy.sklearn
from normconstraints.layout import LayoutError
from normconstraints.weights import weights_of
from normconstraints_numpy import Projector

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(40, 4)))
CLASSES = np.arange(40) % 3
MODULES = ("sklearn.linear_model", "sklearn.neural_network")


def fitted(estimator: Any, *data: Any) -> Any:
    with warnings.catch_warnings():
        # Of convergence and of what is deprecated, neither of which is asked here.
        warnings.simplefilter("ignore")
        return estimator.fit(*data)


def estimators_of(modules: Iterable[str]) -> dict[str, type]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: cls for name, cls in all_estimators() if cls.__module__.startswith(tuple(modules))
        }


# ------------------------------------------------------------------------------ influence


def depends(array: np.ndarray, outputs: Callable[[], np.ndarray]) -> np.ndarray:
    """Which units, the last axis of the output, change with an entry of a weight."""

    def seen() -> np.ndarray:
        out = np.asarray(outputs())
        return (out if out.ndim > 1 else out[:, None]).copy()

    start, found = seen(), []
    for i in range(array.size):
        before = array.flat[i]
        array.flat[i] += 0.25
        found.append((np.abs(seen() - start) > 1e-9).any(axis=0))
        array.flat[i] = before
    return np.stack(found, axis=-1).reshape(-1, *array.shape)


def made(cls: type) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # some are deprecated
        return cls()


def takes(estimator: Any, outputs: int) -> bool:
    tags = estimator.__sklearn_tags__().target_tags
    several = is_classifier(estimator) or tags.multi_output
    return bool(several if outputs > 1 else tags.single_output)


def check(estimator: Any, name: str, outputs: Callable[[], np.ndarray]) -> None:
    (weight,) = [w for w in weights_of(estimator) if w.name == name]
    check_influence(weight.place.layout(), depends(weight.array, outputs))


LINEAR = {
    name: cls
    for name, cls in estimators_of(MODULES).items()
    if nc.layout.declared(cls) and cls.__module__.startswith("sklearn.linear_model")
}
LINEAR |= {cls.__name__: cls for cls in (LinearSVC, LinearSVR, LinearDiscriminantAnalysis)}


@pytest.mark.parametrize(
    ("cls", "outputs"),
    [
        pytest.param(cls, outputs, id=f"{name}-{outputs}")
        for name, cls in LINEAR.items()
        for outputs in (1, 3)
        if takes(made(cls), outputs)
    ],
)
def test_linear_models(cls: type, outputs: int) -> None:
    """Rows of classes or targets, or where there is one of them, one row or none."""
    estimator = made(cls)
    y: Any = np.exp(0.1 * X @ RNG.normal(size=(4, outputs)))
    if is_classifier(estimator):
        y = CLASSES if outputs == 3 else CLASSES > 0
    fitted(estimator, X, y[:, 0] if outputs == 1 and y.ndim == 2 else y)
    assert np.atleast_2d(estimator.coef_).shape == (outputs, 4)
    ask = getattr(estimator, "decision_function", None) or estimator.predict
    check(estimator, "coef_", lambda: ask(X))


def test_a_layer_of_an_mlp() -> None:
    """Of activation identity and a second layer that hands on what it gets: units can be seen."""
    regressor = MLPRegressor(hidden_layer_sizes=(3,), activation="identity", max_iter=1)
    labels = np.stack([k == CLASSES for k in range(3)], axis=1)
    classifier = MLPClassifier((3,), activation="identity", max_iter=1)
    for estimator, y in ((regressor, X[:, :3]), (classifier, labels)):
        fitted(estimator, X, y)
        # Of several labels each has its own output, while probabilities of classes share a sum.
        ask = estimator.predict if estimator is regressor else estimator.predict_proba
        check(estimator, "coefs_.1", lambda: ask(X))  # noqa: B023
        estimator.coefs_[1][...] = np.eye(3)
        check(estimator, "coefs_.0", lambda: ask(X))  # noqa: B023


def test_a_boltzmann_machine() -> None:
    estimator = fitted(BernoulliRBM(3, n_iter=1), X / X.max())
    check(estimator, "components_", lambda: estimator.transform(X))


DICTIONARIES = (
    DictionaryLearning,
    MiniBatchDictionaryLearning,
    MiniBatchNMF,
    MiniBatchSparsePCA,
    NMF,
    SparsePCA,
)


@pytest.mark.parametrize("cls", DICTIONARIES)
def test_an_atom_is_what_a_number_of_the_code_adds(cls: type) -> None:
    estimator = fitted(cls(3, max_iter=2), X)
    check(estimator, "components_", lambda: estimator.inverse_transform(np.eye(3)).T)


@pytest.mark.parametrize("cls", [KMeans, MiniBatchKMeans])
def test_a_center_is_what_a_distance_depends_on(cls: type) -> None:
    estimator = fitted(cls(3, n_init=1, max_iter=2), X)
    check(estimator, "cluster_centers_", lambda: estimator.transform(X))


# ------------------------------------------------------------------------------ inventory

TESTED = {*LINEAR.values(), MLPClassifier, MLPRegressor, BernoulliRBM, *DICTIONARIES}

NOT_DECLARED = {
    "RANSACRegressor": "a search around another estimator, in which the weights are",
}


def unaccounted(classes: Iterable[type]) -> list[str]:
    """Estimators that nobody looked at: a new version of scikit-learn brings them."""
    return sorted(
        cls.__name__ for cls in classes if cls not in TESTED and cls.__name__ not in NOT_DECLARED
    )


def test_every_linear_model_and_network_is_accounted_for() -> None:
    classes = estimators_of(MODULES)
    assert len(classes) > 30 and set(NOT_DECLARED) <= set(classes)
    assert unaccounted(classes.values()) == []
    for name, cls in classes.items():
        assert nc.layout.declared(cls) == (name not in NOT_DECLARED), name


def test_a_new_estimator_is_found() -> None:
    class GridRegressor(BaseEstimator):
        pass

    assert unaccounted([*estimators_of(MODULES).values(), GridRegressor]) == ["GridRegressor"]


def test_intercepts_have_no_unit() -> None:
    for estimator, name in (
        (fitted(LogisticRegression(), X, CLASSES), "intercept_"),
        (fitted(MLPClassifier((3,), max_iter=1), X, CLASSES), "intercepts_.0"),
        (fitted(BernoulliRBM(3, n_iter=1), X / X.max()), "intercept_hidden_"),
    ):
        with pytest.raises(LayoutError, match="does not have"):
            nc.Rules({name: nc.MaxNorm(1.0, axis="unit")}).match(estimator)


# ---------------------------------------------------------------------------------- names


def test_names() -> None:
    mlp = MLPClassifier((5, 3), max_iter=1)
    pipeline = fitted(make_pipeline(StandardScaler(), None, mlp), X, CLASSES)
    assert [w.name for w in weights_of(pipeline)] == [
        f"mlpclassifier.{name}.{i}" for name in ("coefs_", "intercepts_") for i in range(3)
    ]
    found = nc.Rules({(MLPClassifier, "coefs_.*"): nc.MaxNorm(1.0, axis="unit")}).match(pipeline)
    assert set(found.values()) == {nc.MaxNorm(1.0, axis=0)}
    search = fitted(GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), X, CLASSES)
    assert [w.name for w in weights_of(search)] == [
        "best_estimator_.coef_",
        "best_estimator_.intercept_",
    ]
    several = fitted(OneVsRestClassifier(Ridge()), X, CLASSES)
    assert [w.name for w in weights_of(several)][:2] == [
        "estimators_.0.coef_",
        "estimators_.1.coef_",
    ]


def test_a_plain_number_is_no_weight() -> None:
    regression = fitted(LinearRegression(), X, X[:, 0])
    assert np.ndim(regression.intercept_) == 0
    assert [w.name for w in weights_of(regression)] == ["coef_"]


def test_one_that_is_not_fitted_is_refused() -> None:
    for estimator in (MLPClassifier(), make_pipeline(StandardScaler(), Ridge())):
        with pytest.raises(ValueError, match=r"(MLPClassifier|Scaler) must be fitted, .* call fit"):
            Projector({"*": nc.NonNeg()})(estimator)


def test_what_is_solved_for_is_not_guessed() -> None:
    pca = fitted(PCA(2), X)
    with pytest.raises(LayoutError, match=r'declare\(PCA, components_="oi"\)'):
        Projector({"components_": nc.UnitNorm(axis="unit")})(pca)
    assert Projector({"components_": nc.UnitNorm(axis=1)})(pca) is pca


def test_a_rule_for_a_class_of_estimators() -> None:
    estimator = fitted(Ridge(), X, X[:, :2])
    assert nc.Rules({Ridge: nc.MaxNorm(1.0, axis="unit")}).match(estimator) == {
        "coef_": nc.MaxNorm(1.0, axis=1)
    }


# ------------------------------------------------------------------------------- in place


def test_an_mlp_between_calls_of_partial_fit() -> None:
    free, held = (MLPClassifier((8,), learning_rate_init=0.1, random_state=0) for _ in range(2))
    projector = Projector({"coefs_.*": nc.MaxNorm(0.5, axis="unit")})
    for _ in range(10):
        for estimator in (free, held):
            estimator.partial_fit(X, CLASSES, classes=[0, 1, 2])
        arrays = [*held.coefs_]
        assert projector(held) is held
        assert all(a is b for a, b in zip(arrays, held.coefs_, strict=True))
        for kernel in held.coefs_:
            assert np.linalg.norm(kernel, axis=0).max() <= 0.5
    assert max(np.linalg.norm(kernel, axis=0).max() for kernel in free.coefs_) > 1.0
    assert projector.step == 10


def test_a_linear_classifier_between_calls_of_partial_fit() -> None:
    estimator = SGDClassifier(random_state=0)
    projector = Projector({"coef_": nc.MaxNorm(0.5, axis="unit")}, report_every=5)
    for _ in range(10):
        estimator.partial_fit(X, CLASSES, classes=[0, 1, 2])
        projector(estimator)
        assert np.linalg.norm(estimator.coef_, axis=1).max() <= 0.5
    # The steps would leave the ball, and the next of them starts from where the last was put.
    assert [entry.step for entry in projector.report.entries] == [0, 5]
    assert all(entry.violation > 1.0 for entry in projector.report.entries)


def test_spherical_clusters() -> None:
    estimator = MiniBatchKMeans(3, n_init=1, random_state=0)
    projector = Projector({"cluster_centers_": nc.UnitNorm(axis="row")})
    for _ in range(3):
        projector(estimator.partial_fit(X))
        norms = np.linalg.norm(estimator.cluster_centers_, axis=1)
        assert norms == pytest.approx([1.0] * 3)


# -------------------------------------------------------------------------------- imports


def test_it_is_loaded_for_estimators_alone() -> None:
    code = """
import sys, numpy as np, normconstraints as nc
from normconstraints_numpy import Projector
projector = Projector({"*": nc.NonNeg()})
loaded = lambda: "normconstraints_numpy.sklearn" in sys.modules
projector({"w": np.ones(2)})
print("sklearn" in sys.modules, loaded())
from sklearn.linear_model import LinearRegression
projector({"w": np.ones(2)})
print(loaded())
projector(LinearRegression().fit(np.eye(3), [1.0, -1.0, 0.0]))
print(loaded())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False", "True"]


def test_without_scikit_learn_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import normconstraints_numpy.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'needs scikit-learn; run: pip install "normconstraints[sklearn]"' in done.stderr
    assert normconstraints_numpy.sklearn.__all__ == ["ConstrainedPartialFit"]
