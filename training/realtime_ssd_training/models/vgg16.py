"""VGG16 as SSD uses it, with the layers after it, and the default boxes of the published models.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), sections 2.1 and 3, and the
Caffe definitions published with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from realtime_ssd.core.boxes import AnchorSpec, cell_sizes
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.default_boxes import lay_out, limited
from realtime_ssd_training.models.layers import L2Norm, plain_heads, start_convolutions, start_heads
from realtime_ssd_training.models.ssd import SSD, FeatureMaps

__all__ = ["MEAN_BGR", "VGG16Maps", "build_vgg", "vgg_boxes"]

MEAN_BGR = (104.0, 117.0, 123.0)
_LOW = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "ceil", 512, 512, 512)
Extra = tuple[int, int, int, int, int]
"""Squeezed and output channels, side of the kernel, stride and padding of the second layer."""


class VGG16Maps(FeatureMaps):
    """VGG16 up to conv4_3 (normalised), fc7 as a dilated convolution, and the extra layers.

    Args:
        extras: The extra layers.
    """

    def __init__(self, extras: Sequence[Extra]) -> None:
        super().__init__()
        self.low = nn.Sequential(*_low_layers())
        self.norm = L2Norm(512)
        self.high = nn.Sequential(
            nn.MaxPool2d(2, 2),
            *(layer for _ in range(3) for layer in _rectified(512, 512, 3, padding=1)),
            nn.MaxPool2d(3, 1, 1),
            *_rectified(512, 1024, 3, padding=6, dilation=6),
            *_rectified(1024, 1024, 1),
        )
        channels, made = 1024, []
        for squeezed, outputs, side, stride, padding in extras:
            second = _rectified(squeezed, outputs, side, stride=stride, padding=padding)
            made.append(nn.Sequential(*_rectified(channels, squeezed, 1), *second))
            channels = outputs
        self.extras = nn.ModuleList(made)
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


def _rectified(
    inputs: int, outputs: int, side: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding, dilation)
    return [convolution, nn.ReLU(inplace=True)]


def _low_layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for item in _LOW:
        if isinstance(item, str):
            # The third pooling rounds up, so that 75 cells become 38 as in Caffe.
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=item == "ceil"))
        else:
            layers += _rectified(channels, item, 3, padding=1)
            channels = item
    # conv4_3's output is read before and after its L2Norm: nothing may change it in place.
    layers[-1] = nn.ReLU()
    return layers


def vgg_boxes(
    side: int,
    maps: Sequence[int],
    steps: Sequence[int],
    sizes: Sequence[float],
    *,
    clip: bool = False,
    clamp: bool = False,
) -> AnchorSpec:
    """Lay out the default boxes of SSD on VGG16.

    Args:
        side: Of the input in pixels.
        maps: Side of each feature map in cells.
        steps: Pixels from cell to cell.
        sizes: Smallest side of each map's boxes in pixels, and one more that closes the last.
        clip: Whether no box is larger than the image (torchvision; Caffe's boxes may be).
        clamp: Whether no centre lies outside either (the other PyTorch versions).

    Returns:
        Four boxes a cell on the first and the last two maps, six on the others.
    """
    last = len(maps) - 2
    cells = []
    for number, (low, high) in enumerate(pairwise(sizes)):
        ratios = (2.0, 3.0) if 0 < number < last else (2.0,)
        boxes = cell_sizes(low / side, high / side, ratios)
        cells.append(limited(boxes) if clip else boxes)
    return lay_out(maps, [step / side for step in steps], cells, clamp=clamp)


def build_vgg(
    name: str,
    labels: Sequence[str],
    boxes: AnchorSpec,
    side: int,
    extras: Sequence[Extra],
) -> SSD:
    """Build SSD on VGG16 with new weights.

    Args:
        name: Name of the model.
        labels: Class names, "background" first.
        boxes: Default boxes.
        side: Of the input in pixels.
        extras: Layers after fc7.
    """
    spec = ModelSpec(
        name=name,
        input=InputSpec(side, side, "BGR", mean=MEAN_BGR),
        boxes=boxes,
        labels=tuple(labels),
        thresholds=Thresholds(),
    )
    backbone = VGG16Maps(extras)
    score_heads, offset_heads = plain_heads(backbone.channels, spec, 3)
    start_convolutions(backbone.low)
    start_convolutions(backbone.high)
    start_heads([*backbone.extras, *score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
