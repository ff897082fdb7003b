from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.processors import HeatMap, SizeFilter, Smoother
from tests.processors.scenes import HEIGHT, WIDTH, box_at, result

BOXES = [[0, 0, 10, 10], [0, 0, 20, 5], [0, 0, 50, 50], [0, 0, 100, 60]]


@pytest.mark.parametrize(
    ("minimum", "maximum", "kept"),
    [(0, None, [0, 1, 2, 3]), (20, None, [1, 2, 3]), (0, 50, [0, 1, 2]), (0.1, 0.25, [1, 2])],
)
def test_sizes_in_pixels_and_fractions(
    minimum: float, maximum: float | None, kept: list[int]
) -> None:
    found = SizeFilter(minimum, maximum).process(result(BOXES, tracks=range(4)))
    assert [item.track_id for item in found.detections] == kept


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="`max_size` must be at least `min_size`, 30, not 20"):
        SizeFilter(30, 20)
    with pytest.raises(UsageError, match="`min_size` must be at least 0, not -1"):
        SizeFilter(-1)
    with pytest.raises(UsageError, match="`smooth` must be above 0"):
        Smoother(0)


def test_smoothing_halves_the_tremble_and_follows_motion() -> None:
    rng = np.random.default_rng(1)
    smoother = Smoother(0.1)
    offsets = rng.normal(0, 2, 200)
    smoothed = [
        smoother.process(result([box_at(100 + d, 50)], n, tracks=[1])).detections.boxes[0, 0] - 90
        for n, d in enumerate(offsets)
    ]
    assert np.std(smoothed[20:]) < 0.6 * np.std(offsets)
    smoother.reset()
    for number in range(40):
        moved = smoother.process(result([box_at(2.0 * number, 50)], number, tracks=[1]))
    lag = 2.0 * 39 - 10 - moved.detections.boxes[0, 0]
    assert 0 < lag < 2.0 * 25 * 0.1 + 1  # at most the time constant


def test_smoothing_keeps_objects_without_a_track() -> None:
    smoother = Smoother(1)
    smoother.process(result([box_at(50, 50)], 0, tracks=[-1]))
    found = smoother.process(result([box_at(90, 50)], 1, tracks=[-1])).detections
    assert found.boxes[0].tolist() == box_at(90, 50)


def test_heat_map_is_hot_where_objects_stood(tmp_path: Path) -> None:
    heat_map = HeatMap(tmp_path / "heat.png")
    for number in range(50):
        heat_map.process(result([box_at(150, 80)], number))
    heat_map.close()
    heat_map.close()
    picture = cv2.imread(str(tmp_path / "heat.png"))
    assert picture is not None
    assert picture.shape == (HEIGHT, WIDTH, 3)
    blue, _, red = (int(value) for value in picture[80, 150])
    assert red > 60 > blue
    assert not picture[20, 20].any()


def test_heat_map_without_a_frame_is_not_written(tmp_path: Path) -> None:
    HeatMap(tmp_path / "heat.png").close()
    assert not (tmp_path / "heat.png").exists()


def test_the_picture_of_a_heat_map_has_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`heatmap` must be a picture"):
        HeatMap(tmp_path / "heat.xyz")
