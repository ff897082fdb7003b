"""Confusion matrix, and the score threshold of each class with the best F1."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import area, iou
from realtime_ssd.core.detections import Detections
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.evaluation.voc_metrics import match_class

__all__ = ["ConfusionMatrix", "ThresholdAdvice", "advise_thresholds", "count_confusions"]

MATCH_IOU = 0.5
"""Smallest IoU of a detection with the object it is attributed to."""


@dataclass(frozen=True, slots=True)
class ThresholdAdvice:
    """The score threshold of a class that yields the best F1.

    Attributes:
        label: Class name.
        score: Detections above this count; between the scores of two detections.
        precision: Fraction of these detections that are right.
        recall: Fraction of the objects that they find.
        f1: Harmonic mean of precision and recall.
    """

    label: str
    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix:
    """Which classes the objects of each class are detected as.

    Attributes:
        labels: Names of the classes and, last, "background".
        counts: N × N int64, rows are objects, columns detections. The last column counts objects
            that were missed, the last row detections where no object is.
        scores: Score threshold of each class, exclusive.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    scores: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values."""
        return {
            "labels": list(self.labels),
            "rows": "objects",
            "columns": "detections",
            "counts": self.counts.tolist(),
        }


def advise_thresholds(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    labels: Sequence[str],
    classes: Collection[int],
) -> tuple[ThresholdAdvice, ...]:
    """Find the score threshold with the best F1 of each class, at IoU 0.5.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        labels: Class names by class id.
        classes: Class ids to consider.

    Returns:
        The advice for each class with a true positive, in the order of the labels.
    """
    advice = []
    for class_id in sorted(classes):
        matches = match_class(ground_truth, detections, class_id, MATCH_IOU)
        right, ignored, objects = matches.classify()
        right, scores = right[~ignored], matches.scores[~ignored]
        if not right.any():
            continue
        hits, count = np.cumsum(right), np.arange(1, len(right) + 1)
        f1 = 2 * hits / (count + objects)
        # A threshold cannot separate equal scores.
        f1[:-1][scores[:-1] == scores[1:]] = 0
        best = int(f1.argmax())
        following = scores[best + 1] if best + 1 < len(scores) else 0.0
        advice.append(
            ThresholdAdvice(
                label=labels[class_id],
                score=float(scores[best] + following) / 2,
                precision=float(hits[best] / count[best]),
                recall=float(hits[best] / objects),
                f1=float(f1[best]),
            )
        )
    return tuple(advice)


def count_confusions(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    labels: Sequence[str],
    classes: Collection[int],
    advice: Sequence[ThresholdAdvice],
    default_score: float,
) -> ConfusionMatrix:
    """Count what the objects of each class are detected as.

    Detections are attributed to objects of any class, best score first, each to the free object
    with the highest IoU of at least 0.5. Difficult objects and crowds are not counted, nor are
    detections of them. Objects of classes that the model does not know are no objects.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        labels: Class names by class id.
        classes: Class ids that the model knows.
        advice: Thresholds to apply.
        default_score: Threshold of classes without advice.
    """
    ids = sorted(classes)
    scores = {labels[class_id]: default_score for class_id in ids}
    scores |= {item.label: item.score for item in advice}
    limits = np.array([scores.get(label, np.inf) for label in labels])
    index = np.full(len(labels), -1)
    index[ids] = np.arange(len(ids))
    counts = np.zeros((len(ids) + 1, len(ids) + 1), np.int64)
    for truth, detected in zip(ground_truth, detections, strict=True):
        kept = detected.select(detected.scores > limits[detected.class_ids])
        rows, columns = _pairs(truth, kept, index)
        np.add.at(counts, (rows, columns), 1)
    return ConfusionMatrix((*(labels[k] for k in ids), "background"), counts, scores)


def _pairs(
    truth: Annotation, detected: Detections, index: NDArray[np.int64]
) -> tuple[list[int], list[int]]:
    """Return row and column of every object and every detection of an image."""
    objects = truth.boxes.astype(np.float64)
    boxes = detected.boxes.astype(np.float64)
    overlap = iou(boxes, objects)
    ignored = truth.difficult | truth.crowd
    free = index[truth.labels] >= 0
    background = -1
    rows, columns = [], []
    for number in np.argsort(-detected.scores, kind="stable").tolist():
        column = int(index[detected.class_ids[number]])
        candidates = np.where(free & (overlap[number] >= MATCH_IOU), overlap[number], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= 0:
            free[best] = bool(truth.crowd[best])
            if ignored[best]:
                continue
            rows.append(int(index[truth.labels[best]]))
        elif _is_inside(boxes[number], objects[truth.crowd]):
            continue
        else:
            rows.append(background)
        columns.append(column)
    for number in np.flatnonzero(free & ~ignored).tolist():
        rows.append(int(index[truth.labels[number]]))
        columns.append(background)
    return rows, columns


def _is_inside(box: NDArray[np.float64], objects: NDArray[np.float64]) -> bool:
    """Return whether at least half of a box is inside one of the objects."""
    low, high = np.maximum(box[:2], objects[:, :2]), np.minimum(box[2:], objects[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return bool((shared >= MATCH_IOU * max(float(area(box)), 1e-12)).any())
