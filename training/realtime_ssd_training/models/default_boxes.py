"""Default-box recipes of the published detectors, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

__all__ = [
    "MOBILENET_CAFFE",
    "choose",
    "lay_out",
    "limited",
    "mobilenet_boxes",
    "pytorch_spec",
]

Sizes = tuple[tuple[float, float], ...]

MOBILENET_CAFFE = (60 / 300, 105 / 300, 150 / 300, 195 / 300, 240 / 300, 285 / 300, 300 / 300)
MOBILENET_MAPS = (19, 10, 5, 3, 2, 1)


def choose(recipes: Mapping[str, AnchorSpec], name: str, model: str) -> AnchorSpec:
    """Look up a recipe.

    Raises:
        UsageError: If the model has no recipe of that name.
    """
    if name not in recipes:
        raise UsageError(
            f"model '{model}' has no default-box recipe '{name}'; choose from {', '.join(recipes)}"
        )
    return recipes[name]


def lay_out(
    maps: Sequence[int],
    steps: Sequence[float],
    sizes: Sequence[Sizes],
    *,
    clamp: bool = False,
) -> AnchorSpec:
    """Build the recipe of square feature maps.

    Args:
        maps: Side of each feature map in cells.
        steps: Side of a cell of each map as a fraction of the image.
        sizes: Boxes of a cell of each map.
        clamp: Whether centres and sizes are limited to 0 … 1.
    """
    layers = [
        AnchorLayer(rows=side, columns=side, step_y=step, step_x=step, sizes=boxes)
        for side, step, boxes in zip(maps, steps, sizes, strict=True)
    ]
    return AnchorSpec(layers=tuple(layers), clamp=clamp)


def limited(sizes: Sizes) -> Sizes:
    """Make no box of a cell larger than the image, as torchvision does; centres stay."""
    return tuple((min(width, 1.0), min(height, 1.0)) for width, height in sizes)


def mobilenet_boxes(scales: Sequence[float] = MOBILENET_CAFFE) -> AnchorSpec:
    """Build the 1917 default boxes of MobileNet-SSD on 300 × 300 pixels.

    Source: the Caffe model of chuanqi305, whose first map has three boxes and the others six.

    Args:
        scales: Side of the smallest square box of each of the six maps and one more that closes
            the last, as fractions of the image.

    Raises:
        UsageError: If there are not seven growing positive scales.
    """
    rising = all(low < high for low, high in pairwise(scales))
    if len(scales) != 7 or not rising or scales[0] <= 0:
        raise UsageError(
            f"the default-box scales {tuple(scales)} do not fit; give seven growing fractions of "
            "the image"
        )
    sizes = [cell_sizes(scales[0], None, (2.0,))]
    sizes += [cell_sizes(low, high, (2.0, 3.0)) for low, high in pairwise(scales[1:])]
    return lay_out(MOBILENET_MAPS, [1 / side for side in MOBILENET_MAPS], sizes)


_PYTORCH_300 = lay_out(
    MOBILENET_MAPS,
    [step / 300 for step in (16, 32, 64, 100, 150, 300)],
    [
        cell_sizes(low / 300, high / 300, (2.0, 3.0))
        for low, high in pairwise((60, 105, 150, 195, 240, 285, 330))
    ],
    clamp=True,
)


def pytorch_spec(name: str, labels: Sequence[str]) -> ModelSpec:
    """Give the contract of the MobileNet SSDs of qfgaohao/pytorch-ssd: 3000 boxes, 300 × 300 RGB.

    Their NMS; the score is one to show detections at.

    Args:
        name: Name of the model.
        labels: Class names, "background" first.
    """
    return ModelSpec(
        name=name,
        input=InputSpec(300, 300, "RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3),
        boxes=_PYTORCH_300,
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=200, max_detections=200),
    )
