"""Reference implementation of matching and loss in plain numpy loops, following the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IGNORED, UNMATCHED = -2, -1


def overlap(first: Array, second: Array) -> tuple[float, float]:
    """Return the IoU of two boxes, and the fraction of the second one that the first covers."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    intersection = width * height
    return intersection / (areas[0] + areas[1] - intersection), intersection / areas[1]


def corners(boxes: Array) -> Array:
    """Convert (cx, cy, w, h) to (x1, y1, x2, y2)."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def match(
    defaults: Array, boxes: Array, ignored: Sequence[bool], threshold: float, first: str
) -> list[int]:
    """Return for each default box the index of its object, or `UNMATCHED` or `IGNORED`."""
    default_corners = corners(defaults)
    pairs = {
        (n, p): overlap(boxes[n], default_corners[p])
        for n in range(len(boxes))
        for p in range(len(defaults))
    }
    iou = {pair: value for pair, (value, _) in pairs.items() if not ignored[pair[0]]}
    valid = [n for n in range(len(boxes)) if not ignored[n]]
    objects = [UNMATCHED] * len(defaults)
    for p in range(len(defaults)):
        if any(ignored[n] and pairs[n, p][1] >= 0.5 for n in range(len(boxes))):
            objects[p] = IGNORED
        if valid:
            best, negative_index = max((iou[n, p], -n) for n in valid)
            if best >= threshold:
                objects[p] = -negative_index
    if first == "forced":
        for n in valid:
            _, negative_index = max((iou[n, p], -p) for p in range(len(defaults)))
            objects[-negative_index] = n
        return objects
    while iou:
        value, n, p = max((value, -n, -p) for (n, p), value in iou.items())
        if value <= 0:
            break
        objects[-p] = -n
        iou = {pair: value for pair, value in iou.items() if pair[0] != -n and pair[1] != -p}
    return objects


def encode(box: Array, default: Array, variances: Sequence[float]) -> Array:
    """Return the offsets (cx, cy, w, h) of a box (x1, y1, x2, y2) from a default box."""
    size = box[2:] - box[:2]
    center = box[:2] + size / 2
    offsets: Array = np.concatenate(
        [(center - default[:2]) / default[2:], np.log(size / default[2:])]
    )
    scaled: Array = offsets / np.array(variances)
    return scaled


def loss(
    scores: Array,
    offsets: Array,
    objects: Sequence[int],
    boxes: Array,
    labels: Sequence[int],
    defaults: Array,
    variances: Sequence[float],
    ratio: float,
) -> tuple[float, float, int]:
    """Return the summed score and offset losses of one image, and its matched default boxes."""
    entropy = []
    for row, n in zip(scores, objects, strict=True):
        top = row.max()
        log_sum = top + np.log(np.exp(row - top).sum())
        entropy.append(log_sum - row[labels[n] if n >= 0 else 0])
    matched = [p for p, n in enumerate(objects) if n >= 0]
    background = [p for p, n in enumerate(objects) if n == UNMATCHED]
    background.sort(key=lambda p: (-entropy[p], p))
    negatives = background[: int(len(matched) * ratio)]
    distance = 0.0
    for p in matched:
        for gap in np.abs(offsets[p] - encode(boxes[objects[p]], defaults[p], variances)):
            distance += gap * gap / 2 if gap < 1 else gap - 0.5
    return float(sum(entropy[p] for p in [*matched, *negatives])), distance, len(matched)
