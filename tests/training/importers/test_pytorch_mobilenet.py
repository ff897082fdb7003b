"""Checkpoints of MobileNet SSDs against an independent forward written from the originals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from realtime_ssd_training.engine.checkpoint import save_checkpoint
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.labels import VOC_21
from realtime_ssd_training.models import create
from torch import Tensor

from realtime_ssd.core.boxes import to_corners
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import read_spec
from tests.training.importers.originals import (
    Original,
    Weights,
    images,
    qfgaohao_mb1,
    qfgaohao_mb2,
    torchvision_lite,
)

FUNCTIONS = {
    "torchvision-ssdlite320": (torchvision_lite, 320, 1e-3, 0.2),
    "qfgaohao-mb1-ssd": (qfgaohao_mb1, 300, 1e-5, 0.2),
    "qfgaohao-mb2-ssd-lite": (qfgaohao_mb2, 300, 1e-5, 0.5),
}
MODELS = {
    "torchvision-ssdlite320": "ssdlite320_mobilenet_v3_large",
    "qfgaohao-mb1-ssd": "ssd300_mobilenet_v1_3x3",
    "qfgaohao-mb2-ssd-lite": "ssd300_mobilenet_v2",
}


@dataclass(frozen=True, eq=False)
class Case:
    """A checkpoint with what the original gives for an image."""

    weights: Weights
    image: Tensor
    heads: tuple[Tensor, Tensor]


@cache
def case(family: str, classes: int = 4) -> Case:
    function, size, eps, floor = FUNCTIONS[family]
    net = Original(eps, floor)
    with torch.no_grad():
        function(net, images(3, size, seed=1), classes)
        image = images(1, size, seed=2)
        return Case(net.weights, image, function(net, image, classes))


@pytest.mark.parametrize("family", FUNCTIONS)
def test_equals_the_original(family: str, tmp_path: Path) -> None:
    made = case(family)
    torch.save(made.weights, tmp_path / "m.pth")
    done = import_model(tmp_path / "m.pth", tmp_path / "m.onnx")
    assert done.family == family
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    found = session.run(["scores", "offsets"], {"image": made.image.numpy()})
    for one, two in zip(found, made.heads, strict=True):
        assert one.shape == two.shape
        assert np.abs(one - two.numpy()).max() <= 1e-4
    assert read_spec(tmp_path / "m.onnx").labels[1:] == ("class 1", "class 2", "class 3")


@pytest.mark.parametrize("family", FUNCTIONS)
def test_as_many_parameters_as_the_original(family: str) -> None:
    theirs = sum(
        value.numel()
        for key, value in case(family).weights.items()
        if "running" not in key and "tracked" not in key
    )
    model = create(MODELS[family], ["background", "a", "b", "c"])
    assert sum(p.numel() for p in model.parameters()) == theirs


@pytest.mark.parametrize(("project", "wrap"), [("torchvision", "model"), ("qfgaohao", None)])
def test_a_project_s_name_is_enough(project: str, wrap: str | None, tmp_path: Path) -> None:
    """The contract as published; the keys tell which of a project's networks it is."""
    family = next(name for name in FUNCTIONS if name.startswith(project))
    weights = {f"module.{key}": value for key, value in case(family).weights.items()}
    torch.save({wrap: weights} if wrap else weights, tmp_path / "m.pt")
    done = import_model(tmp_path / "m.pt", tmp_path / "m.onnx", ImportOptions(family=project))
    spec = done.spec
    assert (done.family, spec.name) == (family, f"{MODELS[family]}_{project}")
    assert (spec.input.channels, spec.activation, spec.background) == ("RGB", "softmax", 0)
    assert spec.variances == (0.1, 0.1, 0.2, 0.2)
    limits = spec.thresholds
    if project == "torchvision":
        assert (spec.input.mean, spec.input.scale) == ((127.5,) * 3, (1 / 127.5,) * 3)
        assert (
            limits.iou_threshold,
            limits.pre_nms_top_k,
            limits.max_detections,
            spec.clip_before_nms,
        ) == (
            0.55,
            300,
            300,
            True,
        )
    else:
        assert (spec.input.mean, spec.input.scale) == ((127.0,) * 3, (1 / 128,) * 3)
        assert (limits.iou_threshold, limits.pre_nms_top_k, spec.clip_before_nms) == (
            0.45,
            200,
            False,
        )


