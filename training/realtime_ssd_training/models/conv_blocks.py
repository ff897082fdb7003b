"""Convolution blocks, heads and weight initialization of the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from realtime_ssd.core.spec import ModelSpec

__all__ = [
    "L2Norm",
    "conv_heads",
    "conv_norm",
    "init_convs",
    "init_heads",
    "scale_channels",
    "separable_conv",
]


class L2Norm(nn.Module):
    """L2 normalization over channels with a learned scale per channel.

    Source: Liu et al., "ParseNet" (2015), section 3.3; SSD uses it on conv4_3 with scale 20. The
    norm is an explicit sum because ONNX opset 17 and TensorRT 8.6 agree on `ReduceSum` but not on
    `ReduceL2`.

    Args:
        channels: Channels of the feature map.
        initial_scale: Initial scale.
    """

    def __init__(self, channels: int, initial_scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), initial_scale))

    def forward(self, features: Tensor) -> Tensor:
        """Normalize N × C × H × W features over C; the norm is computed in float32."""
        wide = features.float()
        norm = torch.sqrt(torch.sum(wide * wide, dim=1, keepdim=True)).clamp(min=1e-12)
        unit = (wide / norm).to(features.dtype)
        return unit * self.weight.view(1, -1, 1, 1)


def scale_channels(channels: int, width: float, minimum: int = 8) -> int:
    """Return a channel count times `width`, rounded to a multiple of 8 but at most 10 % down.

    Source: the rounding rule of MobileNetV2's reference implementation.
    """
    rounded = max(minimum, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
    bias: bool = False,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Build a "same"-padded convolution with batch normalization and activation.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size.
        stride: Stride.
        groups: Groups of the convolution; `inputs` for a depthwise one.
        activation: Class of the activation; None for none.
        bias: Whether the convolution has a bias, although the normalization cancels it.
        eps: Epsilon of the normalization.
        momentum: Momentum of the running statistics.

    Returns:
        The layers in order: 0 convolution, 1 normalization, 2 activation.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def separable_conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Build MobileNetV1's block: 3×3 depthwise and 1×1 convolution, each with norm and ReLU."""
    return nn.Sequential(
        conv_norm(inputs, inputs, 3, stride=stride, groups=inputs), conv_norm(inputs, outputs)
    )


def conv_heads(
    channels: Sequence[int], spec: ModelSpec, kernel: int
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Build one convolution for scores and one for offsets per feature map.

    Args:
        channels: Channels of each map.
        spec: Specification of the model.
        kernel: Kernel size; the padding keeps the size of the map.

    Returns:
        Score heads and offset heads.
    """

    def heads(columns: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, len(layer.sizes) * columns, kernel, padding=kernel // 2)
            for inputs, layer in zip(channels, spec.boxes.layers, strict=True)
        ]

    return heads(spec.num_classes), heads(4)


def init_convs(module: nn.Module) -> None:
    """Initialize all convolutions of a module as in He et al. (2015), with zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_heads(modules: Sequence[nn.Module]) -> None:
    """Initialize all convolutions of modules as in the SSD paper: Xavier, zero biases."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
