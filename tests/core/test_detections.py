"""`Detections`: selection, conversion to JSON and conversion from and to supervision."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import supervision
from numpy.typing import NDArray

from realtime_ssd import Detection, Detections
from realtime_ssd.core.errors import RealtimeSSDError

LABELS = ("background", "car", "person")


@pytest.fixture
def plain() -> Detections:
    return Detections(
        np.array([[1, 2, 30, 40], [5.5, 6, 7, 8.25], [0, 1 / 3, 2, 3]], np.float32),
        np.array([0.9, 0.4, 1 / 3], np.float32),
        np.array([2, 1, 1], np.int32),
        LABELS,
    )


@pytest.fixture
def tracked(plain: Detections) -> Detections:
    return Detections(
        plain.boxes,
        plain.scores,
        plain.class_ids,
        LABELS,
        np.array([7, -1, 3], np.int64),
        {"speed": np.array([1.5, 2.5, 3.5]), "plate": np.array(["A", "B", "C"])},
    )


def test_to_dicts_rounds_and_keeps_order(plain: Detections) -> None:
    first, second, third = plain.to_dicts()
    assert first == {"label": "person", "class_id": 2, "score": 0.9, "box": [1, 2, 30, 40]}
    assert list(first) == ["label", "class_id", "score", "box"]
    assert second["box"] == [5.5, 6, 7, 8.25]
    assert third == {"label": "car", "class_id": 1, "score": 0.333333, "box": [0, 0.333, 2, 3]}


def test_to_dicts_adds_track_ids_and_columns(tracked: Detections) -> None:
    rows = tracked.to_dicts()
    assert [row["track_id"] for row in rows] == [7, None, 3]
    assert list(rows[0]) == ["label", "class_id", "score", "box", "track_id", "speed", "plate"]
    assert json.loads(json.dumps(rows[2])) == {
        "label": "car",
        "class_id": 1,
        "score": 0.333333,
        "box": [0, 0.333, 2, 3],
        "track_id": 3,
        "speed": 3.5,
        "plate": "C",
    }


def test_iteration(plain: Detections, tracked: Detections) -> None:
    assert [item.label for item in plain] == ["person", "car", "car"]
    assert [item.track_id for item in plain] == [None, None, None]
    assert [item.track_id for item in tracked] == [7, None, 3]
    score = float(np.float32(0.4))
    assert list(plain)[1] == Detection("car", 1, score, (5.5, 6, 7, 8.25))


@pytest.mark.parametrize("index", [0, 1, -1, np.int64(2)])
def test_integer_index_returns_one_detection(
    plain: Detections, tracked: Detections, index: int
) -> None:
    assert tracked[index] == list(tracked)[index]
    assert plain[index] == list(plain)[index]
    assert type(tracked[index].track_id) in (int, type(None))
    assert type(tracked[index].class_id) is int


def test_index_out_of_range(plain: Detections) -> None:
    for rows in (3, [3], [True, False]):
        with pytest.raises(IndexError):
            plain[rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([True, False, True], [0, 2]),
        (np.array([2, 0]), [2, 0]),
        ([2, 2], [2, 2]),
        ([], []),
    ],
)
@pytest.mark.parametrize("choose", [Detections.__getitem__, Detections.select])
def test_selection_keeps_track_ids_and_columns(
    tracked: Detections, choose: Callable[..., Detections], rows: Any, expected: list[int]
) -> None:
    chosen = choose(tracked, rows)
    assert chosen.to_dicts() == [tracked.to_dicts()[row] for row in expected]
    assert chosen.labels == LABELS
    assert chosen.track_ids is not None
    assert set(chosen.columns) == {"speed", "plate"}


def test_selection_without_tracking_has_no_track_ids(plain: Detections) -> None:
    chosen = plain.select(plain.scores > 0.5)
    assert chosen.to_dicts() == plain.to_dicts()[:1]
    assert chosen.track_ids is None


def test_short_repr(plain: Detections) -> None:
    assert repr(plain) == "Detections(3: person 0.90, car 0.40, car 0.33)"
    assert repr(plain[[0] * 5]) == "Detections(5: " + ", ".join(["person 0.90"] * 5) + ")"
    assert repr(plain[[0] * 6]) == "Detections(6: " + ", ".join(["person 0.90"] * 5) + ", ...)"
    assert repr(Detections.empty()) == "Detections(0)"


def test_label_of_unknown_class(plain: Detections) -> None:
    assert [plain.label_of(number) for number in (0, 2, 3, -1)] == [
        "background",
        "person",
        "3",
        "-1",
    ]


Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def arrays(boxes: int = 2, scores: int = 2, class_ids: int = 2) -> Arrays:
    return np.zeros((boxes, 4), np.float32), np.zeros(scores, np.float32), np.zeros(class_ids, "i4")


@pytest.mark.parametrize(
    "parts",
    [
        arrays(boxes=3),
        arrays(scores=3),
        arrays(class_ids=1),
        (np.zeros((2, 5), np.float32), *arrays()[1:]),
        (np.zeros((2, 1, 4)), np.zeros((2, 1)), np.zeros((2, 1))),
    ],
)
def test_arrays_of_different_lengths_are_rejected(parts: Arrays) -> None:
    with pytest.raises(ValueError, match=r"expected N × 4 `boxes`, N `scores` and N `class_ids`"):
        Detections(*parts)


def test_track_ids_and_columns_must_fit() -> None:
    with pytest.raises(ValueError, match="expected 2 `track_ids`"):
        Detections(*arrays(), track_ids=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="expected 2 rows in column 'speed'"):
        Detections(*arrays(), columns={"speed": np.zeros(3)})
    with pytest.raises(ValueError, match="cannot be named 'score'"):
        Detections(*arrays(), columns={"score": np.zeros(2)})
    assert len(Detections(*arrays(), columns={"keypoints": np.zeros((2, 17, 3))})) == 2


def test_to_supervision(plain: Detections) -> None:
    converted = plain.to_supervision()
    assert isinstance(converted, supervision.Detections)
    assert converted.xyxy.tolist() == plain.boxes.tolist()
    assert converted.tracker_id is None
    assert converted["class_name"].tolist() == ["person", "car", "car"]
    cars = converted[converted.class_id == 1]
    assert cars.confidence.tolist() == plain.scores[1:].tolist()
    converted.xyxy[:] = 0  # a copy: the original stays as it was
    assert plain.boxes[0, 3] == 40
    assert len(Detections.empty().to_supervision()) == 0


def test_supervision_round_trip(tracked: Detections) -> None:
    converted = tracked.to_supervision()
    assert converted.tracker_id.tolist() == [7, -1, 3]
    assert converted["plate"].tolist() == ["A", "B", "C"]
    back = Detections.from_supervision(converted)
    assert back.to_dicts() == tracked.to_dicts()
    assert back.labels == ("0", "car", "person")
    assert Detections.from_supervision(converted, LABELS).labels == LABELS
    assert (back.boxes.dtype.name, back.class_ids.dtype.name) == ("float32", "int32")


def test_from_supervision_with_boxes_only() -> None:
    converted = Detections.from_supervision(supervision.Detections(xyxy=np.array([[1, 2, 3, 4]])))
    assert converted.to_dicts() == [
        {"label": "0", "class_id": 0, "score": 1.0, "box": [1.0, 2.0, 3.0, 4.0]}
    ]
    assert converted.labels == ()
    assert len(Detections.from_supervision(supervision.Detections.empty())) == 0


def test_from_supervision_rejects_contradicting_names(plain: Detections) -> None:
    converted = plain.to_supervision()
    converted.data["class_name"] = np.array(["person", "car", "truck"])
    with pytest.raises(ValueError, match="class 1 is called 'car' and 'truck'"):
        Detections.from_supervision(converted)


def test_missing_supervision_is_named(plain: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RealtimeSSDError, match=r"pip install 'realtime-ssd\[track\]'"):
        plain.to_supervision()
