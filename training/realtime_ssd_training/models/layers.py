"""The pieces the networks are built of, and how they are initialised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from realtime_ssd.core.spec import ModelSpec

__all__ = [
    "L2Norm",
    "conv_norm",
    "plain_heads",
    "scaled",
    "separable",
    "start_convolutions",
    "start_heads",
]


class L2Norm(nn.Module):
    """Scale each position's feature vector to unit length, then by a learned factor per channel.

    Source: Liu et al., "ParseNet" (2015), section 3.3; SSD uses it on conv4_3 with factor 20. The
    sum is written out because ONNX opset 17 and TensorRT 8.6 agree on `ReduceSum`, not on
    `ReduceL2`.

    Args:
        channels: Channels of the feature map.
        start: Initial factor.
    """

    def __init__(self, channels: int, start: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise N × C × H × W features over C, in float32 whatever their type."""
        wide = features.float()
        length = torch.sqrt(torch.sum(wide * wide, dim=1, keepdim=True)).clamp(min=1e-12)
        unit = (wide / length).to(features.dtype)
        return unit * self.weight.view(1, -1, 1, 1)


def scaled(channels: int, width: float, least: int = 8) -> int:
    """Multiply a channel count by `width`, rounded to a multiple of 8 and never 10 % too small.

    Source: the rounding rule of MobileNetV2's reference implementation.
    """
    rounded = max(least, int(channels * width + 4) // 8 * 8)
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
    """Build convolution, batch normalisation and activation, padded to keep the size at stride 1.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side of the kernel.
        stride: Step of the kernel.
        groups: Groups of the convolution; equal to `inputs` for a depthwise one.
        activation: Class of the activation, or None for none.
        bias: Whether the convolution has a bias, which the normalisation takes away again.
        eps: Added to the variance.
        momentum: Share of a new batch in the running statistics.

    Returns:
        The layers in order: 0 convolution, 1 normalisation, 2 activation.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Build MobileNetV1's block: 3×3 depthwise, then 1×1, each normalised and rectified."""
    return nn.Sequential(
        conv_norm(inputs, inputs, 3, stride=stride, groups=inputs), conv_norm(inputs, outputs)
    )


def plain_heads(
    channels: Sequence[int], spec: ModelSpec, kernel: int
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Build one convolution for the scores and one for the offsets of each feature map.

    Args:
        channels: Channels of each map.
        spec: Contract of the model.
        kernel: Side of the convolutions; they keep the size of the map.

    Returns:
        Score heads and offset heads.
    """

    def heads(columns: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, len(layer.sizes) * columns, kernel, padding=kernel // 2)
            for inputs, layer in zip(channels, spec.boxes.layers, strict=True)
        ]

    return heads(spec.num_classes), heads(4)


def start_convolutions(module: nn.Module) -> None:
    """Initialise every convolution below `module` as He et al. (2015) do, biases at zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_heads(modules: Sequence[nn.Module]) -> None:
    """Initialise every convolution below `modules` as the SSD paper does: Xavier, biases zero."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
