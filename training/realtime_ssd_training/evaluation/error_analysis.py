"""Error analysis of a detector: every error with its kind, worst errors first.

Sources: Hoiem et al., "Diagnosing Error in Object Detectors" (ECCV 2012) for the kinds of errors
and the background threshold of IoU 0.1; Bolya et al., "TIDE: A General Toolbox for Identifying
Object Detection Errors" (ECCV 2020) for counting an object as missed only if no other error
explains it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import area, iou
from realtime_ssd.core.detections import Detections
from realtime_ssd_training.data.sample import Annotation

__all__ = ["KINDS", "DetectionError", "ErrorAnalysis", "LabeledBox", "find_errors"]

MATCH_IOU, BACKGROUND_IOU = 0.5, 0.1
"""Minimum IoU of a true positive, and the IoU below which a detection is on the background."""

KINDS: dict[str, str] = {
    "background": "no object of the class nearby",
    "wrong class": "confused with an object of another class",
    "poor box": "localization error: IoU with the object below 0.5",
    "duplicate": "the object has a higher-scored detection",
    "missed": "no detection at or above the score threshold concerns it",
}
"""Kinds of errors and their definitions."""

_TRUE_POSITIVE, _IGNORED = "true positive", "ignored"


@dataclass(frozen=True, slots=True)
class LabeledBox:
    """A box with its class.

    Attributes:
        class_id: Class id of the dataset.
        box: x1, y1, x2, y2 in pixels of the image.
    """

    class_id: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DetectionError:
    """A false positive or a missed object.

    Attributes:
        kind: One of `KINDS`.
        image: Index of the image.
        name: Name of the image.
        detection: The false positive; for a missed object, the detection with the highest IoU at
            any score. None if there is none.
        score: Score of the detection; 0 without one.
        truth: The object concerned; None for a background error.
        overlap: IoU of detection and object; 0 if either is None.
    """

    kind: str
    image: int
    name: str
    detection: LabeledBox | None
    score: float
    truth: LabeledBox | None
    overlap: float

    def to_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return JSON-serializable values.

        Args:
            labels: Class names by class id.
        """
        return {
            "kind": self.kind,
            "image": self.name,
            "found": _json_box(self.detection, labels),
            "score": round(self.score, 6),
            "object": _json_box(self.truth, labels),
            "iou": round(self.overlap, 6),
        }


def _json_box(item: LabeledBox | None, labels: Sequence[str]) -> dict[str, Any] | None:
    if item is None:
        return None
    return {"label": labels[item.class_id], "box": [round(value, 2) for value in item.box]}


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAnalysis:
    """All errors of a model on a dataset at one score threshold.

    Attributes:
        score: Score threshold, inclusive.
        true_positives: Number of detected objects.
        objects: Number of objects to detect.
        errors: False positives by descending score, then missed objects by descending area.
        sides: Square root of the area of each object, in pixels.
        detected: Whether each object was detected.
    """

    score: float
    true_positives: int
    objects: int
    errors: tuple[DetectionError, ...]
    sides: NDArray[np.float64]
    detected: NDArray[np.bool_]

    @property
    def counts(self) -> dict[str, int]:
        """Number of errors of each kind."""
        counts = Counter(error.kind for error in self.errors)
        return {kind: counts[kind] for kind in KINDS}

    def worst(self, kind: str, limit: int) -> list[DetectionError]:
        """Return the worst `limit` errors of a kind."""
        return [error for error in self.errors if error.kind == kind][:limit]


def find_errors(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    classes: Collection[int],
    score: float | None = None,
) -> ErrorAnalysis:
    """Classify the errors of a model.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images by descending score, with the class ids of the
            ground truth.
        classes: Class ids the model knows; objects of other classes are not counted as missed.
        score: Score threshold, inclusive; None selects the one with the best F1 over all classes.

    Returns:
        The errors. True positives are those of `realtime_ssd_training.evaluation.voc_metrics`.
    """
    known = np.array(sorted(classes), np.int64)
    images = [
        _ImageAnalysis(k, truth, detected.select(np.isin(detected.class_ids, known)), known)
        for k, (truth, detected) in enumerate(zip(ground_truth, detections, strict=True))
    ]
    if score is None:
        score = _best_f1_threshold(images)
    false_positives = [error for image in images for error in image.false_positives(score)]
    missed = [error for image in images for error in image.missed(score)]
    false_positives.sort(key=lambda error: -error.score)
    missed.sort(key=lambda error: -_box_area(error.truth))
    sides = [np.sqrt(image.truth.areas[image.counted].astype(np.float64)) for image in images]
    detected_flags = [image.best_scores[image.counted] >= score for image in images]
    return ErrorAnalysis(
        score,
        int(sum(flags.sum() for flags in detected_flags)),
        int(sum(image.counted.sum() for image in images)),
        (*false_positives, *missed),
        np.concatenate([np.zeros(0), *sides]),
        np.concatenate([np.zeros(0, bool), *detected_flags]),
    )


def _box_area(item: LabeledBox | None) -> float:
    return 0.0 if item is None else float(area(np.array(item.box, np.float64)))


