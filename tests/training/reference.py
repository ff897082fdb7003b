"""Matching and loss once more, plainly, in numpy and loops, as the paper tells them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IGNORED, BACKGROUND = -2, -1


def overlap(first: Array, second: Array) -> tuple[float, float]:
    """Give the intersection over union of two boxes, and the share of the second it covers."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    common = width * height
    return common / (areas[0] + areas[1] - common), common / areas[1]


def corners(boxes: Array) -> Array:
    """Turn (cx, cy, w, h) into (x1, y1, x2, y2)."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def match(
    defaults: Array, boxes: Array, ignored: Sequence[bool], threshold: float, first: str
) -> list[int]:
    """Give each default box the index of its object, or `BACKGROUND` or `IGNORED`."""
    places = corners(defaults)
    pairs = {
        (n, p): overlap(boxes[n], places[p]) for n in range(len(boxes)) for p in range(len(places))
    }
    real = [n for n in range(len(boxes)) if not ignored[n]]
    found = [BACKGROUND] * len(places)
    for p in range(len(places)):
        if any(ignored[n] and pairs[n, p][1] >= 0.5 for n in range(len(boxes))):
            found[p] = IGNORED
        if real:
            best = max(real, key=lambda n, p=p: (pairs[n, p][0], -n))
            if pairs[best, p][0] >= threshold:
                found[p] = best
    if first == "forced":
        for n in real:
            found[max(range(len(places)), key=lambda p, n=n: (pairs[n, p][0], -p))] = n
        return found
    left = {(n, p): pairs[n, p][0] for n in real for p in range(len(places))}
    while left:
        n, p = max(left, key=lambda pair: (left[pair], -pair[0], -pair[1]))
        if left[n, p] <= 0:
            break
        found[p] = n
        left = {pair: value for pair, value in left.items() if pair[0] != n and pair[1] != p}
    return found


def encode(box: Array, default: Array, variances: Sequence[float]) -> Array:
    """Give the offsets (cx, cy, w, h) of a box (x1, y1, x2, y2) from a default box."""
    size = box[2:] - box[:2]
    centre = box[:2] + size / 2
    return np.concatenate(
        [(centre - default[:2]) / default[2:], np.log(size / default[2:])]
    ) / np.array(variances)


def loss(
    scores: Array,
    offsets: Array,
    found: Sequence[int],
    boxes: Array,
    labels: Sequence[int],
    defaults: Array,
    variances: Sequence[float],
    ratio: float,
) -> tuple[float, float, int]:
    """Give the summed loss of scores and offsets of one image, and its matched default boxes."""
    entropy = []
    for row, n in zip(scores, found, strict=True):
        top = row.max()
        total = top + np.log(np.exp(row - top).sum())
        entropy.append(total - row[labels[n] if n >= 0 else 0])
    matched = [p for p, n in enumerate(found) if n >= 0]
    free = [p for p, n in enumerate(found) if n == BACKGROUND]
    free.sort(key=lambda p: (-entropy[p], p))
    hard = free[: int(len(matched) * ratio)]
    distance = 0.0
    for p in matched:
        for gap in np.abs(offsets[p] - encode(boxes[found[p]], defaults[p], variances)):
            distance += gap * gap / 2 if gap < 1 else gap - 0.5
    return float(sum(entropy[p] for p in [*matched, *hard])), distance, len(matched)
