"""Boxes and labels, checked pixel by pixel."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from av import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_ssd import Detections, annotate
from realtime_ssd.annotators.box_annotator import BoxAnnotator, Labels, percent
from realtime_ssd.annotators.palette import color_of, contrasting
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

Box = tuple[float, float, float, float]
LABELS = ("background", "car", "bus", "person")


def detections(*boxes: tuple[Box, float, int], tracks: list[int] | None = None) -> Detections:
    """Return detections of (box, score, class id)."""
    return Detections(
        np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in boxes], np.float32),
        np.array([class_id for _, _, class_id in boxes], np.int32),
        LABELS,
        None if tracks is None else np.array(tracks),
    )


def car(box: Box) -> Detections:
    return detections((box, 0.75, 1))


def drawn_on_black(results: Detections, *size: int, **options: object) -> Image:
    """Return detections drawn on a black image of height × width."""
    image = np.zeros((*(size or (240, 320)), 3), np.uint8)
    return annotate(image, results, [BoxAnnotator(**options)])  # type: ignore[arg-type]


def extent(image: Image) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 around all pixels that are not black."""
    x, y, width, height = cv2.boundingRect(image.max(axis=2))
    return x, y, x + width, y + height


def label_of(results: Detections, *size: int) -> tuple[int, int, int, int]:
    """Return the plate of the only detection: what is drawn less what is drawn without labels."""
    full, plain = drawn_on_black(results, *size), drawn_on_black(results, *size, labels="none")
    return extent(full ^ plain)


def test_box_is_drawn_in_the_color_of_its_class_with_a_label_above() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, car((100, 80, 220, 200)))
    assert not image.any()
    assert drawn.flags.writeable
    for y, x in ((80, 200), (199, 160), (140, 100), (140, 219)):
        assert tuple(drawn[y, x]) == color_of(1)
    assert not drawn[84:196, 104:216].any()  # the inside is unchanged
    assert not drawn[202:].any()
    x1, y1, x2, y2 = label_of(car((100, 80, 220, 200)))
    assert y2 == extent(drawn_on_black(car((100, 80, 220, 200)), labels="none"))[1]
    plate = drawn[y1:y2, x1:x2]
    assert (np.abs(plate.astype(int) - contrasting(color_of(1))) < 90).all(axis=2).any()
    assert (plate == color_of(1)).all(axis=2).mean() > 0.4


@pytest.mark.parametrize(("side", "expected"), [(160, 2), (720, 2), (1080, 4), (2160, 8)])
def test_lines_are_even_and_grow_with_the_image(side: int, expected: int) -> None:
    box = (side * 0.3, side * 0.3, side * 0.8, side * 0.8)
    drawn = drawn_on_black(car(box), side, side, labels="none").max(axis=2)
    middle = side // 2
    for line in (drawn[middle, : middle - 8], drawn[:middle, middle]):
        columns = np.flatnonzero(line)
        assert len(columns) == expected
        assert columns[0] % 2 == 0


