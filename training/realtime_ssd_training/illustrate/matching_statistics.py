"""Statistics of `docs/ssd.md`: matched default boxes by object size, and detection rates."""

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

__all__ = ["HEIGHTS", "MatchStatistics", "StreetRow", "match_statistics", "street_by_height"]

NUM_POSITIONS = 256
# Steps of the R2 low-discrepancy sequence (powers of the inverse plastic number), whose points are
# evenly distributed over the cells of every grid.
_STEPS = (0.7548776662466927, 0.5698402909980532)
HEIGHTS = (0, 20, 30, 50, 90, 224)
"""Edges of the height ranges of `street_by_height`, in pixels of the model's input."""


@dataclass(frozen=True, slots=True)
class MatchStatistics:
    """Number of default boxes that match a square object, over positions in the image.

    Attributes:
        mean: Mean number of default boxes with IoU ≥ 0.5.
        unmatched: Fraction of positions without such a default box.
    """

    mean: float
    unmatched: float


def match_statistics(anchors: AnchorSpec, side: float) -> MatchStatistics:
    """Count the default boxes that match a square object at many positions in the image.

    Args:
        anchors: Default boxes.
        side: Side of the object as a fraction of the side of the image.
    """
    k = np.arange(NUM_POSITIONS)[:, None]
    centers = side / 2 + (0.5 + k * np.array(_STEPS)) % 1 * (1 - side)
    squares = np.concatenate([centers - side / 2, centers + side / 2], axis=1)
    default_boxes = anchors.boxes().astype(np.float64)
    # The IoU is at most the ratio of the areas, which rules most default boxes out.
    ratio = default_boxes[:, 2] * default_boxes[:, 3] / side**2
    candidates = to_corners(default_boxes[(ratio > 0.49) & (ratio < 2.05)])
    count = (iou(squares, candidates) >= 0.5).sum(axis=1)
    return MatchStatistics(float(count.mean()), float((count == 0).mean()))


@dataclass(frozen=True, slots=True)
class StreetRow:
    """Objects of the synthetic street in one range of heights.

    Attributes:
        objects: Number of objects, excluding difficult ones.
        matched: For each set of default boxes, the fraction of objects with a default box at
            IoU ≥ 0.5.
        detected: Fraction of objects that the bundled model detects: score > 0.5, correct class and
            IoU ≥ 0.5.
    """

    objects: int
    matched: tuple[float, ...]
    detected: float


def street_by_height(
    anchor_sets: tuple[AnchorSpec, ...], seeds: str = "900-909"
) -> list[StreetRow]:
    """Compare default boxes and detections by object height.

    Args:
        anchor_sets: Sets of default boxes to compare.
        seeds: Scenes, as in `demo:FIRST-LAST`; the bundled model was trained on 1000-1799.

    Returns:
        One row for each range of `HEIGHTS`, and one for all objects.
    """
    default_boxes = [corners(torch.from_numpy(anchors.boxes())) for anchors in anchor_sets]
    with Detector("street") as detector:
        tables = [
            _object_table(sample, default_boxes, detector)
            for sample in open_dataset(f"demo:{seeds}")
        ]
    table = np.concatenate(tables)
    heights = table[:, 0]
    groups = [(heights >= low) & (heights < high) for low, high in pairwise(HEIGHTS)]
    return [_summary(table[group]) for group in [*groups, heights >= 0]]


def _object_table(
    sample: Sample, default_boxes: list[Tensor], detector: Detector
) -> NDArray[np.float64]:
    """Return per object its height in the input, matches by set of default boxes, and detection."""
    rows, columns = sample.image.shape[:2]
    counted = ~sample.difficult
    boxes, labels = sample.boxes[counted], sample.labels[counted]
    fractions = torch.from_numpy(boxes / np.array([columns, rows] * 2, np.float32))
    best = [overlaps(fractions, each)[0].amax(dim=1).numpy() for each in default_boxes]
    detections = detector(sample.image)
    overlap = iou(boxes.astype(np.float64), detections.boxes.astype(np.float64)) >= 0.5
    detected = (overlap & (labels[:, None] == detections.class_ids[None])).any(axis=1)
    height = (boxes[:, 3] - boxes[:, 1]) / rows * detector.spec.input.height
    matched = [each >= 0.5 for each in best]
    return np.stack([height, *matched, detected], axis=1).astype(np.float64)


def _summary(table: NDArray[np.float64]) -> StreetRow:
    fractions = table[:, 1:].mean(axis=0).tolist()
    return StreetRow(len(table), tuple(fractions[:-1]), fractions[-1])
