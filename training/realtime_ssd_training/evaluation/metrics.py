"""How good detections are: average precision as Pascal VOC defines it.

Sources: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (2015) and
the development kits of 2007 (11 points) and since 2010 (every point). COCO's average precision is
in `realtime_ssd_training.evaluation.coco_metrics`; both give the same `Score`.

A detection counts for the object of its class that it overlaps most. The best-scored one of IoU
≥ threshold is a hit, further ones of the same object are mistakes. Difficult and crowd boxes are
neither wanted nor punished.
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

__all__ = ["SIZES", "Balance", "ClassScore", "Pairs", "Score", "occurring", "pair", "voc_ap"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Range = tuple[float, float]

SIZES: dict[str, Range] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, float("inf")),
}
"""COCO's sizes: area of an object in square pixels of the image, from and up to."""

_EVERY: Range = (0.0, float("inf"))


@dataclass(frozen=True, slots=True)
class Balance:
    """A point of a precision-recall curve: what a score threshold gives.

    Attributes:
        score: Threshold.
        recall: Share of the objects that are found.
        precision: Share of the detections that are right.
        f1: Harmonic mean of the two.
    """

    score: float
    recall: float
    precision: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassScore:
    """The result of one class.

    Attributes:
        label: Name of the class.
        objects: Number of its objects, without difficult and crowd ones.
        values: Named results; "AP" is the average precision.
        recall: Recall along the precision-recall curve at IoU 0.5 (or the IoU asked for).
        precision: Precision at each of these.
        scores: Score that a detection needs to get there; 0 where that recall is not reached.
    """

    label: str
    objects: int
    values: dict[str, float]
    recall: Floats
    precision: Floats
    scores: Floats

    def best(self) -> Balance | None:
        """Find the point of the curve with the highest F1; None where nothing was found."""
        both = self.recall + self.precision
        f1 = 2 * self.recall * self.precision / np.where(both > 0, both, 1)
        if not f1.max(initial=0.0):
            return None
        # Of equal values the last one has the larger recall.
        place = len(f1) - 1 - int(f1[::-1].argmax())
        columns = (self.scores, self.recall, self.precision, f1)
        return Balance(*(float(column[place]) for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """The result of a model on a data set.

    Attributes:
        metric: "voc07", "voc" or "coco".
        summary: Means over the classes that occur: "mAP", or "AP", "AP50", "AP75" and so on; NaN
            where no object of that size occurs.
        classes: The classes that occur.
    """

    metric: str
    summary: dict[str, float]
    classes: tuple[ClassScore, ...]

    @property
    def mean(self) -> float:
        """The one figure that models are compared by: mAP or COCO's AP."""
        return self.summary["mAP" if "mAP" in self.summary else "AP"]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values ready for JSON; None where no object of a size occurs."""
        return {
            "metric": self.metric,
            **{key: _plain(value) for key, value in self.summary.items()},
            "per_class": {item.label: _plain(item.values["AP"]) for item in self.classes},
            "classes": {
                item.label: {
                    "objects": item.objects,
                    **{key: _plain(value) for key, value in item.values.items()},
                    "best_f1": _balance(item.best()),
                }
                for item in self.classes
            },
        }


def _plain(value: float) -> float | None:
    return round(float(value), 6) if isfinite(value) else None


def _balance(point: Balance | None) -> dict[str, float | None] | None:
    return None if point is None else {key: _plain(value) for key, value in asdict(point).items()}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """All detections of one class with the object each overlaps enough and most.

    Attributes:
        images: N, number of the image of each detection; best score first.
        rows: N, its position in the detections of its image.
        scores: N.
        areas: N square pixels.
        objects: N, number of its object in the arrays below, or -1 for none.
        truth_images: M, number of the image of each object.
        truth_rows: M, its position in the ground truth of its image.
        truth_areas: M square pixels.
        skip: M, whether it is difficult or a crowd.
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

    def judge(self, areas: Range = _EVERY) -> tuple[Flags, Flags, int]:
        """Decide which detections are right.

        Args:
            areas: Objects of other areas are ignored, as are detections of other areas that
                overlap no object.

        Returns:
            For each detection whether it is a hit, whether it is ignored, and the number of
            objects that should be found.
        """
        skip = self.skip | ~_within(self.truth_areas, areas)
        paired = self.objects >= 0
        ignored = ~paired & ~_within(self.areas, areas)
        ignored[paired] = skip[self.objects[paired]]
        first = np.zeros(len(paired), bool)
        first[np.unique(self.objects, return_index=True)[1]] = True
        return paired & first & ~ignored, ignored, int((~skip).sum())


def _within(values: Floats, limits: Range) -> Flags:
    return np.asarray((values >= limits[0]) & (values < limits[1]))


def pair(
    truths: Sequence[Annotation],
    answers: Sequence[Detections],
    class_id: int,
    iou_threshold: float = 0.5,
) -> Pairs:
    """Find for every detection of a class the object it overlaps most.

    Args:
        truths: Ground truth of every image.
        answers: Detections of the same images; class ids in the numbering of the truths.
        class_id: Class to look at.
        iou_threshold: Least overlap.

    Returns:
        The pairs, best score first; equal scores in the order of the images.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    known = 0
    for image, (truth, answer) in enumerate(zip(truths, answers, strict=True)):
        rows = np.flatnonzero(answer.class_ids == class_id)
        objects = np.flatnonzero(truth.labels == class_id)
        if not len(rows) and not len(objects):
            continue
        boxes = answer.boxes[rows].astype(np.float64)
        near = _nearest(boxes, truth.boxes[objects].astype(np.float64), iou_threshold, known)
        known += len(objects)
        found = (np.full(len(rows), image), rows, answer.scores[rows], area(boxes), near)
        skip = truth.difficult[objects] | truth.crowd[objects]
        parts.append((*found, np.full(len(objects), image), objects, truth.areas[objects], skip))
    return _join(parts)


def _nearest(boxes: Floats, objects: Floats, threshold: float, known: int) -> Integers:
    """Number the object that each box overlaps most, counting from `known`; -1 for none."""
    if not len(objects):
        return np.full(len(boxes), -1, np.int64)
    overlap = iou(boxes, objects)
    best = overlap.argmax(axis=1)
    enough = overlap[np.arange(len(boxes)), best] >= threshold
    return np.where(enough, best + known, -1)


def _join(parts: list[tuple[NDArray[Any], ...]]) -> Pairs:
    whole, real = np.int64, np.float64
    kinds = (whole, whole, real, real, whole, whole, whole, real, np.bool_)
    columns: list[NDArray[Any]] = [
        np.concatenate([np.zeros(0, kind), *(part[k] for part in parts)]).astype(kind)
        for k, kind in enumerate(kinds)
    ]
    order = np.argsort(-columns[2], kind="stable")
    return Pairs(*(column[order] for column in columns[:5]), *columns[5:])


def occurring(truths: Sequence[Annotation], classes: Iterable[int] | None = None) -> list[int]:
    """List the classes that have an object which is neither difficult nor a crowd.

    Args:
        truths: Ground truth of every image.
        classes: Class ids to choose from; all if None.
    """
    found: set[int] = set()
    for truth in truths:
        found.update(truth.labels[~truth.difficult & ~truth.crowd].tolist())
    return sorted(found if classes is None else found.intersection(classes))


def voc_ap(
    truths: Sequence[Annotation],
    answers: Sequence[Detections],
    labels: Sequence[str],
    *,
    points: Literal["all", "11"] = "all",
    iou_threshold: float = 0.5,
    classes: Iterable[int] | None = None,
) -> Score:
    """Score detections as Pascal VOC does.

    Args:
        truths: Ground truth of every image.
        answers: Detections of the same images; class ids in the numbering of the truths.
        labels: Class names by class id.
        points: "11" for the mean of the precision at 11 recalls (VOC 2007), "all" for the area
            under the whole curve (VOC 2010 and later).
        iou_threshold: Least overlap of a hit.
        classes: Class ids to score; all if None. Only those that occur count.

    Returns:
        The score: "mAP" and, for objects of COCO's sizes, "mAP_small", "mAP_medium" and
        "mAP_large".

    Example:
        >>> truths = [data.annotation(k) for k in range(len(data))]
        >>> voc_ap(truths, answers, data.labels, points="11").mean
        0.7721
    """
    average = _eleven_points if points == "11" else _every_point
    scores = []
    for class_id in occurring(truths, classes):
        pairs = pair(truths, answers, class_id, iou_threshold)
        hits, misses, wanted = _counts(pairs, _EVERY)
        counted = pairs.scores[~pairs.judge()[1]]
        values = {"AP": average(hits, misses, wanted)}
        for size, areas in SIZES.items():
            values[f"AP_{size}"] = average(*_counts(pairs, areas))
        recall, precision = hits / wanted, hits / (hits + misses)
        scores.append(ClassScore(labels[class_id], wanted, values, recall, precision, counted))
    summary = {
        key.replace("AP", "mAP"): mean_of(item.values[key] for item in scores)
        for key in ("AP", *(f"AP_{size}" for size in SIZES))
    }
    return Score("voc07" if points == "11" else "voc", summary, tuple(scores))


def _counts(pairs: Pairs, areas: Range) -> tuple[Integers, Integers, int]:
    """Count hits and mistakes down to each detection that counts, and the objects to be found."""
    hit, ignored, wanted = pairs.judge(areas)
    counted = hit[~ignored]
    return np.cumsum(counted), np.cumsum(~counted), wanted


def _every_point(hits: Integers, misses: Integers, wanted: int) -> float:
    """Area under the curve, each precision raised to the best at any higher recall."""
    if not wanted:
        return nan
    best = np.maximum.accumulate((hits / (hits + misses))[::-1])[::-1]
    gained = np.diff(hits, prepend=0)
    return float((best * gained).sum() / wanted)


def _eleven_points(hits: Integers, misses: Integers, wanted: int) -> float:
    """Mean of the best precision at recalls of at least 0, 0.1, ..., 1.

    Recalls are compared as whole numbers: 3 of 10 objects are a recall of 0.3, not just below it.
    """
    if not wanted:
        return nan
    precision = hits / (hits + misses)
    best = [precision[hits * 10 >= k * wanted].max(initial=0.0) for k in range(11)]
    return float(np.mean(best))


def mean_of(values: Iterable[float]) -> float:
    """Give the mean of all values that are numbers; NaN if there are none."""
    real = [value for value in values if isfinite(value)]
    return float(np.mean(real)) if real else nan