@settings(deadline=None, max_examples=40)
@given(
    box=st.tuples(*[st.floats(-20, 120, width=32)] * 4),
    class_id=st.integers(0, 3),
    size=st.tuples(st.integers(24, 100), st.integers(24, 100)),
)
def test_chroma_subsampling_keeps_the_color_of_lines(
    box: Box, class_id: int, size: tuple[int, int]
) -> None:
    size = (size[0] & ~1, size[1] & ~1)
    drawn = drawn_on_black(detections((box, 0.9, class_id)), *size, labels="none")
    lines = (drawn == color_of(class_id)).all(axis=2)
    cells = lines.reshape(size[0] // 2, 2, -1, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    assert (cells.all(axis=1) == cells.any(axis=1)).all()
    assert drawn.any() == lines.any()


def test_small_video_shows_boxes_in_their_color() -> None:
    drawn = annotate(np.full((160, 90, 3), 60, np.uint8), car((21.3, 71.7, 60.2, 130.9)))
    video = VideoFrame.from_ndarray(drawn, "bgr24").reformat(format="yuv420p")
    seen = video.reformat(format="bgr24").to_ndarray()
    lines = (drawn == color_of(1)).all(axis=2)
    lines[:70] = False  # the label
    assert np.abs(seen[lines].astype(int) - color_of(1)).max() < 12


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 80, 220, 200), "above"),
        ((100, 4, 220, 100), "below"),
        ((100, 0, 220, 240), "beside"),
        ((-50, 100, 40, 150), "above"),
        ((310, 100, 330, 150), "above"),
        ((0, 0, 320, 240), "inside"),
    ],
)
def test_label_is_where_the_image_has_room(box: Box, expected: str) -> None:
    label = label_of(car(box))
    outline = extent(drawn_on_black(car(box), labels="none"))
    found = {
        "above": label[3] == outline[1],
        "below": label[1] == outline[3],
        "beside": label[0] == outline[2] or label[2] == outline[0],
    }
    assert [place for place, holds in found.items() if holds] == [expected] * (expected != "inside")
    assert label[0] >= 0 <= label[1]
    assert label[2] <= 320
    assert label[3] <= 240


def overlap(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    return max(0, width) * max(0, min(first[3], second[3]) - max(first[1], second[1]))


def labels_of(results: Detections, *size: int) -> list[Box]:
    """Return the plates of detections, each of a different class."""
    full, plain = drawn_on_black(results, *size), drawn_on_black(results, *size, labels="none")
    changed = (full != plain).any(axis=2)
    colors = [color_of(class_id) for class_id in results.class_ids.tolist()]
    same = [np.asarray(changed & (full == color).all(axis=2)) for color in colors]
    return [extent(mask[..., None].astype(np.uint8)) for mask in same]


@pytest.mark.parametrize(
    "boxes",
    [
        [(200, 200, 300, 400)] * 3,
        [(200, 200, 300, 400), (210, 190, 310, 390), (190, 210, 290, 410)],
        [(200, 200, 300, 400), (200, 100, 300, 200), (300, 200, 400, 400)],
        [(200, 0, 300, 400), (300, 0, 400, 300), (500, 0, 640, 480)],
        [(0, 440, 100, 480), (20, 440, 120, 480), (40, 440, 140, 480)],
    ],
)
def test_labels_cover_neither_each_other_nor_boxes(boxes: list[Box]) -> None:
    results = detections(*((box, 0.9 - 0.1 * n, n + 1) for n, box in enumerate(boxes)))
    labels = labels_of(results, 480, 640)
    for first, second in combinations(labels, 2):
        assert overlap(first, second) == 0
    for label in labels:
        assert [overlap(label, box) for box in boxes if overlap(label, box) > 120] == []


def test_labels_are_above_all_boxes() -> None:
    inside = detections(((0, 0, 320, 240), 0.5, 1), ((4, 4, 318, 236), 0.9, 2))
    assert len(labels_of(inside)) == 2
    for _, y1, _, y2 in labels_of(inside):
        assert y2 - y1 > 12


def test_better_box_and_label_are_on_top() -> None:
    better, worse = ((100, 80, 220, 200), 0.9, 1), ((100, 80, 220, 200), 0.6, 2)
    for both in (detections(better, worse), detections(worse, better)):
        drawn = drawn_on_black(both, labels="none")
        np.testing.assert_array_equal(drawn, drawn_on_black(detections(better), labels="none"))
    label = label_of(detections(better))
    drawn = drawn_on_black(detections(worse, better))
    alone = drawn_on_black(detections(better))
    rows, columns = slice(label[1], label[3]), slice(label[0], label[2])
    np.testing.assert_array_equal(drawn[rows, columns], alone[rows, columns])


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (4320, 64), (33, 17)])
def test_tiny_and_narrow_images_are_supported(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert annotate(image, car((0, 0, size[1], size[0]))).shape == image.shape


@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 10, 50, 50),
        (10, 10, np.inf, 50),
        (400, 10, 500, 50),
        (10, -100, 50, -1),
    ],
)
def test_boxes_that_are_not_visible_are_not_drawn(box: Box) -> None:
    assert not drawn_on_black(car(box)).any()


