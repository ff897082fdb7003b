"""Figures of `docs/ssd.md` that are counted, not derived: who is matched, and who is found."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realtime_ssd.core.boxes import AnchorSpec, iou, to_corners
from realtime_ssd.detector import Detector
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.sample import Sample
from realtime_ssd_training.engine.matching import corners, overlaps

__all__ = ["HEIGHTS", "Matched", "StreetRow", "matched_by_size", "street_by_height"]

PLACES = 256
# Steps of a low-discrepancy sequence (powers of the inverse plastic number): places that fall
# evenly on every grid of cells.
_STEPS = (0.7548776662466927, 0.5698402909980532)
HEIGHTS = (0, 20, 30, 50, 90, 224)
"""Edges of the groups of `street_by_height`, in pixels of the model's input."""


@dataclass(frozen=True, slots=True)
class Matched:
    """How well default boxes serve square objects of one size, all over the image.

    Attributes:
        mean: Default boxes with IoU ≥ 0.5, on average over all places.
        missed: Share of places where there is none.
    """

    mean: float
    missed: float


def matched_by_size(recipe: AnchorSpec, side: float) -> Matched:
    """Move a square object over the image and count the default boxes that match it.

    Args:
        recipe: Default boxes.
        side: Side of the object as a fraction of the image's.
    """
    k = np.arange(PLACES)[:, None]
    centres = side / 2 + (0.5 + k * np.array(_STEPS)) % 1 * (1 - side)
    squares = np.concatenate([centres - side / 2, centres + side / 2], axis=1)
    default_boxes = recipe.boxes().astype(np.float64)
    # The IoU is at most the smaller area over the larger one, so that most need no comparison.
    ratio = default_boxes[:, 2] * default_boxes[:, 3] / side**2
    near = to_corners(default_boxes[(ratio > 0.49) & (ratio < 2.05)])
    count = (iou(squares, near) >= 0.5).sum(axis=1)
    return Matched(float(count.mean()), float((count == 0).mean()))


@dataclass(frozen=True, slots=True)
class StreetRow:
    """Objects of the built-in street of one range of heights.

    Attributes:
        objects: How many, without difficult ones.
        reached: For each recipe the share that some default box overlaps with IoU ≥ 0.5.
        found: Share that the bundled model finds with score > 0.5, right class and IoU ≥ 0.5.
    """

    objects: int
    reached: tuple[float, ...]
    found: float


def street_by_height(recipes: tuple[AnchorSpec, ...], seeds: str = "900-909") -> list[StreetRow]:
    """Compare matching and finding by the height of the objects.

    Args:
        recipes: Default boxes to try.
        seeds: Scenes, as in `demo:FIRST-LAST`; the bundled model was trained on 1000-1799.

    Returns:
        One row for each range of `HEIGHTS`, and one for all objects.
    """
    defaults = [corners(torch.from_numpy(recipe.boxes())) for recipe in recipes]
    rows = []
    with Detector("street") as detector:
        for sample in open_dataset(f"demo:{seeds}"):
            rows.append(_facts(sample, defaults, detector))
    facts = np.concatenate(rows)
    heights = facts[:, 0]
    groups = [(heights >= low) & (heights < high) for low, high in pairwise(HEIGHTS)]
    return [_summary(facts[group]) for group in [*groups, heights >= 0]]


def _facts(sample: Sample, defaults: list[Tensor], detector: Detector) -> NDArray[np.float64]:
    """Give for each object its height in the input, whether each recipe reaches it, and found."""
    rows, columns = sample.image.shape[:2]
    wanted = ~sample.difficult
    boxes, labels = sample.boxes[wanted], sample.labels[wanted]
    fractions = torch.from_numpy(boxes / np.array([columns, rows] * 2, np.float32))
    best = [overlaps(fractions, each)[0].amax(dim=1).numpy() for each in defaults]
    answer = detector(sample.image)
    close = iou(boxes.astype(np.float64), answer.boxes.astype(np.float64)) >= 0.5
    right = (close & (labels[:, None] == answer.class_ids[None])).any(axis=1)
    height = (boxes[:, 3] - boxes[:, 1]) / rows * detector.spec.input.height
    return np.stack([height, *(each >= 0.5 for each in best), right], axis=1).astype(np.float64)


def _summary(facts: NDArray[np.float64]) -> StreetRow:
    shares = facts[:, 1:].mean(axis=0).tolist()
    return StreetRow(len(facts), tuple(shares[:-1]), shares[-1])