class _ImageAnalysis:
    """The detections of one image, matched with its objects.

    Attributes:
        kinds: Kind of error of each detection, "true positive" or "ignored".
        matches: Index of the object of each detection; -1 for none.
        best_scores: Score of the true positive of each object; -1 for none.
        counted: Whether each object is one to detect.
    """

    def __init__(
        self, index: int, truth: Annotation, detections: Detections, classes: NDArray[np.int64]
    ) -> None:
        self.index, self.truth, self.detections = index, truth, detections
        skip = truth.difficult | truth.crowd
        self.counted = ~skip & np.isin(truth.labels, classes)
        self.best_scores = np.full(len(truth.labels), -1.0)
        boxes, objects = detections.boxes.astype(np.float64), truth.boxes.astype(np.float64)
        self.overlap = iou(boxes, objects)
        self.kinds: list[str] = []
        self.matches = np.full(len(detections), -1, np.int64)
        in_crowd = truth.crowd & (_contained_fraction(boxes, objects) >= MATCH_IOU)
        for row, class_id in enumerate(detections.class_ids):
            kind, match = self._classify(row, truth.labels == class_id, skip, in_crowd[row])
            self.kinds.append(kind)
            self.matches[row] = match
            if kind == _TRUE_POSITIVE:
                self.best_scores[match] = detections.scores[row]

    def _classify(
        self,
        row: int,
        same_class: NDArray[np.bool_],
        skip: NDArray[np.bool_],
        in_crowd: NDArray[np.bool_],
    ) -> tuple[str, int]:
        """Return the kind of a detection and the index of its object."""
        match, match_iou = _argmax(np.where(same_class, self.overlap[row], -1))
        if match_iou >= MATCH_IOU:
            if skip[match]:
                return _IGNORED, match
            return ("duplicate" if self.best_scores[match] >= 0 else _TRUE_POSITIVE), match
        if (same_class & in_crowd).any():
            return _IGNORED, -1
        other, other_iou = _argmax(np.where(same_class, -1, self.overlap[row]))
        if other_iou >= MATCH_IOU:
            return "wrong class", other
        return ("poor box", match) if match_iou >= BACKGROUND_IOU else ("background", -1)

    def false_positives(self, score: float) -> list[DetectionError]:
        """Return the false positives with at least `score`."""
        return [
            self._error(kind, row, int(self.matches[row]))
            for row, kind in enumerate(self.kinds)
            if kind in KINDS and self.detections.scores[row] >= score
        ]

    def missed(self, score: float) -> list[DetectionError]:
        """Return the objects that no detection with at least `score` concerns."""
        confident = self.detections.scores >= score
        explained = np.isin(np.arange(len(self.best_scores)), self.matches[confident])
        missed = np.flatnonzero(self.counted & (self.best_scores < score) & ~explained)
        return [self._error("missed", _nearest(self.overlap[:, k]), k) for k in missed.tolist()]

    def _error(self, kind: str, row: int, match: int) -> DetectionError:
        detection = truth = None
        score = overlap = 0.0
        if row >= 0:
            detection = _labeled_box(self.detections.class_ids, self.detections.boxes, row)
            score = float(self.detections.scores[row])
        if match >= 0:
            truth = _labeled_box(self.truth.labels, self.truth.boxes, match)
        if row >= 0 and match >= 0:
            overlap = float(self.overlap[row, match])
        return DetectionError(kind, self.index, self.truth.name, detection, score, truth, overlap)


def _labeled_box(classes: NDArray[Any], boxes: NDArray[np.float32], row: int) -> LabeledBox:
    x1, y1, x2, y2 = boxes[row].tolist()
    return LabeledBox(int(classes[row]), (x1, y1, x2, y2))


def _argmax(values: NDArray[np.floating[Any]]) -> tuple[int, float]:
    """Return the index of the largest value and the value; (-1, -1) if empty."""
    if not len(values):
        return -1, -1.0
    index = int(values.argmax())
    return index, float(values[index])


def _nearest(overlap: NDArray[np.floating[Any]]) -> int:
    """Return the index of the highest IoU; -1 if it is below the background threshold."""
    index, value = _argmax(overlap)
    return index if value >= BACKGROUND_IOU else -1


def _contained_fraction(
    boxes: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the fraction of each of D boxes inside each of T objects, D × T."""
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    return np.asarray(intersection / np.maximum(area(boxes)[:, None], 1e-12))


def _best_f1_threshold(images: Sequence[_ImageAnalysis]) -> float:
    """Return the score threshold with the best F1 over all classes; 0 without a true positive."""
    kinds = np.array([kind for image in images for kind in image.kinds], object)
    scores = np.concatenate([np.zeros(0), *(image.detections.scores for image in images)])
    counted = kinds != _IGNORED
    true_positive = (kinds == _TRUE_POSITIVE)[counted]
    scores = scores[counted]
    if not true_positive.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    num_objects = sum(int(image.counted.sum()) for image in images)
    f1 = 2 * np.cumsum(true_positive[order]) / (np.arange(len(order)) + 1 + num_objects)
    return float(scores[order[f1.argmax()]])
