# SPDX-License-Identifier: Apache-2.0
"""batchnorm inspect: what is planted is found, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import python
from inspecting import MEANS, ONES, Arrays, Captured, changed, layer, plain, written

import batchnorm as bn
from batchnorm import cli
from batchnorm.inspection import KINDS, Norm, findings, read_norms


def seen(arrays: Arrays, folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.kind, each.channels) for of_norm in findings(read_norms(written(folder, arrays))) for each in of_norm]


def test_a_variance_that_is_none_is_not_taken_for_one(tmp_path: Path) -> None:
    """Sums of Caffe, which a factor makes averages."""
    [norm] = read_norms(written(tmp_path, bn.to_state(layer(), "caffe", prefix="bn").arrays))
    assert norm.unknown == "its statistics are not those of a layer: convert it from caffe first"
    assert norm.var is None
    assert [each.kind for each in findings([norm])[0]] == ["unread"]


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
