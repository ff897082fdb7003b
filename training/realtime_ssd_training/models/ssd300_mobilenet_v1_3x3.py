"""SSD300 on MobileNetV1 with 3×3 heads, identical to the mb1-ssd of qfgaohao.

It shares only the backbone with the Caffe model `ssd300_mobilenet_v1`: extra layers have biases and
no normalization, all six maps have six boxes per cell (3000), and the input is RGB.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; the network definition of
qfgaohao/pytorch-ssd for extra layers, heads, default boxes and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from realtime_ssd_training.models.conv_blocks import conv_heads, init_convs, init_heads
from realtime_ssd_training.models.default_boxes import qfgaohao_spec
from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.models.ssd300_mobilenet_v1 import MobileNetV1FeatureMaps

__all__ = ["build"]

# (bottleneck, output) channels of the extra layers, each with stride 2.
EXTRAS = ((256, 512), (128, 256), (128, 256), (128, 256))


def _build_extra(inputs: int, bottleneck: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, bottleneck, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(bottleneck, outputs, 3, 2, 1),
        nn.ReLU(inplace=True),
    )


def build(labels: Sequence[str], *, width: float = 1.0) -> SSD:
    """Build SSD300 on MobileNetV1 with 3×3 heads and random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.

    Returns:
        The network; 3000 default boxes on 300 × 300 RGB input.
    """
    spec = qfgaohao_spec("ssd300_mobilenet_v1_3x3", labels)
    backbone = MobileNetV1FeatureMaps(width, EXTRAS, _build_extra)
    score_heads, offset_heads = conv_heads(backbone.channels, spec, 3)
    init_convs(backbone)
    init_heads([*backbone.extras, *score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