def test_box_with_exchanged_corners_is_drawn() -> None:
    np.testing.assert_array_equal(
        drawn_on_black(car((220, 200, 100, 80))), drawn_on_black(car((100, 80, 220, 200)))
    )


def test_huge_box_is_cut_off_at_the_image() -> None:
    assert drawn_on_black(car((-1e30, 100, 1e30, 150)))[100:150, :2].any()


def test_no_detections_leave_the_image_unchanged() -> None:
    assert not annotate(np.zeros((24, 32, 3), np.uint8), detections()).any()


def test_line_width_and_font_size_are_selectable() -> None:
    box = (100, 80, 220, 200)
    drawn = drawn_on_black(car(box), line_width=8, labels="none").max(axis=2)
    assert np.count_nonzero(drawn[140, :160]) == 8
    small, large = (drawn_on_black(car(box), font_size=size) for size in (12, 36))
    assert extent(large)[1] < extent(small)[1] - 20


def test_labels_and_scores_are_selectable() -> None:
    results = detections(((100, 80, 220, 200), 0.75, 1), tracks=[12])
    options: list[tuple[Labels, bool]] = [("none", True), ("class", True), ("full", False)]
    areas = [
        int(drawn_on_black(results, labels=labels, scores=scores).any(axis=2).sum())
        for labels, scores in [*options, ("full", True)]
    ]
    assert areas == sorted(areas)
    assert len(set(areas)) == 4
    without_track = drawn_on_black(car((100, 80, 220, 200)), labels="class")
    np.testing.assert_array_equal(drawn_on_black(results, labels="class"), without_track)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"line_width": 0}, "`line_width` must be between 1 and 100 pixels, not 0"),
        ({"font_size": 1000}, "`font_size` must be between 6 and 400 pixels, not 1000"),
        ({"labels": "all"}, "`labels` must be one of full, class, none, not 'all'"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxAnnotator(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (1.0, "100%"),
        (0.99999, "99%"),
        (0.995, "99%"),
        (0.5, "50%"),
        (0.014, "1%"),
        (0.001, "<1%"),
        (0.0, "0%"),
    ],
)
def test_percentage_is_100_or_0_only_if_the_score_is(score: float, text: str) -> None:
    assert percent(score) == text


def test_colors_are_distinct_and_those_of_neighbors_most() -> None:
    colors = np.array([color_of(number) for number in range(96)])
    differences = np.abs(colors[:, None] - colors).max(axis=2) + 999 * np.eye(96, dtype=int)
    assert differences.min() >= 30
    assert min(differences[n, n + 1] for n in range(95)) >= 60
    assert color_of(96) == color_of(0)


def test_label_text_contrasts_with_its_background() -> None:
    for class_id in range(96):
        plate, text = color_of(class_id), contrasting(color_of(class_id))
        weights = np.array([0.114, 0.587, 0.299])
        assert abs(weights @ plate - weights @ text) > 95


class Corner:
    """Marks the upper left pixel."""

    def __init__(self, level: int) -> None:
        self._level = level

    def annotate(self, image: Image, result: FrameResult) -> None:
        image[0, 0] = self._level


def test_annotators_draw_in_order() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, car((100, 80, 220, 200)), [Corner(1), Corner(2)])
    assert (drawn[0, 0] == 2).all()
    assert drawn.sum() == 6
    assert not annotate(image, car((100, 80, 220, 200)), []).any()


def test_annotate_takes_gray_images_and_rejects_what_is_none() -> None:
    gray = np.zeros((240, 320), np.uint8)
    assert annotate(gray, car((100, 80, 220, 200))).shape == (240, 320, 3)
    with pytest.raises(UsageError, match="`image` must be"):
        annotate("photo.png", car((0, 0, 1, 1)))
    with pytest.raises(UsageError, match="`detections` must be Detections, not list"):
        annotate(gray, [])  # type: ignore[arg-type]
