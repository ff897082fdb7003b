"""SSDLite320 on MobileNetV3-Large, identical to torchvision's model of that name.

Sources: Howard et al., "Searching for MobileNetV3" (2019), table 1 and section 6.3 (halved channels
after the first map); Sandler et al., "MobileNetV2" (2018), section 6.2 (SSDLite); torchvision's
`ssdlite320_mobilenet_v3_large` for default boxes (3234), normalization and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from realtime_ssd.core.boxes import cell_sizes
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.conv_blocks import (
    conv_norm,
    init_convs,
    init_heads,
    scale_channels,
)
from realtime_ssd_training.models.default_boxes import clip_sizes, square_map_boxes
from realtime_ssd_training.models.inverted_residuals import (
    HardSwish,
    InvertedResidual,
    InvertedResidualFeatureMaps,
    ssdlite_head,
)
from realtime_ssd_training.models.ssd import SSD

__all__ = ["BOXES", "build"]

STEM = 16
# (kernel, expanded, output channels, squeeze-and-excite, hard swish, stride) of each block.
BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
)
# The last three blocks, whose channels the reduced tail halves.
TAIL = ((5, 672, 160, True, True, 2), *((5, 960, 160, True, True, 1),) * 2)
TAP = len(BLOCKS)  # the first block of the tail; its expanded features are 20 × 20
EXTRAS = (512, 256, 256, 128)
MAPS = (20, 10, 5, 3, 2, 1)
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
BOXES = square_map_boxes(
    MAPS,
    [1 / side for side in MAPS],
    [clip_sizes(cell_sizes(low, high, (2.0, 3.0))) for low, high in pairwise(SCALES)],
)
EPS, MOMENTUM = 1e-3, 0.03


def _backbone(width: float, reduced_tail: bool) -> InvertedResidualFeatureMaps:
    """Build the backbone with four extra layers: maps of 20, 10, 5, 3, 2 and 1 cells per side."""
    divisor = 2 if reduced_tail else 1
    tail = [
        # The first expansion of the tail is the first map and keeps its channels.
        (
            kernel,
            expanded if stride == 2 else expanded // divisor,
            outputs // divisor,
            *rest,
            stride,
        )
        for kernel, expanded, outputs, *rest, stride in TAIL
    ]
    channels, blocks = scale_channels(STEM, width), []
    for kernel, expanded, outputs, squeeze, hard_swish, stride in (*BLOCKS, *tail):
        block = InvertedResidual(
            channels,
            scale_channels(expanded, width),
            scale_channels(outputs, width),
            kernel,
            stride=stride,
            squeeze=bool(squeeze),
            activation=HardSwish if hard_swish else nn.ReLU,
            eps=EPS,
            momentum=MOMENTUM,
        )
        blocks.append(block)
        channels = scale_channels(outputs, width)
    map_channels = [6 * channels, *(scale_channels(outputs, width) for outputs in EXTRAS)]
    return InvertedResidualFeatureMaps(
        _conv_norm(3, scale_channels(STEM, width), HardSwish, 3, stride=2),
        blocks,
        TAP,
        _conv_norm(channels, map_channels[0], HardSwish),
        [_build_extra(inputs, outputs) for inputs, outputs in pairwise(map_channels)],
        (scale_channels(TAIL[0][1], width), *map_channels),
    )


def _conv_norm(
    inputs: int,
    outputs: int,
    activation: type[nn.Module] = nn.ReLU6,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    return conv_norm(
        inputs,
        outputs,
        kernel,
        stride=stride,
        groups=groups,
        activation=activation,
        eps=EPS,
        momentum=MOMENTUM,
    )


def _build_extra(inputs: int, outputs: int) -> nn.Sequential:
    bottleneck = outputs // 2
    return nn.Sequential(
        _conv_norm(inputs, bottleneck),
        _conv_norm(bottleneck, bottleneck, kernel=3, stride=2, groups=bottleneck),
        _conv_norm(bottleneck, outputs),
    )


def build(labels: Sequence[str], *, width: float = 1.0, reduced_tail: bool = True) -> SSD:
    """Build SSDLite320 on MobileNetV3-Large with random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.
        reduced_tail: Whether the last blocks have half the channels, as in torchvision's COCO
            weights; torchvision uses False with an ImageNet backbone.

    Returns:
        The network; 3,440,060 parameters at 91 classes, 3234 default boxes on 320 × 320 RGB input.
    """
    spec = ModelSpec(
        name="ssdlite320_mobilenet_v3_large",
        input=InputSpec(320, 320, "RGB", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
        boxes=BOXES,
        labels=tuple(labels),
        thresholds=Thresholds(iou_threshold=0.55, pre_nms_top_k=300, max_detections=300),
        clip_before_nms=True,
    )
    backbone = _backbone(width, reduced_tail)
    counts = [len(layer.sizes) for layer in BOXES.layers]

    def heads(columns: int) -> list[nn.Sequential]:
        return [
            ssdlite_head(inputs, count * columns, eps=EPS, momentum=MOMENTUM)
            for inputs, count in zip(backbone.channels, counts, strict=True)
        ]

    score_heads, offset_heads = heads(len(labels)), heads(4)
    init_convs(backbone)
    init_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
