"""How many default boxes of a network reach the objects of a dataset, and which recipe fits.

An object trains the network through the default boxes whose IoU with it reaches the threshold, and
always through the best one. Objects that get only that one are learned slowly, and the network
finds few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from realtime_ssd.core.boxes import iou, to_corners
from realtime_ssd_training.models import create
from realtime_ssd_training.recipe import ModelConfig, Recipe, load_recipe

__all__ = [
    "ACCEPTED",
    "SIDES",
    "Coverage",
    "Proposal",
    "count_default_boxes",
    "coverage_of",
    "propose_recipe",
    "sample_objects",
]

SIDES = (0.0, 0.04, 0.08, 0.16, 0.32, 1.01)
"""Edges of the ranges of object size: square root of the area as a fraction of the image's."""

ACCEPTED = 0.25
"""Largest accepted fraction of objects with at most one default box."""

_MAX_OBJECTS = 4000
_LABELS = ("background", "object")
_BASE, _NETWORK = "custom", "ssd_mobilenet_v1_fpn"
_INPUTS = {1.0: (320, 416, 512, 640), 1.5: (384, 480, 576, 768), 1.75: (448, 576, 672, 896)}
"""Input widths to consider, by the aspect ratio of the images."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Default boxes that reach objects.

    Attributes:
        recipe: Name of the recipe.
        default_boxes: Default boxes of its network.
        objects: Number of objects in each range of `SIDES`.
        mean: Mean number of default boxes per object in each range; 0 without objects.
        single: Number of objects with at most one default box in each range.
    """

    recipe: str
    default_boxes: int
    objects: tuple[int, ...]
    mean: tuple[float, ...]
    single: tuple[int, ...]

    @property
    def single_fraction(self) -> float:
        """Fraction of all objects with at most one default box."""
        return sum(self.single) / max(1, sum(self.objects))


@dataclass(frozen=True, slots=True)
class Proposal:
    """The smallest network whose default boxes reach the objects.

    Attributes:
        options: Options of `ssd_mobilenet_v1_fpn` for the recipe.
        coverage: Its coverage.
        changed: Whether these differ from those of the recipe `custom`.
        sufficient: Whether at most `ACCEPTED` of the objects get a single default box.
    """

    options: dict[str, object]
    coverage: Coverage
    changed: bool
    sufficient: bool


def sample_objects(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most 4000 boxes, evenly over the dataset."""
    step = max(1, -(-len(boxes) // _MAX_OBJECTS))
    return boxes[::step]


def count_default_boxes(
    boxes: NDArray[np.float64], default_boxes: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Count the default boxes that each object is matched to if it is alone in its image.

    Args:
        boxes: N × 4, x1, y1, x2, y2 as fractions of the image.
        default_boxes: P × 4, cx, cy, w, h as fractions of the image.
        threshold: Minimum IoU of a match.

    Returns:
        N counts, at least 1: the best default box always counts.
    """
    areas = np.prod(default_boxes[:, 2:].astype(np.float64), axis=1)
    order = np.argsort(areas)
    candidates = to_corners(default_boxes[order].astype(np.float64))
    sides = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    # The IoU is at most the ratio of the areas, which rules most default boxes out.
    limits = np.searchsorted(areas[order], sides * [0.999 * threshold, 1.001 / threshold])
    counts = [
        (iou(box[None], candidates[low:high]) >= threshold).sum()
        for box, (low, high) in zip(boxes, limits.tolist(), strict=True)
    ]
    return np.maximum(np.array(counts, np.int64), 1)


def coverage_of(recipe: Recipe, name: str, boxes: NDArray[np.float64]) -> Coverage:
    """Measure how many default boxes of a recipe's network reach objects.

    Args:
        recipe: The recipe.
        name: Its name.
        boxes: N × 4, x1, y1, x2, y2 as fractions of the image.
    """
    return _measure(recipe.model, recipe.loss.iou_threshold, name, boxes)


def _measure(
    model: ModelConfig, threshold: float, name: str, boxes: NDArray[np.float64]
) -> Coverage:
    with torch.device("meta"):  # the weights are not needed
        spec = create(model.name, _LABELS, **model.options).spec
    counts = count_default_boxes(boxes, spec.boxes.boxes(), threshold)
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    ranges = np.digitize(sides, SIDES[1:-1])
    groups = [counts[ranges == k] for k in range(len(SIDES) - 1)]
    return Coverage(
        recipe=name,
        default_boxes=spec.num_boxes,
        objects=tuple(len(group) for group in groups),
        mean=tuple(float(group.mean()) if len(group) else 0.0 for group in groups),
        single=tuple(int((group <= 1).sum()) for group in groups),
    )


def propose_recipe(boxes: NDArray[np.float64], aspect: float) -> Proposal:
    """Propose the input size of the recipe `custom` for objects.

    The size given by the recipe is tried first, then larger ones in the aspect ratio of the
    images.

    Args:
        boxes: N × 4, x1, y1, x2, y2 as fractions of the image.
        aspect: Median width of the images divided by their height.

    Returns:
        The first network that leaves at most `ACCEPTED` of the objects with one default box, or
        else the one that leaves the fewest.
    """
    recipe = load_recipe(_BASE)
    tried: list[Proposal] = []
    for options in _candidates(recipe.model.options, aspect):
        model = ModelConfig(_NETWORK, options)
        coverage = _measure(model, recipe.loss.iou_threshold, _BASE, boxes)
        sufficient = coverage.single_fraction <= ACCEPTED
        changed = options != recipe.model.options
        tried.append(Proposal(options, coverage, changed, sufficient))
        if sufficient:
            return tried[-1]
    return min(tried, key=lambda proposal: proposal.coverage.single_fraction)


def _candidates(base: dict[str, object], aspect: float) -> Sequence[dict[str, object]]:
    """Return the options to try, smallest input first."""
    nearest = min(_INPUTS, key=lambda ratio: abs(np.log(max(aspect, 1 / aspect) / ratio)))
    sizes = [(long, round(long / nearest / 32) * 32) for long in _INPUTS[nearest]]
    if aspect < 1:
        sizes = [(short, long) for long, short in sizes]
    return [base, *({**base, "columns": columns, "rows": rows} for columns, rows in sizes)]
