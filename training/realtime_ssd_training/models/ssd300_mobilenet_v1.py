"""SSD300 on MobileNetV1, identical to the Caffe MobileNet-SSD of chuanqi305.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; the published Caffe network
definition for extra layers, heads (1×1) and default boxes (1917).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.conv_blocks import (
    conv_heads,
    conv_norm,
    init_convs,
    init_heads,
    scale_channels,
    separable_conv,
)
from realtime_ssd_training.models.default_boxes import MOBILENET_CAFFE, mobilenet_boxes
from realtime_ssd_training.models.ssd import SSD, FeatureMaps

__all__ = ["BLOCKS", "MobileNetV1FeatureMaps", "build"]

# (output channels, stride) of the 13 depthwise-separable blocks.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
FIRST_MAP = 11  # the output of conv11, 19 × 19
# (bottleneck, output) channels of conv14 to conv17, each with stride 2.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))


class MobileNetV1FeatureMaps(FeatureMaps):
    """MobileNetV1 and four extra blocks: maps of 19, 10, 5, 3, 2 and 1 cells per side.

    Args:
        width: Width multiplier.
        extra_channels: Bottleneck and output channels of the extra blocks.
        build_extra: Builds an extra block from its input, bottleneck and output channels.
    """

    def __init__(
        self,
        width: float,
        extra_channels: Sequence[tuple[int, int]],
        build_extra: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        channels = scale_channels(32, width)
        self.stem = conv_norm(3, channels, 3, stride=2)
        blocks = []
        for outputs, stride in BLOCKS:
            blocks.append(separable_conv(channels, scale_channels(outputs, width), stride))
            channels = scale_channels(outputs, width)
        self.blocks = nn.ModuleList(blocks)
        map_channels = [scale_channels(BLOCKS[FIRST_MAP - 1][0], width), channels]
        extras = []
        for bottleneck, outputs in extra_channels:
            widths = scale_channels(bottleneck, width), scale_channels(outputs, width)
            extras.append(build_extra(channels, *widths))
            channels = widths[1]
            map_channels.append(channels)
        self.extras = nn.ModuleList(extras)
        self.channels = tuple(map_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the six maps; see `FeatureMaps.forward`."""
        features = self.stem(images)
        maps = []
        for number, block in enumerate(self.blocks, start=1):
            features = block(features)
            if number in (FIRST_MAP, len(BLOCKS)):
                maps.append(features)
        for extra in self.extras:
            features = extra(features)
            maps.append(features)
        return maps


def _build_extra(inputs: int, bottleneck: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, bottleneck), conv_norm(bottleneck, outputs, 3, stride=2))


def build(
    labels: Sequence[str], *, width: float = 1.0, scales: Sequence[float] = MOBILENET_CAFFE
) -> SSD:
    """Build SSD300 on MobileNetV1 with random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.
        scales: Seven default box sizes as fractions of the image; see `mobilenet_boxes`.

    Returns:
        The network; 1917 default boxes on 300 × 300 BGR input.
    """
    spec = ModelSpec(
        name="ssd300_mobilenet_v1",
        input=InputSpec(300, 300, "BGR", mean=(127.5,) * 3, scale=(0.007843,) * 3),
        boxes=mobilenet_boxes(scales),
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=100, max_detections=100),
    )
    backbone = MobileNetV1FeatureMaps(width, EXTRAS, _build_extra)
    score_heads, offset_heads = conv_heads(backbone.channels, spec, 1)
    init_convs(backbone)
    init_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
