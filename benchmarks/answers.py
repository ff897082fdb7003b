"""Whether two programs gave the same answers, asked before they are timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realtime_ssd import Detections
from realtime_ssd.core.boxes import iou

__all__ = ["agreement"]

OVERLAP, SCORE = 0.95, 0.02


def agreement(first: Sequence[Detections], second: Sequence[Detections]) -> float:
    """Give the share of detections of both that the other has too.

    Args:
        first: Detections of each frame.
        second: Those of the other program, for the same frames.

    Returns:
        Share from 0 to 1: same class, IoU of at least 0.95, scores at most 0.02 apart.
    """
    found = total = 0
    for one, other in zip(first, second, strict=True):
        total += len(one) + len(other)
        if not len(one) or not len(other):
            continue
        same = (
            (iou(one.boxes, other.boxes) >= OVERLAP)
            & (one.class_ids[:, None] == other.class_ids[None])
            & (np.abs(one.scores[:, None] - other.scores[None]) <= SCORE)
        )
        found += int(same.any(axis=1).sum() + same.any(axis=0).sum())
    return found / total if total else 1.0
