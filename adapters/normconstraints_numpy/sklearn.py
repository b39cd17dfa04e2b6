"""Estimators of scikit-learn: what their weights are called, and training under constraints.

To import it is enough for `normconstraints.Rules` to know fitted estimators. Names are those of the
attributes: ``coef_``, ``coefs_.0`` (the first layer of an MLPClassifier), ``components_``; in a
Pipeline with the name of the step before them, as ``scale.coef_``; in other estimators of
estimators with their attribute, as ``best_estimator_.coef_`` and ``estimators_.0.coef_``.

Atoms of a dictionary (of NMF too) and centers of clusters are rows that belong to a number or a
label, as those of an embedding do: ``axis="unit"`` and ``axis="row"`` both mean one of them. Of
decompositions that are solved for, such as PCA, the axes are not declared: a constraint would take
from them what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:
    import sklearn.base
    import sklearn.cluster
    import sklearn.decomposition
    import sklearn.discriminant_analysis
    import sklearn.linear_model
    import sklearn.neural_network
    import sklearn.pipeline
    import sklearn.svm
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError(
        "normconstraints_numpy.sklearn needs scikit-learn; run: pip install "
        '"normconstraints[sklearn]"'
    ) from error

from normconstraints.layout import declare
from normconstraints.weights import Place, Weight, register_walker, tie
from normconstraints_numpy._partial_fit import ConstrainedPartialFit

__all__ = ["ConstrainedPartialFit"]

_ATTRIBUTES = (
    "coefs_",
    "intercepts_",
    "coef_",
    "intercept_",
    "offset_",
    "components_",
    "intercept_hidden_",
    "intercept_visible_",
    "cluster_centers_",
)

# Names, for some are not in every version.
_LINEAR = {
    sklearn.linear_model: """
        ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars
        LarsCV Lasso LassoCV LassoLars LassoLarsCV LassoLarsIC LinearRegression LogisticRegression
        LogisticRegressionCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso
        MultiTaskLassoCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV
        PassiveAggressiveClassifier PassiveAggressiveRegressor Perceptron PoissonRegressor
        QuantileRegressor Ridge RidgeCV RidgeClassifier RidgeClassifierCV SGDClassifier
        SGDOneClassSVM SGDRegressor TheilSenRegressor TweedieRegressor
    """,
    sklearn.svm: "LinearSVC LinearSVR",
    sklearn.discriminant_analysis: "LinearDiscriminantAnalysis",
}
_ROWS = {
    sklearn.decomposition: """
        DictionaryLearning MiniBatchDictionaryLearning MiniBatchNMF MiniBatchSparsePCA NMF SparsePCA
    """,
    sklearn.cluster: "KMeans MiniBatchKMeans",
}


def _coef(estimator: Any) -> str:
    """One row for each class or target, or no rows where there is one."""
    return "i" if estimator.coef_.ndim == 1 else "oi"


for _module, _names in _LINEAR.items():
    for _name in _names.split():
        if _cls := getattr(_module, _name, None):
            declare(_cls, coef_=_coef, intercept_="o", offset_="o")
for _module, _names in _ROWS.items():
    for _name in _names.split():
        if _cls := getattr(_module, _name, None):
            declare(_cls, components_="te", cluster_centers_="te")
for _cls in (sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor):
    declare(_cls, {"coefs_.*": "io", "intercepts_.*": "o"})
declare(
    sklearn.neural_network.BernoulliRBM,
    components_="oi",
    intercept_hidden_="o",
    intercept_visible_="o",
)


def walk(estimator: Any) -> list[Weight]:
    """The arrays under the known names of a fitted estimator, and of those inside it."""
    return tie(_places(estimator, ""))


def _places(estimator: Any, path: str) -> Iterator[tuple[Any, Place]]:
    if isinstance(estimator, sklearn.pipeline.Pipeline):
        for name, step in estimator.steps:
            if isinstance(step, sklearn.base.BaseEstimator):  # neither None nor "passthrough"
                yield from _places(step, f"{path}{name}.")
        return
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise ValueError(
            f"{type(estimator).__name__} must be fitted, and has no weights before; call fit or "
            "partial_fit first"
        ) from None
    for name, value in vars(estimator).items():
        if name in _ATTRIBUTES:
            for attribute, array in _flat(name, value):
                # An intercept that is a plain number is no array, and cannot be changed in place.
                if hasattr(array, "shape") and array.shape != ():
                    yield array, Place(path + attribute, estimator, attribute)
        elif name.endswith("_"):
            for attribute, inner in _flat(name, value):
                if isinstance(inner, sklearn.base.BaseEstimator):
                    yield from _places(inner, f"{path}{attribute}.")


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield f"{name}.{i}", item
    else:
        yield name, value


register_walker(sklearn.base.BaseEstimator, walk)
