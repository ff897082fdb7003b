from __future__ import annotations

import csv
from pathlib import Path

import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import Event
from realtime_ssd.processors.event_counts import EventCounts


def event(kind: str, time: float, label: str = "car") -> Event:
    return Event(kind, time, {"zone": "door", "label": label, "track_id": 1})


def test_late_events_are_counted_in_their_own_interval(tmp_path: Path) -> None:
    counts = EventCounts(tmp_path / "c.csv", 1.0)
    for one in (event("enter", 3.2), event("leave", 1.5), event("enter", 30.0)):
        counts.add("camera", one)
    counts.close()
    counts.close()
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = [(float(row["start"]), row["event"]) for row in csv.DictReader(file)]
    assert rows == [(1.0, "leave"), (3.0, "enter"), (30.0, "enter")]
    assert counts.summary() == ["door: enter 2 (car 2), leave 1 (car 1)"]


def test_sources_are_counted_apart_and_other_events_not_at_all(tmp_path: Path) -> None:
    counts = EventCounts(tmp_path / "c.csv", 60)
    counts.add("a", event("enter", 1))
    counts.add("b", event("enter", 2, "bus"))
    counts.add("b", Event("count", 2, {"zone": "door", "counts": {}}))
    counts.close()
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[1:] == ["0.000,60.000,a,door,enter,car,1", "0.000,60.000,b,door,enter,bus,1"]


def test_the_interval_must_be_positive() -> None:
    with pytest.raises(UsageError, match="`counts_interval` must be at least"):
        EventCounts(None, 0)
