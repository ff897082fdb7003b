from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.cli.zones import format_zones, zones
from realtime_ssd.core.errors import UsageError
from realtime_ssd.processors.zone_shapes import parse_zone_file
from realtime_ssd.sinks.zone_editor import ZoneEditor
from tests.cli.program import run

ENTER = 13


def editor(width: int = 200, height: int = 100) -> ZoneEditor:
    return ZoneEditor(np.full((height, width, 3), 40, np.uint8))


def draw(window: ZoneEditor, *corners: tuple[int, int]) -> None:
    for corner in corners:
        window.click(*corner)
    window.press(ENTER)


def test_corners_become_zones_and_two_of_them_lines() -> None:
    window = editor()
    draw(window, (10, 10), (90, 10), (90, 90))
    draw(window, (120, 20), (180, 80))
    draw(window, (20, 20), (30, 20), (30, 30), (20, 30))
    draw(window, (50, 50))
    assert [(shape.name, len(shape.points)) for shape in window.shapes] == [
        ("zone1", 3),
        ("line1", 2),
        ("zone2", 4),
    ]


def test_undo_removes_corners_then_shapes() -> None:
    window = editor()
    draw(window, (10, 10), (90, 10), (90, 90))
    window.click(5, 5)
    window.press(ord("u"))
    assert [shape.name for shape in window.shapes] == ["zone1"]
    window.press(ord("u"))
    window.press(ord("u"))
    assert window.shapes == []


def test_an_impossible_zone_is_refused_and_the_picture_says_why() -> None:
    window = editor(600, 300)
    before = window.picture()
    draw(window, (10, 10), (500, 250), (500, 10), (10, 250))
    assert window.shapes == []
    assert not np.array_equal(window.picture(), before)


def test_corners_stay_within_the_picture() -> None:
    window = editor()
    draw(window, (-5, 10), (300, 10), (90, 120))
    assert window.shapes[0].points == ((0, 10), (200, 10), (90, 100))


def test_large_pictures_are_shown_smaller() -> None:
    assert editor(3840, 2160).picture().shape == (720, 1280, 3)


def test_the_file_can_be_read_again() -> None:
    tomllib = pytest.importorskip("tomllib")
    window = editor()
    draw(window, (10, 10), (90, 10), (90, 90))
    draw(window, (120, 20), (180, 80))
    read = parse_zone_file(tomllib.loads(format_zones(window.shapes)), "zones.toml")
    assert [*read[0], *read[1]] == window.shapes


def test_without_a_display_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="zones cannot be drawn: there is no display"):
        zones("demo:64x48")


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "zones.toml"
    file.write_text("kept")
    finished = run("zones", "demo:64x48", "--output", file)
    assert finished.returncode == 2
    assert "exists" in finished.stderr
    assert file.read_text() == "kept"
