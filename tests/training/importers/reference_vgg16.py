"""SSD on VGG16 as plain functions, with the tensor names of each project."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
LOW = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256),
       (14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512))  # fmt: skip
HALVING = ((1024, 256, 512, 3, 2, 1), (512, 128, 256, 3, 2, 1))
# input, squeezed and output channels, then kernel, stride and padding of the second convolution
EXTRAS = {
    300: (*HALVING, *((256, 128, 256, 3, 1, 0),) * 2),
    512: (*HALVING, *((256, 128, 256, 3, 2, 1),) * 2, (256, 128, 256, 4, 1, 1)),
}
COUNTS = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
CLASSES = 21

Namer = Callable[[str, int, int], str]
"""(part, number, number inside the part) → name of the layer in a family."""


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


def _mmdet(part: str, k: int, i: int) -> str:
    return {
        "low": f"backbone.features.{k}",
        "conv5": f"backbone.features.{24 + 2 * k}",
        "fc6": "backbone.features.31",
        "fc7": "backbone.features.33",
        "extra": f"neck.extra_layers.{k}.{i}.conv",
        "score": f"bbox_head.cls_convs.{k}.0",
        "offset": f"bbox_head.reg_convs.{k}.0",
    }[part]


NAMERS_WITH_DIFFERENCES: dict[str, tuple[Namer, str]] = {
    "bubbliiiing": NAMERS["amdegroot"],  # stored in another order
    "mmdet": (_mmdet, "neck.l2_norm.weight"),  # the background is the last score
    "qfgaohao-vgg16-ssd": (NAMERS["qfgaohao"][0], "source_layer_add_ons.0.weight"),  # BatchNorm
}
_NAMERS = NAMERS | NAMERS_WITH_DIFFERENCES


def make_checkpoint(family: str, size: int = 300) -> Weights:
    """Return random weights with the tensor names of a project."""
    name, norm = _NAMERS[family]
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
    scale = torch.rand(512, generator=random) * 20
    if family == "amdegroot":
        weights[norm] = scale
    widths = [512, 1024]
    for k, (inputs, middle, outputs, side, _, _) in enumerate(EXTRAS[size]):
        add(name("extra", k, 0), middle, inputs, 1)
        add(name("extra", k, 1), outputs, middle, side)
        widths.append(outputs)
    for k, (width, count) in enumerate(zip(widths, COUNTS[size], strict=True)):
        add(name("score", k, 0), count * CLASSES, width, 3)
        add(name("offset", k, 0), count * 4, width, 3)
    weights[norm] = scale
    if family == "qfgaohao-vgg16-ssd":
        layer = norm.removesuffix(".weight")
        weights[norm] = scale / 20 + 0.5
        weights[f"{layer}.bias"] = torch.rand(512, generator=random)
        weights[f"{layer}.running_mean"] = torch.rand(512, generator=random)
        weights[f"{layer}.running_var"] = torch.rand(512, generator=random) + 0.5
    return weights


def forward(family: str, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and offsets as the paper and the projects' code define them."""
    name, norm = _NAMERS[family]
    size = x.shape[-1]

    def conv(layer: str, x: Tensor, **options: int) -> Tensor:
        return functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], **options)

    for k, _, _ in LOW:
        if k in (5, 10, 17):
            x = functional.max_pool2d(x, 2, 2, ceil_mode=k == 17)
        x = functional.relu(conv(name("low", k, 0), x, padding=1))
    maps = [_normalize(x, weights, norm)]
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


def _normalize(x: Tensor, weights: Weights, norm: str) -> Tensor:
    layer = norm.removesuffix(".weight")
    if f"{layer}.running_var" not in weights:
        return functional.normalize(x) * weights[norm].view(1, -1, 1, 1)
    mean, variance = weights[f"{layer}.running_mean"], weights[f"{layer}.running_var"]
    return functional.batch_norm(x, mean, variance, weights[norm], weights[f"{layer}.bias"])
