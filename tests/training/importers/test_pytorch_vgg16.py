"""VGG16 checkpoints with random weights, compared with an independent forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.pytorch_checkpoint import FAMILIES, read_network
from torch import Tensor

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import read_spec
from tests.training.importers.conftest import open_session
from tests.training.importers.reference_vgg16 import (
    NAMERS,
    NAMERS_WITH_DIFFERENCES,
    forward,
    make_checkpoint,
)


def image(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 50


def assert_close(actual: list[NDArray[np.float32]], expected: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        scale = float(b.abs().max())
        assert a.shape == b.shape
        assert np.abs(a - b.numpy()).max() <= 1e-4 * max(1.0, scale)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "size"),
    [
        *((name, 300) for name in NAMERS),
        pytest.param("lufficc", 512, marks=pytest.mark.slow),
    ],
)
def test_heads_equal_the_original(family: str, size: int, tmp_path: Path) -> None:
    weights = make_checkpoint(family, size)
    content = {"model": weights} if family == "lufficc" else weights
    torch.save(content, tmp_path / "m.pth")
    model, name = read_network(tmp_path / "m.pth", ImportOptions())
    assert name == family
    spec, is_torchvision = model.spec, family == "torchvision"
    assert (spec.input.width, spec.num_boxes) == (size, {300: 8732, 512: 24564}[size])
    assert (spec.input.channels, spec.labels[1]) == ("RGB", "aeroplane")
    assert (spec.input.mean[0] == 123, spec.clip_before_nms) == (not is_torchvision, is_torchvision)
    assert spec.description == f"{FAMILIES[family].description}, 20 classes"
    actual = [head.numpy() for head in model(image(size))]
    assert_close(actual, forward(family, weights, image(size)))
    boxes = spec.boxes.boxes()
    assert boxes[:, 2:].max() == 1
    if size == 300:
        # torchvision has its COCO boxes for any classes, and does not clip centers.
        np.testing.assert_allclose(boxes[0, 2:], 0.07 if is_torchvision else 0.1, atol=1e-7)
        assert (boxes[:, :2].max() > 1.01) == is_torchvision
    else:  # the maximum of lufficc's largest square box is 537.65, Caffe's is 537.6
        assert boxes[-3, 2] == pytest.approx((460.8 * 537.65) ** 0.5 / 512)


@torch.no_grad()
@pytest.mark.parametrize("family", NAMERS_WITH_DIFFERENCES)
def test_versions_that_differ_in_more_than_names(family: str, tmp_path: Path) -> None:
    weights = make_checkpoint(family)
    meta = {"dataset_meta": {"classes": tuple(f"thing {k}" for k in range(20))}}
    content = {"state_dict": weights, "meta": meta} if family == "mmdet" else weights
    torch.save(content, tmp_path / "m.pth")
    model, name = read_network(tmp_path / "m.pth", ImportOptions())
    assert name == family
    scores, offsets = forward(family, weights, image(300))
    if family == "mmdet":
        assert model.spec.labels[:2] == ("background", "thing 0")
        scores = scores[..., [20, *range(20)]]
    assert_close([head.numpy() for head in model(image(300))], (scores, offsets))
    first = model.spec.boxes.boxes()[0]
    center = 0.5 / 38 if family == "bubbliiiing" else 4 / 300
    assert first[0] == pytest.approx(center if family != "bubbliiiing" else first[2] / 2)
    means = {"bubbliiiing": 104.0, "mmdet": 123.675, "qfgaohao-vgg16-ssd": 123.0}
    assert model.spec.input.mean[0] == means[family]


def test_projects_with_the_same_names_are_not_guessed(tmp_path: Path) -> None:
    """Only the order of the tensors distinguishes amdegroot's files from bubbliiiing's."""
    from safetensors.torch import save_file

    weights = make_checkpoint("bubbliiiing")
    save_file(weights, tmp_path / "m.safetensors")
    torch.save(dict(sorted(weights.items())), tmp_path / "m.pth")
    for file in ("m.safetensors", "m.pth"):
        with pytest.raises(UsageError, match="may be a checkpoint of amdegroot or bubbliiiing"):
            read_network(tmp_path / file, ImportOptions())
        for family in ("amdegroot", "bubbliiiing"):
            assert read_network(tmp_path / file, ImportOptions(family=family))[1] == family


def test_the_written_file_equals_the_original(tmp_path: Path) -> None:
    weights = make_checkpoint("amdegroot")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "m.pth")
    result = import_model(tmp_path / "m.pth", tmp_path / "m.onnx")
    assert (result.family, read_spec(result.path)) == ("amdegroot", result.spec)
    actual = open_session(result.path).run(["scores", "offsets"], {"image": image(300).numpy()})
    with torch.no_grad():
        assert_close(actual, forward("amdegroot", weights, image(300)))


@pytest.mark.parametrize(
    ("family", "classes", "first"),
    [("amdegroot", 201, 21), ("lufficc", 81, 21), ("qfgaohao", 81, 30), ("torchvision", 2, 21)],
)
def test_default_boxes_follow_the_project(family: str, classes: int, first: float) -> None:
    """The dataset decides for amdegroot and lufficc; qfgaohao has a single configuration."""
    spec = FAMILIES[family].build({}, classes).spec
    assert spec.num_classes == classes
    assert spec.boxes.boxes()[0, 2] == pytest.approx(first / 300)


@pytest.mark.parametrize(
    ("family", "limits"),
    [
        ("amdegroot", (200, 200)),
        ("lufficc", (400, 100)),
        ("qfgaohao", (200, 200)),
        ("torchvision", (400, 200)),
    ],
)
def test_limits_are_those_of_the_project(family: str, limits: tuple[int, int]) -> None:
    thresholds = FAMILIES[family].build({}, 21).spec.thresholds
    assert (thresholds.pre_nms_top_k, thresholds.max_detections) == limits


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, output = tmp_path / "m.pth", tmp_path / "m.onnx"

    def assert_refused(content: object, sentence: str) -> None:
        torch.save(content, path)
        with pytest.raises(ModelError, match=sentence):
            import_model(path, output)

    assert_refused({"layer.weight": torch.zeros(3)}, "not a checkpoint of a known SSD")
    assert_refused({"epoch": 3}, "has no state_dict, only epoch; save the model")
    assert_refused([torch.zeros(3)], "not a checkpoint of a known SSD")
    assert_refused(Path("/"), "has no state_dict")
    assert_refused({"weight": torch.zeros(3), "extra": Trap(tmp_path / "mark")}, "of a known SSD")
    assert not (tmp_path / "mark").exists()
    weights = make_checkpoint("amdegroot")
    del weights["extras.3.bias"]
    assert_refused(weights, "1 tensors are missing and 0 have another shape")
    with pytest.raises(UsageError, match="`family` 'x' is unknown"):
        import_model(path, output, ImportOptions(family="x"))
    assert_refused(weights | {"fc.weight": torch.zeros(1)}, r"the tensor 'fc\.weight', which does")
    path.write_bytes(b"junk" * 50)
    with pytest.raises(ModelError, match="not a PyTorch file of plain weights"):
        import_model(path, output)
    assert not output.exists()


def test_tensors_that_are_not_weights_are_ignored(tmp_path: Path) -> None:
    weights = make_checkpoint("amdegroot")
    weights["priors"] = torch.zeros(8732, 4)
    torch.save(weights, tmp_path / "m.pth")
    model, _ = read_network(tmp_path / "m.pth", ImportOptions(family="amdegroot"))
    assert not model.training
    assert torch.equal(model.state_dict()["backbone.low.0.bias"], weights["vgg.0.bias"])
