"""Average precision as defined by Pascal VOC.

Sources: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (2015) and
the development kits of 2007 (11-point interpolation) and of 2010 and later (every point). COCO's
average precision is in `realtime_ssd_training.evaluation.coco_metrics`; both return a
`MetricResult`.

A detection is assigned to the object of its class that it overlaps most. With IoU ≥ threshold, the
highest-scored detection of an object is a true positive and every further one a false positive.
Detections of difficult and crowd boxes are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import area, iou
from realtime_ssd.core.detections import Detections
from realtime_ssd_training.data.sample import Annotation

__all__ = [
    "SIZES",
    "ClassMatches",
    "ClassResult",
    "MetricResult",
    "OperatingPoint",
    "classes_with_objects",
    "finite_mean",
    "match_class",
    "voc_ap",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
AreaRange = tuple[float, float]

SIZES: dict[str, AreaRange] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, float("inf")),
}
"""COCO's object sizes: range of the area in square pixels, lower bound inclusive."""

_ALL_AREAS: AreaRange = (0.0, float("inf"))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A point of a precision-recall curve.

    Attributes:
        score: Score threshold.
        recall: Fraction of the objects that are detected.
        precision: Fraction of the detections that are true positives.
        f1: Harmonic mean of recall and precision.
    """

    score: float
    recall: float
    precision: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassResult:
    """Metrics of one class.

    Attributes:
        label: Class name.
        objects: Number of objects, excluding difficult and crowd ones.
        values: Metrics by name; "AP" is the average precision.
        recall: Recalls of the precision-recall curve at IoU 0.5 (or the requested IoU).
        precision: Precision at each recall.
        scores: Score threshold at each recall; 0 where the recall is not reached.
    """

    label: str
    objects: int
    values: dict[str, float]
    recall: Floats
    precision: Floats
    scores: Floats

    def best_f1(self) -> OperatingPoint | None:
        """Return the point of the curve with the highest F1; None without a true positive."""
        total = self.recall + self.precision
        f1 = 2 * self.recall * self.precision / np.where(total > 0, total, 1)
        if not f1.max(initial=0.0):
            return None
        # Among equal values, the last one has the highest recall.
        index = len(f1) - 1 - int(f1[::-1].argmax())
        columns = (self.scores, self.recall, self.precision, f1)
        return OperatingPoint(*(float(column[index]) for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class MetricResult:
    """Metrics of a model on a dataset.

    Attributes:
        metric: "voc07", "voc" or "coco".
        summary: Means over the classes with objects: "mAP" and so on, or "AP", "AP50", "AP75" and
            so on; NaN if there are no objects of that size.
        classes: Results of the classes with objects.
    """

    metric: str
    summary: dict[str, float]
    classes: tuple[ClassResult, ...]

    @property
    def mean(self) -> float:
        """The primary metric: mAP (Pascal VOC) or AP (COCO)."""
        return self.summary["mAP" if "mAP" in self.summary else "AP"]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values; None replaces NaN."""
        return {
            "metric": self.metric,
            **{key: _json_number(value) for key, value in self.summary.items()},
            "per_class": {item.label: _json_number(item.values["AP"]) for item in self.classes},
            "classes": {
                item.label: {
                    "objects": item.objects,
                    **{key: _json_number(value) for key, value in item.values.items()},
                    "best_f1": _json_point(item.best_f1()),
                }
                for item in self.classes
            },
        }


def _json_number(value: float) -> float | None:
    return round(float(value), 6) if isfinite(value) else None


def _json_point(point: OperatingPoint | None) -> dict[str, float | None] | None:
    if point is None:
        return None
    return {key: _json_number(value) for key, value in asdict(point).items()}


@dataclass(frozen=True, slots=True, eq=False)
class ClassMatches:
    """All N detections and M objects of one class, and their assignment.

    Detections are sorted by descending score.

    Attributes:
        images: N image indices.
        rows: N indices into the detections of the image.
        scores: N scores.
        areas: N areas in square pixels.
        objects: N indices into the M objects; -1 if the IoU with every object is too small.
        truth_images: M image indices.
        truth_rows: M indices into the ground truth of the image.
        truth_areas: M areas in square pixels.
        skip: M booleans: whether the object is difficult or a crowd.
    """

    images: Integers
    rows: Integers
    scores: Floats
    areas: Floats
    objects: Integers
    truth_images: Integers
    truth_rows: Integers
    truth_areas: Floats
    skip: Flags

    def classify(self, areas: AreaRange = _ALL_AREAS) -> tuple[Flags, Flags, int]:
        """Classify the detections as true positives, ignored or false positives.

        Args:
            areas: Range of areas to evaluate. Objects outside it are ignored, and so are
                unassigned detections outside it.

        Returns:
            N booleans (true positive), N booleans (ignored) and the number of objects to detect.
        """
        skip = self.skip | ~_within(self.truth_areas, areas)
        assigned = self.objects >= 0
        ignored = ~assigned & ~_within(self.areas, areas)
        ignored[assigned] = skip[self.objects[assigned]]
        first = np.zeros(len(assigned), bool)
        first[np.unique(self.objects, return_index=True)[1]] = True
        return assigned & first & ~ignored, ignored, int((~skip).sum())


def _within(values: Floats, limits: AreaRange) -> Flags:
    return np.asarray((values >= limits[0]) & (values < limits[1]))


