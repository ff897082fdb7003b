"""The VGG16 backbone of SSD with its extra layers, and the default boxes of the published models.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), sections 2.1 and 3, and the
Caffe definitions published with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from realtime_ssd.core.boxes import AnchorSpec, cell_sizes
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.conv_blocks import L2Norm, conv_heads, init_convs, init_heads
from realtime_ssd_training.models.default_boxes import clip_sizes, square_map_boxes
from realtime_ssd_training.models.ssd import SSD, FeatureMaps

__all__ = ["MEAN_BGR", "VGG16FeatureMaps", "build_vgg", "vgg_boxes"]

MEAN_BGR = (104.0, 117.0, 123.0)
# Output channels of the convolutions up to conv4_3, and poolings that round down or up.
_LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "ceil", 512, 512, 512)
Extra = tuple[int, int, int, int, int]
"""Bottleneck channels, and output channels, kernel size, stride and padding of the second layer."""


class VGG16FeatureMaps(FeatureMaps):
    """VGG16 up to conv4_3 (normalized), fc7 as a dilated convolution, and the extra layers.

    Args:
        extras: The extra layers.
        norm: Normalization of conv4_3: "l2", or "batch" as in qfgaohao's version since 2018.
    """

    def __init__(self, extras: Sequence[Extra], norm: str = "l2") -> None:
        super().__init__()
        self.low = nn.Sequential(*_low_layers())
        self.norm: nn.Module = nn.BatchNorm2d(512) if norm == "batch" else L2Norm(512)
        self.high = nn.Sequential(
            nn.MaxPool2d(2, 2),
            *(layer for _ in range(3) for layer in _conv_relu(512, 512, 3, padding=1)),
            nn.MaxPool2d(3, 1, 1),
            *_conv_relu(512, 1024, 3, padding=6, dilation=6),
            *_conv_relu(1024, 1024, 1),
        )
        channels, blocks = 1024, []
        for bottleneck, outputs, kernel, stride, padding in extras:
            second = _conv_relu(bottleneck, outputs, kernel, stride=stride, padding=padding)
            blocks.append(nn.Sequential(*_conv_relu(channels, bottleneck, 1), *second))
            channels = outputs
        self.extras = nn.ModuleList(blocks)
        self.channels = (512, 1024, *(extra[1] for extra in extras))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps; see `FeatureMaps.forward`."""
        features = self.low(images)
        maps = [self.norm(features)]
        features = self.high(features)
        maps.append(features)
        for extra in self.extras:
            features = extra(features)
            maps.append(features)
        return maps


def _conv_relu(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    return [convolution, nn.ReLU(inplace=True)]


def _low_layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for item in _LAYERS:
        if isinstance(item, str):
            # The third pooling rounds up: 75 cells become 38, as in Caffe.
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=item == "ceil"))
        else:
            layers += _conv_relu(channels, item, 3, padding=1)
            channels = item
    # The output of conv4_3 is also the input of L2Norm, so it must not be changed in place.
    layers[-1] = nn.ReLU()
    return layers


def vgg_boxes(
    side: int,
    maps: Sequence[int],
    steps: Sequence[float],
    sizes: Sequence[float],
    *,
    clip: bool = False,
    clamp: bool = False,
) -> AnchorSpec:
    """Build the default boxes of SSD on VGG16.

    Args:
        side: Width and height of the input in pixels.
        maps: Cells per side of each feature map.
        steps: Distance between cell centers of each map in pixels.
        sizes: Smallest box of each map in pixels, and an upper limit for the last map.
        clip: Whether to limit sizes to the image (torchvision does, Caffe does not).
        clamp: Whether to limit sizes and centers to the image (other PyTorch versions).

    Returns:
        Four boxes per cell on the first and the last two maps, six on the others.
    """
    last = len(maps) - 2
    cells = []
    for index, (low, high) in enumerate(pairwise(sizes)):
        ratios = (2.0, 3.0) if 0 < index < last else (2.0,)
        boxes = cell_sizes(low / side, high / side, ratios)
        cells.append(clip_sizes(boxes) if clip else boxes)
    return square_map_boxes(maps, [step / side for step in steps], cells, clamp=clamp)


def build_vgg(
    name: str,
    labels: Sequence[str],
    boxes: AnchorSpec,
    side: int,
    extras: Sequence[Extra],
    norm: str = "l2",
) -> SSD:
    """Build SSD on VGG16 with random weights.

    Args:
        name: Name of the model.
        labels: Class names, "background" first.
        boxes: Default boxes.
        side: Width and height of the input in pixels.
        extras: Extra layers after fc7.
        norm: Normalization of conv4_3, "l2" or "batch".

    Raises:
        UsageError: If there is no such normalization.
    """
    if norm not in ("l2", "batch"):
        raise UsageError(f"`norm` must be l2 or batch, not '{norm}'")
    spec = ModelSpec(
        name=name,
        input=InputSpec(side, side, "BGR", mean=MEAN_BGR),
        boxes=boxes,
        labels=tuple(labels),
        thresholds=Thresholds(),
    )
    backbone = VGG16FeatureMaps(extras, norm)
    score_heads, offset_heads = conv_heads(backbone.channels, spec, 3)
    init_convs(backbone.low)
    init_convs(backbone.high)
    init_heads([*backbone.extras, *score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
