"""Checkpoints of MobileNet SSDs, compared with an independent forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.class_names import VOC_21
from realtime_ssd_training.importers.pytorch_mobilenet import FAMILIES
from realtime_ssd_training.models import create
from realtime_ssd_training.models.checkpoint import save_checkpoint
from torch import Tensor

from realtime_ssd.core.boxes import to_corners
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import read_spec
from tests.training.importers.conftest import open_session
from tests.training.importers.reference_mobilenets import (
    Reference,
    Weights,
    images,
    qfgaohao_mb1,
    qfgaohao_mb1_lite,
    qfgaohao_mb2,
    torchvision_lite,
)

# Network function, input size, epsilon and lower limit of the variance of the normalizations.
NETWORKS = {
    "torchvision-ssdlite320": (torchvision_lite, 320, 1e-3, 0.2),
    "qfgaohao-mb1-ssd": (qfgaohao_mb1, 300, 1e-5, 0.2),
    "qfgaohao-mb1-ssd-lite": (qfgaohao_mb1_lite, 300, 1e-5, 0.2),
    "qfgaohao-mb2-ssd-lite": (qfgaohao_mb2, 300, 1e-5, 0.5),
}
MODELS = {
    "torchvision-ssdlite320": "ssdlite320_mobilenet_v3_large",
    "qfgaohao-mb1-ssd": "ssd300_mobilenet_v1_3x3",
    "qfgaohao-mb1-ssd-lite": "ssd300_mobilenet_v1_3x3",
    "qfgaohao-mb2-ssd-lite": "ssd300_mobilenet_v2",
}


@dataclass(frozen=True, eq=False)
class Case:
    """A checkpoint with an image and the original's heads for it."""

    weights: Weights
    image: Tensor
    heads: tuple[Tensor, Tensor]


@cache
def case(family: str, classes: int = 4) -> Case:
    function, size, eps, floor = NETWORKS[family]
    net = Reference(eps, floor)
    with torch.no_grad():
        function(net, images(3, size, seed=1), classes)
        image = images(1, size, seed=2)
        return Case(net.weights, image, function(net, image, classes))


@pytest.mark.parametrize("family", NETWORKS)
def test_heads_equal_the_original(family: str, tmp_path: Path) -> None:
    original = case(family)
    torch.save(original.weights, tmp_path / "m.pth")
    result = import_model(tmp_path / "m.pth", tmp_path / "m.onnx")
    assert result.family == family
    session = open_session(tmp_path / "m.onnx")
    heads = session.run(["scores", "offsets"], {"image": original.image.numpy()})
    for actual, expected in zip(heads, original.heads, strict=True):
        assert actual.shape == expected.shape
        scale = max(1.0, float(expected.abs().max()))
        assert np.abs(actual - expected.numpy()).max() <= 1e-4 * scale
    assert read_spec(tmp_path / "m.onnx").labels[1:] == ("class 1", "class 2", "class 3")


@pytest.mark.parametrize("width", [0.5, 0.75, 1.0])
def test_the_width_of_a_mobilenet_v2_is_that_of_its_channels(width: float) -> None:
    labels = ["background", "a"]
    model = create("ssd300_mobilenet_v2", labels, width=width, truncated=width != 1)
    rebuilt = FAMILIES["qfgaohao-mb2-ssd-lite"].build(model.state_dict(), 2)
    shapes = [tuple(value.shape) for value in rebuilt.state_dict().values()]
    assert shapes == [tuple(value.shape) for value in model.state_dict().values()]
    assert rebuilt.backbone.channels[-4:] == (512, 256, 256, 64)


