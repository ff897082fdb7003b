"""SSD300 on MobileNetV1, layer by layer the Caffe MobileNet-SSD of chuanqi305.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; the published Caffe network
definition for extra layers, heads (1×1) and default boxes (1917).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.default_boxes import MOBILENET_CAFFE, mobilenet_boxes
from realtime_ssd_training.models.layers import (
    conv_norm,
    plain_heads,
    scaled,
    separable,
    start_convolutions,
    start_heads,
)
from realtime_ssd_training.models.ssd import SSD, FeatureMaps

__all__ = ["BLOCKS", "MobileNetV1Maps", "build"]

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
FIRST_MAP = 11  # the map of conv11, 19 × 19
# (squeezed, output) channels of conv14 to conv17, each halving the map.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))


class MobileNetV1Maps(FeatureMaps):
    """MobileNetV1 and four extra blocks: maps of 19, 10, 5, 3, 2 and 1 cells a side.

    Args:
        width: Factor of all channel counts.
        plan: Squeezed and output channels of the extra blocks.
        extra: Builds one from its input, squeezed and output channels.
    """

    def __init__(
        self,
        width: float,
        plan: Sequence[tuple[int, int]],
        extra: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        channels = scaled(32, width)
        self.stem = conv_norm(3, channels, 3, stride=2)
        blocks = []
        for outputs, stride in BLOCKS:
            blocks.append(separable(channels, scaled(outputs, width), stride))
            channels = scaled(outputs, width)
        self.blocks = nn.ModuleList(blocks)
        found = [scaled(BLOCKS[FIRST_MAP - 1][0], width), channels]
        extras = []
        for squeezed, outputs in plan:
            middle = scaled(squeezed, width)
            extras.append(extra(channels, middle, scaled(outputs, width)))
            channels = scaled(outputs, width)
            found.append(channels)
        self.extras = nn.ModuleList(extras)
        self.channels = tuple(found)

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


def _extra(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, middle), conv_norm(middle, outputs, 3, stride=2))


def build(
    labels: Sequence[str], *, width: float = 1.0, scales: Sequence[float] = MOBILENET_CAFFE
) -> SSD:
    """Build SSD300 MobileNetV1 with new weights.

    Args:
        labels: Class names, "background" first.
        width: Factor of all channel counts.
        scales: Seven sides of default boxes as fractions of the image, see `mobilenet_boxes`.

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
    backbone = MobileNetV1Maps(width, EXTRAS, _extra)
    score_heads, offset_heads = plain_heads(backbone.channels, spec, 1)
    start_convolutions(backbone)
    start_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
