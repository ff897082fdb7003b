from __future__ import annotations

import numpy as np
import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.processors import GroundPlane
from realtime_ssd.processors.ground import parse_calibration
from realtime_ssd.synthetic import StreetScene
from realtime_ssd.synthetic.projection import View
from tests.processors.scenes import FPS, box_at, result
from tests.processors.street_truth import camera_points


def test_positions_and_speeds_of_the_street_camera() -> None:
    """Points that move over the ground at 8 m/s, projected by the camera of the street."""
    scene = StreetScene(640, 360, seed=9)
    view = View(scene.camera, scene._static_matrix)
    plane = GroundPlane(camera_points(scene))
    image = np.zeros((360, 640, 3), np.uint8)
    for number in range(30):
        place = np.array([[2.0, 0.0, 16 + 8 * number / FPS]])
        x, y = view.project(place)[0]
        found = plane.process(result([box_at(x, y)], number, tracks=[1], image=image))
    (row,) = found.detections.to_dicts()
    assert row["speed"] == pytest.approx(8, rel=0.01)
    assert row["position"] == pytest.approx([2.0, place[0, 2]], abs=0.05)


def test_speed_needs_a_track_and_some_time() -> None:
    plane = GroundPlane(
        [((0, 0), (0, 0)), ((100, 0), (10, 0)), ((100, 50), (10, 5)), ((0, 50), (0, 5))]
    )
    speeds = []
    for number in range(20):
        found = plane.process(result([box_at(5 * number, 40)], number, tracks=[3]))
        speeds.append(found.detections.to_dicts()[0]["speed"])
    assert speeds[:4] == [None] * 4
    assert speeds[-1] == pytest.approx(0.5 * FPS)
    found = plane.process(result([box_at(5, 40)], 20, tracks=[-1]))
    assert found.detections.to_dicts()[0]["speed"] is None


def test_points_above_the_horizon_have_no_position() -> None:
    scene = StreetScene(640, 360, seed=9)
    plane = GroundPlane(camera_points(scene))
    image = np.zeros((360, 640, 3), np.uint8)
    found = plane.process(result([[300, 0, 310, 1]], tracks=[1], image=image))
    assert found.detections.to_dicts()[0]["position"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0=0,0 1,1=1,1", "`calibrate` needs at least 4 points, not 2"),
        ("0,0=0,0 1=1,1", "'1=1,1' in `calibrate` is not x,y=X,Y"),
        ("0,0=0,0 a,1=1,1", "'a,1=1,1' in `calibrate`"),
    ],
)
def test_malformed_calibrations_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_calibration(text)


@pytest.mark.parametrize(
    "text",
    [
        "0,0=0,0 10,10=1,1 20,20=2,2 30,30=3,3",
        "0,0=0,0 100,0=1,1 100,50=1,0 0,50=0,1",
        "0,0=0,0 0,0=0,0 0,0=0,0 0,0=0,0",
    ],
)
def test_points_that_fit_no_plane_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`calibrate`"):
        GroundPlane(parse_calibration(text))
