"""Checkpoints with random weights against an independent forward written from the originals."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.checkpoints import FAMILIES, read_network
from torch import Tensor
from torch.nn import functional

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import read_spec

Weights = dict[str, Tensor]
LOW = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256),
       (14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512))  # fmt: skip
HALVING = ((1024, 256, 512, 3, 2, 1), (512, 128, 256, 3, 2, 1))
# input, squeezed and output channels, then side, stride and padding of the second convolution
EXTRAS = {
    300: (*HALVING, *((256, 128, 256, 3, 1, 0),) * 2),
    512: (*HALVING, *((256, 128, 256, 3, 2, 1),) * 2, (256, 128, 256, 4, 1, 1)),
}
COUNTS = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
CLASSES = 21

Namer = Callable[[str, int, int], str]
"""(part, number, place inside) → name of the layer in a family."""


def _torchvision(part: str, k: int, i: int) -> str:
    return {
        "low": f"backbone.features.{k}",
        "conv5": f"backbone.extra.0.{1 + 2 * k}",
        "fc6": "backbone.extra.0.7.1",
        "fc7": "backbone.extra.0.7.3",
        "extra": f"backbone.extra.{k + 1}.{2 * i}",
        "score": f"head.classification_head.module_list.{k}",
        "offset": f"head.regression_head.module_list.{k}",
    }[part]


def _listed(vgg: str, extras: str, score: str, offset: str, nested: bool) -> Namer:
    def name(part: str, k: int, i: int) -> str:
        return {
            "low": f"{vgg}{k}",
            "conv5": f"{vgg}{24 + 2 * k}",
            "fc6": f"{vgg}31",
            "fc7": f"{vgg}33",
            "extra": f"{extras}{k}.{2 * i}" if nested else f"{extras}{2 * k + i}",
            "score": f"{score}{k}",
            "offset": f"{offset}{k}",
        }[part]

    return name


NAMERS: dict[str, tuple[Namer, str]] = {
    "torchvision": (_torchvision, "backbone.scale_weight"),
    "amdegroot": (_listed("vgg.", "extras.", "conf.", "loc.", False), "L2Norm.weight"),
    "lufficc": (
        _listed("backbone.vgg.", "backbone.extras.", "box_head.predictor.cls_headers.",
                "box_head.predictor.reg_headers.", False),
        "backbone.l2_norm.weight",
    ),
    "qfgaohao": (
        _listed("base_net.", "extras.", "classification_headers.", "regression_headers.", True),
        "source_layer_add_ons.0.scale",
    ),
}  # fmt: skip


def make(family: str, size: int = 300) -> Weights:
    name, norm = NAMERS[family]
    weights: Weights = OrderedDict()
    random = torch.Generator().manual_seed(7)

    def add(layer: str, outputs: int, inputs: int, side: int) -> None:
        spread = (2 / (inputs * side * side)) ** 0.5
        shape = (outputs, inputs, side, side)
        weights[f"{layer}.weight"] = torch.randn(shape, generator=random) * spread
        weights[f"{layer}.bias"] = torch.randn(outputs, generator=random) * 0.05

    for k, inputs, outputs in LOW:
        add(name("low", k, 0), outputs, inputs, 3)
    for k in range(3):
        add(name("conv5", k, 0), 512, 512, 3)
    add(name("fc6", 0, 0), 1024, 512, 3)
    add(name("fc7", 0, 0), 1024, 1024, 1)
    widths = [512, 1024]
    for k, (inputs, middle, outputs, side, _, _) in enumerate(EXTRAS[size]):
        add(name("extra", k, 0), middle, inputs, 1)
        add(name("extra", k, 1), outputs, middle, side)
        widths.append(outputs)
    for k, (width, count) in enumerate(zip(widths, COUNTS[size], strict=True)):
        add(name("score", k, 0), count * CLASSES, width, 3)
        add(name("offset", k, 0), count * 4, width, 3)
    weights[norm] = torch.rand(512, generator=random) * 20
    return weights


def forward(family: str, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """SSD as its paper and the originals' code say, with the original names."""
    name, norm = NAMERS[family]
    size = x.shape[-1]

    def conv(layer: str, x: Tensor, **options: int) -> Tensor:
        return functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], **options)

    for k, _, _ in LOW:
        if k in (5, 10, 17):
            x = functional.max_pool2d(x, 2, 2, ceil_mode=k == 17)
        x = functional.relu(conv(name("low", k, 0), x, padding=1))
    maps = [functional.normalize(x) * weights[norm].view(1, -1, 1, 1)]
    x = functional.max_pool2d(x, 2, 2)
    for k in range(3):
        x = functional.relu(conv(name("conv5", k, 0), x, padding=1))
    x = functional.max_pool2d(x, 3, 1, 1)
    x = functional.relu(conv(name("fc6", 0, 0), x, padding=6, dilation=6))
    x = functional.relu(conv(name("fc7", 0, 0), x))
    maps.append(x)
    for k, (_, _, _, _, stride, padding) in enumerate(EXTRAS[size]):
        x = functional.relu(conv(name("extra", k, 0), x))
        x = functional.relu(conv(name("extra", k, 1), x, stride=stride, padding=padding))
        maps.append(x)
    heads = []
    for part, columns in (("score", CLASSES), ("offset", 4)):
        rows = [
            conv(name(part, k, 0), m, padding=1).permute(0, 2, 3, 1).reshape(len(m), -1, columns)
            for k, m in enumerate(maps)
        ]
        heads.append(torch.cat(rows, 1))
    return heads[0], heads[1]


