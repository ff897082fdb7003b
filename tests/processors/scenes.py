"""Results made by hand: moving boxes with times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import FrameResult

LABELS = ("background", "car", "person")
WIDTH, HEIGHT, FPS = 200, 100, 25


def box_at(x: float, y: float, side: float = 20.0) -> list[float]:
    """Return a box whose bottom center is x, y."""
    return [x - side / 2, y - side, x + side / 2, y]


def result(
    boxes: Sequence[Sequence[float]],
    number: int = 0,
    *,
    tracks: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    image: NDArray[np.uint8] | None = None,
) -> FrameResult:
    count = len(boxes)
    if image is None:
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    detections = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([0.9] * count if scores is None else scores, np.float32),
        np.array([1] * count if classes is None else classes, np.int32),
        LABELS,
        None if tracks is None else np.array(tracks, np.int64),
    )
    return FrameResult(Frame(image, number, "camera", number, Fraction(1, FPS)), detections)