def test_default_boxes_are_torchvision_s() -> None:
    """Sums and single boxes of its `DefaultBoxGenerator`, as corners."""
    boxes = to_corners(
        create(MODELS["torchvision-ssdlite320"], ["background", "a"]).spec.boxes.boxes()
    )
    assert boxes.shape == (3234, 4)
    sums = [1159.29912367, 1159.29912367, 2074.70086873, 2074.70086873]
    np.testing.assert_allclose(boxes.sum(0, dtype=np.float64), sums, atol=1e-4)
    wanted = {
        0: (-0.075, -0.075, 0.125, 0.125),
        1: (-0.10728756, -0.10728756, 0.15728757, 0.15728757),
        1999: (0.54271245, 0.6927124, 0.8072876, 0.9572876),
        3233: (0.2257586, 0.0, 0.7742414, 1.0),
    }
    for number, box in wanted.items():
        np.testing.assert_allclose(boxes[number], box, atol=1e-6)


@pytest.mark.parametrize("family", ["qfgaohao-mb1-ssd", "qfgaohao-mb2-ssd-lite"])
def test_default_boxes_are_qfgaohao_s(family: str) -> None:
    """Cell by cell as its configuration lists them, each number limited to 0 … 1."""
    wanted = []
    plan = [(19, 16, 60, 105), (10, 32, 105, 150), (5, 64, 150, 195), (3, 100, 195, 240),
            (2, 150, 240, 285), (1, 300, 285, 330)]  # fmt: skip
    for cells, shrinkage, low, high in plan:
        for row, column in product(range(cells), repeat=2):
            centre = [(column + 0.5) * shrinkage / 300, (row + 0.5) * shrinkage / 300]
            sides = [(low, low), (sqrt(low * high),) * 2]
            for ratio in (sqrt(2), sqrt(3)):
                sides += [(low * ratio, low / ratio), (low / ratio, low * ratio)]
            wanted += [[*centre, w / 300, h / 300] for w, h in sides]
    boxes = create(MODELS[family], ["background", "a"]).spec.boxes.boxes()
    assert boxes.shape == (3000, 4)
    np.testing.assert_allclose(boxes, np.clip(wanted, 0, 1), atol=1e-6)


def test_safetensors_and_the_names_of_voc(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made = case("qfgaohao-mb2-ssd-lite", 21)
    path = tmp_path / "m.safetensors"
    save_file({key: value.contiguous() for key, value in made.weights.items()}, path)
    done = import_model(path, tmp_path / "m.onnx")
    assert (done.family, done.spec.labels) == ("qfgaohao-mb2-ssd-lite", VOC_21)
    save_checkpoint(path, create("ssd300_mobilenet_v2", ["background", "a"], width=0.25))
    with pytest.raises(UsageError, match="realtime-ssd export"):
        import_model(path, tmp_path / "other.onnx")
    path.write_bytes(b"junk" * 20)
    with pytest.raises(ModelError, match=r"no readable \.safetensors"):
        import_model(path, tmp_path / "other.onnx")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path, output = tmp_path / "m.pth", tmp_path / "m.onnx"
    weights = dict(case("qfgaohao-mb2-ssd-lite").weights)

    def refused(sentence: str, **options: str) -> None:
        torch.save(weights, path)
        with pytest.raises(ModelError, match=sentence):
            import_model(path, output, ImportOptions(**options))

    refused("no checkpoint of a known SSD .*torchvision's SSDLite320", family="torchvision")
    whole = weights.pop("base_net.5.conv.4.running_var")
    refused("1 tensors are missing .*first is 'backbone.blocks.4.rest.0.1.running_var'")
    weights["base_net.5.conv.4.running_var"] = whole[1:]
    refused("0 tensors are missing and 1 have another shape")
    weights["base_net.5.conv.4.running_var"] = whole
    weights["classification_headers.0.3.bias"] = torch.tensor(1.0)
    refused("has 0 score columns a box")
    assert not output.exists()
