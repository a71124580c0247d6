# SPDX-License-Identifier: Apache-2.0
"""`batchnorm convert`: every pair of frameworks, beside what the formulas give with the arrays as they are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import batchnorm as bn
from batchnorm import cli
from batchnorm.cli.convert import FRAMEWORKS
from batchnorm.conversion import convert_arrays
from batchnorm.interop.conventions import Framework, convention_of

Captured = pytest.CaptureFixture[str]
RNG = np.random.default_rng(20261215)
X = RNG.normal(1, 2, (7, 5)).astype("f4")


def layer(axis: Any = 1) -> bn.BatchNorm:
    made = bn.BatchNorm(5, axis=axis)
    made(RNG.normal(3, 2, (16, 5)).astype("f4"))
    made.gamma[...] = RNG.uniform(0.5, 1.5, 5)
    made.beta[...] = RNG.normal(size=5)
    return made.eval()


def two(framework: Any) -> tuple[dict[str, Any], list[bn.BatchNorm]]:
    """Two layers in the names of a framework, and the layers."""
    layers = [layer(convention_of(framework).axis) for _ in range(2)]
    arrays: dict[str, Any] = {}
    for name, each in zip(("a", "b"), layers):
        arrays.update(bn.to_state(each, framework, prefix=name).arrays)
    return arrays, layers


def test_the_frameworks_are_those_of_the_library() -> None:
    assert set(FRAMEWORKS) == set(get_args(Framework))


@pytest.mark.parametrize("source", FRAMEWORKS)
def test_every_pair(source: Any) -> None:
    arrays, layers = two(source)
    convention = convention_of(source)
    # The arrays of darknet are made for its own eps.
    known: dict[str, Any] = {} if source == "darknet" else {convention.eps_name: 1e-5}
    known.update({"fix_gamma": False} if source == "mxnet" else {})
    for target in FRAMEWORKS:
        made = convert_arrays({**arrays, "conv.kernel": np.ones((3, 2))}, source, target, **known)  # type: ignore[arg-type]
        assert made.passed_over == ["conv.kernel"]
        assert [each.new_name for each in made.layers] == ["a", "b"]
        for each, exact in zip(made.layers, layers):
            told = {key: value for key, value in each.settings.items() if key not in ("axis", "num_features")}
            again = bn.from_state(made.arrays, target, prefix=each.new_name, axis=1, **told).eval()  # type: ignore[arg-type]
            np.testing.assert_allclose(again(X), bn_of(exact), rtol=2e-5, atol=2e-5, err_msg=target)


def bn_of(of_layer: bn.BatchNorm) -> Any:
    """The formula, in float64."""
    mean, var = (np.asarray(each, float) for each in (of_layer.running_mean, of_layer.running_var))
    return (X - mean) / np.sqrt(var + of_layer.eps) * of_layer.gamma + of_layer.beta


def written(folder: Path, arrays: Any, suffix: str = ".npz") -> Path:
    path = folder / f"in{suffix}"
    bn.write_state(path, arrays)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files(suffix: str, tmp_path: Path, capsys: Captured) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    arrays, _ = two("pytorch")
    path, output = written(tmp_path, {**arrays, "fc.weight": np.ones(3)}, suffix), tmp_path / f"out{suffix}"
    assert cli.main(["convert", str(path), str(output), "--from", "pytorch", "--to", "keras"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "layer  is now  channels  axis  momentum  epsilon",
        "-----  ------  --------  ----  --------  -------",
        "a      a              5    -1       0.9    1e-05",
        "b      b              5    -1       0.9    1e-05",
    ]
    assert printed[4:] == [
        "",
        f"{output}: 8 arrays. The settings are not in it: give them to the new layers.",
        "Other arrays are not in it, 1 of them: fc.weight.",
        "Variances are as they were: pytorch keeps the unbiased (over M - 1) one and keras the biased (over M) one; "
        "--count M converts them.",
    ]
    for name in "ab":
        np.testing.assert_array_equal(bn.read_state(output)[f"{name}/moving_mean"], arrays[f"{name}.running_mean"])
        np.testing.assert_array_equal(bn.read_state(output)[f"{name}/moving_variance"], arrays[f"{name}.running_var"])


def test_settings_that_are_off_stand_in_the_table(tmp_path: Path, capsys: Captured) -> None:
    """MXNet's default would set every gamma to 1."""
    path, output = written(tmp_path, two("pytorch")[0]), tmp_path / "out.npz"
    assert cli.main(["convert", str(path), str(output), "--from", "pytorch", "--to", "mxnet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[-1] == "fix_gamma"
    assert [line.split()[-1] for line in printed[2:4]] == ["False", "False"]


def test_many_layers(tmp_path: Path, capsys: Captured) -> None:
    """The table ends, and the file has all of them."""
    arrays = {f"l{index:02}.{key}": value for index in range(23) for key, value in bn.BatchNorm(2).state_dict().items()}
    path, output = written(tmp_path, arrays), tmp_path / "out.npz"
    assert cli.main(["convert", str(path), str(output), "--from", "pytorch", "--to", "flax"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed.index("... and 3 more") == next(i for i, line in enumerate(printed) if line.startswith("l19 ")) + 1
    assert len(bn.read_state(output)) == 23 * 4


def test_count_eps_and_momentum(tmp_path: Path, capsys: Captured) -> None:
    arrays, _ = two("pytorch")
    path, output = written(tmp_path, arrays), tmp_path / "out.npz"
    told = ["--from", "pytorch", "--to", "flax", "--count", "5", "--eps", "0.5", "--momentum", "0.25", "--json"]
    assert cli.main(["convert", str(path), str(output), *told]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["output"] == str(output)
    assert [each["settings"]["epsilon"] for each in said["layers"]] == [0.5, 0.5]
    assert [each["settings"]["momentum"] for each in said["layers"]] == [0.75, 0.75]
    got = bn.read_state(output)
    np.testing.assert_allclose(got["batch_stats/a/var"], arrays["a.running_var"] * 0.8, rtol=1e-6)
    assert sorted(got)[:2] == ["batch_stats/a/mean", "batch_stats/a/var"]


def test_other_settings(tmp_path: Path, capsys: Captured) -> None:
    path, output = written(tmp_path, two("mxnet")[0]), tmp_path / "out.npz"
    command = ["convert", str(path), str(output), "--from", "mxnet", "--to", "pytorch"]
    assert cli.main(command) == 1
    assert "counts as 1 where fix_gamma is True" in capsys.readouterr().err
    assert cli.main([*command, "--setting", "fix_gamma=true", "--setting", "eps=0.25"]) == 0
    assert "0.25" in capsys.readouterr().out
    np.testing.assert_array_equal(bn.read_state(output)["a.weight"], np.ones(5))
    assert cli.main([*command, "--setting", "fix_gamma=false"]) == 0
    np.testing.assert_array_equal(bn.read_state(output)["a.weight"], bn.read_state(path)["a_gamma"])
    capsys.readouterr()
    assert cli.main([*command, "--setting", "fixgamma=false"]) == 1
    assert "fixgamma is none of the settings" in capsys.readouterr().err
    for wrong in ("fix_gamma", "fix_gamma=", "=1", "eps=much"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--setting", wrong])
        assert ended.value.code == 2


def test_a_prefix(tmp_path: Path, capsys: Captured) -> None:
    arrays = {f"{top}.{key}": value for top in ("net", "net2") for key, value in two("pytorch")[0].items()}
    path, output = written(tmp_path, arrays), tmp_path / "out.npz"
    command = ["convert", str(path), str(output), "--from", "pytorch", "--to", "nnx", "--prefix"]
    assert cli.main([*command, "net"]) == 0
    assert sorted({key.rpartition("/")[0] for key in bn.read_state(output)}) == ["net/a", "net/b"]
    assert cli.main([*command, "net2.b"]) == 0
    assert sorted({key.rpartition("/")[0] for key in bn.read_state(output)}) == ["net2/b"]
    before = output.read_bytes()
    capsys.readouterr()
    assert cli.main([*command, "ne"]) == 1
    assert capsys.readouterr().err == (
        "batchnorm convert: there is no batch norm of pytorch at prefix 'ne' "
        "(layers are at 'net.a', 'net.b', 'net2.a', 'net2.b')\n"
    )
    assert output.read_bytes() == before


def test_gamma_that_the_other_framework_needs() -> None:
    arrays = {key: value for key, value in two("keras")[0].items() if not key.endswith("gamma")}
    made = convert_arrays(arrays, "keras", "pytorch", epsilon=1e-5)
    assert [each.filled for each in made.layers] == ["gamma", "gamma"]
    np.testing.assert_array_equal(made.arrays["a.weight"], np.ones(5))
    np.testing.assert_array_equal(made.arrays["a.bias"], arrays["a/beta"])
    arrays = {key: value for key, value in two("keras")[0].items() if not key.endswith("beta")}
    made = convert_arrays(arrays, "keras", "mlx")
    assert [each.filled for each in made.layers] == ["beta", "beta"]
    np.testing.assert_array_equal(made.arrays["a.bias"], np.zeros(5))
    assert [each.filled for each in convert_arrays(arrays, "keras", "flax").layers] == ["", ""]


def test_flax_below_another_tree() -> None:
    arrays = {f"state/{key}": value for key, value in two("flax")[0].items()}
    made = convert_arrays({**arrays, "step": np.ones(1)}, "flax", "pytorch")
    assert [each.new_name for each in made.layers] == ["state.a", "state.b"]
    np.testing.assert_array_equal(made.arrays["state.b.running_var"], arrays["state/batch_stats/b/var"])
    assert made.passed_over == ["step"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"a.running_var": np.float32([1, 2, 3])}, "a: a.running_var has shape (3,), expected (5,)"),
        (
            {"a.running_mean": np.full(5, np.nan, "f4")},
            "a: a.running_mean is nan in channel 0, expected finite numbers",
        ),
        ({"b.running_var": np.ones(5, "i4")}, "b: b.running_var has dtype int32, expected"),
        ({"a.extra": np.ones(5)}, "a: a.extra is unexpected"),
        ({"a/bias": np.ones(5)}, "a.bias and a/bias are the same name"),
    ],
)
def test_what_cannot_be_converted(changed: Any, said: str, tmp_path: Path, capsys: Captured) -> None:
    path, output = written(tmp_path, {**two("pytorch")[0], **changed}), tmp_path / "out.npz"
    assert cli.main(["convert", str(path), str(output), "--from", "pytorch", "--to", "keras"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"batchnorm convert: {said}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_collide(tmp_path: Path, capsys: Captured) -> None:
    one = {key[2:]: value for key, value in two("pytorch")[0].items() if key[0] == "a"}
    arrays = {f"{name}.{key}": value for name in ("net.a", "net_a") for key, value in one.items()}
    path, output = written(tmp_path, arrays), tmp_path / "out.npz"
    assert cli.main(["convert", str(path), str(output), "--from", "pytorch", "--to", "mxnet"]) == 1
    assert capsys.readouterr().err == "batchnorm convert: net.a and net_a would both have net_a_gamma\n"
    assert not output.exists()


def test_files_that_cannot_be(tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, two("pytorch")[0])
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:300])
    (tmp_path / "folder.npz").mkdir()
    there = sorted(tmp_path.iterdir())
    for source, output in [
        (path, tmp_path / "out.txt"),
        (path, tmp_path / "out.onnx"),
        (path, tmp_path / "none" / "out.npz"),
        (path, tmp_path / "folder.npz"),
        (tmp_path / "none.npz", tmp_path / "out.npz"),
        (tmp_path / "folder.npz", tmp_path / "out.npz"),
        (cut, tmp_path / "out.npz"),
    ]:
        assert cli.main(["convert", str(source), str(output), "--from", "pytorch", "--to", "keras"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("batchnorm convert: ")
        assert err.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == there


def test_another_framework_than_there_is(tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path, two("pytorch")[0])
    assert cli.main(["convert", str(path), str(tmp_path / "o.npz"), "--from", "keras", "--to", "flax"]) == 1
    assert capsys.readouterr().err == "batchnorm convert: there is no batch norm of keras\n"
    with pytest.raises(SystemExit) as ended:
        cli.main(["convert", str(path), "o.npz", "--from", "keros", "--to", "flax"])
    assert ended.value.code == 2
