"""Post-processing of raw network outputs: the reference for every backend.

The steps are those of the SSD paper (section 2.2) and its Caffe implementation: activation → drop
the background → score above the threshold → best `pre_nms_top_k` of each class → NMS of each class
(suppress if IoU > threshold) → best `max_detections` of the image. Only the candidates that these
steps need are decoded. All arithmetic is float32 in a fixed order, so that GPU kernels can
reproduce it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import decode
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.preprocess import letterbox_params
from realtime_ssd.core.spec import ModelSpec

__all__ = ["PostProcessor", "RawDetections", "to_frame_detections"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_FIRST_GROUP_FACTOR = 8
"""Candidates in the first sorted group, per detection that may be kept."""

_GROUP_GROWTH = 3
"""Growth of each further group, should the detections of those before not suffice."""

_NMS_CHUNK_SIZE = 192
"""Candidates that are compared with each other in one matrix operation."""


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """Detections of one image in coordinates of the input tensor.

    Attributes:
        boxes: N × 4 float32, x1, y1, x2, y2, fractions of the input tensor, clipped only if the
            specification clips before NMS.
        scores: N float32.
        class_ids: N int32.
        box_indices: N int64, index of the default box of each detection.
    """

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int32]
    box_indices: Indices


class PostProcessor:
    """Decoding and NMS for one model; its default boxes are computed once.

    Args:
        spec: Specification of the model with the thresholds to apply.
        classes: Class ids to detect; all but the background if None.
    """

    def __init__(self, spec: ModelSpec, classes: tuple[int, ...] | None = None) -> None:
        self.spec = spec
        self._default_boxes = None if spec.coding == "corners" else spec.boxes.boxes()
        selected = range(spec.num_classes) if classes is None else classes
        self._class_ids = np.array(sorted(c for c in selected if c != spec.background), np.int64)
        self._all = len(self._class_ids) == spec.num_classes - (spec.background is not None)

    def __call__(self, scores: Floats, offsets: Floats) -> RawDetections:
        """Return the detections of one image.

        Args:
            scores: P × C raw scores.
            offsets: P × 4 raw offsets, or corners if the graph decodes the boxes.

        Returns:
            At most `max_detections`: score descending, then default-box index, then class.
        """
        rows, class_ids, values = self._candidates(scores)
        limits = self.spec.thresholds
        # NMS compares the boxes of a group: those of a class, or all.
        groups = np.zeros_like(class_ids) if limits.agnostic_nms else class_ids
        nms = _GroupNms(self.spec.num_classes, limits.pre_nms_top_k, limits.iou_threshold)
        # Only a better box suppresses a box, so candidates after the last one kept are irrelevant.
        for order in _best_first(values, _FIRST_GROUP_FACTOR * limits.max_detections):
            group = order[nms.within_top_k(groups[order])]
            boxes = self.decode(rows[group], offsets)
            nms.add(group, groups[group], boxes, limits.max_detections)
            if nms.count >= limits.max_detections:
                break
        kept, boxes = nms.best(limits.max_detections)
        return RawDetections(boxes, values[kept], class_ids[kept].astype(np.int32), rows[kept])

    def activate(self, scores: Floats) -> Floats:
        """Return the probabilities of all classes (P × C) for raw scores (P × C)."""
        if self.spec.activation == "softmax":
            return _softmax(scores)
        return _sigmoid(scores) if self.spec.activation == "sigmoid" else scores

    def _candidates(self, scores: Floats) -> tuple[Indices, Indices, Floats]:
        """Return (default box, class, probability) of every probability above the threshold.

        They are ordered by default box, then class.
        """
        limits = self.spec.thresholds
        threshold = np.asarray(limits.class_scores or limits.score_threshold, np.float32)
        if self.spec.activation == "softmax":
            rows, values = self._softmax(scores, float(np.float32(limits.lowest_score)))
        else:
            rows, values = np.arange(len(scores)), self.activate(scores)
        if not self._all:
            values = values[:, self._class_ids]
            threshold = threshold[self._class_ids] if threshold.ndim else threshold
            hits, columns = np.nonzero(values > threshold)
            return rows[hits], self._class_ids[columns], values[hits, columns]
        flat = np.flatnonzero(values > threshold)
        hits, columns = np.divmod(flat, values.shape[1])
        selected = values.ravel()[flat]
        if self.spec.background is not None:
            foreground = columns != self.spec.background
            hits, columns, selected = hits[foreground], columns[foreground], selected[foreground]
        return rows[hits], columns, selected

    def _softmax(self, scores: Floats, threshold: float) -> tuple[Indices, Floats]:
        """Return indices and softmax of the rows that may hold a probability above the threshold.

        p > t requires logit > background + log(t / (1 - t)), so most rows need no exponential.
        """
        rows = np.arange(len(scores))
        if self.spec.background is not None and 0 < threshold < 1:
            margin = np.float32(log(threshold / (1 - threshold)) - 1e-3)
            minimum = scores[:, self.spec.background] + margin
            hits = scores > minimum[:, None]
            hits[:, self.spec.background] = False
            possible = np.zeros(len(scores), bool)
            possible[np.flatnonzero(hits) // hits.shape[1]] = True
            rows = np.flatnonzero(possible)
            scores = scores[rows]
        return rows, _softmax(scores)

    def decode(self, rows: Indices, offsets: Floats) -> Floats:
        """Decode some of the boxes.

        Args:
            rows: N indices of default boxes.
            offsets: P × 4 raw offsets, or corners if the graph decodes the boxes.

        Returns:
            N × 4 float32, x1, y1, x2, y2, fractions of the input tensor.
        """
        boxes = offsets[rows].astype(np.float32, copy=False)
        if self._default_boxes is not None:
            xywh = boxes[:, [1, 0, 3, 2]] if self.spec.coding == "yxhw" else boxes
            decoded = decode(xywh, self._default_boxes[rows], self.spec.variances)
            boxes = decoded.astype(np.float32, copy=False)
        return np.clip(boxes, np.float32(0), np.float32(1)) if self.spec.clip_before_nms else boxes


def to_frame_detections(raw: RawDetections, spec: ModelSpec, width: int, height: int) -> Detections:
    """Return detections in pixels of a frame of `width` × `height`, clipped to the frame."""
    params = letterbox_params(spec.input, width, height)
    boxes = params.to_frame(raw.boxes, spec.input, width, height)
    return Detections(boxes, raw.scores, raw.class_ids, spec.labels)


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.float32(1) / (np.float32(1) + np.exp(-logits)))


def _best_first(values: Floats, group_size: int) -> Iterator[Indices]:
    """Yield the indices of all values, best first, in growing groups that are sorted on demand.

    Equal scores keep their order, which is that of the result: default box, then class.
    """
    remaining = np.arange(len(values))
    while len(remaining):
        group, remaining = remaining, remaining[:0]
        if len(group) > 2 * group_size:
            scores = values[group]
            cut = len(scores) - group_size
            top = scores >= np.partition(scores, cut)[cut]
            group, remaining = group[top], group[~top]
            group_size *= _GROUP_GROWTH
        yield group[np.argsort(-values[group], kind="stable")]


class _GroupNms:
    """Greedy NMS within groups, such as classes, over candidates that arrive best first.

    Args:
        num_groups: Number of groups.
        top_k: Candidates of a group that take part.
        threshold: IoU above which a better box of the group suppresses a box.
    """

    def __init__(self, num_groups: int, top_k: int, threshold: float) -> None:
        self.count = 0
        self._top_k, self._threshold = top_k, np.float32(threshold)
        self._candidates_per_group = np.zeros(num_groups, np.int64)
        self._kept: list[Indices] = []
        self._groups = np.zeros(0, np.int64)
        self._boxes: Floats = np.zeros((0, 4), np.float32)

    def within_top_k(self, groups: Indices) -> NDArray[np.bool_]:
        """Return which of the next candidates (N groups) are among the `top_k` of their group."""
        order = np.argsort(groups, kind="stable")
        ordered = groups[order]
        ranks = np.empty(len(groups), np.int64)
        ranks[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
        selected = ranks + self._candidates_per_group[groups] < self._top_k
        self._candidates_per_group += np.bincount(groups, minlength=len(self._candidates_per_group))
        return np.asarray(selected)

    def add(self, indices: Indices, groups: Indices, boxes: Floats, limit: int) -> None:
        """Add candidates in chunks until `limit` boxes are kept.

        Args:
            indices: N indices, returned by `best` for those that are kept.
            groups: Group of each candidate.
            boxes: N × 4, x1, y1, x2, y2.
            limit: Number of kept boxes after which the remaining candidates are skipped.
        """
        for start in range(0, len(indices), _NMS_CHUNK_SIZE):
            chunk = slice(start, start + _NMS_CHUNK_SIZE)
            self._add_chunk(indices[chunk], groups[chunk], boxes[chunk])
            if self.count >= limit:
                break

    def _add_chunk(self, indices: Indices, groups: Indices, boxes: Floats) -> None:
        if self.count:
            overlaps = _overlap_exceeds(self._boxes, boxes, self._threshold)
            overlaps &= self._groups[:, None] == groups
            free = ~overlaps.any(axis=0)
            indices, groups, boxes = indices[free], groups[free], boxes[free]
        keep = np.ones(len(groups), bool)
        overlaps = _overlap_exceeds(boxes, boxes, self._threshold)
        overlaps &= groups[:, None] == groups
        overlaps = np.triu(overlaps, 1)
        for row in np.flatnonzero(overlaps.any(axis=1)).tolist():
            if keep[row]:
                keep[overlaps[row]] = False
        self._kept.append(indices[keep])
        self._groups = np.concatenate([self._groups, groups[keep]])
        self._boxes = np.concatenate([self._boxes, boxes[keep]])
        self.count = len(self._groups)

    def best(self, limit: int) -> tuple[Indices, Floats]:
        """Return indices and boxes of the best kept candidates, at most `limit`."""
        indices = np.concatenate([np.zeros(0, np.int64), *self._kept])
        return indices[:limit], self._boxes[:limit]


def _overlap_exceeds(first: Floats, second: Floats, threshold: np.float32) -> NDArray[np.bool_]:
    """Return whether IoU > threshold for each pair of N × 4 and M × 4 boxes, as N × M.

    Equals `iou(first, second) > threshold` in float32, but computes in place, which is faster.
    """
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
