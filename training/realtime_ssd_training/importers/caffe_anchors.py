"""Default boxes of Caffe's PriorBox layers.

Source: weiliu89's `PriorBoxLayer`. The boxes of a cell are, for each minimum size, the square of
that size, the square of sqrt(minimum × maximum), and the minimum size at each aspect ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, to_center, to_corners
from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.weights.caffe_schema import Message

__all__ = ["PriorBox", "common_variances", "join_prior_boxes", "read_prior_box"]

RATIO_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class PriorBox:
    """The default boxes of one PriorBox layer.

    Attributes:
        layer: Grid and sizes, as fractions of the image.
        clip: Whether the boxes are clipped to the image.
        variances: One number, or one for each of cx, cy, w, h.
    """

    layer: AnchorLayer
    clip: bool
    variances: tuple[float, ...]


def read_prior_box(
    parameters: Message, map_size: tuple[int, int], image_size: tuple[int, int]
) -> PriorBox:
    """Convert the parameters of a PriorBox layer.

    Args:
        parameters: Its `prior_box_param`.
        map_size: Rows and columns of the feature map.
        image_size: Rows and columns of the network's input.

    Raises:
        ModelError: If the sizes do not match.
    """
    rows, columns = map_size
    height = parameters.img_h or parameters.img_size or image_size[0]
    width = parameters.img_w or parameters.img_size or image_size[1]
    layer = AnchorLayer(
        rows=rows,
        columns=columns,
        step_y=(parameters.step_h or parameters.step or height / rows) / height,
        step_x=(parameters.step_w or parameters.step or width / columns) / width,
        sizes=tuple((w / width, h / height) for w, h in _sizes(parameters)),
        offset=parameters.offset,
    )
    return PriorBox(layer, parameters.clip, tuple(parameters.variance) or (0.1,))


def _sizes(parameters: Message) -> list[tuple[float, float]]:
    """List the widths and heights of the boxes of a cell, in pixels."""
    smallest, largest = list(parameters.min_size), list(parameters.max_size)
    if not smallest or (largest and len(largest) != len(smallest)):
        raise ModelError(
            f"a PriorBox layer has min_size {smallest} and max_size {largest}; the two lists must "
            "have the same length, or max_size must be empty"
        )
    ratios = _aspect_ratios(parameters.aspect_ratio, parameters.flip)
    sizes = []
    for index, side in enumerate(smallest):
        sizes.append((side, side))
        if largest:
            sizes.append((sqrt(side * largest[index]),) * 2)
        sizes += [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in ratios]
    return sizes


def _aspect_ratios(ratios: Sequence[float], flip: bool) -> list[float]:
    """List the distinct aspect ratios other than 1, each followed by its inverse if flipped."""
    distinct = [1.0]
    for ratio in ratios:
        if any(abs(ratio - other) < RATIO_TOLERANCE for other in distinct):
            continue
        distinct += [ratio, 1 / ratio] if flip else [ratio]
    return distinct[1:]


def join_prior_boxes(prior_boxes: Sequence[PriorBox]) -> AnchorSpec:
    """Concatenate the default boxes of PriorBox layers in the order of the heads."""
    clips = [prior_box.clip for prior_box in prior_boxes]
    if all(clips) or not any(clips):
        layers = tuple(prior_box.layer for prior_box in prior_boxes)
        return AnchorSpec(layers=layers, clip=all(clips))
    boxes = [
        to_center(np.clip(to_corners(prior_box.layer.boxes()), 0, 1))
        if prior_box.clip
        else prior_box.layer.boxes()
        for prior_box in prior_boxes
    ]
    return AnchorSpec.from_array(np.concatenate(boxes))


def common_variances(prior_boxes: Sequence[PriorBox]) -> tuple[float, float, float, float]:
    """Return the variances that all PriorBox layers share.

    Raises:
        ModelError: If they differ, or are neither one number nor four.
    """
    distinct = {prior_box.variances for prior_box in prior_boxes}
    if len(distinct) != 1:
        raise ModelError(f"the PriorBox layers have different variances {sorted(distinct)}")
    values = distinct.pop()
    values = values * 4 if len(values) == 1 else values
    if len(values) != 4:
        raise ModelError(f"the PriorBox layers have {len(values)} variances, 1 or 4 are expected")
    return (values[0], values[1], values[2], values[3])
