"""Backbones of TFLite networks at full and smaller width."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.models import SSD, backbones, create, tflite_backbone
from realtime_ssd_training.models.backbones import (
    PUBLISHED,
    find_backbone,
    is_backbone_present,
    load_backbone,
)
from realtime_ssd_training.models.initial_weights import adapt_input, input_batches
from realtime_ssd_training.models.transplant import layers_in_order
from realtime_ssd_training.weights.convolutions import Convolution, tflite_convolutions
from realtime_ssd_training.weights.tflite_file import read_tflite
from torch import Tensor
from torch.nn import functional

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec

NAME, LABELS = "ssd_mobilenet_v1_fpn", ("background", "a")
WEIGHTS = "weights/backbones_imagenet_tflite/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
IMAGENET = InputSpec(224, 224, "RGB", mean=(128.0,) * 3, scale=(0.0078125,) * 3)


def build(width: float) -> SSD:
    torch.manual_seed(0)
    return create(NAME, LABELS, width=width, columns=128, rows=128, boxes="general")


def photos(count: int = 8) -> list[Image]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 5, 7, 3)).astype(np.uint8)
    return [image.repeat(20, axis=0).repeat(20, axis=1) for image in coarse]


@torch.no_grad()
def features(model: SSD, images: Tensor) -> Tensor:
    x: Tensor = model.eval().backbone.get_submodule("stem")(images)
    for block in model.backbone.get_submodule("blocks").children():
        x = block(x)
    return x


def test_the_full_backbone_computes_the_same_features(shared_data: Path) -> None:
    path = shared_data / WEIGHTS
    model = build(1.0)
    loaded, total = load_backbone(model, str(path), photos)
    assert loaded == total == 27
    target = model.spec.input
    x = input_batches(photos(2), target)[0]
    actual = features(model, x)
    for number, item in enumerate(tflite_convolutions(read_tflite(path))[:27]):
        weight, bias = torch.from_numpy(item.weight), torch.from_numpy(item.bias)
        if number == 0:
            weight, shift = adapt_input(weight, IMAGENET, target)
            bias = bias + shift
        padding = item.weight.shape[2] // 2
        x = functional.conv2d(x, weight, bias, item.stride, padding, groups=item.groups).relu()
    assert float(x.abs().max()) > 1
    torch.testing.assert_close(actual, x, rtol=1e-3, atol=2e-3)
    # Training continues with the statistics of photos.
    before = features(model, input_batches(photos(), target)[0])
    model.train()
    with torch.no_grad():
        y = model.backbone.get_submodule("stem")(input_batches(photos(), target)[0])
        for block in model.backbone.get_submodule("blocks").children():
            y = block(y)
    torch.testing.assert_close(y, before, rtol=0.05, atol=0.05)


def chain(width: float, *, silent: int) -> list[Convolution]:
    """Return a random chain at a width, in which every `silent`-th channel does nothing."""
    rng = np.random.default_rng(1)
    found = []
    for layer in layers_in_order(build(width)):
        if not layer.name.startswith(("backbone.stem", "backbone.blocks")):
            continue
        shape = tuple(layer.convolution.weight.shape)
        weight = rng.normal(size=shape).astype(np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        bias = rng.normal(size=shape[0]).astype(np.float32) * 0.1
        weight[::silent], bias[::silent] = 0, 0
        groups, stride = layer.convolution.groups, layer.convolution.stride[0]
        found.append(Convolution(weight, bias, groups, int(stride)))
    return found


def test_a_narrower_backbone_takes_the_strongest_channels(
    monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    """Without the channels that do nothing, a network computes the same as with them."""
    items = chain(0.5, silent=2)
    monkeypatch.setattr(tflite_backbone, "tflite_convolutions", lambda _: items)
    wide, narrow = build(0.5), build(0.25)
    for model in (wide, narrow):
        assert load_backbone(model, str(shared_data / WEIGHTS), photos) == (27, 27)
    batch = input_batches(photos(), wide.spec.input)[0]
    expected = features(wide, batch)[:, 1::2]
    torch.testing.assert_close(features(narrow, batch), expected, rtol=1e-2, atol=1e-2)


def test_backbones_of_other_networks_are_refused(shared_data: Path, tmp_path: Path) -> None:
    path = str(shared_data / WEIGHTS)
    with pytest.raises(ModelError, match="of another kind or narrower"):
        load_backbone(create("ssd300_mobilenet_v2", LABELS), path, photos)
    coco = shared_data / "weights/ssd_mobilenet_v1_coco_quant/detect.tflite"
    with pytest.raises(ModelError, match="of another kind or narrower"):
        load_backbone(build(1.0), str(coco), photos)  # its width is 0.75
    (tmp_path / "a.tflite").write_bytes(b"no TFLite")
    with pytest.raises(ModelError, match="not a TFLite model"):
        load_backbone(build(0.25), str(tmp_path / "a.tflite"), photos)


def test_published_backbones_are_verified_and_present_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALTIME_SSD_BACKBONES", str(tmp_path))
    assert not is_backbone_present("imagenet", NAME)
    with pytest.raises(UsageError, match="no `backbone` 'coco' for 'ssd300_vgg16'"):
        find_backbone("coco", "ssd300_vgg16")
    published = PUBLISHED["imagenet"][NAME]
    content = b"weights"
    monkeypatch.setitem(
        backbones.PUBLISHED["imagenet"],
        NAME,
        replace(published, sha256=hashlib.sha256(content).hexdigest()),
    )
    (tmp_path / published.file).write_bytes(content)
    assert is_backbone_present("imagenet", NAME)
    assert find_backbone("imagenet", NAME) == tmp_path / published.file
