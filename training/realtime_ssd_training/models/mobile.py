"""The pieces of MobileNetV2 and V3, and of the SSDLite heads on them.

Sources: Sandler et al., "MobileNetV2" (2018), sections 3.3 and 6.2, for the inverted residual and
SSDLite; Howard et al., "Searching for MobileNetV3" (2019), section 5, for squeeze-and-excite and
the hard swish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd_training.models.layers import conv_norm, scaled
from realtime_ssd_training.models.ssd import FeatureMaps

__all__ = ["HardSwish", "InvertedMaps", "InvertedResidual", "SqueezeExcite", "light_head"]


class HardSwish(nn.Module):
    """x · clip(x / 6 + ½, 0, 1), written with the hard sigmoid.

    ONNX has an operator of its own for it, which TensorRT 8 does not read; it reads `HardSigmoid`.

    Args:
        inplace: Taken for the sake of the other activations' form; nothing happens in place.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return features * functional.hardsigmoid(features)


class SqueezeExcite(nn.Module):
    """Weigh each channel by what the mean of all channels says.

    Args:
        channels: Channels of the feature map; a quarter of them, in eights, lies between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = scaled(channels // 4, 1.0)
        self.squeeze = nn.Conv2d(channels, middle, 1)
        self.excite = nn.Conv2d(middle, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weigh N × C × H × W features."""
        mean = functional.adaptive_avg_pool2d(features, 1)
        weights = self.excite(functional.relu(self.squeeze(mean)))
        return features * functional.hardsigmoid(weights)


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter each channel, narrow by 1×1 linearly; add the input where it fits.

    Args:
        inputs: Input channels.
        expanded: Channels in between; as many as `inputs` leave the first convolution out.
        outputs: Output channels.
        kernel: Side of the depthwise kernel.
        stride: Step of the depthwise kernel.
        squeeze: Whether a `SqueezeExcite` follows it.
        activation: Class of the activations.
        eps: Of the normalisations.
        momentum: Of the normalisations.
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
        self.adds = stride == 1 and inputs == outputs
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
        narrow = conv_norm(expanded, outputs, activation=None, eps=eps, momentum=momentum)
        weigh = [SqueezeExcite(expanded)] if squeeze else []
        self.rest = nn.Sequential(depthwise, *weigh, narrow)

    def forward(self, features: Tensor) -> Tensor:
        """Compute N × outputs × H/stride × W/stride features."""
        result: Tensor = self.rest(self.expand(features))
        return features + result if self.adds else result


class InvertedMaps(FeatureMaps):
    """A trunk of inverted residuals; its maps are a widened one inside, its last, and the extras'.

    Args:
        stem: First layer.
        blocks: Inverted residuals.
        tap: Index of the block whose widened features are the first map.
        last: Layer after the blocks; its output is the second map.
        extras: Further layers, each with a map.
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
        for number, block in enumerate(self.blocks):
            if number == self.tap:
                tapped = cast(InvertedResidual, block)
                maps.append(tapped.expand(features))
                features = tapped.rest(maps[0])
            else:
                features = block(features)
        for layer in (self.last, *self.extras):
            features = layer(features)
            maps.append(features)
        return maps


def light_head(
    inputs: int, outputs: int, *, bias: bool = False, eps: float = 1e-5, momentum: float = 0.1
) -> nn.Sequential:
    """Build SSDLite's head: 3×3 depthwise, normalised, ReLU6, then 1×1.

    Args:
        inputs: Channels of the feature map.
        outputs: Boxes of a cell times classes, or times 4.
        bias: Whether the depthwise convolution has one before its normalisation.
        eps: Of the normalisation.
        momentum: Of the normalisation.
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
