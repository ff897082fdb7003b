"""From raw heads to detections: the reference that every backend must equal.

The steps are those of the SSD paper (section 2.2) and of its Caffe implementation: activate →
drop the background → score above the threshold → best `top_k` of each class → NMS of each class
(suppress when IoU > threshold) → best `keep` of the image. Only surviving candidates are decoded.
All arithmetic is float32 in a fixed order, so that kernels can follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.boxes import decode
from realtime_ssd.detections import Detections
from realtime_ssd.preprocess import place
from realtime_ssd.spec import ModelSpec

__all__ = ["Found", "PostProcessor", "locate"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

PAIRS_AT_ONCE = 200_000
LEADERS = 4  # candidates looked at first, for each detection that may be kept


@dataclass(frozen=True, slots=True, eq=False)
class Found:
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
        self._columns = np.array([c for c in wanted if c != spec.background], np.int64)
        self._all = len(self._columns) == spec.num_classes - (spec.background is not None)

    def __call__(self, scores: Floats, offsets: Floats) -> Found:
        """Find the objects of one image.

        Args:
            scores: P × C raw scores.
            offsets: P × 4 raw offsets, or corners if the graph decodes.

        Returns:
            At most `keep` detections: score descending, then default-box index, then class.
        """
        rows, columns, values = self._candidates(scores)
        keep, size = self.spec.thresholds.keep, LEADERS * self.spec.thresholds.keep
        while True:
            # A box is dropped only for a better one, so that the leaders alone tell which of them
            # stay; the rest matters only if too few do.
            lead = _leaders(values, size)
            found = self._survivors(rows[lead], columns[lead], values[lead], offsets)
            if len(found.scores) == keep or len(lead) == len(values):
                return found
            size *= 4

    def _survivors(self, rows: Indices, columns: Indices, values: Floats, offsets: Floats) -> Found:
        """Cut each class to its best, decode, suppress, and keep the best of the image."""
        limits = self.spec.thresholds
        rows, columns, values = _best_of_each_class(rows, columns, values, limits.top_k)
        boxes = self.decode(rows, offsets)
        kept = _suppress(boxes, columns, limits.nms)
        rows, columns, values, boxes = rows[kept], columns[kept], values[kept], boxes[kept]
        order = np.lexsort((columns, rows, -values))[: limits.keep]
        return Found(boxes[order], values[order], columns[order].astype(np.int32), rows[order])

    def activate(self, scores: Floats) -> Floats:
        """Turn raw scores (P × C) into probabilities of all classes (P × C)."""
        if self.spec.activation == "softmax":
            return _softmax(scores)
        return _sigmoid(scores) if self.spec.activation == "sigmoid" else scores

    def _candidates(self, scores: Floats) -> tuple[Indices, Indices, Floats]:
        """List (default box, class, probability) of every probability above the threshold."""
        threshold = np.float32(self.spec.thresholds.score)
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
            near = np.flatnonzero(hits.any(axis=1))
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
        picked = offsets[rows].astype(np.float32, copy=False)
        if self._default_boxes is None:
            return picked
        if self.spec.coding == "yxhw":
            picked = picked[:, [1, 0, 3, 2]]
        boxes = decode(picked, self._default_boxes[rows], self.spec.variances)
        boxes = boxes.astype(np.float32, copy=False)
        return np.clip(boxes, np.float32(0), np.float32(1)) if self.spec.clip_before_nms else boxes


def locate(found: Found, spec: ModelSpec, width: int, height: int) -> Detections:
    """Map what was found to the pixels of a frame of `width` × `height`, clipped to it."""
    boxes = place(spec.input, width, height).to_frame(found.boxes, spec.input, width, height)
    return Detections(boxes, found.scores, found.class_ids, spec.labels)


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def _leaders(values: Floats, size: int) -> Indices:
    """Find the `size` best candidates and all that score like the last of them."""
    if len(values) <= size:
        return np.arange(len(values))
    least = np.partition(values, len(values) - size)[len(values) - size]
    return np.flatnonzero(values >= least)


def _best_of_each_class(
    rows: Indices, columns: Indices, values: Floats, top_k: int
) -> tuple[Indices, Indices, Floats]:
    """Sort by class, then score descending, then default box, and cut each class to `top_k`."""
    order = np.lexsort((rows, -values, columns))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.searchsorted(columns, columns, side="left")
    good = np.arange(len(columns)) - starts < top_k
    return rows[good], columns[good], values[good]


def _suppress(boxes: Floats, columns: Indices, threshold: float) -> NDArray[np.bool_]:
    """Greedy NMS inside each class over candidates sorted by class and score.

    All pairs of a class are compared at once; only pairs that overlap too much are then walked in
    order, which gives exactly the greedy result.
    """
    keep = np.ones(len(boxes), bool)
    _, starts, counts = np.unique(columns, return_index=True, return_counts=True)
    for first, second in _pair_blocks(starts, counts):
        hit = _overlap_exceeds(boxes, first, second, np.float32(threshold))
        for winner, loser in zip(first[hit].tolist(), second[hit].tolist(), strict=True):
            if keep[winner]:
                keep[loser] = False
    return keep


def _pair_blocks(starts: Indices, counts: Indices) -> list[tuple[Indices, Indices]]:
    """List pairs (better, worse) of each class, best first, several small classes to a block."""
    blocks: list[tuple[Indices, Indices]] = []
    pending: list[tuple[Indices, Indices]] = []
    size = 0
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count < 2:
            continue
        first, second = np.triu_indices(count, 1)
        pending.append((first + start, second + start))
        size += len(first)
        if size >= PAIRS_AT_ONCE:
            blocks.append(_join(pending))
            pending, size = [], 0
    return [*blocks, _join(pending)] if pending else blocks


def _join(pairs: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _overlap_exceeds(
    boxes: Floats, first: Indices, second: Indices, threshold: np.float32
) -> NDArray[np.bool_]:
    """Tell for each pair whether IoU > threshold, in float32."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    zero = np.float32(0)
    width = np.maximum(np.minimum(x2[first], x2[second]) - np.maximum(x1[first], x1[second]), zero)
    height = np.maximum(np.minimum(y2[first], y2[second]) - np.maximum(y1[first], y1[second]), zero)
    overlap = width * height
    areas = np.maximum(x2 - x1, zero) * np.maximum(y2 - y1, zero)
    union = areas[first] + areas[second] - overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(overlap / union > threshold)
