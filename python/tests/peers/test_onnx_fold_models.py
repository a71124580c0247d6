# SPDX-License-Identifier: Apache-2.0
"""Whole models folded, tensor by tensor: ONNX's own light ones, and exports of torchvision."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
from comparing import peer

onnx = peer("onnx")
peer("onnxruntime")

from batchnorm.onnx_files import fold_model, read_model, verify  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# Batch norms, and those that are left: in densenet121 they stand between Concat, pooling and Relu.
FOLDED = {"resnet50": (53, 0), "densenet121": (121, 62), "inception_v2": (69, 0), "shufflenet": (49, 0)}


@pytest.mark.parametrize("name", FOLDED)
def test_light_models(name: str) -> None:
    """Their outputs do not depend on x, so that to compare these alone would show nothing."""
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("onnx came without its light models")
    model, copy = read_model(path), read_model(path)
    assert len(fold_model(copy).left) == FOLDED[name][0]  # each initializer is an input as well
    assert copy == model
    report = fold_model(copy, overridable=True)
    onnx.checker.check_model(copy)
    assert (len(report.folded) + len(report.left), len(report.left)) == FOLDED[name]
    found = verify(model, copy, report.tensors, inputs=1)
    assert len(found.errors) >= len(report.folded) + 1
    assert 0 < found.worst < 1e-4
    assert not found.too_far
    outputs = [each.name for each in model.graph.output]
    assert all(found.vacuous[each] == "does not depend on the input" for each in outputs)
    assert len(found.vacuous) < len(found.errors)


VISION = {"resnet18": (20, 0), "mobilenet_v2": (52, 0), "densenet121": (121, 62)}


@pytest.mark.parametrize("name", VISION)
def test_torchvision(name: str) -> None:
    model = exported(name)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    report = fold_model(copy)
    onnx.checker.check_model(copy, full_check=True)
    assert (len(report.folded) + len(report.left), len(report.left)) == VISION[name]
    found = verify(model, copy, report.tensors, inputs=1)
    assert len(found.errors) == len(report.folded) + 1 - sum(each == "output" for each in report.tensors)
    assert 0 < found.worst < 1e-4
    assert not found.vacuous


def exported(name: str) -> Any:
    """A model as torch.onnx writes it if it is told to fold nothing, with drawn parameters, and statistics of noise.

    With statistics that are drawn as well, what comes of mobilenet_v2 does not depend on x: its channels are saturated.
    """
    torch = peer("torch")
    peer("in_torchvision")
    models = peer("torchvision.models")
    torch.manual_seed(0)
    network = getattr(models, name)(weights=None)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.2)
            layer.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    network.eval()
    file = io.BytesIO()
    told = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, torch.zeros(1, 3, 64, 64), file, opset_version=17, **told)
    return onnx.ModelProto.FromString(file.getvalue())
