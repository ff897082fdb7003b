"""NVIDIA's SSD300 on ResNet-50: names of the layers and the order of its heads."""

from __future__ import annotations

from pathlib import Path

import torch
from realtime_ssd_training.importers import ImportOptions
from realtime_ssd_training.importers.pytorch_checkpoint import read_network
from realtime_ssd_training.importers.pytorch_resnet import FAMILIES
from realtime_ssd_training.models import create
from torch import Tensor
from torch.nn import functional

LABELS = ("background", "a", "b")
COUNTS = (4, 6, 6, 6, 4, 4)
BLOCKS = (3, 4, 6)


def original_name(name: str) -> str:
    """Return the name that NVIDIA's network has for a tensor of this project's."""
    part, *rest = name.split(".")
    if part != "backbone":
        return ".".join(({"score_heads": "conf", "offset_heads": "loc"}[part], *rest))
    kind, *rest = rest
    body = "feature_extractor.feature_extractor"
    if kind == "stem":
        return ".".join((body, *rest))
    if kind == "extras":
        number, layer, index, tail = rest
        return f"additional_blocks.{number}.{3 * int(layer) + int(index)}.{tail}"
    number, kind, *rest = rest
    stage, position = 4, int(number)
    for count in BLOCKS:
        if position < count:
            break
        stage, position = stage + 1, position - count
    if kind == "shortcut":
        return ".".join((body, str(stage), str(position), "downsample", *rest))
    layer, norm, tail = rest
    return f"{body}.{stage}.{position}.{'bn' if norm == '1' else 'conv'}{int(layer) + 1}.{tail}"


def heads_as_published(feature: Tensor, weight: Tensor, bias: Tensor, columns: int) -> Tensor:
    """Return N × boxes × columns, boxes by size first, as NVIDIA's `bbox_view` orders them."""
    output = functional.conv2d(feature, weight, bias, padding=1)
    return output.reshape(len(output), columns, -1).transpose(1, 2)


@torch.no_grad()
def test_weights_and_the_order_of_heads_are_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = create("ssd300_resnet50", LABELS)
    weights = {original_name(name): value for name, value in source.state_dict().items()}
    torch.save({"model": weights, "epoch": 64, "label_map": {}}, tmp_path / "nvidia.pt")
    model, family = read_network(tmp_path / "nvidia.pt", ImportOptions())
    assert family == "nvidia"
    assert model.spec.input.mean[0] == 0.485 * 255
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
    feature = torch.randn(1, 512, 3, 5)
    for part, heads, columns in (("conf", model.score_heads, 3), ("loc", model.offset_heads, 4)):
        published = heads_as_published(
            feature, weights[f"{part}.1.weight"], weights[f"{part}.1.bias"], columns
        )
        by_size = published.view(COUNTS[1], 3 * 5, columns)
        actual = heads[1](feature).permute(0, 2, 3, 1).reshape(3 * 5, COUNTS[1], columns)
        torch.testing.assert_close(actual, by_size.transpose(0, 1), rtol=1e-4, atol=1e-4)


def test_the_family_is_recognized_by_its_layers() -> None:
    assert not FAMILIES["nvidia"].matches({"conf.0.bias": torch.zeros(1)})
