"""Tiles: where they are, and how their detections are merged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, Thresholds
from realtime_ssd.core.tiles import Tile, TileOptions, merge_tiles, parse_tile, plan_tiles

SPEC = InputSpec(300, 200, "BGR")
LIMITS = Thresholds(iou_threshold=0.5)
Rows = Sequence[tuple[tuple[float, float, float, float], float, int]]


def detections(rows: Rows) -> Detections:
    boxes = np.array([box for box, *_ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    classes = np.array([class_id for *_, class_id in rows], np.int32)
    return Detections(boxes, scores, classes, ("background", "cat", "dog"))


@settings(deadline=None, max_examples=50)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    size=st.tuples(st.integers(300, 900), st.integers(300, 900)),
    overlap=st.floats(0, 0.7),
)
def test_tiles_cover_the_image_and_overlap(
    width: int, height: int, size: tuple[int, int], overlap: float
) -> None:
    whole, *tiles = plan_tiles(TileOptions(size, overlap), SPEC, width, height)
    assert whole.region == (0, 0, width, height)
    if not tiles:
        assert width <= 1.25 * size[0]
        assert height <= 1.25 * size[1]
        return
    columns = sorted({tile.x for tile in tiles})
    rows = sorted({tile.y for tile in tiles})
    assert len(tiles) == len(columns) * len(rows)
    sides = min(size[0], width), min(size[1], height)
    for positions, side, length in ((columns, sides[0], width), (rows, sides[1], height)):
        assert positions[0] == 0
        assert positions[-1] + side == length
        for first, second in pairwise(positions):
            assert second - first <= side * (1 - overlap) + 3
            assert second % 2 == 0 or second + side == length
    for tile in tiles:
        right, bottom = tile.x + tile.width, tile.y + tile.height
        assert tile.inner == (tile.x > 0, tile.y > 0, right < width, bottom < height)


def test_automatic_tiles_have_twice_the_input() -> None:
    tiles = plan_tiles(TileOptions(), SPEC, 1600, 900)
    assert {(tile.width, tile.height) for tile in tiles[1:]} == {(600, 400)}
    assert len(plan_tiles(TileOptions(), SPEC, 700, 480)) == 1
    assert len(plan_tiles(TileOptions(), SPEC, 1200, 400)) > 1


def test_too_many_tiles_are_refused() -> None:
    with pytest.raises(UsageError, match="1920x1080 pixels would be cut into 3034 tiles"):
        plan_tiles(TileOptions((64, 64), 0.6), SPEC, 1920, 1080)


def test_parsing() -> None:
    assert parse_tile(None) is None
    assert parse_tile("auto", 0.3) == TileOptions(None, 0.3)
    assert parse_tile("640X480") == TileOptions((640, 480), 0.2)
    for text in ("640", "640x", "x640", "big", "640x480x3", "-1x5", "6.4x3"):
        with pytest.raises(UsageError, match="`tile` must be WIDTHxHEIGHT or auto"):
            parse_tile(text)
    with pytest.raises(UsageError, match="at least 32x32 pixels, not 640x8"):
        parse_tile("640x8")
    for overlap in (-0.1, 0.95, float("nan")):
        with pytest.raises(UsageError, match=r"`overlap` must be between 0 and 0\.9"):
            parse_tile("auto", overlap)


WHOLE = Tile(0, 0, 1000, 500)
LEFT = Tile(0, 0, 500, 500, (False, False, True, False))
RIGHT = Tile(400, 0, 600, 500, (True, False, False, False))


def merge(whole: Rows, left: Rows, right: Rows, thresholds: Thresholds = LIMITS) -> Rows:
    parts = [detections(rows) for rows in (whole, left, right)]
    merged = merge_tiles((WHOLE, LEFT, RIGHT), parts, thresholds)
    assert merged.labels == ("background", "cat", "dog")
    return [(item.box, round(item.score, 3), item.class_id) for item in merged]


def test_boxes_are_moved_to_the_image_and_sorted() -> None:
    merged = merge([((1, 1, 9, 9), 0.5, 1)], [], [((100, 50, 140, 90), 0.7, 2)])
    assert merged == [((500, 50, 540, 90), 0.7, 2), ((1, 1, 9, 9), 0.5, 1)]


def test_an_object_found_several_times_is_merged() -> None:
    whole, left = [((420, 10, 470, 60), 0.5, 1)], [((421, 11, 469, 59), 0.9, 1)]
    right: Rows = [((20, 10, 70, 60), 0.7, 1), ((20, 10, 70, 60), 0.6, 2)]
    assert merge(whole, left, right) == [
        ((421, 11, 469, 59), 0.9, 1),
        ((420, 10, 470, 60), 0.6, 2),
    ]
    agnostic = Thresholds(iou_threshold=0.5, agnostic_nms=True)
    assert merge(whole, left, right, agnostic) == [((421, 11, 469, 59), 0.9, 1)]


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((450, 100, 500, 150), False),  # touches the inner border
        ((450, 100, 497, 150), False),  # within its margin
        ((440, 100, 490, 150), True),
        ((0, 0, 50, 500), True),  # touches the borders of the image
    ],
)
def test_boxes_cut_off_by_an_inner_border_are_dropped(
    box: tuple[float, float, float, float], kept: bool
) -> None:
    assert merge([], [(box, 0.9, 1)], []) == ([(box, 0.9, 1)] if kept else [])
    assert merge([(box, 0.9, 1)], [], []) == [(box, 0.9, 1)]


def test_large_boxes_are_left_to_the_whole_image() -> None:
    large, small = (100, 100, 400, 350), (100, 100, 340, 340)
    assert merge([], [(large, 0.9, 1)], []) == []
    assert merge([(large, 0.4, 1)], [(large, 0.9, 1)], []) == [(large, 0.4, 1)]
    assert merge([], [(small, 0.9, 1)], []) == [(small, 0.9, 1)]


def test_a_box_is_large_only_if_it_is_large_in_the_image_too() -> None:
    tile = Tile(500, 500, 200, 200, (True,) * 4)
    rows: Rows = [((20, 20, 170, 170), 0.9, 1)]
    for side, count in ((1000, 0), (2000, 1)):
        whole = Tile(0, 0, side, side)
        merged = merge_tiles((whole, tile), [detections([]), detections(rows)], LIMITS)
        assert len(merged) == count


def test_images_without_detections() -> None:
    assert merge([], [], []) == []
