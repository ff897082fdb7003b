"""Ground truth and detections for the tests of metrics and error analysis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from realtime_ssd_training.data.sample import Annotation

from realtime_ssd.core.detections import Detections

LABELS = ("background", "cat", "dog")
Box = tuple[float, float, float, float]

A: Box = (0, 0, 10, 10)
B: Box = (20, 0, 30, 10)
C: Box = (40, 0, 50, 10)
BACKGROUND: Box = (100, 100, 110, 110)


def annotation(
    boxes: Sequence[Box] | NDArray[np.float64],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    difficult: Sequence[int] = (),
    crowd: Sequence[int] = (),
    areas: Sequence[float] | None = None,
) -> Annotation:
    """Return ground truth of class 1; `difficult` and `crowd` are indices of boxes."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = array[:, 2:] - array[:, :2]
    indices = np.arange(len(array))
    return Annotation(
        "image",
        640,
        480,
        array,
        np.ones(len(array), np.int64) if labels is None else np.array(labels, np.int64),
        np.isin(indices, difficult),
        np.isin(indices, crowd),
        np.array(sides.prod(axis=1) if areas is None else areas, np.float32),
    )


def detections(rows: Sequence[tuple[float, Box]], class_id: int = 1) -> Detections:
    """Return detections from pairs of score and box."""
    return Detections(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _ in rows], np.float32),
        np.full(len(rows), class_id, np.int32),
        LABELS,
    )


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Annotation], list[Detections]]:
    """Generate a few images whose detections lie on and off the objects."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ground_truth, detected = [], []
    for _ in range(draw(st.integers(1, 4))):
        low = rng.uniform(0, 300, (rng.integers(0, 6), 2))
        boxes = np.hstack([low, low + rng.uniform(5, 150, low.shape)])
        crowd = np.flatnonzero(rng.random(len(boxes)) < 0.1).tolist()
        difficult = np.flatnonzero(rng.random(len(boxes)) < 0.1).tolist()
        ground_truth.append(annotation(boxes, rng.integers(1, 3, len(boxes)), difficult, crowd))
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 8, (2 * len(boxes), 4))
        kept = near[(near[:, 2:] - near[:, :2] > 1).all(axis=1)].astype(np.float32)
        scores = rng.permutation(1000)[: len(kept)].astype(np.float32) / np.float32(1000)
        ids = rng.integers(1, 3, len(kept)).astype(np.int32)
        detected.append(Detections(kept, scores, ids, LABELS))
    return ground_truth, detected