@pytest.mark.parametrize("family", NETWORKS)
def test_the_number_of_parameters_is_that_of_the_original(family: str) -> None:
    expected = sum(
        value.numel()
        for key, value in case(family).weights.items()
        if "running" not in key and "tracked" not in key
    )
    options = {"lite": True} if family == "qfgaohao-mb1-ssd-lite" else {}
    model = create(MODELS[family], ["background", "a", "b", "c"], **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(("project", "key"), [("torchvision", "model"), ("qfgaohao", None)])
def test_the_project_is_sufficient_as_family(project: str, key: str | None, tmp_path: Path) -> None:
    """The tensor names decide which network of the project it is."""
    family = next(name for name in NETWORKS if name.startswith(project))
    weights = {f"module.{name}": value for name, value in case(family).weights.items()}
    torch.save({key: weights} if key else weights, tmp_path / "m.pt")
    result = import_model(tmp_path / "m.pt", tmp_path / "m.onnx", ImportOptions(family=project))
    spec, limits = result.spec, result.spec.thresholds
    assert (result.family, spec.name) == (family, f"{MODELS[family]}_{project}")
    assert (spec.input.channels, spec.activation, spec.background) == ("RGB", "softmax", 0)
    assert spec.variances == (0.1, 0.1, 0.2, 0.2)
    if project == "torchvision":
        assert (spec.input.mean, spec.input.scale) == ((127.5,) * 3, (1 / 127.5,) * 3)
        assert (limits.iou_threshold, limits.pre_nms_top_k) == (0.55, 300)
        assert (limits.max_detections, spec.clip_before_nms) == (300, True)
    else:
        assert (spec.input.mean, spec.input.scale) == ((127.0,) * 3, (1 / 128,) * 3)
        assert (limits.iou_threshold, limits.pre_nms_top_k) == (0.45, 200)
        assert not spec.clip_before_nms


def test_default_boxes_equal_those_of_torchvision() -> None:
    """Compare with sums and single boxes of its `DefaultBoxGenerator`, as corners."""
    boxes = to_corners(
        create(MODELS["torchvision-ssdlite320"], ["background", "a"]).spec.boxes.boxes()
    )
    assert boxes.shape == (3234, 4)
    sums = [1159.29912367, 1159.29912367, 2074.70086873, 2074.70086873]
    np.testing.assert_allclose(boxes.sum(0, dtype=np.float64), sums, atol=1e-4)
    expected = {
        0: (-0.075, -0.075, 0.125, 0.125),
        1: (-0.10728756, -0.10728756, 0.15728757, 0.15728757),
        1999: (0.54271245, 0.6927124, 0.8072876, 0.9572876),
        3233: (0.2257586, 0.0, 0.7742414, 1.0),
    }
    for number, box in expected.items():
        np.testing.assert_allclose(boxes[number], box, atol=1e-6)


@pytest.mark.parametrize("family", ["qfgaohao-mb1-ssd", "qfgaohao-mb2-ssd-lite"])
def test_default_boxes_equal_those_of_qfgaohao(family: str) -> None:
    """Compute them cell by cell from its configuration, with each number clipped to 0 … 1."""
    expected = []
    plan = [(19, 16, 60, 105), (10, 32, 105, 150), (5, 64, 150, 195), (3, 100, 195, 240),
            (2, 150, 240, 285), (1, 300, 285, 330)]  # fmt: skip
    for cells, shrinkage, low, high in plan:
        for row, column in product(range(cells), repeat=2):
            center = [(column + 0.5) * shrinkage / 300, (row + 0.5) * shrinkage / 300]
            sides: list[tuple[float, float]] = [(low, low), (sqrt(low * high),) * 2]
            for ratio in (sqrt(2), sqrt(3)):
                sides += [(low * ratio, low / ratio), (low / ratio, low * ratio)]
            expected += [[*center, w / 300, h / 300] for w, h in sides]
    boxes = create(MODELS[family], ["background", "a"]).spec.boxes.boxes()
    assert boxes.shape == (3000, 4)
    np.testing.assert_allclose(boxes, np.clip(expected, 0, 1), atol=1e-6)


def test_safetensors_with_21_columns_have_the_voc_classes(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    weights = case("qfgaohao-mb2-ssd-lite", 21).weights
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    result = import_model(path, tmp_path / "m.onnx")
    assert (result.family, result.spec.labels) == ("qfgaohao-mb2-ssd-lite", VOC_21)


def test_safetensors_of_this_program_or_damaged_are_refused(tmp_path: Path) -> None:
    path, output = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    save_checkpoint(path, create("ssd300_mobilenet_v2", ["background", "a"], width=0.25))
    with pytest.raises(UsageError, match="convert it to ONNX with 'realtime-ssd export'"):
        import_model(path, output)
    path.write_bytes(b"junk" * 20)
    with pytest.raises(ModelError, match=r"not a readable \.safetensors"):
        import_model(path, output)
    assert not output.exists()


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path, output = tmp_path / "m.pth", tmp_path / "m.onnx"
    weights = dict(case("qfgaohao-mb2-ssd-lite").weights)

    def assert_refused(sentence: str, family: str | None = None) -> None:
        torch.save(weights, path)
        with pytest.raises(ModelError, match=sentence):
            import_model(path, output, ImportOptions(family=family))

    assert_refused("not a checkpoint of a known SSD .*torchvision's SSDLite320", "torchvision")
    variance = weights.pop("base_net.5.conv.4.running_var")
    assert_refused("1 tensors are missing .*first is 'backbone.blocks.4.rest.0.1.running_var'")
    weights["base_net.5.conv.4.running_var"] = variance[1:]
    assert_refused("0 tensors are missing and 1 have another shape")
    weights["base_net.5.conv.4.running_var"] = variance
    weights["classification_headers.0.3.bias"] = torch.tensor(1.0)
    assert_refused("has 0 score columns per box")
    del weights["classification_headers.0.3.bias"]
    assert_refused("does not have the heads of mb2-ssd-lite", "qfgaohao-mb2-ssd-lite")
    assert not output.exists()
