"""MobileNet SSDs as plain functions, with the tensor names of their projects.

A network is a function of a `Reference`, which draws every weight on first use. The statistics of
a normalization are close to those of its input, as in a trained network, and then perturbed, so
that an omitted normalization is detected. Much smaller variances would amplify rounding errors
from layer to layer until no two implementations agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Act = Callable[[Tensor], Tensor]


class Reference:
    """Layers by name; weights are drawn on first use."""

    def __init__(self, eps: float, floor: float) -> None:
        self.weights: Weights = {}
        self.eps, self.floor = eps, floor
        self.random = torch.Generator().manual_seed(5)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def conv(
        self, name: str, x: Tensor, outputs: int, kernel: int = 1, *, stride: int = 1,
        groups: int = 1, bias: bool = True,
    ) -> Tensor:  # fmt: skip
        shape = (outputs, x.shape[1] // groups, kernel, kernel)
        if f"{name}.weight" not in self.weights:
            spread = ((1 + bias) / (shape[1] * kernel * kernel)) ** 0.5
            self.weights[f"{name}.weight"] = self.draw(*shape) * spread
            if bias:
                self.weights[f"{name}.bias"] = self.draw(outputs) * 0.2
        weight, bias_tensor = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return functional.conv2d(x, weight, bias_tensor, stride, kernel // 2, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in self.weights:
            spread, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
            count = len(mean)
            self.weights |= {
                f"{name}.weight": 1 + 0.2 * self.draw(count),
                f"{name}.bias": 0.2 * self.draw(count),
                f"{name}.running_mean": mean + 0.2 * self.draw(count) * spread.sqrt(),
                f"{name}.running_var": (self.floor + spread) * torch.exp(0.2 * self.draw(count)),
                f"{name}.num_batches_tracked": torch.tensor(7),
            }
        mean, var, weight, bias = (
            self.weights[f"{name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias, eps=self.eps)

    def unit(
        self, convolution: str, norm: str, x: Tensor, outputs: int, kernel: int = 1,
        act: Act | None = functional.relu6, *, stride: int = 1, depthwise: bool = False,
        bias: bool = False,
    ) -> Tensor:  # fmt: skip
        groups = x.shape[1] if depthwise else 1
        x = self.conv(convolution, x, outputs, kernel, stride=stride, groups=groups, bias=bias)
        x = self.norm(norm, x)
        return act(x) if act else x


def images(count: int, size: int, seed: int) -> Tensor:
    """Return smooth random images with some noise, whose coarse feature maps differ too."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 6, 6, generator=random)
    smooth = functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.2 * torch.randn(count, 3, size, size, generator=random)


def rows(head: Tensor, columns: int) -> Tensor:
    return head.permute(0, 2, 3, 1).reshape(len(head), -1, columns)


# kernel, expanded and output channels, squeeze-excitation, hard swish, stride: table 1 of the
# MobileNetV3 paper, with the channels of the last stage halved.
V3 = [
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 80, 1, 1, 2), (5, 480, 80, 1, 1, 1), (5, 480, 80, 1, 1, 1),
]  # fmt: skip
SQUEEZED = {72: 24, 120: 32, 480: 120, 672: 168}  # a quarter, as a multiple of eight


def torchvision_lite(net: Reference, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    def unit(name: str, x: Tensor, outputs: int, *args: Any, **options: Any) -> Tensor:
        return net.unit(f"{name}.0", f"{name}.1", x, outputs, *args, **options)

    def squeeze_excite(name: str, x: Tensor) -> Tensor:
        mean = functional.relu(
            net.conv(f"{name}.fc1", x.mean((2, 3), keepdim=True), SQUEEZED[x.shape[1]])
        )
        return x * functional.hardsigmoid(net.conv(f"{name}.fc2", mean, x.shape[1]))

    x = unit("backbone.features.0.0", x, 16, 3, functional.hardswish, stride=2)
    maps = []
    for k, (kernel, expanded, outputs, squeeze, hard, stride) in enumerate(V3, start=1):
        act = functional.hardswish if hard else functional.relu
        name = f"backbone.features.0.{k}.block." if k < 13 else f"backbone.features.1.{k - 13}."
        name += "block." if k > 13 else ""
        start, index = x, 0
        if expanded != x.shape[1]:
            first = "backbone.features.0.13" if k == 13 else f"{name}0"
            x, index = unit(first, x, expanded, 1, act), 1
        if k == 13:
            maps.append(x)
        x = unit(f"{name}{index}", x, expanded, kernel, act, stride=stride, depthwise=True)
        if squeeze:
            index += 1
            x = squeeze_excite(f"{name}{index}", x)
        x = unit(f"{name}{index + 1}", x, outputs, 1, None)
        x = x + start if stride == 1 and x.shape == start.shape else x
    maps.append(unit("backbone.features.1.3", x, 480, 1, functional.hardswish))
    for k, outputs in enumerate((512, 256, 256, 128)):
        half = outputs // 2
        x = unit(f"backbone.extra.{k}.0", maps[-1], half)
        x = unit(f"backbone.extra.{k}.1", x, half, 3, stride=2, depthwise=True)
        maps.append(unit(f"backbone.extra.{k}.2", x, outputs))
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        parts = []
        for k, feature_map in enumerate(maps):
            name = f"head.{part}_head.module_list.{k}"
            y = unit(f"{name}.0", feature_map, feature_map.shape[1], 3, depthwise=True)
            parts.append(rows(net.conv(f"{name}.1", y, 6 * columns), columns))
        heads.append(torch.cat(parts, 1))
    return heads[0], heads[1]


V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
      (1024, 1)]  # fmt: skip


