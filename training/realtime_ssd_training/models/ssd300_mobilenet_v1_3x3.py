"""SSD300 on MobileNetV1 with 3×3 heads, layer by layer the mb1-ssd of qfgaohao.

It shares only the trunk with the Caffe model `ssd300_mobilenet_v1`: extra layers have biases and no
normalisation, all six maps have six boxes a cell (3000), and images come as RGB.

Sources: Howard et al., "MobileNets" (2017), table 1, for the trunk; the network definition of
qfgaohao/pytorch-ssd for extra layers, heads, default boxes and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from realtime_ssd_training.models.default_boxes import pytorch_spec
from realtime_ssd_training.models.layers import plain_heads, start_convolutions, start_heads
from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.models.ssd300_mobilenet_v1 import MobileNetV1Maps

__all__ = ["build"]

# (squeezed, output) channels of the extra layers, each halving the map.
EXTRAS = ((256, 512), (128, 256), (128, 256), (128, 256))


def _extra(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, outputs, 3, 2, 1),
        nn.ReLU(inplace=True),
    )


def build(labels: Sequence[str], *, width: float = 1.0) -> SSD:
    """Build SSD300 on MobileNetV1 with 3×3 heads and new weights.

    Args:
        labels: Class names, "background" first.
        width: Factor of all channel counts.

    Returns:
        The network; 3000 default boxes on 300 × 300 RGB input.
    """
    spec = pytorch_spec("ssd300_mobilenet_v1_3x3", labels)
    backbone = MobileNetV1Maps(width, EXTRAS, _extra)
    score_heads, offset_heads = plain_heads(backbone.channels, spec, 3)
    start_convolutions(backbone)
    start_heads([*backbone.extras, *score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
