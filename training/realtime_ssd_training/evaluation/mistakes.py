"""What a detector does wrong: every mistake by its kind, the worst ones first.

Sources: Hoiem et al., "Diagnosing Error in Object Detectors" (ECCV 2012), for the kinds and the
overlap of 0.1; Bolya et al., "TIDE" (ECCV 2020), for objects that count as missed only where no
other mistake explains them.
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

__all__ = ["KINDS", "Mistake", "Mistakes", "Thing", "find_mistakes"]

GOOD, NEAR = 0.5, 0.1
"""IoU from which a detection has found an object, and from which it is at least about it."""

KINDS: dict[str, str] = {
    "background": "no object of the class is near",
    "wrong class": "an object of another class is there",
    "poor box": "the object is there, but the box overlaps it by less than half",
    "duplicate": "the object has a better detection already",
    "missed": "no detection of that score is about this object",
}
"""The kinds of mistakes and what they mean."""

_HIT, _IGNORED = "hit", "ignored"


@dataclass(frozen=True, slots=True)
class Thing:
    """A box with its class.

    Attributes:
        class_id: Class in the numbering of the data set.
        box: x1, y1, x2, y2 in pixels of the image.
    """

    class_id: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong detection or one missed object.

    Attributes:
        kind: One of `KINDS`.
        image: Number of the image.
        name: Name of the image.
        found: The wrong detection; of a missed object the detection that comes nearest, however
            low its score; None if there is none.
        score: Score of the detection; 0 if there is none.
        truth: The object it is about; None on the background.
        overlap: IoU of the two.
    """

    kind: str
    image: int
    name: str
    found: Thing | None
    score: float
    truth: Thing | None
    overlap: float

    def to_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Give plain values ready for JSON."""
        return {
            "kind": self.kind,
            "image": self.name,
            "found": _plain(self.found, labels),
            "score": round(self.score, 6),
            "object": _plain(self.truth, labels),
            "iou": round(self.overlap, 6),
        }


def _plain(thing: Thing | None, labels: Sequence[str]) -> dict[str, Any] | None:
    if thing is None:
        return None
    return {"label": labels[thing.class_id], "box": [round(value, 2) for value in thing.box]}


@dataclass(frozen=True, slots=True, eq=False)
class Mistakes:
    """All mistakes of a model on a data set from one score on.

    Attributes:
        score: Detections of at least this score count.
        hits: Number of objects found.
        objects: Number of objects to be found.
        worst: All mistakes: the most confident ones first, the largest missed objects first.
        sides: M, side of each object in pixels (root of its area).
        found: M, whether it was found.
    """

    score: float
    hits: int
    objects: int
    worst: tuple[Mistake, ...]
    sides: NDArray[np.float64]
    found: NDArray[np.bool_]

    @property
    def counts(self) -> dict[str, int]:
        """Number of mistakes by kind."""
        counted = Counter(mistake.kind for mistake in self.worst)
        return {kind: counted[kind] for kind in KINDS}

    def of(self, kind: str, most: int) -> list[Mistake]:
        """List the worst mistakes of a kind, at most `most`."""
        return [mistake for mistake in self.worst if mistake.kind == kind][:most]


def find_mistakes(
    truths: Sequence[Annotation],
    answers: Sequence[Detections],
    classes: Collection[int],
    score: float | None = None,
) -> Mistakes:
    """Find what is wrong with detections.

    Args:
        truths: Ground truth of every image.
        answers: Detections of the same images, best first; class ids in the numbering of the
            truths.
        classes: Class ids that the model knows; objects of others are not missed.
        score: Least score of a detection; by default the one with the best F1 over all classes.

    Returns:
        The mistakes. Hits are those of Pascal VOC (see `realtime_ssd_training.evaluation.metrics`).
    """
    wanted = np.array(sorted(classes), np.int64)
    images = [
        _Judged(k, truth, answer.select(np.isin(answer.class_ids, wanted)), wanted)
        for k, (truth, answer) in enumerate(zip(truths, answers, strict=True))
    ]
    if score is None:
        score = _balanced(images)
    wrong = [item for image in images for item in image.wrong(score)]
    missed = [item for image in images for item in image.missed(score)]
    wrong.sort(key=lambda item: -item.score)
    missed.sort(key=lambda item: -_area(item.truth))
    sides = [np.sqrt(image.truth.areas[image.wanted].astype(np.float64)) for image in images]
    found = [image.best[image.wanted] >= score for image in images]
    return Mistakes(
        score,
        int(sum(part.sum() for part in found)),
        int(sum(image.wanted.sum() for image in images)),
        (*wrong, *missed),
        np.concatenate([np.zeros(0), *sides]),
        np.concatenate([np.zeros(0, bool), *found]),
    )


def _area(thing: Thing | None) -> float:
    return 0.0 if thing is None else float(area(np.array(thing.box, np.float64)))


class _Judged:
    """The detections of one image beside its objects.

    Attributes:
        kinds: For each detection a kind, or that it is a hit or ignored.
        about: For each detection the object it is about; -1 for none.
        best: For each object the score of the detection that found it; -1 for none.
        wanted: For each object whether it should be found.
    """

    def __init__(
        self, number: int, truth: Annotation, answer: Detections, classes: NDArray[np.int64]
    ) -> None:
        self.number, self.truth, self.answer = number, truth, answer
        skip = truth.difficult | truth.crowd
        self.wanted = ~skip & np.isin(truth.labels, classes)
        self.best = np.full(len(truth.labels), -1.0)
        boxes, objects = answer.boxes.astype(np.float64), truth.boxes.astype(np.float64)
        self.overlap = iou(boxes, objects)
        self.kinds: list[str] = []
        self.about = np.full(len(answer), -1, np.int64)
        excused = skip & (_inside(boxes, objects) >= GOOD) & truth.crowd
        for row, class_id in enumerate(answer.class_ids):
            kind, place = self._judge(row, truth.labels == class_id, skip, excused[row])
            self.kinds.append(kind)
            self.about[row] = place
            if kind == _HIT:
                self.best[place] = answer.scores[row]

    def _judge(
        self,
        row: int,
        same: NDArray[np.bool_],
        skip: NDArray[np.bool_],
        excused: NDArray[np.bool_],
    ) -> tuple[str, int]:
        """Say what a detection is, and which object it is about."""
        own, own_overlap = _largest(np.where(same, self.overlap[row], -1))
        if own_overlap >= GOOD:
            if skip[own]:
                return _IGNORED, own
            return ("duplicate" if self.best[own] >= 0 else _HIT), own
        if (same & excused).any():
            return _IGNORED, -1
        other, other_overlap = _largest(np.where(same, -1, self.overlap[row]))
        if other_overlap >= GOOD:
            return "wrong class", other
        return ("poor box", own) if own_overlap >= NEAR else ("background", -1)

    def wrong(self, score: float) -> list[Mistake]:
        """List the wrong detections of at least `score`."""
        return [
            self._mistake(kind, row, int(self.about[row]))
            for row, kind in enumerate(self.kinds)
            if kind in KINDS and self.answer.scores[row] >= score
        ]

    def missed(self, score: float) -> list[Mistake]:
        """List the objects that no detection of at least `score` is about."""
        confident = self.answer.scores >= score
        touched = np.isin(np.arange(len(self.best)), self.about[confident])
        lost = np.flatnonzero(self.wanted & (self.best < score) & ~touched)
        return [self._mistake("missed", _near(self.overlap[:, k]), k) for k in lost.tolist()]

    def _mistake(self, kind: str, row: int, place: int) -> Mistake:
        found = None if row < 0 else self._thing(self.answer.class_ids, self.answer.boxes, row)
        truth = None if place < 0 else self._thing(self.truth.labels, self.truth.boxes, place)
        score = 0.0 if row < 0 else float(self.answer.scores[row])
        overlap = 0.0 if min(row, place) < 0 else float(self.overlap[row, place])
        return Mistake(kind, self.number, self.truth.name, found, score, truth, overlap)

    @staticmethod
    def _thing(classes: NDArray[Any], boxes: NDArray[np.float32], row: int) -> Thing:
        x1, y1, x2, y2 = boxes[row].tolist()
        return Thing(int(classes[row]), (x1, y1, x2, y2))


def _largest(values: NDArray[np.floating[Any]]) -> tuple[int, float]:
    """Give the place of the largest value and the value; -1 of nothing."""
    if not len(values):
        return -1, -1.0
    place = int(values.argmax())
    return place, float(values[place])


def _near(overlap: NDArray[np.floating[Any]]) -> int:
    """Give the detection that overlaps an object most; -1 if none is about it."""
    place, value = _largest(overlap)
    return place if value >= NEAR else -1


def _inside(boxes: NDArray[np.float64], objects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give for D boxes and T objects the share of each box that lies in each object, D × T."""
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    return np.asarray(common / np.maximum(area(boxes)[:, None], 1e-12))


def _balanced(images: Sequence[_Judged]) -> float:
    """Find the score from which on the detections of all classes have the best F1."""
    counted = [(np.array(image.kinds, object) != _IGNORED) for image in images]
    hits = [(np.array(image.kinds, object) == _HIT) for image in images]
    scores = np.concatenate(
        [np.zeros(0), *(i.answer.scores[c] for i, c in zip(images, counted, strict=True))]
    )
    right = np.concatenate([np.zeros(0, bool), *(h[c] for h, c in zip(hits, counted, strict=True))])
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    wanted = sum(int(image.wanted.sum()) for image in images)
    f1 = 2 * np.cumsum(right[order]) / (np.arange(len(order)) + 1 + wanted)
    return float(scores[order[f1.argmax()]])
