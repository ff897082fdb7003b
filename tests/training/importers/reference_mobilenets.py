"""MobileNet SSDs written once more as plain functions, with their authors' own names of tensors.

A network is one function over an `Original`, which draws every weight when it is first met. The
statistics of a normalisation are near those of what flows through it, as in a trained network, and
then disturbed, so that leaving one out shows. Much smaller variances would let rounding grow from
layer to layer until no two programs agree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Act = Callable[[Tensor], Tensor]


class Original:
    """Layers by name; unknown ones get random weights."""

    def __init__(self, eps: float, floor: float) -> None:
        self.weights: Weights = {}
        self.eps, self.floor = eps, floor
        self.random = torch.Generator().manual_seed(5)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def conv(
        self, name: str, x: Tensor, outputs: int, side: int = 1, *, stride: int = 1,
        groups: int = 1, bias: bool = True,
    ) -> Tensor:  # fmt: skip
        shape = (outputs, x.shape[1] // groups, side, side)
        if f"{name}.weight" not in self.weights:
            spread = ((1 + bias) / (shape[1] * side * side)) ** 0.5
            self.weights[f"{name}.weight"] = self.draw(*shape) * spread
            if bias:
                self.weights[f"{name}.bias"] = self.draw(outputs) * 0.2
        return functional.conv2d(
            x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), stride, side // 2,
            groups=groups,
        )  # fmt: skip

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
        self, convolution: str, norm: str, x: Tensor, outputs: int, side: int = 1,
        act: Act | None = functional.relu6, *, stride: int = 1, depthwise: bool = False,
        bias: bool = False,
    ) -> Tensor:  # fmt: skip
        groups = x.shape[1] if depthwise else 1
        x = self.conv(convolution, x, outputs, side, stride=stride, groups=groups, bias=bias)
        x = self.norm(norm, x)
        return act(x) if act else x


def images(count: int, size: int, seed: int) -> Tensor:
    """Soft blotches with some noise: like photos, they differ on the coarse maps too."""
    random = torch.Generator().manual_seed(seed)
    blotches = torch.randn(count, 3, 6, 6, generator=random)
    soft = functional.interpolate(blotches, size=(size, size), mode="bilinear")
    return soft + 0.2 * torch.randn(count, 3, size, size, generator=random)


def rows(head: Tensor, columns: int) -> Tensor:
    return head.permute(0, 2, 3, 1).reshape(len(head), -1, columns)


# kernel, expanded, output channels, squeeze-and-excite, hard swish, stride: the MobileNetV3 paper,
# table 1, with the channels of the last stage halved.
V3 = [
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 80, 1, 1, 2), (5, 480, 80, 1, 1, 1), (5, 480, 80, 1, 1, 1),
]  # fmt: skip
MIDDLE = {72: 24, 120: 32, 480: 120, 672: 168}  # squeezed channels: a quarter, in eights


def torchvision_lite(net: Original, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    def unit(name: str, x: Tensor, outputs: int, *rest, **more) -> Tensor:
        return net.unit(f"{name}.0", f"{name}.1", x, outputs, *rest, **more)

    def weigh(name: str, x: Tensor) -> Tensor:
        mean = functional.relu(
            net.conv(f"{name}.fc1", x.mean((2, 3), keepdim=True), MIDDLE[x.shape[1]])
        )
        return x * functional.hardsigmoid(net.conv(f"{name}.fc2", mean, x.shape[1]))

    x = unit("backbone.features.0.0", x, 16, 3, functional.hardswish, stride=2)
    maps = []
    for k, (side, wide, outputs, squeeze, hard, stride) in enumerate(V3, start=1):
        act = functional.hardswish if hard else functional.relu
        name = f"backbone.features.0.{k}.block." if k < 13 else f"backbone.features.1.{k - 13}."
        name += "block." if k > 13 else ""
        start, place = x, 0
        if wide != x.shape[1]:
            first = "backbone.features.0.13" if k == 13 else f"{name}0"
            x, place = unit(first, x, wide, 1, act), 1
        if k == 13:
            maps.append(x)
        x = unit(f"{name}{place}", x, wide, side, act, stride=stride, depthwise=True)
        if squeeze:
            place += 1
            x = weigh(f"{name}{place}", x)
        x = unit(f"{name}{place + 1}", x, outputs, 1, None)
        x = x + start if stride == 1 and x.shape == start.shape else x
    maps.append(unit("backbone.features.1.3", x, 480, 1, functional.hardswish))
    for k, outputs in enumerate((512, 256, 256, 128)):
        half = outputs // 2
        x = unit(f"backbone.extra.{k}.0", maps[-1], half)
        x = unit(f"backbone.extra.{k}.1", x, half, 3, stride=2, depthwise=True)
        maps.append(unit(f"backbone.extra.{k}.2", x, outputs))
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        made = []
        for k, m in enumerate(maps):
            name = f"head.{part}_head.module_list.{k}"
            y = unit(f"{name}.0", m, m.shape[1], 3, depthwise=True)
            made.append(rows(net.conv(f"{name}.1", y, 6 * columns), columns))
        heads.append(torch.cat(made, 1))
    return heads[0], heads[1]


V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
      (1024, 1)]  # fmt: skip


def qfgaohao_mb1(net: Original, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    relu = functional.relu
    x = net.unit("base_net.0.0", "base_net.0.1", x, 32, 3, relu, stride=2)
    maps = []
    for k, (outputs, stride) in enumerate(V1, start=1):
        name = f"base_net.{k}."
        x = net.unit(f"{name}0", f"{name}1", x, x.shape[1], 3, relu, stride=stride, depthwise=True)
        x = net.unit(f"{name}3", f"{name}4", x, outputs, 1, relu)
        if k in (11, 13):
            maps.append(x)
    for k, (middle, outputs) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256))):
        x = relu(net.conv(f"extras.{k}.0", x, middle))
        x = relu(net.conv(f"extras.{k}.2", x, outputs, 3, stride=2))
        maps.append(x)
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        made = [
            rows(net.conv(f"{part}_headers.{k}", m, 6 * columns, 3), columns)
            for k, m in enumerate(maps)
        ]
        heads.append(torch.cat(made, 1))
    return heads[0], heads[1]


V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
      (6, 320, 1, 1)]  # fmt: skip


def qfgaohao_mb2(net: Original, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    maps: list[Tensor] = []

    def residual(name: str, x: Tensor, wide: int, outputs: int, stride: int, tap: bool) -> Tensor:
        start, place = x, 0
        if wide != x.shape[1]:
            x, place = net.unit(f"{name}.conv.0", f"{name}.conv.1", x, wide), 3
        if tap:
            maps.append(x)
        names = [f"{name}.conv.{place + step}" for step in (0, 1, 3, 4)]
        x = net.unit(names[0], names[1], x, wide, 3, stride=stride, depthwise=True)
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
    for k, (wide, outputs) in enumerate(((256, 512), (128, 256), (128, 256), (64, 64))):
        x = residual(f"extras.{k}", x, wide, outputs, 2, tap=False)
        maps.append(x)
    heads = []
    for part, columns in (("classification", classes), ("regression", 4)):
        made = []
        for k, m in enumerate(maps):
            name, y = f"{part}_headers.{k}", m
            if k < 5:
                y = net.unit(f"{name}.0", f"{name}.1", m, m.shape[1], 3, depthwise=True, bias=True)
                name = f"{name}.3"
            made.append(rows(net.conv(name, y, 6 * columns), columns))
        heads.append(torch.cat(made, 1))
    return heads[0], heads[1]
