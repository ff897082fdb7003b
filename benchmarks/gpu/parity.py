"""Compares detections of the GPU with those of the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.postprocess import RawDetections

__all__ = ["SCORE_GAP", "difference"]

SCORE_GAP = 1e-6
"""Scores that are closer may be in either order, because exponentials are rounded differently."""


def difference(got: RawDetections, expected: RawDetections, threshold: float | None = None) -> str:
    """Return how two results differ, or "" if they agree.

    Both are compared as sets. Scores and boxes may differ by rounding errors. Where the score of
    two detections is almost equal, either may be the one that suppresses the other or is among the
    best; and a detection may be absent if its score is almost equal to the threshold.

    Args:
        got: Detections of the GPU.
        expected: Detections of the reference.
        threshold: Score threshold of the model.
    """
    got_keys, expected_keys = _keys(got), _keys(expected)
    common, got_rows, expected_rows = np.intersect1d(got_keys, expected_keys, return_indices=True)
    extra = np.setdiff1d(np.arange(len(got_keys)), got_rows)
    absent = np.setdiff1d(np.arange(len(expected_keys)), expected_rows)
    unexplained = _unexplained(got.scores[extra], expected.scores[absent], threshold)
    if unexplained:
        return (
            f"{len(got_keys)} detections instead of {len(expected_keys)}, {len(common)} of them "
            f"equal; {unexplained} differ by more than the order of equal scores"
        )
    for name in ("scores", "boxes"):
        actual, reference = getattr(got, name)[got_rows], getattr(expected, name)[expected_rows]
        if not np.allclose(actual, reference, rtol=2e-5, atol=2e-6):
            return f"{name} differ by {np.abs(actual - reference).max():.3g}"
    return ""


def _keys(raw: RawDetections) -> NDArray[np.int64]:
    """Return the default box and the class of each detection as one number."""
    return raw.box_indices.astype(np.int64) << 32 | raw.class_ids.astype(np.int64)


def _unexplained(
    extra: NDArray[np.float32], absent: NDArray[np.float32], threshold: float | None
) -> int:
    """Return how many detections have no counterpart with almost the same score."""
    remaining, unexplained = sorted(absent.tolist()), 0
    for score in sorted(extra.tolist()):
        partner = next((other for other in remaining if abs(other - score) < SCORE_GAP), None)
        if partner is not None:
            remaining.remove(partner)
        elif threshold is None or abs(score - threshold) >= SCORE_GAP:
            unexplained += 1
    at_threshold = [
        score for score in remaining if threshold is not None and abs(score - threshold) < SCORE_GAP
    ]
    return unexplained + len(remaining) - len(at_threshold)
