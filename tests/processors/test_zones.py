from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import Event
from realtime_ssd.processors import Line, Shape, Zone, parse_shape
from realtime_ssd.processors.zone_shapes import parse_zone_file
from realtime_ssd.synthetic import StreetScene
from tests.processors.scenes import FPS, HEIGHT, WIDTH, box_at, result
from tests.processors.street_truth import crossings, results, total

SQUARE = Shape("door", ((50, 20), (150, 20), (150, 80), (50, 80)))
GATE = Shape("gate", ((100, 10), (100, 90)))


def walk(processor: Zone | Line, xs: list[float | None], y: float = 50) -> list[Event]:
    """Move one object along x, one position a frame; None is a frame in which it is not seen."""
    events = []
    for number, x in enumerate(xs):
        boxes = [] if x is None else [box_at(x, y)]
        events += processor.process(result(boxes, number, tracks=[7] * len(boxes))).events
    return events


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.kind, round(event.time * FPS)) for event in events if event.kind != "count"]


def test_enter_dwell_and_leave() -> None:
    events = walk(Zone(SQUARE, dwell=0.2), [20, 60, 70, 80, 90, 100, 110, 120, 170])
    assert kinds(events) == [("enter", 1), ("dwell", 6), ("leave", 8)]
    leave = events[-2]
    assert leave.data == {"zone": "door", "label": "car", "track_id": 7, "seconds": 0.24}
    counts = [event.data["counts"] for event in events if event.kind == "count"]
    assert counts == [{"car": 1}, {}]


def test_flicker_at_the_border_is_ignored() -> None:
    xs = [20, 60, 20, 60, 20, 20, 20, 60, 70, 80, 20, 60, 70, 170, 170, 170, 170]
    assert len(kinds(walk(Zone(SQUARE), list(xs)))) == 8
    events = walk(Zone(SQUARE, min_seconds=0.08), list(xs))
    assert kinds(events) == [("enter", 7), ("leave", 13)]


def test_an_object_that_is_not_seen_again_leaves() -> None:
    events = walk(Zone(SQUARE), [60, 70, 80, *[None] * 60])
    assert kinds(events) == [("enter", 0), ("leave", 2)]


def test_objects_leave_when_the_source_is_lost() -> None:
    zone = Zone(SQUARE)
    walk(zone, [60, 70])
    zone.reset()
    events = zone.process(result([], 50, tracks=[])).events
    assert kinds(events)[:1] == [("leave", 1)]


def test_a_short_gap_is_no_leave() -> None:
    assert kinds(walk(Zone(SQUARE), [60, 70, *[None] * 30, 80])) == [("enter", 0)]


def test_objects_without_a_track_count_but_do_not_enter() -> None:
    zone = Zone(SQUARE)
    found = zone.process(result([box_at(100, 50), box_at(20, 50)], tracks=[-1, -1]))
    assert [(event.kind, event.data["counts"]) for event in found.events] == [("count", {"car": 1})]
    assert zone.process(result([box_at(100, 50)], 1)).events == []


def test_zones_are_a_column_of_the_detections() -> None:
    found = result([box_at(60, 50), box_at(120, 50), box_at(20, 50)], tracks=[1, 2, 3])
    found = Zone(SQUARE).process(found)
    found = Zone(Shape("left", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)))).process(found)
    rows = [row["zones"] for row in found.detections.to_dicts()]
    assert rows == [["door", "left"], ["door"], ["left"]]
    assert found.annotated_image().any()


def test_anchors() -> None:
    tall = [[90, 0, 110, 90]]  # bottom center outside, center inside, top center outside
    for anchor, inside in (("bottom_center", 0), ("center", 1), ("top_center", 0)):
        found = Zone(SQUARE, anchor=anchor).process(result(tall))  # type: ignore[arg-type]
        assert len(found.events) == inside


def test_polygons_equal_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    rng = np.random.default_rng(5)
    shape = Shape("star", ((20, 10), (100, 40), (180, 10), (150, 90), (100, 60), (40, 95)))
    expected = supervision.PolygonZone(np.array(shape.points, np.int64))
    centers = np.stack([rng.uniform(0, WIDTH, 400), rng.uniform(0, HEIGHT, 400)], axis=1)
    found = Zone(shape).process(result([box_at(x, y) for x, y in centers]))
    inside = np.array([bool(row["zones"]) for row in found.detections.to_dicts()])
    theirs = expected.trigger(supervision.Detections(xyxy=found.detections.boxes))
    # Supervision rounds the corners of its mask to pixels: they may differ on the border only.
    assert (inside == theirs).mean() > 0.98
    assert 0.2 < inside.mean() < 0.8


def test_crossings_equal_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    rng = np.random.default_rng(8)
    ours = Line(Shape("gate", ((60, 85), (140, 20))))
    theirs = supervision.LineZone(
        supervision.Point(60, 85),
        supervision.Point(140, 20),
        triggering_anchors=[supervision.Position.BOTTOM_CENTER],
    )
    # Random walks across the middle of the line, where both rules mean the same.
    paths = np.cumsum(rng.normal(0, 2.5, (60, 12)), axis=0)
    for number, offsets in enumerate(paths):
        boxes = [box_at(100 + 0.63 * d, 52 + 0.78 * d) for d in offsets]
        found = ours.process(result(boxes, number, tracks=range(12)))
        theirs.trigger(found.detections.to_supervision())
    assert (ours.counts["in"].total(), ours.counts["out"].total()) == (
        theirs.in_count,
        theirs.out_count,
    )
    assert theirs.in_count + theirs.out_count > 20


