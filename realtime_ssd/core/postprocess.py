"""From raw heads to detections: the reference that every backend must equal.

The steps are those of the SSD paper (section 2.2) and of its Caffe implementation: activate →
drop the background → score above the threshold → best `top_k` of each class → NMS of each class
(suppress when IoU > threshold) → best `keep` of the image. Only surviving candidates are decoded.
All arithmetic is float32 in a fixed order, so that kernels can follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import decode
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.preprocess import place
from realtime_ssd.core.spec import ModelSpec

__all__ = ["PostProcessor", "RawDetections", "to_frame_detections"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

LEADERS = 8  # candidates sorted first, for each detection that may be kept
GROWTH = 3  # how many times more are sorted whenever those were not enough
CHUNK = 192  # candidates that compete at once


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """What one image holds, before it is mapped to the pixels of a frame.

    Attributes:
        boxes: N × 4 float32, x1, y1, x2, y2, fractions of the input tensor, not clipped unless
            the specification clips before NMS.
        scores: N float32.
        class_ids: N int32.
        box_indices: N int64, the default box each detection came from.
    """

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int32]
    box_indices: Indices


class PostProcessor:
    """Decode and NMS of one model, with its default boxes computed once.

    Args:
        spec: Contract of the model; its thresholds are used.
        classes: Class ids to look for; all but the background if None.
    """

    def __init__(self, spec: ModelSpec, classes: tuple[int, ...] | None = None) -> None:
        self.spec = spec
        self._default_boxes = None if spec.coding == "corners" else spec.boxes.boxes()
        wanted = range(spec.num_classes) if classes is None else classes
        self._columns = np.array(sorted(c for c in wanted if c != spec.background), np.int64)
        self._all = len(self._columns) == spec.num_classes - (spec.background is not None)

    def __call__(self, scores: Floats, offsets: Floats) -> RawDetections:
        """Find the objects of one image.

        Args:
            scores: P × C raw scores.
            offsets: P × 4 raw offsets, or corners if the graph decodes.

        Returns:
            At most `keep` detections: score descending, then default-box index, then class.
        """
        rows, columns, values = self._candidates(scores)
        limits = self.spec.thresholds
        survivors = _Survivors(self.spec.num_classes, limits.pre_nms_top_k, limits.iou_threshold)
        # A box is dropped only for a better one, so that nothing after the last one kept matters.
        for best in _best_first(values, LEADERS * limits.max_detections):
            group = best[survivors.admit(columns[best])]
            survivors.add(
                group, columns[group], self.decode(rows[group], offsets), limits.max_detections
            )
            if survivors.count >= limits.max_detections:
                break
        kept, boxes = survivors.first(limits.max_detections)
        return RawDetections(boxes, values[kept], columns[kept].astype(np.int32), rows[kept])

    def activate(self, scores: Floats) -> Floats:
        """Turn raw scores (P × C) into probabilities of all classes (P × C)."""
        if self.spec.activation == "softmax":
            return _softmax(scores)
        return _sigmoid(scores) if self.spec.activation == "sigmoid" else scores

    def _candidates(self, scores: Floats) -> tuple[Indices, Indices, Floats]:
        """List (default box, class, probability) of every probability above the threshold.

        They come in the order of default boxes, and of classes within one.
        """
        threshold = np.float32(self.spec.thresholds.score_threshold)
        if self.spec.activation == "softmax":
            near, values = self._softmax(scores, float(threshold))
        else:
            near, values = np.arange(len(scores)), scores
            if self.spec.activation == "sigmoid":
                values = _sigmoid(scores)
        if not self._all:
            values = values[:, self._columns]
            rows, places = np.nonzero(values > threshold)
            return near[rows], self._columns[places], values[rows, places]
        flat = np.flatnonzero(values.ravel() > threshold)
        rows, columns = np.divmod(flat, values.shape[1])
        picked = values.ravel()[flat]
        if self.spec.background is not None:
            real = columns != self.spec.background
            rows, columns, picked = rows[real], columns[real], picked[real]
        return near[rows], columns, picked

    def _softmax(self, scores: Floats, threshold: float) -> tuple[Indices, Floats]:
        """Softmax of the rows that can hold a probability above the threshold.

        p > t needs logit > background + log(t / (1 - t)), which spares most rows the exponential.
        """
        near = np.arange(len(scores))
        if self.spec.background is not None and 0 < threshold < 1:
            margin = np.float32(log(threshold / (1 - threshold)) - 1e-3)
            bar = scores[:, self.spec.background] + margin
            hits = scores > bar[:, None]
            hits[:, self.spec.background] = False
            marked = np.zeros(len(scores), bool)
            marked[np.flatnonzero(hits) // hits.shape[1]] = True
            near = np.flatnonzero(marked)
            scores = scores[near]
        return near, _softmax(scores)

    def decode(self, rows: Indices, offsets: Floats) -> Floats:
        """Decode some boxes.

        Args:
            rows: N numbers of default boxes.
            offsets: P × 4 raw offsets, or corners if the graph decodes.

        Returns:
            N × 4 float32, x1, y1, x2, y2, fractions of the input tensor.
        """
        boxes = offsets[rows].astype(np.float32, copy=False)
        if self._default_boxes is not None:
            picked = boxes[:, [1, 0, 3, 2]] if self.spec.coding == "yxhw" else boxes
            decoded = decode(picked, self._default_boxes[rows], self.spec.variances)
            boxes = decoded.astype(np.float32, copy=False)
        return np.clip(boxes, np.float32(0), np.float32(1)) if self.spec.clip_before_nms else boxes


def to_frame_detections(
    found: RawDetections, spec: ModelSpec, width: int, height: int
) -> Detections:
    """Map what was found to the pixels of a frame of `width` × `height`, clipped to it."""
    boxes = place(spec.input, width, height).to_frame(found.boxes, spec.input, width, height)
    return Detections(boxes, found.scores, found.class_ids, spec.labels)


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def _best_first(values: Floats, leaders: int) -> Iterator[Indices]:
    """Give the candidates best first, in growing groups; later ones are sorted only if asked for.

    Equal scores keep their order, which is that of the answer: default box, then class.
    """
    left = np.arange(len(values))
    while len(left):
        group, left = left, left[:0]
        if len(group) > 2 * leaders:
            scores = values[group]
            first = scores >= np.partition(scores, len(scores) - leaders)[len(scores) - leaders]
            group, left, leaders = group[first], group[~first], leaders * GROWTH
        yield group[np.argsort(-values[group], kind="stable")]


class _Survivors:
    """Greedy NMS inside each class over candidates that come best first.

    Args:
        classes: Number of classes.
        top_k: Candidates of a class that take part.
        threshold: IoU above which a box is dropped for a better one.
    """

    def __init__(self, classes: int, top_k: int, threshold: float) -> None:
        self.count = 0
        self._top_k, self._threshold = top_k, np.float32(threshold)
        self._seen = np.zeros(classes, np.int64)
        self._chunks: list[Indices] = []
        self._columns = np.zeros(0, np.int64)
        self._boxes: Floats = np.zeros((0, 4), np.float32)

    def admit(self, columns: Indices) -> NDArray[np.bool_]:
        """Tell which of the next candidates (N classes) are among the best of their class."""
        order = np.argsort(columns, kind="stable")
        ordered = columns[order]
        places = np.empty(len(columns), np.int64)
        places[order] = np.arange(len(columns)) - np.searchsorted(ordered, ordered, side="left")
        good = places + self._seen[columns] < self._top_k
        self._seen += np.bincount(columns, minlength=len(self._seen))
        return np.asarray(good)

    def add(self, numbers: Indices, columns: Indices, boxes: Floats, most: int) -> None:
        """Let the next candidates (N numbers, N classes, N × 4 boxes) compete for `most` places."""
        for start in range(0, len(numbers), CHUNK):
            part = slice(start, start + CHUNK)
            self._compete(numbers[part], columns[part], boxes[part])
            if self.count >= most:
                break

    def _compete(self, numbers: Indices, columns: Indices, boxes: Floats) -> None:
        if self.count:
            beaten = _overlap_exceeds(self._boxes, boxes, self._threshold)
            beaten &= self._columns[:, None] == columns
            alive = ~beaten.any(axis=0)
            numbers, columns, boxes = numbers[alive], columns[alive], boxes[alive]
        keep = np.ones(len(columns), bool)
        beaten = _overlap_exceeds(boxes, boxes, self._threshold)
        beaten &= columns[:, None] == columns
        beaten = np.triu(beaten, 1)
        for winner in np.flatnonzero(beaten.any(axis=1)).tolist():
            if keep[winner]:
                keep[beaten[winner]] = False
        self._chunks.append(numbers[keep])
        self._columns = np.concatenate([self._columns, columns[keep]])
        self._boxes = np.concatenate([self._boxes, boxes[keep]])
        self.count = len(self._columns)

    def first(self, most: int) -> tuple[Indices, Floats]:
        """Give the numbers and boxes of the best survivors, at most `most`."""
        numbers = np.concatenate([np.zeros(0, np.int64), *self._chunks])
        return numbers[:most], self._boxes[:most]


def _overlap_exceeds(first: Floats, second: Floats, threshold: np.float32) -> NDArray[np.bool_]:
    """Tell for each pair of boxes (N × 4 and M × 4) whether IoU > threshold (N × M), in float32."""
    left, top, right, bottom = np.ascontiguousarray(first.T)[:, :, None]
    x1, y1, x2, y2 = np.ascontiguousarray(second.T)
    zero = np.float32(0)
    width = np.minimum(right, x2)
    width -= np.maximum(left, x1)
    np.maximum(width, zero, out=width)
    height = np.minimum(bottom, y2)
    height -= np.maximum(top, y1)
    np.maximum(height, zero, out=height)
    width *= height
    area = np.maximum(right - left, zero) * np.maximum(bottom - top, zero)
    union = np.add(area, np.maximum(x2 - x1, zero) * np.maximum(y2 - y1, zero), out=height)
    union -= width
    with np.errstate(divide="ignore", invalid="ignore"):
        width /= union
    return np.asarray(width > threshold)
