# SPDX-License-Identifier: Apache-2.0
"""`batchnorm inspect` of states: names of every framework, findings, and files that are none. No ONNX here."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import KINDS, Norm, findings, read_norms
from batchnorm.interop.conventions import CONVENTIONS

Captured = pytest.CaptureFixture[str]
Arrays = dict[str, Any]
RNG = np.random.default_rng(20261214)


def layer(channels: int = 6, axis: int = 1) -> bn.BatchNorm:
    """Trained, as far as can be seen."""
    made = bn.BatchNorm(channels, axis=axis)
    for _ in range(3):
        made(RNG.normal(3, 2, (16, channels)).astype("f4"))
    made.gamma[...] = RNG.uniform(0.5, 1.5, channels)
    made.beta[...] = RNG.normal(size=channels)
    return made


def written(folder: Path, arrays: Arrays, suffix: str = ".npz") -> Path:
    path = folder / f"state{suffix}"
    bn.write_state(path, arrays)
    return path


def plain(name: str = "bn1", **changed: Any) -> Arrays:
    arrays = {key: value.copy() for key, value in layer().state_dict().items()}
    arrays.update(changed)
    return {f"{name}.{key}": value for key, value in arrays.items() if value is not None}


def seen(arrays: Arrays, folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.kind, each.channels) for of_norm in findings(read_norms(written(folder, arrays))) for each in of_norm]


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


def test_a_variance_that_is_none_is_not_taken_for_one(tmp_path: Path) -> None:
    """Sums of Caffe, which a factor makes averages."""
    [norm] = read_norms(written(tmp_path, bn.to_state(layer(), "caffe", prefix="bn").arrays))
    assert norm.unknown == "its statistics are not those of a layer: convert it from caffe first"
    assert norm.var is None
    assert [each.kind for each in findings([norm])[0]] == ["unread"]


@pytest.mark.parametrize("above", ["", "variables.", "state.model."])
def test_flax_has_separate_trees(above: str, tmp_path: Path) -> None:
    rows = RNG.uniform(1, 2, (4, 5))
    arrays = dict(zip(("params/a/bn/scale", "params/a/bn/bias", "batch_stats/a/bn/mean", "batch_stats/a/bn/var"), rows))
    [norm] = read_norms(written(tmp_path, {above.replace(".", "/") + key: value for key, value in arrays.items()}))
    for got, exact in zip((norm.gamma, norm.beta, norm.mean, norm.var), rows):
        np.testing.assert_array_equal(got, exact)
    assert norm.framework == "flax"
    assert norm.name == above.replace(".", "/") + "a/bn"


def test_a_layer_without_gamma_and_beta(tmp_path: Path) -> None:
    [norm] = read_norms(written(tmp_path, {"running_mean": np.ones(3), "running_var": np.ones(3) * 2}))
    assert (norm.name, norm.gamma, norm.beta, norm.channels) == ("(the whole file)", None, None, 3)
    assert findings([norm]) == [[]]


def test_names_that_are_one(tmp_path: Path, capsys: Captured) -> None:
    arrays = {"a.running_mean": np.ones(2), "a/running_mean": np.ones(2), "a.running_var": np.ones(2)}
    path = written(tmp_path, arrays)
    assert cli.main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err == "batchnorm inspect: a.running_mean and a/running_mean are the same name\n"


def test_names_do_not_reach_the_terminal_as_they_are(tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, plain("a\x1b[2J\n", weight=changed(ONES, _0=0)))
    for command in (["inspect", str(path)], ["convert", str(path), str(tmp_path / "o.npz"), *FROM_TO]):
        assert cli.main(command) == 0
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert r"a\x1b[2J\n" in printed
    path = written(tmp_path, {"a\x1b.running_mean": ONES, "a\x1b/running_mean": ONES})
    assert cli.main(["inspect", str(path)]) == 1
    assert r"a\x1b.running_mean and a\x1b/running_mean" in capsys.readouterr().err


def test_letters_that_the_terminal_does_not_have(tmp_path: Path) -> None:
    path = written(tmp_path, bn.to_state(layer(), "flux", prefix="schön").arrays)
    code = "import sys; from batchnorm.cli import main; sys.exit(main(sys.argv[1:]))"
    done = python(code, "inspect", str(path), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sch\\xf6n" in done.stdout


FROM_TO = ["--from", "pytorch", "--to", "keras"]


def test_a_sound_layer_has_no_finding(tmp_path: Path) -> None:
    assert seen({**plain("a"), **plain("b")}, tmp_path) == []


def changed(array: Any, **at: float) -> Any:
    array = np.array(array, np.float32)
    for index, value in at.items():
        array[int(index[1:])] = value
    return array


ONES, MEANS = np.float32([1, 1.5, 2, 1.25, 1, 3]), np.float32([0.5, 1, 2, 0, 0.25, 0.125])
# A plain layer with this array, and what has to be found: the kind and the channels.
PLANTED: dict[str, tuple[Arrays, list[tuple[str, tuple[int, ...]]]]] = {
    "NaN in the mean": ({"running_mean": changed(MEANS, _2=np.nan)}, [("nonfinite", (2,))]),
    "infinite variance": ({"running_var": changed(ONES, _0=np.inf)}, [("nonfinite", (0,))]),
    "infinite gamma": ({"weight": changed(ONES, _5=-np.inf)}, [("nonfinite", (5,))]),
    "NaN in beta": ({"bias": changed(ONES, _1=np.nan)}, [("nonfinite", (1,))]),
    "negative variance": ({"running_var": changed(ONES, _1=-1e-3, _4=-2)}, [("negative", (1, 4))]),
    "variance below eps": ({"running_var": changed(ONES, _3=9e-6)}, [("tiny", (3,)), ("scale", (3,))]),
    "variance 0": ({"running_var": changed(ONES, _3=0), "weight": changed(ONES, _3=0.01)}, [("tiny", (3,))]),
    "all variances 0": (
        {"running_mean": np.zeros(6), "running_var": np.zeros(6), "weight": ONES * 0.01}, [("tiny", tuple(range(6)))],
    ),
    "variance just above eps": ({"running_var": changed(ONES, _3=1.1e-5), "weight": changed(ONES, _3=0.01)}, []),
    "dead": ({"weight": changed(ONES, _0=0, _5=-9e-7)}, [("dead", (0, 5))]),
    "nearly dead": ({"weight": changed(ONES, _0=2e-6)}, []),
    "exploding": ({"running_var": changed(ONES, _2=2e3)}, [("exploding", (2,))]),
    "nearly exploding": ({"running_var": changed(ONES, _2=1.3e3)}, []),
    "cancelling": ({"running_var": ONES, "running_mean": changed(MEANS, _1=-125)}, [("cancellation", (1,))]),
    "nearly cancelling": ({"running_var": ONES, "running_mean": changed(MEANS, _1=-121)}, []),
    "a large scale": ({"running_var": ONES, "weight": changed(ONES, _0=100)}, [("scale", (0,))]),
    "no batch": (
        {"num_batches_tracked": np.int64(0), "running_mean": np.zeros(6), "running_var": np.ones(6)}, [("never", ())],
    ),
    "no count, as of another framework": ({"num_batches_tracked": np.int64(0)}, []),
    "as they began": (
        {"num_batches_tracked": None, "running_mean": np.zeros(6), "running_var": np.ones(6)}, [("never", ())],
    ),
    "as they began, and trained": ({"running_mean": np.zeros(6), "running_var": np.ones(6)}, []),
    "almost as they began": (
        {"num_batches_tracked": None, "running_mean": np.zeros(6), "running_var": changed(np.ones(6), _3=2)}, [],
    ),
    "arrays of different lengths": ({"running_var": np.ones(5)}, [("unread", ())]),
    "arrays of nothing": (
        dict.fromkeys(("running_mean", "running_var", "weight", "bias"), np.ones(0)), [("unread", ())],
    ),
    "complex numbers": ({"running_var": np.ones(6, np.complex64)}, [("unread", ())]),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_and_nothing_else(what: str, tmp_path: Path) -> None:
    told, expected = PLANTED[what]
    arrays = plain("bn1", **{"running_mean": MEANS, "running_var": ONES, "weight": ONES, **told})
    assert seen(arrays, tmp_path) == expected


def test_texts_of_findings(tmp_path: Path, capsys: Captured) -> None:
    told = {
        "weight": changed(ONES, _0=0, _5=0),
        "running_var": changed(ONES, _1=-1),
        "running_mean": MEANS,
        "bias": ONES,
    }
    path = written(tmp_path, {**plain("layer1.0.bn2", **told), **plain("layer1.1.bn2")})
    assert cli.main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{path}: 2 batch norms, 12 channels; 1 with findings"
    assert printed[4].split()[:4] == ["layer1.0.bn2", "6", "-", "-"]
    assert printed[7:] == [
        "layer1.0.bn2",
        "  dead: 2 of 6 channels (0, 5): gamma is 0: the output is beta, whatever comes in",
        "    they can be pruned, if the next layer takes up their beta",
        "  negative: 1 of 6 channels (1): the variance is below 0, and below -eps (1e-05, as pytorch has by default): "
        "the output is NaN",
        "    recalibrate: a difference of averages, or a damaged file",
    ]


def test_eps_and_momentum_that_differ() -> None:
    def norm(eps: float | None, momentum: float | None) -> Norm:
        return Norm("bn", "keras", eps=eps, momentum=momentum)

    def kinds(*settings: tuple[float | None, float | None]) -> list[list[str]]:
        return [[each.kind for each in of_norm] for of_norm in findings([norm(*each) for each in settings])]

    assert kinds((1e-3, 0.1), (1e-3, 0.1), (1e-5, 0.1), (None, None)) == [[], [], ["eps"], []]
    assert kinds((1e-3, 0.1), (1e-3, 0.01), (1e-3, 0.1)) == [[], ["momentum"], []]
    assert kinds((1e-3, 0), (1e-3, 1)) == [["momentum"], ["momentum"]]
    assert kinds((1e-3, 0.1), (1e-5, 0.1)) == [[], []]  # of two, neither is the odd one
    assert kinds() == []
    for wrong in (-1e-3, np.nan, np.inf):
        assert kinds((wrong, 0.1), (1e-3, wrong)) == [["eps"], ["momentum"]]


def test_settings_that_are_wrong_do_not_hide_the_rest() -> None:
    numbers = {"gamma": ONES, "beta": ONES, "mean": MEANS, "var": changed(ONES, _1=-1).astype(float)}
    for eps in (-5.0, np.nan, np.inf):
        norm = Norm("bn", "onnx", eps=eps, momentum=0.1).take(numbers)
        assert {each.kind for each in findings([norm])[0]} >= {"eps", "negative"}


def test_many_layers_and_channels_are_cut_short(tmp_path: Path, capsys: Captured) -> None:
    dead = {"weight": np.zeros(40), "bias": np.zeros(40), "running_mean": np.ones(40), "running_var": np.ones(40)}
    path = written(
        tmp_path, {k: v for i in range(25) for k, v in plain(f"b{i}", **dead, num_batches_tracked=None).items()}
    )
    assert cli.main(["inspect", str(path)]) == 0
    short = capsys.readouterr().out
    assert "\n... and 5 more (--all)\n" in short
    assert "40 of 40 channels (0, 1, 2, 3, 4, 5, 6, 7, ...): gamma and beta are 0: so is y\n" in short
    assert cli.main(["inspect", str(path), "--all"]) == 0
    long = capsys.readouterr().out
    assert "more (--all)" not in long
    assert "38, 39): " in long


def test_json(tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, plain("bn1", running_var=changed(ONES, _1=np.nan), running_mean=MEANS, weight=ONES))
    assert cli.main(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    [norm] = told["norms"]
    assert (told["file"], norm["name"], norm["framework"], norm["channels"]) == (str(path), "bn1", "pytorch", 6)
    assert (norm["num_batches"], norm["eps"], norm["momentum"]) == (3, None, None)
    assert norm["ranges"]["gamma"] == [1, 3]
    assert norm["ranges"]["var"] == [None, None]
    [finding] = norm["findings"]
    assert (finding["kind"], finding["channels"]) == ("nonfinite", [1])
    assert finding["text"]
    assert finding["advice"]


@pytest.mark.parametrize(
    ("wanted", "status"),
    [("dead", 3), ("nonfinite,dead", 3), ("any", 3), ("nonfinite", 0), ("missing", 0), ("negative,tiny", 0)],
)
def test_fail_on(wanted: str, status: int, tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, plain("bn1", weight=changed(ONES, _1=0)))
    assert cli.main(["inspect", str(path), "--fail-on", wanted]) == status
    assert "dead" in capsys.readouterr().out


def test_no_batch_norm(tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, {"weight": np.ones((3, 4)), "bias": np.ones(3), "mean": np.ones(3)})
    assert cli.main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: no batch norm.\n"
    assert cli.main(["inspect", str(path), "--fail-on", "any"]) == 0
    assert cli.main(["inspect", str(path), "--fail-on", "missing"]) == 3


def test_a_kind_that_is_none(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", "x.npz", "--fail-on", "dead,deed"])
    assert ended.value.code == 2
    assert f"'deed' is none of {', '.join(KINDS)}, any, missing" in capsys.readouterr().err


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
