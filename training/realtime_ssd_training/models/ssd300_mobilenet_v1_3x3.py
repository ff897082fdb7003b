"""SSD300 on MobileNetV1 with 3×3 heads, identical to mb1-ssd and mb1-ssd-lite of qfgaohao.

It shares only the backbone with the Caffe model `ssd300_mobilenet_v1`: extra layers have biases and
no normalization, all six maps have six boxes per cell (3000), and the input is RGB.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; the network definition of
qfgaohao/pytorch-ssd for extra layers, heads, default boxes and pre-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from realtime_ssd.core.spec import ModelSpec
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


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Build the lite version's layer: depthwise and 1×1 convolution, without normalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1),
    )


def _build_lite_extra(inputs: int, bottleneck: int, outputs: int) -> nn.Sequential:
    # The output has no activation, so that the next layer or head must not change it in place.
    return nn.Sequential(
        nn.Conv2d(inputs, bottleneck, 1), nn.ReLU(), _separable(bottleneck, outputs, 2)
    )


def _lite_heads(channels: Sequence[int], spec: ModelSpec, columns: int) -> list[nn.Module]:
    counts = [len(layer.sizes) * columns for layer in spec.boxes.layers]
    *others, last = zip(channels, counts, strict=True)
    return [*(_separable(*pair) for pair in others), nn.Conv2d(*last, 1)]


def build(labels: Sequence[str], *, width: float = 1.0, lite: bool = False) -> SSD:
    """Build SSD300 on MobileNetV1 with 3×3 heads and random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.
        lite: Whether extra layers and heads are depthwise separable (mb1-ssd-lite).

    Returns:
        The network; 3000 default boxes on 300 × 300 RGB input.
    """
    spec = qfgaohao_spec("ssd300_mobilenet_v1_3x3", labels)
    backbone = MobileNetV1FeatureMaps(width, EXTRAS, _build_lite_extra if lite else _build_extra)
    if lite:
        score_heads = _lite_heads(backbone.channels, spec, spec.num_classes)
        offset_heads = _lite_heads(backbone.channels, spec, 4)
    else:
        score_heads, offset_heads = conv_heads(backbone.channels, spec, 3)
    init_convs(backbone)
    init_heads([*backbone.extras, *score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
