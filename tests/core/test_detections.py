"""The answer and what it converts to."""

from __future__ import annotations

import numpy as np
import pytest
import supervision

from realtime_ssd import Detections


@pytest.fixture
def found() -> Detections:
    return Detections(
        np.array([[1, 2, 30, 40], [5.5, 6, 7, 8.25]], np.float32),
        np.array([0.9, 0.4], np.float32),
        np.array([2, 1], np.int32),
        ("background", "car", "person"),
    )


def test_to_supervision(found: Detections) -> None:
    given = found.to_supervision()
    assert isinstance(given, supervision.Detections)
    assert given.xyxy.tolist() == [[1, 2, 30, 40], [5.5, 6, 7, 8.25]]
    assert given["class_name"].tolist() == ["person", "car"]
    cars = given[given.class_id == 1]
    assert cars.confidence.tolist() == [pytest.approx(0.4)]
    given.xyxy[:] = 0  # a copy: the answer stays as it was
    assert found.boxes[0, 3] == 40
    assert len(Detections.empty().to_supervision()) == 0


def test_to_dicts_and_iteration(found: Detections) -> None:
    first, second = found.to_dicts()
    assert first == {"label": "person", "class_id": 2, "score": 0.9, "box": [1, 2, 30, 40]}
    assert [one.label for one in found] == ["person", "car"]
    assert second["box"] == [5.5, 6, 7, 8.25]
    assert found.select(found.scores > 0.5).to_dicts() == [first]
    assert found.label_of(7) == "7"
