"""Building blocks of MobileNetV2 and V3, and SSDLite heads.

Sources: Sandler et al., "MobileNetV2" (2018), sections 3.3 and 6.2, for the inverted residual and
SSDLite; Howard et al., "Searching for MobileNetV3" (2019), section 5, for squeeze-and-excite and
the hard swish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd_training.models.conv_blocks import conv_norm, scale_channels
from realtime_ssd_training.models.ssd import FeatureMaps

__all__ = [
    "HardSwish",
    "InvertedResidual",
    "InvertedResidualFeatureMaps",
    "SqueezeExcite",
    "ssdlite_head",
]


class HardSwish(nn.Module):
    """Hard swish, x · clip(x / 6 + ½, 0, 1), composed of a hard sigmoid and a product.

    TensorRT 8 supports ONNX's `HardSigmoid` operator but not `HardSwish`.

    Args:
        inplace: Ignored; other activations have this argument.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return features * functional.hardsigmoid(features)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite: channel weights computed from the mean of all channels.

    Args:
        channels: Channels of the feature map; the hidden layer has a quarter of them, rounded to a
            multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = scale_channels(channels // 4, 1.0)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weight the channels of N × C × H × W features."""
        mean = functional.adaptive_avg_pool2d(features, 1)
        weights = self.excite(functional.relu(self.squeeze(mean)))
        return features * functional.hardsigmoid(weights)


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution and linear 1×1 projection, with a residual connection.

    The residual connection exists if input and output have the same shape.

    Args:
        inputs: Input channels.
        expanded: Channels after the expansion; there is no expansion layer if equal to `inputs`.
        outputs: Output channels.
        kernel: Kernel size of the depthwise convolution.
        stride: Stride of the depthwise convolution.
        squeeze: Whether a `SqueezeExcite` follows the depthwise convolution.
        activation: Class of the activations.
        eps: Epsilon of the normalizations.
        momentum: Momentum of the normalizations.
    """

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        squeeze: bool = False,
        activation: type[nn.Module] = nn.ReLU6,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.has_residual = stride == 1 and inputs == outputs
        self.expand: nn.Module = nn.Identity()
        if expanded != inputs:
            self.expand = conv_norm(
                inputs, expanded, activation=activation, eps=eps, momentum=momentum
            )
        depthwise = conv_norm(
            expanded,
            expanded,
            kernel,
            stride=stride,
            groups=expanded,
            activation=activation,
            eps=eps,
            momentum=momentum,
        )
        project = conv_norm(expanded, outputs, activation=None, eps=eps, momentum=momentum)
        attention = [SqueezeExcite(expanded)] if squeeze else []
        self.rest = nn.Sequential(depthwise, *attention, project)

    def forward(self, features: Tensor) -> Tensor:
        """Compute N × outputs × H/stride × W/stride features."""
        result: Tensor = self.rest(self.expand(features))
        return features + result if self.has_residual else result


class InvertedResidualFeatureMaps(FeatureMaps):
    """Feature maps of an inverted residual network and its extra layers.

    Args:
        stem: First layer.
        blocks: Inverted residuals.
        tap: Index of the block whose expanded features are the first map.
        last: Layer after the blocks; its output is the second map.
        extras: Extra layers; the output of each is a map.
        channels: Channels of all maps.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[InvertedResidual],
        tap: int,
        last: nn.Module,
        extras: Sequence[nn.Module],
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem, self.blocks, self.tap = stem, nn.ModuleList(blocks), tap
        self.last, self.extras = last, nn.ModuleList(extras)
        self.channels = tuple(channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps; see `FeatureMaps.forward`."""
        features, maps = self.stem(images), []
        for index, block in enumerate(self.blocks):
            if index == self.tap:
                tapped = cast(InvertedResidual, block)
                maps.append(tapped.expand(features))
                features = tapped.rest(maps[0])
            else:
                features = block(features)
        for layer in (self.last, *self.extras):
            features = layer(features)
            maps.append(features)
        return maps


def ssdlite_head(
    inputs: int, outputs: int, *, bias: bool = False, eps: float = 1e-5, momentum: float = 0.1
) -> nn.Sequential:
    """Build an SSDLite head: 3×3 depthwise convolution with norm and ReLU6, then 1×1 convolution.

    Args:
        inputs: Channels of the feature map.
        outputs: Boxes per cell times classes, or times 4.
        bias: Whether the depthwise convolution has a bias.
        eps: Epsilon of the normalization.
        momentum: Momentum of the normalization.
    """
    depthwise = conv_norm(
        inputs,
        inputs,
        3,
        groups=inputs,
        activation=nn.ReLU6,
        bias=bias,
        eps=eps,
        momentum=momentum,
    )
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))
