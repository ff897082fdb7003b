"""Default boxes out of Caffe's PriorBox layers.

Source: weiliu89's `PriorBoxLayer`: boxes of a cell in the order min, sqrt(min × max), ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, to_center, to_corners
from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers.caffe_text import Message

__all__ = ["PriorLayer", "prior_layer", "recipe", "variances"]

PriorLayer = tuple[AnchorLayer, Message]
SAME_RATIO = 1e-6


def prior_layer(settings: Message, maps: tuple[int, int], image: tuple[int, int]) -> PriorLayer:
    """Read one PriorBox layer.

    Args:
        settings: Its `prior_box_param`.
        maps: Rows and columns of the feature map.
        image: Rows and columns of the network's input.
    """
    rows, columns = maps
    height = settings.integer("img_h", settings.integer("img_size", image[0]))
    width = settings.integer("img_w", settings.integer("img_size", image[1]))
    step = settings.number("step", 0)
    layer = AnchorLayer(
        rows=rows,
        columns=columns,
        step_y=(settings.number("step_h", step) or height / rows) / height,
        step_x=(settings.number("step_w", step) or width / columns) / width,
        sizes=tuple((w / width, h / height) for w, h in _sizes(settings)),
        offset=settings.number("offset", 0.5),
    )
    return layer, settings


def _sizes(settings: Message) -> list[tuple[float, float]]:
    """List the boxes of a cell in pixels."""
    smallest, largest = settings.numbers("min_size"), settings.numbers("max_size")
    if not smallest or (largest and len(largest) != len(smallest)):
        raise ModelError(
            f"a PriorBox layer has min_size {smallest} and max_size {largest}; as many of one as "
            "of the other are needed, or no max_size"
        )
    ratios = _ratios(settings.numbers("aspect_ratio"), settings.flag("flip", True))
    sizes = []
    for number, side in enumerate(smallest):
        sizes.append((side, side))
        if largest:
            sizes.append((sqrt(side * largest[number]),) * 2)
        sizes += [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in ratios]
    return sizes


def _ratios(given: Sequence[float], flip: bool) -> list[float]:
    """List the aspect ratios other than 1, each once, with their inverses if flipped."""
    known = [1.0]
    for ratio in given:
        if any(abs(ratio - other) < SAME_RATIO for other in known):
            continue
        known += [ratio, 1 / ratio] if flip else [ratio]
    return known[1:]


def recipe(layers: Sequence[PriorLayer]) -> AnchorSpec:
    """Join PriorBox layers in the order of the heads."""
    clips = [settings.flag("clip", False) for _, settings in layers]
    if all(clips) or not any(clips):
        return AnchorSpec(layers=tuple(layer for layer, _ in layers), clip=all(clips))
    parts = [
        to_center(np.clip(to_corners(layer.boxes()), 0, 1)) if clip else layer.boxes()
        for (layer, _), clip in zip(layers, clips, strict=True)
    ]
    return AnchorSpec.from_array(np.concatenate(parts))


def variances(layers: Sequence[PriorLayer]) -> tuple[float, float, float, float]:
    """Read the variances; all layers must agree.

    Raises:
        ModelError: If they do not.
    """
    found = {tuple(settings.numbers("variance") or [0.1]) for _, settings in layers}
    if len(found) != 1:
        raise ModelError(f"the PriorBox layers have different variances {sorted(found)}")
    values = found.pop()
    values = values * 4 if len(values) == 1 else values
    if len(values) != 4:
        raise ModelError(f"the PriorBox layers have {len(values)} variances, 1 or 4 are expected")
    return (values[0], values[1], values[2], values[3])
