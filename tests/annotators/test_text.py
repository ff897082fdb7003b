from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from realtime_ssd.annotators import fonts
from realtime_ssd.annotators.fonts import render
from realtime_ssd.annotators.text import draw_lines, draw_text, label_plate
from realtime_ssd.core.frames import Image

GREEN = (0, 255, 0)


def test_lines_are_white_on_a_darkened_corner() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    draw_lines(image, ["30.0 FPS"])
    corner = image[:18, :40]
    assert corner.min() == 80
    assert corner.max() > 230
    assert (image[40:] == 200).all()
    assert (image[:, 130:] == 200).all()


def test_each_line_is_below_the_one_before() -> None:
    heights = []
    for count in (1, 2, 3):
        image = np.full((240, 320, 3), 200, np.uint8)
        draw_lines(image, ["text"] * count)
        heights.append(int((image[:, 0, 0] < 200).sum()))
        white = (image[:, :60].min(axis=2) > 220).any(axis=1)
        assert int(np.diff(white.astype(int), prepend=0).clip(0).sum()) == count
    assert heights[2] - heights[1] == heights[1] - heights[0] > 10


def test_text_grows_with_the_image() -> None:
    areas = []
    for side in (300, 1800):
        image = np.full((side, side, 3), 200, np.uint8)
        draw_lines(image, ["text"])
        areas.append(int((image[..., 0] < 200).sum()))
    assert areas[1] > 10 * areas[0]


def test_no_lines_leave_the_image_unchanged() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    draw_lines(image, [])
    assert (image == 200).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (4320, 64)])
def test_tiny_and_narrow_images_are_supported(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    draw_lines(image, ["12.0 FPS", "3 dropped"])
    draw_text(image, "car", (size[1] - 1, size[0] - 1), 20, GREEN)


@pytest.fixture(params=["as installed", "without fonts of OpenCV 5"])
def opencv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as the installed OpenCV does, and as OpenCV 4 does."""
    fonts._render.cache_clear()
    label_plate.cache_clear()
    if request.param != "as installed":
        monkeypatch.delattr(cv2, "FontFace", raising=False)


def margins(plate: Image, text_color: int) -> tuple[int, int, int, int]:
    """Return the rows above and below the ink, and the columns left and right of it."""
    ink = np.abs(plate.astype(int) - text_color).sum(axis=2) < 200
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    height, width = ink.shape
    return int(rows[0]), height - 1 - int(rows[-1]), int(columns[0]), width - 1 - int(columns[-1])


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize("size", [12, 19, 28, 57])
@pytest.mark.parametrize("texts", [("car", "95%"), ("person", "7%"), ("traffic light",)])
def test_text_is_in_the_middle_of_an_even_plate(texts: tuple[str, ...], size: int) -> None:
    plate = label_plate(texts, size, GREEN)
    assert plate.shape[0] % 2 == plate.shape[1] % 2 == 0
    above, below, left, right = margins(plate, 0)
    assert abs(above - below) <= 2
    assert abs(left - right) <= 2
    assert min(above, below, left, right) >= 1


@pytest.mark.usefixtures("opencv")
def test_text_outside_ascii_is_drawn() -> None:
    if not hasattr(cv2, "FontFace"):
        pytest.importorskip("PIL")
        if fonts._font_with("人") is None:
            pytest.skip("no font with Chinese characters is installed")
    person, car = render("行人", 24), render("汽车", 24)
    assert person.mask.shape[1] > 36
    assert person.mask.shape != car.mask.shape or (person.mask != car.mask).any()
    assert (render("é", 24).mask.shape[0]) > render("e", 24).mask.shape[0]
    above, below, left, right = margins(label_plate(("行人", "95%"), 24, GREEN), 0)
    assert abs(above - below) <= 2
    assert abs(left - right) <= 2


def test_text_without_a_font_is_drawn_in_ascii_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    monkeypatch.setattr(fonts, "_font_with", lambda _: None)
    for cache in (fonts._render, fonts._warn, fonts._system_font):
        cache.cache_clear()
    with caplog.at_level(logging.WARNING):
        for text, plain in (("café", "cafe"), ("行人", "??")):
            np.testing.assert_array_equal(render(text, 24).mask, render(plain, 24).mask)
    assert len(caplog.messages) == 1
    assert "pip install 'opencv-python>=5'" in caplog.messages[0]
    for cache in (fonts._render, fonts._warn, fonts._system_font):
        cache.cache_clear()


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize("text", ["", " ", "a\nb", "\t", "\ud800", "\x00", "x" * 5000, "\u202eabc"])
def test_any_text_is_drawn(text: str) -> None:
    plate = label_plate((text, "50%"), 12, GREEN)
    assert plate.shape[0] < 60
    assert plate.shape[1] < 1500


@pytest.mark.parametrize(("color", "text"), [((0, 255, 0), 0), ((255, 0, 0), 255)])
def test_label_text_is_black_or_white_for_contrast(color: tuple[int, int, int], text: int) -> None:
    colors = {tuple(pixel) for pixel in label_plate(("MMMM",), 30, color).reshape(-1, 3).tolist()}
    assert color in colors
    assert (text, text, text) in colors