def test_an_object_that_is_hidden_while_it_crosses_counts() -> None:
    line = Line(GATE)
    events = walk(line, [80, 90, *[None] * 20, 110, 120])
    assert kinds(events) == [("cross", 22)]
    assert events[0].data["direction"] == "in" if line.counts["in"] else "out"
    assert walk(Line(GATE), [110, 90])[0].data["direction"] != events[0].data["direction"]


def test_passing_beside_a_line_does_not_count() -> None:
    assert walk(Line(GATE), [80, 90, 110, 120], y=96) == []


def test_touching_a_line_and_returning_does_not_count() -> None:
    assert walk(Line(GATE), [80, 90, 100, 90, 80]) == []
    assert walk(Line(GATE, min_seconds=0.1), [80, 90, 105, 90, 80, 70, 60]) == []
    assert kinds(walk(Line(GATE, min_seconds=0.1), [80, 105, 110, 115, 120])) == [("cross", 1)]


def test_counts_stay_after_a_reset() -> None:
    line = Line(GATE)
    walk(line, [90, 110])
    line.reset()
    walk(line, [90, 110])
    assert sum(line.counts.values(), Counter()).total() == 2


def count_street(seed: int, frames: int) -> int:
    """Compare the counts of a line with the scene; return the number of crossings."""
    scene = StreetScene(640, 360, seed=seed)
    truth = crossings(scene, frames, z=20.0)
    line = Line(truth.line, min_seconds=0.15)  # the camera sways
    for one in results(scene, frames, truth.ignored):
        line.process(one)
    assert line.counts["in"] == total(truth.away), seed
    assert line.counts["out"] == total(truth.toward), seed
    return len(truth.away) + len(truth.toward)


def test_counts_equal_the_street() -> None:
    assert count_street(9, 100) >= 3


@pytest.mark.slow
def test_counts_equal_the_street_on_ten_seeds() -> None:
    assert sum(count_street(seed, 240) for seed in range(10)) >= 60


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("0,0,1,0,1,1", "zone", "'0,0,1,0,1,1' is not a zone; write NAME:x1,y1"),
        (":0,0,1,0,1,1", "zone", "a zone needs a name"),
        ("a:1,2", "zone", "'a:1,2' is not a zone"),
        ("a:1,2,3", "zone", "'a:1,2,3' is not a zone"),
        ("a:1,2,3,4", "zone", "zone 'a' has 2 corners; it needs at least 3"),
        ("a:1,2,x,4", "line", "'a:1,2,x,4' is not a line"),
        ("a:1,2,1,2", "line", "line 'a' has no length"),
        ("a:1,2,3,4,5,6", "line", "line 'a' has 3 points"),
        ("a:0,0,9,9,9,0,0,9", "zone", "zone 'a' crosses itself"),
        ("a:0,0,5,5,9,9", "zone", "zone 'a' has no area"),
        ("a:0,0,0,0,9,9", "zone", "the same corner twice"),
        ("a:-1,0,5,5,9,0", "zone", "zone 'a' is outside the picture"),
        ("a:nan,0,5,5,9,0", "zone", "zone 'a' is outside the picture"),
        ("a\x1b[31m:0,0,5,5,9,0", "zone", "is not a name: it has control characters"),
        ("a:inf,0,5,5,9,0", "zone", "zone 'a' is outside the picture"),
    ],
)
def test_impossible_shapes_are_one_sentence(text: str, kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shape(text, kind)  # type: ignore[arg-type]


def test_shapes_outside_the_frame_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"'big' has the corner 300,5 outside the picture, .*200x1"
    ):
        Zone(Shape("big", ((5, 5), (300, 5), (5, 90)))).process(result([]))


def test_fractions_above_one_are_outside_the_picture() -> None:
    with pytest.raises(UsageError, match="'z' is outside the picture: fractions of the frame go"):
        Shape("z", ((0.1, 0.1), (1.01, 0.1), (0.5, 0.9))).to_pixels(320, 180)


def test_fractions_and_pixels() -> None:
    assert Shape("f", ((0.5, 0.1), (0.25, 1))).to_pixels(200, 100).tolist() == [
        [100, 10],
        [50, 100],
    ]
    assert Shape("p", ((0, 2), (200, 100))).to_pixels(200, 100).tolist() == [[0, 2], [200, 100]]


def test_names_may_hold_colons() -> None:
    assert parse_shape("gate:north:0,0,1,1", "line").name == "gate:north"


def test_zone_files() -> None:
    content = {"zones": {"a": [[0, 0], [1, 0], [1, 1]]}, "lines": {"b": [[0, 0], [1, 1]]}}
    zones, lines = parse_zone_file(content, "z.toml")
    assert [shape.name for shape in (*zones, *lines)] == ["a", "b"]
    for wrong, message in (
        ({"zone": {}}, "'z.toml' has the unexpected key 'zone'"),
        ({"zones": []}, "`zones` must be a table"),
        ({"zones": {"a": [1, 2, 3]}}, "zone 'a' must be a list of \\[x, y\\]"),
        ({"lines": {"a": "x"}}, "line 'a' must be a list"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_zone_file(wrong, "z.toml")
