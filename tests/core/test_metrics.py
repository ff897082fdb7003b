"""Counts, percentiles and rates of a run."""

from __future__ import annotations

import pytest

from realtime_ssd.core.metrics import Histogram, Statistics


class Clock:
    """Replaces `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("realtime_ssd.core.metrics.time.monotonic", clock)
    return clock


def test_percentiles_are_at_most_two_percent_too_high() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 1001):
        histogram.add(milliseconds / 1000)
    for fraction in (0.01, 0.5, 0.9, 0.99):
        exact = fraction
        assert exact <= histogram.percentile(fraction) <= exact * 1.0201
    assert histogram.percentile(1.0) == histogram.maximum == 1.0
    assert histogram.percentile(0.0) <= 0.001 * 1.0201
    assert histogram.sum == pytest.approx(500.5)
    assert histogram.count == 1000


def test_empty_and_zero_durations() -> None:
    histogram = Histogram()
    assert histogram.percentile(0.5) == 0.0
    histogram.add(0.0)
    assert histogram.percentile(0.5) == 0.0
    assert histogram.to_dict() == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_recent_fps_counts_intervals_of_the_last_frames(clock: Clock) -> None:
    statistics = Statistics(("a",))
    assert statistics.recent_fps == 0.0
    for _ in range(100):  # slow frames that must be forgotten
        clock.now += 1.0
        statistics.on_frame("a", "processed")
    for _ in range(63):
        clock.now += 0.04
        statistics.on_frame("a", "processed")
    assert statistics.recent_fps == pytest.approx(25.0)


def test_fps_spans_first_capture_to_last_result(clock: Clock) -> None:
    statistics = Statistics(("a",))
    assert statistics.fps == 0.0
    statistics.on_frame("a", "captured")
    for _ in range(10):
        clock.now += 0.5
        statistics.on_frame("a", "processed")
    clock.now += 100
    statistics.on_frame("a", "captured")
    assert statistics.fps == pytest.approx(2.0)
    assert statistics.to_dict()["seconds"] == 5.0


def test_counts_by_source_and_in_total() -> None:
    statistics = Statistics(("a", "b"))
    for source, outcome in (
        ("a", "captured"),
        ("a", "captured"),
        ("a", "replaced"),
        ("b", "captured"),
        ("b", "processed"),
    ):
        statistics.on_frame(source, outcome)  # type: ignore[arg-type]
    statistics.on_state("b", "offline")
    statistics.on_state("b", "online")
    assert statistics.unfinished() == {"a": 1, "b": 0}
    total = statistics.total
    assert (total.captured, total.processed, total.losses) == (3, 1, 1)
    assert total.dropped == {"replaced": 1}
    values = statistics.to_dict()
    assert values["sources"]["a"] == {
        "captured": 2,
        "processed": 0,
        "dropped": {"replaced": 1},
        "losses": 0,
    }
    assert values["sources"]["b"]["losses"] == 1


def test_stages_are_summed_over_sources() -> None:
    statistics = Statistics(("a", "b"))
    statistics.on_stage("a", "network", 0.25)
    statistics.on_stage("b", "network", 0.75)
    assert statistics.total_seconds("network") == 1.0
    assert statistics.latency("network", 1.0) == 0.75
    assert statistics.latency("unknown") == statistics.total_seconds("unknown") == 0.0
    assert statistics.to_dict()["latency_ms"]["network"]["max"] == 750.0
