"""The lines at the end of a run."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.cli.summary import RunSummary
from realtime_ssd.core.metrics import Outcome, Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sources import SourceInfo


def statistics(*outcomes: Outcome) -> Statistics:
    result = Statistics(("cam",))
    for outcome in outcomes:
        result.on_frame("cam", "captured")
        result.on_frame("cam", outcome)
    result.on_stage("cam", "end_to_end", 0.25)
    return result


def result(*class_ids: int, tracks: tuple[int, ...] | None = None) -> FrameResult:
    count = len(class_ids)
    detections = Detections(
        np.zeros((count, 4), np.float32),
        np.ones(count, np.float32),
        np.array(class_ids, np.int32),
        ("background", "car", "person"),
        None if tracks is None else np.array(tracks, np.int64),
    )
    return FrameResult(Frame(np.zeros((4, 4, 3), np.uint8), source="cam"), detections)


def test_outcomes_of_live_sources_are_described() -> None:
    summary = RunSummary([SourceInfo("cam", live=True)])
    first = summary.lines(statistics("processed", "replaced", "replaced", "stopped"))[0]
    assert first.startswith("1 frame in 0.0 s, ")
    assert "latency p50 250.0 ms, p99 250.0 ms" in first
    assert first.endswith(", 2 skipped for newer frames, 1 unfinished at exit")
    assert summary.lines(statistics("processed"))[0].endswith(", none skipped")


def test_files_have_no_latency() -> None:
    summary = RunSummary([SourceInfo("a.mp4")])
    assert "latency" not in summary.lines(statistics("processed"))[0]


def test_photos_are_called_photos() -> None:
    summary = RunSummary([SourceInfo("a", still=True)])
    assert summary.lines(statistics("processed"))[0].startswith("1 photo in ")
    two = summary.lines(statistics("processed", "processed"))
    assert two[0].startswith("2 photos in ")
    assert two[1:] == ["nothing was detected"]


def test_detections_by_class_and_results() -> None:
    summary = RunSummary([SourceInfo("a.mp4")])
    for found in (result(1, 2, 1), result(1)):
        summary.observe(found)
    lines = summary.lines(statistics(), ["o.mp4", "rtsp://user:word@host/live"])
    assert lines[1:] == ["detections: 3 car, 1 person", "results: o.mp4, rtsp://host/live"]


def test_a_tracked_object_counts_once() -> None:
    summary = RunSummary([SourceInfo("a.mp4")])
    for found in (result(1, 2, tracks=(4, 5)), result(1, tracks=(4,)), result(1, tracks=(7,))):
        summary.observe(found)
    assert summary.lines(statistics())[1] == "tracked objects: 2 car, 1 person"


@pytest.mark.parametrize("count", [12, 15])
def test_long_lists_of_classes_are_shortened(count: int) -> None:
    summary = RunSummary([SourceInfo("a.mp4")])
    names = tuple(f"class{number}" for number in range(count))
    ids = np.arange(count, dtype=np.int32)
    boxes, scores = np.zeros((count, 4), np.float32), np.ones(count, np.float32)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), source="cam")
    summary.observe(FrameResult(frame, Detections(boxes, scores, ids, names)))
    line = summary.lines(statistics())[1]
    assert line.count("class") == min(count, 12) + (count > 12)
    assert line.endswith("3 more classes") == (count > 12)
