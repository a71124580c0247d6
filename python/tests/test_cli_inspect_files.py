# SPDX-License-Identifier: Apache-2.0
"""batchnorm inspect: files that cannot be read, names of every framework, and pictures."""

from __future__ import annotations

import io
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspecting import MEANS, ONES, RNG, Captured, changed, layer, plain, written

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import read_norms
from batchnorm.interop.conventions import CONVENTIONS

FRAMEWORKS = [each for each in CONVENTIONS if each.framework not in ("onnx", "cudnn_saved", "caffe")]


@pytest.mark.parametrize("convention", FRAMEWORKS, ids=lambda each: each.framework)
def test_names_of_every_framework(convention: Any, tmp_path: Path) -> None:
    of_framework = layer(axis=convention.axis)
    name = "block1/bn" if convention.separator == "/" else "bn2"
    state = bn.to_state(of_framework, convention.framework, prefix=name)
    arrays = {"conv.kernel": np.ones((3, 3)), **state.arrays, "mean_of_something": np.ones(4), "weight": np.ones(6)}
    [norm] = read_norms(written(tmp_path, arrays))
    assert norm.name == name
    # MLX has PyTorch's names, TensorFlow Keras's, and flax.nnx is flax without collections.
    assert norm.framework == {"mlx": "pytorch", "tensorflow": "keras"}.get(convention.framework, convention.framework)
    for ours, theirs in (("gamma", norm.gamma), ("beta", norm.beta), ("running_mean", norm.mean)):
        np.testing.assert_array_equal(theirs, getattr(of_framework, ours))
    assert norm.var is not None
    assert norm.var.shape == (6,)


@pytest.mark.parametrize("above", ["", "variables.", "state.model."])
def test_flax_has_separate_trees(above: str, tmp_path: Path) -> None:
    rows = RNG.uniform(1, 2, (4, 5))
    arrays = dict(zip(("params/a/bn/scale", "params/a/bn/bias", "batch_stats/a/bn/mean", "batch_stats/a/bn/var"), rows))
    [norm] = read_norms(written(tmp_path, {above.replace(".", "/") + key: value for key, value in arrays.items()}))
    for got, exact in zip((norm.gamma, norm.beta, norm.mean, norm.var), rows):
        np.testing.assert_array_equal(got, exact)
    assert norm.framework == "flax"
    assert norm.name == above.replace(".", "/") + "a/bn"


def refused(path: Path, capsys: Captured) -> str:
    before = sorted(path.parent.iterdir())
    assert cli.main(["inspect", str(path)]) == 1
    assert sorted(path.parent.iterdir()) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("batchnorm inspect: ")
    assert path.name in err
    return err


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_that_are_cut_off(suffix: str, tmp_path: Path, capsys: Captured) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    whole = written(tmp_path, {**plain("a"), **plain("b")}, suffix).read_bytes()
    for length in [0, 1, 4, 8, 30, *range(50, len(whole), 211), len(whole) - 30, len(whole) - 1]:
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[:length])
        said = refused(path, capsys)
        assert length or said == f"batchnorm inspect: {path} is empty\n"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_of_another_kind(suffix: str, tmp_path: Path, capsys: Captured) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    for content in (b"\0" * 100, b"{}" * 50, b"PK\3\4" + b"x" * 60, RNG.bytes(300)):
        path = tmp_path / f"other{suffix}"
        path.write_bytes(content)
        refused(path, capsys)


def test_files_that_cannot_be_read(tmp_path: Path, capsys: Captured) -> None:
    assert "is not a directory" not in refused(tmp_path / "none.npz", capsys)
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz is a folder, expected a file" in refused(tmp_path / "folder.npz", capsys)
    (tmp_path / "text.txt").write_text("x")
    assert "has suffix '.txt', expected one of .onnx, .safetensors," in refused(tmp_path / "text.txt", capsys)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, a=np.array([{}], object))
    refused(pickled, capsys)