def match_class(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    class_id: int,
    iou_threshold: float = 0.5,
) -> ClassMatches:
    """Assign every detection of a class to the object it overlaps most.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        class_id: Class to match.
        iou_threshold: Minimum IoU of an assignment.

    Returns:
        The assignment; detections with equal scores stay in image order.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    num_objects = 0
    for image, (truth, detected) in enumerate(zip(ground_truth, detections, strict=True)):
        rows = np.flatnonzero(detected.class_ids == class_id)
        objects = np.flatnonzero(truth.labels == class_id)
        if not len(rows) and not len(objects):
            continue
        boxes = detected.boxes[rows].astype(np.float64)
        truth_boxes = truth.boxes[objects].astype(np.float64)
        nearest = _nearest_objects(boxes, truth_boxes, iou_threshold, num_objects)
        num_objects += len(objects)
        skip = truth.difficult[objects] | truth.crowd[objects]
        parts.append(
            (
                *(np.full(len(rows), image), rows, detected.scores[rows], area(boxes), nearest),
                *(np.full(len(objects), image), objects, truth.areas[objects], skip),
            )
        )
    return _concatenate(parts)


def _nearest_objects(boxes: Floats, objects: Floats, threshold: float, offset: int) -> Integers:
    """Return for each box `offset` + index of the object with the highest IoU, or -1."""
    if not len(objects):
        return np.full(len(boxes), -1, np.int64)
    overlap = iou(boxes, objects)
    best = overlap.argmax(axis=1)
    matched = overlap[np.arange(len(boxes)), best] >= threshold
    return np.where(matched, best + offset, -1)


def _concatenate(parts: list[tuple[NDArray[Any], ...]]) -> ClassMatches:
    integer, real = np.int64, np.float64
    dtypes = (integer, integer, real, real, integer, integer, integer, real, np.bool_)
    columns: list[NDArray[Any]] = [
        np.concatenate([np.zeros(0, dtype), *(part[k] for part in parts)]).astype(dtype)
        for k, dtype in enumerate(dtypes)
    ]
    order = np.argsort(-columns[2], kind="stable")
    return ClassMatches(*(column[order] for column in columns[:5]), *columns[5:])


def classes_with_objects(
    ground_truth: Sequence[Annotation], classes: Iterable[int] | None = None
) -> list[int]:
    """Return the classes with at least one object that is neither difficult nor a crowd.

    Args:
        ground_truth: Annotation of every image.
        classes: Class ids to consider; all if None.

    Returns:
        Class ids in ascending order.
    """
    present: set[int] = set()
    for truth in ground_truth:
        present.update(truth.labels[~truth.difficult & ~truth.crowd].tolist())
    return sorted(present if classes is None else present.intersection(classes))


def voc_ap(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    labels: Sequence[str],
    *,
    points: Literal["all", "11"] = "all",
    iou_threshold: float = 0.5,
    classes: Iterable[int] | None = None,
) -> MetricResult:
    """Compute the average precision of Pascal VOC.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        labels: Class names by class id.
        points: "11" for the mean precision at 11 recalls (VOC 2007), "all" for the area under the
            precision-recall curve (VOC 2010 and later).
        iou_threshold: Minimum IoU of a true positive.
        classes: Class ids to evaluate; all if None. Classes without objects are left out.

    Returns:
        "mAP" and, for COCO's object sizes, "mAP_small", "mAP_medium" and "mAP_large".

    Example:
        >>> ground_truth = [data.annotation(k) for k in range(len(data))]
        >>> voc_ap(ground_truth, detections, data.labels, points="11").mean
        0.7721
    """
    average = _eleven_point_ap if points == "11" else _area_under_curve
    results = []
    for class_id in classes_with_objects(ground_truth, classes):
        matches = match_class(ground_truth, detections, class_id, iou_threshold)
        hits, misses, num_objects = _cumulative_counts(matches, _ALL_AREAS)
        scores = matches.scores[~matches.classify()[1]]
        values = {"AP": average(hits, misses, num_objects)}
        for size, areas in SIZES.items():
            values[f"AP_{size}"] = average(*_cumulative_counts(matches, areas))
        recall, precision = hits / num_objects, hits / (hits + misses)
        results.append(
            ClassResult(labels[class_id], num_objects, values, recall, precision, scores)
        )
    summary = {
        key.replace("AP", "mAP"): finite_mean(item.values[key] for item in results)
        for key in ("AP", *(f"AP_{size}" for size in SIZES))
    }
    return MetricResult("voc07" if points == "11" else "voc", summary, tuple(results))


def _cumulative_counts(matches: ClassMatches, areas: AreaRange) -> tuple[Integers, Integers, int]:
    """Return cumulative true positives, cumulative false positives and the number of objects."""
    true_positive, ignored, num_objects = matches.classify(areas)
    counted = true_positive[~ignored]
    return np.cumsum(counted), np.cumsum(~counted), num_objects


def _area_under_curve(hits: Integers, misses: Integers, num_objects: int) -> float:
    """Return the area under the curve with precision made monotonically decreasing."""
    if not num_objects:
        return nan
    envelope = np.maximum.accumulate((hits / (hits + misses))[::-1])[::-1]
    steps = np.diff(hits, prepend=0)
    return float((envelope * steps).sum() / num_objects)


def _eleven_point_ap(hits: Integers, misses: Integers, num_objects: int) -> float:
    """Return the mean of the best precision at recalls of at least 0, 0.1, ..., 1.

    Recalls are compared as integers, so that 3 of 10 objects reach a recall of 0.3 exactly.
    """
    if not num_objects:
        return nan
    precision = hits / (hits + misses)
    best = [precision[hits * 10 >= k * num_objects].max(initial=0.0) for k in range(11)]
    return float(np.mean(best))


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if isfinite(value)]
    return float(np.mean(finite)) if finite else nan
