"""How far the detections of two programs agree, measured before they are timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realtime_ssd import Detections
from realtime_ssd.core.boxes import iou

__all__ = ["SAME_DETECTIONS", "agreement"]

MIN_IOU, MAX_SCORE_DIFFERENCE = 0.95, 0.02
SAME_DETECTIONS = 0.98
"""Agreement from which two programs count as producing the same detections."""


def agreement(ours: Sequence[Detections], theirs: Sequence[Detections]) -> float:
    """Return the share of the detections of both programs that have a match in the other.

    Args:
        ours: Detections of each frame.
        theirs: Detections of the other program in the same frames.

    Returns:
        Share from 0 to 1. A match has the same class, an IoU of at least 0.95 and a score at most
        0.02 apart.
    """
    matched = total = 0
    for first, second in zip(ours, theirs, strict=True):
        total += len(first) + len(second)
        if not len(first) or not len(second):
            continue
        matches = (
            (iou(first.boxes, second.boxes) >= MIN_IOU)
            & (first.class_ids[:, None] == second.class_ids[None])
            & (np.abs(first.scores[:, None] - second.scores[None]) <= MAX_SCORE_DIFFERENCE)
        )
        matched += int(matches.any(axis=1).sum() + matches.any(axis=0).sum())
    return matched / total if total else 1.0