def test_a_package_that_is_missing(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix, package in {".safetensors": "safetensors", ".h5": "h5py", ".onnx": "onnx", ".pth": "torch"}.items():
        path = tmp_path / f"file{suffix}"
        path.write_bytes(b"x")
        for name in [
            each for each in sys.modules if each.startswith(("batchnorm.onnx_files", "batchnorm.inspection.of_onnx"))
        ]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
        assert package in refused(path, capsys)


def test_signalling_nans(tmp_path: Path) -> None:
    """NumPy would warn of them where they become float64."""
    var = np.full(6, 0x7FA00000, "u4").view("f4")
    path = written(tmp_path, plain(running_var=var))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [norm] = read_norms(path)
    assert norm.var is not None
    assert np.isnan(norm.var).all()


def test_plot(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    path = written(
        tmp_path, {**plain("a", weight=changed(ONES, _0=0)), **plain("b", running_var=changed(ONES, _3=np.nan))}
    )
    for name, magic in (("picture.png", b"\x89PNG"), ("picture.svg", b"<?xml")):
        assert cli.main(["inspect", str(path), "--plot", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out.endswith(f"\nDrawn in {tmp_path / name}\n")
        assert (tmp_path / name).read_bytes().startswith(magic)
    there = sorted(tmp_path.iterdir())
    for wrong in (tmp_path / "picture.foo", tmp_path / "none" / "picture.png", tmp_path):
        assert cli.main(["inspect", str(path), "--plot", str(wrong)]) == 1
        assert capsys.readouterr().err.startswith("batchnorm inspect: ")
    assert sorted(tmp_path.iterdir()) == there
    nothing = written(tmp_path, {"weight": np.ones(2)})
    assert cli.main(["inspect", str(nothing), "--plot", str(tmp_path / "new.png")]) == 1
    assert "has no batch norm with statistics to draw" in capsys.readouterr().err
    assert not (tmp_path / "new.png").exists()


def test_a_picture_beside_json(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    path, picture = written(tmp_path, plain()), tmp_path / "new.png"
    assert cli.main(["inspect", str(path), "--json", "--plot", str(picture)]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["norms"]] == ["bn1"]
    assert picture.exists()


@pytest.mark.parametrize(("least", "scale", "plain_numbers"), [(0.9, "linear", True), (1e-2, "log", True),
                                                              (1e-8, "log", False)])  # fmt: skip
def test_how_levels_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, scale: str, plain_numbers: bool
) -> None:
    """Over many powers of ten there is an axis of them, and else one of numbers as they are spoken."""
    figure, ticker = (pytest.importorskip(f"matplotlib.{each}") for each in ("figure", "ticker"))
    drawn: list[Any] = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: drawn.append(self) or path.touch())
    path = written(tmp_path, plain("a", running_var=np.float32([least, 1, 1, 1, 1, 1])))
    assert cli.main(["inspect", str(path), "--plot", str(tmp_path / "new.png")]) == 0
    axis = drawn[0].axes[0]
    assert axis.get_yscale() == scale
    assert isinstance(axis.yaxis.get_major_formatter(), ticker.StrMethodFormatter) == plain_numbers


def test_a_picture_that_cannot_be_finished(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")

    def full(_: Any, path: Path, **__: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", full)
    path, picture = written(tmp_path, plain()), tmp_path / "picture.png"
    picture.write_bytes(b"old")
    assert cli.main(["inspect", str(path), "--plot", str(picture)]) == 1
    assert capsys.readouterr().err == "batchnorm inspect: No space left on device\n"
    assert sorted(tmp_path.iterdir()) == [picture, path]
    assert picture.read_bytes() == b"old"


@pytest.mark.filterwarnings("error")
def test_names_that_no_font_has_can_be_drawn(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    path, picture = written(tmp_path, plain("a\x1b[2J")), tmp_path / "none" / "new.png"
    assert cli.main(["inspect", str(path), "--plot", str(tmp_path / "new.png")]) == 0
    assert cli.main(["inspect", str(path), "--plot", str(picture)]) == 1
    message = f"{picture} cannot be written: there is no folder {picture.parent}"
    assert capsys.readouterr().err == f"batchnorm inspect: {message}\n"


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "none.npz"
    assert refused(path, capsys) == f"batchnorm inspect: {path}: No such file or directory\n"


@pytest.mark.parametrize("same", [True, False])
def test_keras_without_names_of_groups(tmp_path: Path, same: bool) -> None:
    """Settings that all layers have are those of any; others cannot be told apart, and are not guessed."""
    h5py = pytest.importorskip("h5py")
    path, weights = tmp_path / "model.keras", io.BytesIO()
    groups = "batch_normalization", "batch_normalization_1"
    with h5py.File(weights, "w") as root:
        for group in groups:
            for index, array in enumerate((ONES, ONES, MEANS, ONES)):
                root[f"layers/{group}/vars/{index}"] = array
    told = {"momentum": 0.75, "epsilon": 0.25, "scale": True, "center": True}
    layers = [
        {"class_name": "BatchNormalization", "config": {**told, "name": name}}
        if same or name == "first"
        else {"class_name": "BatchNormalization", "config": {**told, "epsilon": 0.5, "name": name}}
        for name in ("first", "second")
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", weights.getvalue())
        archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
    expected = [(f"layers/{group}", 0.25, 0.25) for group in groups] if same else []
    assert [(norm.name, norm.eps, norm.momentum) for norm in read_norms(path)] == expected


def test_all_zeros_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = written(tmp_path, bn.BatchNorm(3).state_dict())
    assert cli.main(["inspect", str(path), "--plot", str(tmp_path / "new.png")]) == 0