def image(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 50


def close(found: Sequence[np.ndarray], wanted: Sequence[Tensor]) -> None:
    for one, two in zip(found, wanted, strict=True):
        scale = float(two.abs().max())
        assert one.shape == two.shape
        assert np.abs(one - two.numpy()).max() <= 1e-4 * max(1.0, scale)


@torch.no_grad()
@pytest.mark.parametrize(("family", "size"), [*((name, 300) for name in NAMERS), ("lufficc", 512)])
def test_equals_the_original(family: str, size: int, tmp_path: Path) -> None:
    weights = make(family, size)
    content = {"model": weights} if family == "lufficc" else weights
    torch.save(content, tmp_path / "m.pth")
    model, name = read_network(tmp_path / "m.pth", ImportOptions())
    assert name == family
    spec, mine = model.spec, family == "torchvision"
    assert (spec.input.width, spec.num_boxes) == (size, {300: 8732, 512: 24564}[size])
    assert (spec.input.channels, spec.labels[1]) == ("RGB", "aeroplane")
    assert (spec.input.mean[0] == 123, spec.clip_before_nms) == (not mine, mine)
    close([head.numpy() for head in model(image(size))], forward(family, weights, image(size)))
    boxes = spec.boxes.boxes()
    assert boxes[:, 2:].max() == 1
    if size == 300:
        # torchvision has its COCO boxes whatever the classes, and leaves centres where they are.
        np.testing.assert_allclose(boxes[0, 2:], 0.07 if mine else 0.1, atol=1e-7)
        assert (boxes[:, :2].max() > 1.01) == mine
    else:  # lufficc's largest square box ends at 537.65, not at Caffe's 537.6
        assert boxes[-3, 2] == pytest.approx((460.8 * 537.65) ** 0.5 / 512)


def test_the_written_file_equals_the_original(tmp_path: Path) -> None:
    weights = make("amdegroot")
    torch.save(weights, tmp_path / "m.pth")
    done = import_model(tmp_path / "m.pth", tmp_path / "m.onnx")
    assert (done.family, read_spec(done.path)) == ("amdegroot", done.spec)
    session = onnxruntime.InferenceSession(str(done.path))
    found = session.run(["scores", "offsets"], {"image": image(300).numpy()})
    with torch.no_grad():
        close(found, forward("amdegroot", weights, image(300)))


@pytest.mark.parametrize(
    ("family", "classes", "first"),
    [("amdegroot", 201, 21), ("lufficc", 81, 21), ("qfgaohao", 81, 30), ("torchvision", 2, 21)],
)
def test_default_boxes_by_project(family: str, classes: int, first: float) -> None:
    """The data set decides with amdegroot and lufficc; qfgaohao has one configuration for all."""
    spec = FAMILIES[family].build({}, classes).spec
    assert spec.num_classes == classes
    assert spec.boxes.boxes()[0, 2] == pytest.approx(first / 300)


def test_what_is_no_ssd(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="no checkpoint of a known SSD"):
        import_model(tmp_path / "other.pth", tmp_path / "m.onnx")
    weights = make("amdegroot")
    del weights["extras.3.bias"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(ModelError, match="1 tensors are missing"):
        import_model(tmp_path / "part.pth", tmp_path / "m.onnx")
    weights["stranger.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "more.pth")
    with pytest.raises(ModelError, match=r"a tensor .stranger\.weight."):
        import_model(tmp_path / "more.pth", tmp_path / "m.onnx")
    (tmp_path / "junk.pth").write_bytes(b"junk" * 50)
    with pytest.raises(ModelError, match="no PyTorch checkpoint of plain weights"):
        import_model(tmp_path / "junk.pth", tmp_path / "m.onnx")
    torch.save(Path("/"), tmp_path / "code.pth")
    with pytest.raises(ModelError, match="would run code"):
        import_model(tmp_path / "code.pth", tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="family 'x'"):
        import_model(tmp_path / "part.pth", tmp_path / "m.onnx", ImportOptions(family="x"))
    assert not (tmp_path / "m.onnx").exists()
