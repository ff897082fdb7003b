"""Default boxes of the published detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

__all__ = [
    "MOBILENET_CAFFE",
    "clip_sizes",
    "mobilenet_boxes",
    "qfgaohao_spec",
    "select_boxes",
    "square_map_boxes",
]

Sizes = tuple[tuple[float, float], ...]
"""Width and height of each default box of a cell, as fractions of the image."""

MOBILENET_CAFFE = (60 / 300, 105 / 300, 150 / 300, 195 / 300, 240 / 300, 285 / 300, 300 / 300)
MOBILENET_MAPS = (19, 10, 5, 3, 2, 1)


def select_boxes(specs: Mapping[str, AnchorSpec], name: str, model: str) -> AnchorSpec:
    """Return the default boxes of a model by name.

    Raises:
        UsageError: If the name is unknown.
    """
    if name not in specs:
        raise UsageError(
            f"model '{model}' has no default boxes '{name}'; choose from {', '.join(specs)}"
        )
    return specs[name]


def square_map_boxes(
    maps: Sequence[int],
    steps: Sequence[float],
    sizes: Sequence[Sizes],
    *,
    clamp: bool = False,
) -> AnchorSpec:
    """Build the default boxes of square feature maps.

    Args:
        maps: Cells per side of each feature map.
        steps: Distance between cell centers of each map as a fraction of the image.
        sizes: Box sizes of a cell of each map.
        clamp: Whether centers and sizes are limited to 0 … 1.
    """
    layers = [
        AnchorLayer(rows=side, columns=side, step_y=step, step_x=step, sizes=boxes)
        for side, step, boxes in zip(maps, steps, sizes, strict=True)
    ]
    return AnchorSpec(layers=tuple(layers), clamp=clamp)


def clip_sizes(sizes: Sizes) -> Sizes:
    """Limit box sizes to the image size, as torchvision does; centers do not change."""
    return tuple((min(width, 1.0), min(height, 1.0)) for width, height in sizes)


def mobilenet_boxes(scales: Sequence[float] = MOBILENET_CAFFE) -> AnchorSpec:
    """Build the 1917 default boxes of MobileNet-SSD on 300 × 300 pixels.

    Source: the Caffe model of chuanqi305, which has three boxes per cell on the first map and six
    on the others.

    Args:
        scales: Side of the smallest square box of each of the six maps, and an upper limit for the
            last map, as fractions of the image.

    Raises:
        UsageError: If `scales` is not seven increasing positive numbers.
    """
    increasing = all(low < high for low, high in pairwise(scales))
    if len(scales) != 7 or not increasing or scales[0] <= 0:
        raise UsageError(
            f"`scales` must be seven increasing fractions of the image, not {tuple(scales)}"
        )
    sizes = [cell_sizes(scales[0], None, (2.0,))]
    sizes += [cell_sizes(low, high, (2.0, 3.0)) for low, high in pairwise(scales[1:])]
    return square_map_boxes(MOBILENET_MAPS, [1 / side for side in MOBILENET_MAPS], sizes)


_QFGAOHAO_300 = square_map_boxes(
    MOBILENET_MAPS,
    [step / 300 for step in (16, 32, 64, 100, 150, 300)],
    [
        cell_sizes(low / 300, high / 300, (2.0, 3.0))
        for low, high in pairwise((60, 105, 150, 195, 240, 285, 330))
    ],
    clamp=True,
)


def qfgaohao_spec(name: str, labels: Sequence[str]) -> ModelSpec:
    """Return the specification of the MobileNet SSDs of qfgaohao/pytorch-ssd.

    They have 3000 default boxes on 300 × 300 RGB input. The NMS thresholds are theirs; the score
    threshold is one for display.

    Args:
        name: Name of the model.
        labels: Class names, "background" first.
    """
    return ModelSpec(
        name=name,
        input=InputSpec(300, 300, "RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3),
        boxes=_QFGAOHAO_300,
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=200, max_detections=200),
    )
