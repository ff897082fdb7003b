"""SSD300 on MobileNetV2 with SSDLite heads, identical to the mb2-ssd-lite of qfgaohao.

It differs from the SSDLite of the MobileNetV2 paper (320 × 320, 2034 boxes in TensorFlow's model):
the same backbone has 300 × 300 input, narrower extra layers and 3000 boxes.

Sources: Sandler et al., "MobileNetV2" (2018), table 2 for the backbone, section 6.2 for the heads;
the network definition of qfgaohao/pytorch-ssd for extra layers, default boxes and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from realtime_ssd_training.models.conv_blocks import (
    conv_norm,
    init_convs,
    init_heads,
    scale_channels,
)
from realtime_ssd_training.models.default_boxes import qfgaohao_spec
from realtime_ssd_training.models.inverted_residuals import (
    InvertedResidual,
    InvertedResidualFeatureMaps,
    ssdlite_head,
)
from realtime_ssd_training.models.ssd import SSD

__all__ = ["build"]

STEM, LAST = 32, 1280
# (expansion, output channels, blocks, stride of the first block) of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAP = 13  # the block whose expanded features are the map of 19 × 19 cells
# (expanded, output) channels of the extra layers, each with stride 2.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 64))


def _backbone(width: float, truncated: bool) -> InvertedResidualFeatureMaps:
    """Build the backbone with four extra layers: maps of 19, 10, 5, 3, 2 and 1 cells per side."""

    def scaled(count: int) -> int:
        return int(count * width) if truncated else scale_channels(count, width)

    channels, blocks, tap_channels = scaled(STEM), list[InvertedResidual](), 0
    for factor, outputs, count, stride in STAGES:
        for index in range(count):
            if len(blocks) == TAP:
                tap_channels = channels * factor
            block_stride = stride if index == 0 else 1
            width_out = scaled(outputs)
            blocks.append(
                InvertedResidual(channels, channels * factor, width_out, stride=block_stride)
            )
            channels = width_out
    last = scale_channels(LAST, max(1.0, width))
    extra_width = 1.0 if truncated else width
    map_channels, extras = [last], []
    for expanded, outputs in EXTRAS:
        widths = (scale_channels(expanded, extra_width), scale_channels(outputs, extra_width))
        extras.append(InvertedResidual(map_channels[-1], *widths, stride=2))
        map_channels.append(widths[1])
    return InvertedResidualFeatureMaps(
        conv_norm(3, scaled(STEM), 3, stride=2, activation=nn.ReLU6),
        blocks,
        TAP,
        conv_norm(channels, last, activation=nn.ReLU6),
        extras,
        (tap_channels, *map_channels),
    )


def build(labels: Sequence[str], *, width: float = 1.0, truncated: bool = False) -> SSD:
    """Build SSD300 on MobileNetV2 with random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.
        truncated: Whether channels are rounded down and extra layers keep theirs, as in qfgaohao's
            versions of other widths.

    Returns:
        The network; 3000 default boxes on 300 × 300 RGB input.
    """
    spec = qfgaohao_spec("ssd300_mobilenet_v2", labels)
    backbone = _backbone(width, truncated)
    counts = [len(layer.sizes) for layer in spec.boxes.layers]

    def heads(columns: int) -> list[nn.Module]:
        pairs = list(zip(backbone.channels, counts, strict=True))
        lite = [ssdlite_head(inputs, count * columns, bias=True) for inputs, count in pairs[:-1]]
        inputs, count = pairs[-1]  # this map has one cell, so a 3×3 kernel would be pointless
        return [*lite, nn.Conv2d(inputs, count * columns, 1)]

    score_heads, offset_heads = heads(len(labels)), heads(4)
    init_convs(backbone)
    init_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