def qfgaohao_mb1_lite(net: Reference, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    def separable(name: str, x: Tensor, outputs: int, stride: int = 1) -> Tensor:
        y = net.conv(f"{name}.0", x, x.shape[1], 3, stride=stride, groups=x.shape[1])
        return net.conv(f"{name}.2", functional.relu(y), outputs)

    maps = _mb1_backbone(net, x)
    for k, (middle, outputs) in enumerate(V1_EXTRAS):
        y = functional.relu(net.conv(f"extras.{k}.0", maps[-1], middle))
        maps.append(separable(f"extras.{k}.2", y, outputs, 2))
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        parts = [
            separable(f"{part}_headers.{k}", feature_map, 6 * columns)
            if k < 5
            else net.conv(f"{part}_headers.{k}", feature_map, 6 * columns)
            for k, feature_map in enumerate(maps)
        ]
        heads.append(torch.cat([rows(y, columns) for y in parts], 1))
    return heads[0], heads[1]


V1_EXTRAS = ((256, 512), (128, 256), (128, 256), (128, 256))


def _mb1_backbone(net: Reference, x: Tensor) -> list[Tensor]:
    relu = functional.relu
    x = net.unit("base_net.0.0", "base_net.0.1", x, 32, 3, relu, stride=2)
    maps = []
    for k, (outputs, stride) in enumerate(V1, start=1):
        name = f"base_net.{k}."
        x = net.unit(f"{name}0", f"{name}1", x, x.shape[1], 3, relu, stride=stride, depthwise=True)
        x = net.unit(f"{name}3", f"{name}4", x, outputs, 1, relu)
        if k in (11, 13):
            maps.append(x)
    return maps


def qfgaohao_mb1(net: Reference, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    relu = functional.relu
    maps = _mb1_backbone(net, x)
    for k, (middle, outputs) in enumerate(V1_EXTRAS):
        x = relu(net.conv(f"extras.{k}.0", maps[-1], middle))
        maps.append(relu(net.conv(f"extras.{k}.2", x, outputs, 3, stride=2)))
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        parts = [
            rows(net.conv(f"{part}_headers.{k}", feature_map, 6 * columns, 3), columns)
            for k, feature_map in enumerate(maps)
        ]
        heads.append(torch.cat(parts, 1))
    return heads[0], heads[1]


V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
      (6, 320, 1, 1)]  # fmt: skip


def qfgaohao_mb2(net: Reference, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    maps: list[Tensor] = []

    def residual(
        name: str, x: Tensor, expanded: int, outputs: int, stride: int, tap: bool
    ) -> Tensor:
        start, index = x, 0
        if expanded != x.shape[1]:
            x, index = net.unit(f"{name}.conv.0", f"{name}.conv.1", x, expanded), 3
        if tap:
            maps.append(x)
        names = [f"{name}.conv.{index + step}" for step in (0, 1, 3, 4)]
        x = net.unit(names[0], names[1], x, expanded, 3, stride=stride, depthwise=True)
        x = net.unit(names[2], names[3], x, outputs, 1, None)
        return x + start if stride == 1 and x.shape == start.shape else x

    x = net.unit("base_net.0.0", "base_net.0.1", x, 32, 3, stride=2)
    number = 0
    for factor, outputs, count, stride in V2:
        for k in range(count):
            number += 1
            step = 1 if k else stride
            name = f"base_net.{number}"
            x = residual(name, x, x.shape[1] * factor, outputs, step, number == 14)
    x = net.unit("base_net.18.0", "base_net.18.1", x, 1280)
    maps.append(x)
    for k, (expanded, outputs) in enumerate(((256, 512), (128, 256), (128, 256), (64, 64))):
        x = residual(f"extras.{k}", x, expanded, outputs, 2, tap=False)
        maps.append(x)
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        parts = []
        for k, feature_map in enumerate(maps):
            name, y = f"{part}_headers.{k}", feature_map
            if k < 5:
                y = net.unit(
                    f"{name}.0",
                    f"{name}.1",
                    feature_map,
                    feature_map.shape[1],
                    3,
                    depthwise=True,
                    bias=True,
                )
                name = f"{name}.3"
            parts.append(rows(net.conv(name, y, 6 * columns), columns))
        heads.append(torch.cat(parts, 1))
    return heads[0], heads[1]
