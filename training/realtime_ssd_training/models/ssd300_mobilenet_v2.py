"""SSD300 on MobileNetV2 with SSDLite heads, layer by layer the mb2-ssd-lite of qfgaohao.

It is not the SSDLite of the MobileNetV2 paper (320 × 320, 2034 boxes in TensorFlow's model), but
the same trunk on 300 × 300 pixels with narrower extra layers and 3000 boxes.

Sources: Sandler et al., "MobileNetV2" (2018), table 2 for the trunk and section 6.2 for the heads;
the network definition of qfgaohao/pytorch-ssd for extra layers, default boxes and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from realtime_ssd_training.models.default_boxes import pytorch_spec
from realtime_ssd_training.models.layers import conv_norm, scaled, start_convolutions, start_heads
from realtime_ssd_training.models.mobile import InvertedMaps, InvertedResidual, light_head
from realtime_ssd_training.models.ssd import SSD

__all__ = ["build"]

STEM, LAST = 32, 1280
# (expansion, output channels, blocks, stride of the first) of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAP = 13  # the block whose widened features are the map of 19 × 19 cells
# (channels in between, output channels) of the extra layers, each halving the map.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 64))


def _backbone(width: float) -> InvertedMaps:
    """Build the trunk with four extra layers: maps of 19, 10, 5, 3, 2 and 1 cells a side."""
    channels, blocks, tapped = scaled(STEM, width), list[InvertedResidual](), 0
    for factor, outputs, count, stride in STAGES:
        for number in range(count):
            if len(blocks) == TAP:
                tapped = channels * factor
            step = stride if number == 0 else 1
            blocks.append(
                InvertedResidual(channels, channels * factor, scaled(outputs, width), stride=step)
            )
            channels = scaled(outputs, width)
    last = scaled(LAST, max(1.0, width))
    ends, extras = [last], []
    for middle, outputs in EXTRAS:
        found = scaled(outputs, width)
        extras.append(InvertedResidual(ends[-1], scaled(middle, width), found, stride=2))
        ends.append(found)
    return InvertedMaps(
        conv_norm(3, scaled(STEM, width), 3, stride=2, activation=nn.ReLU6),
        blocks,
        TAP,
        conv_norm(channels, last, activation=nn.ReLU6),
        extras,
        (tapped, *ends),
    )


def build(labels: Sequence[str], *, width: float = 1.0) -> SSD:
    """Build SSD300 on MobileNetV2 with new weights.

    Args:
        labels: Class names, "background" first.
        width: Factor of all channel counts.

    Returns:
        The network; 3000 default boxes on 300 × 300 RGB input.
    """
    spec = pytorch_spec("ssd300_mobilenet_v2", labels)
    backbone = _backbone(width)
    counts = [len(layer.sizes) for layer in spec.boxes.layers]

    def heads(columns: int) -> list[nn.Module]:
        pairs = list(zip(backbone.channels, counts, strict=True))
        light = [light_head(inputs, count * columns, bias=True) for inputs, count in pairs[:-1]]
        inputs, count = pairs[-1]  # a map of one cell, which a 3×3 kernel has nothing to see in
        return [*light, nn.Conv2d(inputs, count * columns, 1)]

    score_heads, offset_heads = heads(len(labels)), heads(4)
    start_convolutions(backbone)
    start_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
