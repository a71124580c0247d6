# SPDX-License-Identifier: Apache-2.0
"""batchnorm.sklearn beside scikit-learn's checks, its StandardScaler, and the formulas in the longest floats."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import batchnorm as bn

sklearn = pytest.importorskip("sklearn")
from pages import run  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from batchnorm.sklearn import BatchNormScaler, require  # noqa: E402

Array = np.ndarray[Any, Any]
CHECKS = """
from sklearn.utils.estimator_checks import check_estimator
from batchnorm.sklearn import BatchNormScaler
results = check_estimator(BatchNormScaler({}), on_fail=None, on_skip=None)
print(len(results), [(each["check_name"], each["exception"]) for each in results if each["status"] != "passed"])
"""


@pytest.mark.parametrize("told", ["", "with_mean=False", "with_std=False", "eps=1e-5"])
def test_all_checks_of_scikit_learn(told: str) -> None:
    """In a process of its own: one of them needs SciPy to have been imported with the array API."""
    command = [sys.executable, "-W", "ignore", "-c", CHECKS.format(told)]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    number, failures = done.stdout.strip().split(" ", 1)
    assert int(number) > 40, done.stderr
    assert failures == "[]"


def exact(x: Array, w: Array | None = None) -> tuple[Array, Array]:
    """Mean and variance of features in the longest floats."""
    x, w = (
        x.astype(np.longdouble),
        np.ones((len(x), 1), np.longdouble) if w is None else w.astype(np.longdouble)[:, None],
    )
    mean = (w * x).sum(0) / w.sum()
    return mean, (w * (x - mean) ** 2).sum(0) / w.sum()


def pieces(rng: np.random.Generator, n: int) -> list[slice]:
    """Pieces of one sample and of many, in order."""
    cuts = [0, 1, *np.unique(rng.integers(2, n - 1, 20)).tolist(), n]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:])]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("offset", [0, 1e3, 1e5])
def test_float32_is_exact_in_any_pieces(rng: np.random.Generator, offset: float, order: Any, weighted: bool) -> None:
    n = 3001
    x = np.asarray((rng.normal(size=(n, 7)) * 3 + offset).astype("f4"), order=order)
    w = rng.integers(1, 4, n).astype("f4") if weighted else None
    mean, var = exact(x, w)
    z = (x.astype(np.longdouble) - mean) / np.sqrt(var)
    whole, in_pieces = BatchNormScaler().fit(x, sample_weight=w), BatchNormScaler()
    for piece in pieces(rng, n):
        in_pieces.partial_fit(x[piece], sample_weight=None if w is None else w[piece])
    for scaler in (whole, in_pieces):
        assert scaler.n_samples_seen_ == (n if w is None else w.sum())
        # A mean is rounded to a double once per piece; differences of means have that error beside a deviation.
        close = 25 * np.finfo(float).eps * max(1, offset)
        assert abs(scaler.mean_ - mean).max() <= close
        assert abs(scaler.var_ / var - 1).max() <= close
        found = scaler.transform(x)
        assert found.dtype == np.float32
        # Two units of the last place, of values up to 8.
        assert abs(found - z).max() <= 2 * np.spacing(np.float32(4))
        back = scaler.inverse_transform(found)
        assert back.dtype == np.float32
        # z's rounding, and one of x: a unit of x, and those of z times the scale.
        assert abs(back - x.astype(float)).max() <= np.spacing(np.float32(offset + 12)) + 3 * 2 * np.spacing(
            np.float32(4)
        )


def test_no_digit_is_lost_far_from_zero(rng: np.random.Generator) -> None:
    """StandardScaler of 1.9 subtracts a mean of float32, and is 1e-3 off; that of 1.6 is not."""
    x = (rng.normal(size=(1000, 3)) * 3 + 1e5).astype("f4")
    mean, var = exact(x)
    z = (x.astype(np.longdouble) - mean) / np.sqrt(var)
    ours, theirs = (float(abs(kind().fit(x).transform(x) - z).max()) for kind in (BatchNormScaler, StandardScaler))
    assert ours < 1e-6
    assert ours <= 2 * theirs


@pytest.mark.parametrize("told", [{}, {"with_mean": False}, {"with_std": False}])
@pytest.mark.parametrize("dtype", ["f8", "f4", int, "list"])
def test_as_standard_scaler(rng: np.random.Generator, told: Any, dtype: Any) -> None:
    """Also with missing values, features of one value, and features that have none."""
    x = rng.integers(-9, 9, size=(50, 6)).astype(float)
    x[:, 2] = 3.5
    if dtype in ("f8", "f4"):
        x[:7, 1], x[4, 3], x[:, 4] = np.nan, np.nan, np.nan
    x = x.tolist() if dtype == "list" else x.astype(dtype)
    w = rng.integers(0, 3, 50)
    for weights in (None, w):
        with np.errstate(all="ignore"):
            ours, theirs = BatchNormScaler(**told), StandardScaler(**told)
            for part in (slice(0, 20), slice(20, 50)):
                given = None if weights is None else weights[part]
                ours.partial_fit(x[part], sample_weight=given)
                theirs.partial_fit(x[part], sample_weight=given)
        tolerance = 1e-5 if dtype == "f4" else 1e-12
        assert np.array_equal(ours.n_samples_seen_, theirs.n_samples_seen_)
        assert np.shape(ours.n_samples_seen_) == np.shape(theirs.n_samples_seen_)
        for name in ("mean_", "var_", "scale_"):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert (mine is None) == (other is None) or name == "var_", name
            if other is not None:
                assert np.allclose(mine, other, rtol=tolerance, atol=1e-13, equal_nan=True), name
        for method in ("transform", "inverse_transform"):
            mine, other = getattr(ours, method)(x), getattr(theirs, method)(x)
            assert mine.dtype == other.dtype
            assert np.allclose(mine, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_zero_variance_with_eps() -> None:
    x = np.full((4, 2), 0.1)
    scaler = BatchNormScaler(eps=1e-4).fit(x)
    assert scaler.var_.tolist() == [0, 0]
    assert np.allclose(scaler.scale_, 1e-2, rtol=1e-15)
    assert scaler.transform(x).tolist() == [[0, 0]] * 4
    assert np.allclose(scaler.transform(x + 1), 100)
    assert BatchNormScaler().fit(x).scale_.tolist() == [1, 1]


def test_in_place(rng: np.random.Generator) -> None:
    x = rng.normal(5, 2, size=(40, 3)).astype("f4")
    kept = x.copy()
    scaler = BatchNormScaler().fit(x)
    z = scaler.transform(x)
    assert np.array_equal(x, kept)
    assert not np.shares_memory(x, z)
    scaler.set_params(copy=False)
    x.flags.writeable = False
    assert np.array_equal(scaler.transform(x), z)
    assert np.array_equal(x, kept)
    x.flags.writeable = True
    assert scaler.transform(x) is x
    assert np.array_equal(x, z)
    wide = np.repeat(kept, 2, axis=1)
    for view in (wide[:, ::2], wide[::-1, 1::2]):
        assert np.shares_memory(scaler.transform(view), view)
    assert np.array_equal(wide, np.stack([z, z], axis=2).reshape(wide.shape))


def test_scalers_of_parts_add_up(rng: np.random.Generator) -> None:
    x = rng.normal(7, 2, size=(90, 4))
    parts = [BatchNormScaler().fit(part) for part in np.split(x, [10, 50])]
    total = sum(part.moments_ for part in parts)
    whole = BatchNormScaler().fit(x)
    assert np.allclose(total.var(), whole.var_, rtol=1e-14, atol=0)
    assert total.count.tolist() == [90] * 4


def test_in_a_pipeline(rng: np.random.Generator) -> None:
    pd = pytest.importorskip("pandas")
    x = pd.DataFrame(rng.normal(1e4, [1, 20], size=(80, 2)), columns=["a", "b"])
    target = (x["a"] > 1e4).astype(int)
    pipeline = make_pipeline(BatchNormScaler(), LogisticRegression())
    w = rng.random(80) + 0.5
    pipeline.fit(x, target, batchnormscaler__sample_weight=w)
    assert pipeline.score(x, target) > 0.9
    assert pipeline[0].get_feature_names_out().tolist() == ["a", "b"]
    assert np.allclose(pipeline[0].mean_, np.average(x, axis=0, weights=w), rtol=1e-14)
    frame = clone(pipeline[0]).set_output(transform="pandas").fit(x).transform(x)
    assert list(frame.columns) == ["a", "b"]
    assert np.allclose(frame.std(ddof=0), 1)
    search = GridSearchCV(pipeline, {"batchnormscaler__with_std": [True, False]}, cv=2, error_score="raise").fit(
        x, target
    )
    assert search.best_score_ > 0.8
    loaded = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(loaded.predict(x), pipeline.predict(x))
    assert loaded[0].moments_ == pipeline[0].moments_
    assert b"batchnorm.sklearn.scaler" not in pickle.dumps(pipeline)


def test_what_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 2))
    for told, error, message in (
        ({"eps": -1.0}, ValueError, "eps is -1, expected a finite number of at least 0"),
        ({"eps": np.inf}, ValueError, "eps is inf"),
        ({"eps": "1"}, TypeError, "eps"),
        ({"with_mean": "no"}, TypeError, "with_mean is 'no', expected True or False"),
    ):
        with pytest.raises(error, match=message):
            BatchNormScaler(**told).fit(x)
    scaler = BatchNormScaler().fit(x)
    state = pickle.dumps(scaler)
    for call, message in (
        (lambda: scaler.partial_fit(x[:, :1]), "X has 1 features, but BatchNormScaler is expecting 2"),
        (lambda: scaler.partial_fit(np.where(x > 1, np.inf, np.inf)), "infinity"),
        (lambda: scaler.partial_fit(x * 1e200), "the variance of feature 0 is beyond float64"),
        (lambda: BatchNormScaler().fit(x * [1, 1e200]), "the variance of feature 1 is beyond float64"),
        (lambda: scaler.partial_fit(x, sample_weight=-np.ones(6)), "[Nn]egative"),
        (lambda: scaler.partial_fit(x, sample_weight=np.ones(5)), "sample_weight.shape"),
        (lambda: scaler.transform(x[:, :1]), "X has 1 features"),
        (lambda: scaler.partial_fit(x, sample_weight=np.zeros(6)), "[Ss]ample.weight.*zero"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        assert pickle.dumps(scaler) == state


def test_the_page() -> None:
    run("large-data.md", "scikit-learn")


def test_versions() -> None:
    require.check("1.6.1")
    require.check("2.0.dev0")
    with pytest.raises(
        ImportError, match=r"^batchnorm.sklearn works with scikit-learn 1.6 and newer, but this is 1.5.2$"
    ):
        require.check("1.5.2")


def test_the_library_computes(rng: np.random.Generator) -> None:
    """The bits of moments() and of normalize()."""
    x = rng.normal(3, 2, size=(100, 3)).astype("f4")
    scaler = BatchNormScaler().fit(x)
    assert scaler.moments_ == bn.moments(x)
    assert np.array_equal(scaler.transform(x), bn.normalize(x, scaler.mean_, 1 / scaler.scale_))
