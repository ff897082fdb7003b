"""SSD300 on ResNet-50, identical to the one of NVIDIA's DeepLearningExamples.

Sources: He et al., "Deep Residual Learning" (2016), table 1, with strides in the 3×3 convolutions;
NVIDIA's network definition for the last stage without stride, the extra layers and the default
boxes (8732, those of COCO, clamped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.conv_blocks import (
    conv_heads,
    conv_norm,
    init_convs,
    init_heads,
)
from realtime_ssd_training.models.ssd import SSD, FeatureMaps
from realtime_ssd_training.models.ssd300_vgg16 import BOXES

__all__ = ["build"]

# (bottleneck channels, blocks, stride of the first block) of the stages.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 1))
EXPANSION = 4
# (bottleneck, output channels, stride, padding) of the extra layers.
EXTRAS = ((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
_IMAGENET = InputSpec(
    300,
    300,
    "RGB",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    scale=(1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255)),
)


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with a residual connection."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * channels
        self.layers = nn.Sequential(
            conv_norm(inputs, channels),
            conv_norm(channels, channels, 3, stride=stride),
            conv_norm(channels, outputs, activation=None),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = conv_norm(inputs, outputs, stride=stride, activation=None)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Compute N × 4·channels × H/stride × W/stride features."""
        result: Tensor = self.relu(self.layers(features) + self.shortcut(features))
        return result


class _ResNetFeatureMaps(FeatureMaps):
    """ResNet-50 up to its third stage, and the extra layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 64, 7, stride=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels, blocks = 64, []
        for width, count, stride in STAGES:
            for index in range(count):
                blocks.append(_Bottleneck(channels, width, stride if index == 0 else 1))
                channels = EXPANSION * width
        self.blocks = nn.ModuleList(blocks)
        maps, extras = [channels], []
        for bottleneck, outputs, stride, padding in EXTRAS:
            convolution = nn.Conv2d(bottleneck, outputs, 3, stride, padding, bias=False)
            second = nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
            extras.append(nn.Sequential(conv_norm(channels, bottleneck), second))
            channels = outputs
            maps.append(channels)
        self.extras = nn.ModuleList(extras)
        self.channels = tuple(maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the six maps; see `FeatureMaps.forward`."""
        features = self.pool(self.stem(images))
        for block in self.blocks:
            features = block(features)
        maps = [features]
        for extra in self.extras:
            features = extra(features)
            maps.append(features)
        return maps


def build(labels: Sequence[str]) -> SSD:
    """Build SSD300 on ResNet-50 with random weights.

    Args:
        labels: Class names, "background" first.

    Returns:
        The network; 8732 default boxes on 300 × 300 RGB input.
    """
    spec = ModelSpec(
        name="ssd300_resnet50",
        input=replace(_IMAGENET),
        boxes=BOXES["coco_clamped"],
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=200, max_detections=200),
    )
    backbone = _ResNetFeatureMaps()
    score_heads, offset_heads = conv_heads(backbone.channels, spec, 3)
    init_convs(backbone)
    init_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
