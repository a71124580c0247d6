# SPDX-License-Identifier: Apache-2.0
"""The scaler: moments of features, gathered from one array or from many, and a transformation by them."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import FLOAT_DTYPES, _check_sample_weight, check_is_fitted, validate_data

from .._core.options import flag, number
from ..functional import normalize
from ..statistics import Moments, moments

Self = TypeVar("Self", bound="BatchNormScaler")
Floats = NDArray[np.floating[Any]]


class BatchNormScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Features of mean 0 and variance 1, as scikit-learn's StandardScaler makes them, but without lost digits.

    ::

        z = (X - mean_) / scale_        scale_ = sqrt(var_ + eps)

    Statistics are summed in float64 for X of every dtype, and z is rounded once, to the dtype of X: of float32 it is
    exact in whatever pieces the data come, and however far from 0. A feature that has one value only has a scale of 1
    if `eps` is 0. NaN stands for a missing value: it does not count, and stays.

    Parameters
    ----------
    copy : bool, default True
        False: transform() writes over X if it is an array that can be written, of a floating-point dtype.
    with_mean, with_std : bool, default True
        False: z is not centred, or not scaled.
    eps : float, default 0
        Added to the variance; a batch norm has 1e-5. Finite, at least 0.

    Attributes
    ----------
    mean_, var_ : ndarray of float64 of shape (n_features,)
        `var_` is biased: the mean of squared deviations. Both are NaN of a feature without values.
    scale_ : ndarray of float64 of shape (n_features,), or None without `with_std`
    n_samples_seen_ : int, float or ndarray of shape (n_features,)
        The sum of the weights; an array if features lack different values.
    moments_ : Moments
        Count, mean and sum of squared deviations of each feature. Scalers that were fitted elsewhere are merged by
        adding them up.
    n_features_in_, feature_names_in_
        As of every estimator.

    Raises
    ------
    ValueError
        X has other features than before, infinite or sparse values, or so large ones that their variance is beyond
        float64; `sample_weight` has a negative value, or none above 0; `eps` is out of its range.
    TypeError
        A parameter is of another type.

    Examples
    --------
    >>> import numpy as np
    >>> from batchnorm.sklearn import BatchNormScaler
    >>> X = np.array([[1, 1e8], [3, 1e8 + 2]])
    >>> scaler = BatchNormScaler().fit(X)
    >>> print(scaler.transform(X))
    [[-1. -1.]
     [ 1.  1.]]
    >>> print(scaler.inverse_transform([[0.0, 0.5]]) - [0, 1e8])
    [[2.  1.5]]
    """

    def __init__(self, *, copy: bool = True, with_mean: bool = True, with_std: bool = True, eps: float = 0.0) -> None:
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std
        self.eps = eps

    def fit(self: Self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learns mean and variance from X alone.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : None
            Ignored.
        sample_weight : array_like of shape (n_samples,), optional
            How often each sample counts.

        Returns
        -------
        self
        """
        return self._learn(X, sample_weight, None)

    def partial_fit(self: Self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learns from X as from one more piece of the data. Arguments and result are those of fit()."""
        return self._learn(X, sample_weight, getattr(self, "moments_", None))

    def transform(self, X: Any) -> Floats:  # noqa: N803
        """z, in the dtype of X, or float64 if that is none of floating-point numbers.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = self._checked(X, reset=False)  # noqa: N806
        mean = self.mean_ if self.with_mean else np.zeros_like(self.mean_)
        invstd = np.ones_like(mean) if self.scale_ is None else 1 / self.scale_
        if self.copy or not X.flags.writeable:
            return normalize(X, mean, invstd)
        if min(X.strides) > 0 and X.flags.forc:
            return normalize(X, mean, invstd, out=X)
        X[...] = normalize(X, mean, invstd)  # it has gaps, or runs backwards
        return X

    def inverse_transform(self, X: Any) -> Floats:  # noqa: N803
        """The data that transform() has given X for.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        z = self._checked(X, reset=False)
        with np.errstate(over="ignore"):
            data = z * (1.0 if self.scale_ is None else self.scale_)  # of float64
            return (data + self.mean_ if self.with_mean else data).astype(z.dtype, copy=False)

    def _learn(self: Self, X: Any, sample_weight: ArrayLike | None, seen: Moments | None) -> Self:  # noqa: N803
        eps = self._checked_parameters()
        X = self._checked(X, reset=seen is None)  # noqa: N806
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
            if not weights.any():  # which scikit-learn itself sees since 1.9
                raise ValueError("sample_weight is zero for every sample, expected one above 0")
        learned = _moments(X, weights)
        self._keep(learned if seen is None else seen + learned, eps, is_weighted=weights is not None)
        return self

    def _checked_parameters(self) -> float:
        for name in ("copy", "with_mean", "with_std"):
            flag(getattr(self, name), name)
        eps = number(self.eps, "eps")
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps is {eps:g}, expected a finite number of at least 0")
        return eps

    def _checked(self, X: Any, reset: bool) -> Any:  # noqa: N803
        return validate_data(self, X, reset=reset, dtype=FLOAT_DTYPES, ensure_all_finite="allow-nan")

    def _keep(self, learned: Moments, eps: float, is_weighted: bool) -> None:
        var = learned.var()
        beyond = ~np.isfinite(var) & (learned.count > 0)
        if beyond.any():
            raise ValueError(f"X has values so large that the variance of feature {beyond.argmax()} is beyond float64")
        scale = np.sqrt(var + eps)
        scale[scale == 0] = 1
        count: Any = learned.count
        if (count == count[0]).all():
            count = int(count[0]) if count[0] == int(count[0]) and not is_weighted else float(count[0])
        self.moments_, self.n_samples_seen_ = learned, count
        self.mean_, self.var_ = np.where(learned.count > 0, learned.mean, np.nan), var
        self.scale_ = scale if self.with_std else None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def _moments(X: Floats, weights: Floats | None) -> Moments:  # noqa: N803
    """Those of the features; a NaN in one makes its mean NaN, so that only these are summed again without it."""
    found = moments(X, weights=None if weights is None else weights[:, None])
    lacking = np.flatnonzero(np.isnan(found.mean))
    if not lacking.size:
        return found
    count, mean, m2 = (array.copy() for array in found)
    for feature in lacking:
        column = X[:, feature : feature + 1]
        is_there = ~np.isnan(column)
        one = moments(column, weights=is_there if weights is None else is_there * weights[:, None])
        count[feature], mean[feature], m2[feature] = one.count[0], one.mean[0], one.m2[0]
    return Moments.of(count, mean, m2)


BatchNormScaler.__module__ = __package__  # pickles name it, wherever the code stands
