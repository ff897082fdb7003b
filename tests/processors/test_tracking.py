from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors import Tracker
from realtime_ssd.processors.tracking import METHODS
from realtime_ssd.synthetic import StreetScene
from tests.processors.scenes import FPS, box_at, result
from tests.processors.street_truth import results

supervision = pytest.importorskip("supervision")
trackers = pytest.importorskip("trackers")


def moving(step: int, number: int) -> FrameResult:
    """Two objects that move apart by `step` pixels a frame."""
    return result([box_at(40 + step * number, 40), box_at(40, 90)], number)


@pytest.mark.parametrize("method", METHODS)
def test_ids_equal_those_of_the_library_on_the_same_boxes(method: str) -> None:
    street = results(StreetScene(320, 180, seed=3), 40)
    library = getattr(trackers, METHODS[method])(frame_rate=30.0)
    defaults = {"track_activation_threshold": 0.7, "high_conf_det_threshold": 0.6}
    parameters = {name: value for name, value in defaults.items() if hasattr(library, name)}
    tracker = Tracker(method, parameters=parameters)
    known = 0
    for frame in street:
        detections = frame.detections
        expected = library.update(
            supervision.Detections(
                xyxy=detections.boxes,
                confidence=detections.scores,
                class_id=detections.class_ids.astype(int),
                data={"row": np.arange(len(detections))},
            ),
            frame.frame.image if method == "botsort" else None,
            timestamp=frame.frame.time,
        )
        ids = np.full(len(detections), -1)
        ids[expected.data["row"]] = expected.tracker_id
        found = tracker.process(replace(frame, detections=replace(detections, track_ids=None)))
        assert found.detections.track_ids is not None
        assert found.detections.track_ids.tolist() == [n + 1 if n >= 0 else -1 for n in ids]
        known += int((ids >= 0).sum())
    assert known > 100


def test_order_boxes_and_columns_stay() -> None:
    tracker = Tracker()
    tracker.process(moving(2, 0))
    before = moving(2, 1)
    detections = replace(before.detections, columns={"row": np.array([7, 8])})
    after = tracker.process(replace(before, detections=detections)).detections
    assert np.array_equal(after.boxes, detections.boxes)
    assert after.columns["row"].tolist() == [7, 8]
    assert [item.track_id for item in after] == [1, 2]


def test_objects_without_a_track_have_none() -> None:
    found = Tracker().process(moving(2, 0)).detections
    assert [item.track_id for item in found] == [None, None]
    assert [row["track_id"] for row in found.to_dicts()] == [None, None]


def test_real_times_bridge_missing_frames() -> None:
    """An object that moves by its own width during a gap keeps its number."""
    tracker = Tracker(frame_rate=FPS)
    for number in range(15):
        before = tracker.process(moving(4, number)).detections
    after = tracker.process(moving(4, 20)).detections  # five frames are missing
    assert before[0].track_id is not None
    assert [item.track_id for item in after] == [item.track_id for item in before]


def test_numbers_are_not_used_again_after_a_reset() -> None:
    tracker = Tracker()
    for number in range(3):
        first = tracker.process(moving(2, number)).detections
    tracker.reset()
    for number in range(3, 6):
        second = tracker.process(moving(2, number)).detections
    assert [item.track_id for item in first] == [1, 2]
    assert [item.track_id for item in second] == [3, 4]


def test_the_class_is_that_with_the_largest_sum_of_scores() -> None:
    tracker = Tracker()
    seen = []
    for number, (kind, score) in enumerate([(1, 0.9), (2, 0.6), (2, 0.6), (1, 0.9), (2, 0.9)]):
        frame = result([box_at(50, 50)], number, classes=[kind], scores=[score])
        seen.append(tracker.process(frame).detections[0].label)
    # The first frame has no track yet and does not vote; then 0.6, 1.2 against 0.9, then 2.1.
    assert seen == ["car", "person", "person", "person", "person"]


def test_young_tracks_are_removed() -> None:
    tracker = Tracker(min_seconds=0.2)
    counts = [len(tracker.process(moving(1, number)).detections) for number in range(9)]
    assert counts == [0] * 6 + [2] * 3


def test_paths_of_the_last_seconds_are_drawn() -> None:
    tracker = Tracker(traces=0.4)
    for number in range(30):
        found = tracker.process(moving(4, number))
    drawn = found.annotated_image()
    columns = np.flatnonzero(drawn[38:43].any(axis=(0, 2)))
    # 0.4 s are 10 frames of 4 pixels; the object is at 40 + 29 × 4.
    assert columns.min() >= 156 - 40 - 3
    assert columns.max() <= 156 + 3
    assert len(columns) >= 36


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="`track` must be bytetrack, ocsort, botsort, sort or off"):
        Tracker("deepsort")
    with pytest.raises(UsageError, match="tracker 'sort' has no parameter 'speed'; it has"):
        Tracker("sort", parameters={"speed": 1})
    with pytest.raises(UsageError, match="tracker 'sort' refuses its parameters"):
        Tracker("sort", parameters={"lost_track_buffer": -1})
    with pytest.raises(UsageError, match="`traces` must be between 0 and 3600 seconds, not -1"):
        Tracker(traces=-1)
