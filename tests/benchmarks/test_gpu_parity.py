"""Comparison of the GPU's detections with the reference."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gpu.head_cases import ssd300_case
from benchmarks.gpu.parity import difference
from realtime_ssd.core.postprocess import PostProcessor, RawDetections


def detections(*rows: tuple[int, float]) -> RawDetections:
    """Return detections of (default box, score), all of class 1."""
    boxes = np.array([[box, 0, box + 1, 1] for box, _ in rows], np.float32).reshape(-1, 4)
    return RawDetections(
        boxes=boxes,
        scores=np.array([score for _, score in rows], np.float32),
        class_ids=np.ones(len(rows), np.int32),
        box_indices=np.array([box for box, _ in rows], np.int64),
    )


def test_different_detections_are_reported() -> None:
    case = ssd300_case(np.random.default_rng(1), 1)
    expected = PostProcessor(case.spec)(case.scores[0], case.offsets[0])
    assert len(expected.scores) == case.spec.thresholds.max_detections
    assert difference(expected, expected) == ""
    stricter = PostProcessor(case.spec.with_thresholds(iou_threshold=0.2))(
        case.scores[0], case.offsets[0]
    )
    assert "differ by more than the order of equal scores" in difference(stricter, expected)
    moved = PostProcessor(case.spec)(case.scores[0], case.offsets[0] + np.float32(0.01))
    assert difference(moved, expected)


def test_the_order_of_rows_is_not_compared() -> None:
    one, two = (3, 0.9), (5, 0.8)
    assert difference(detections(one, two), detections(two, one)) == ""


@pytest.mark.parametrize(("gap", "equal"), [(4e-7, True), (1e-5, False)])
def test_almost_equal_scores_may_replace_each_other(gap: float, equal: bool) -> None:
    got, expected = detections((3, 0.9), (7, 0.5)), detections((3, 0.9), (8, 0.5 + gap))
    assert (difference(got, expected) == "") is equal
    assert (difference(expected, got) == "") is equal


@pytest.mark.parametrize(("score", "equal"), [(0.01 + 4e-7, True), (0.02, False)])
def test_a_score_at_the_threshold_may_be_absent(score: float, equal: bool) -> None:
    got, expected = detections((3, 0.9)), detections((3, 0.9), (7, score))
    assert (difference(got, expected, 0.01) == "") is equal
    assert (difference(expected, got, 0.01) == "") is equal
    assert difference(got, expected)


def test_boxes_and_scores_of_equal_detections_are_compared() -> None:
    got, expected = detections((3, 0.9)), detections((3, 0.9))
    got.boxes[0, 0] += 0.1
    assert difference(got, expected).startswith("boxes differ by 0.1")
    assert difference(detections((3, 0.91)), expected).startswith("scores differ by 0.01")
