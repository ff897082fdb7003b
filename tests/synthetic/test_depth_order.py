"""Drawing order of actors from far to near."""

from __future__ import annotations

import numpy as np

from realtime_ssd.synthetic.ground_truth import depth_order


def test_separating_line_takes_precedence_over_distance() -> None:
    wall, near_wall = (0.0, -5.0, 1.0, 20.0), (1.0, 10.0, 2.0, 20.0)
    for sign in (1, -1):
        # The footprints touch, and the one on the camera's side is farther away.
        if sign > 0:
            footprints = [wall, near_wall]
        else:
            footprints = [(-1.0, -5.0, 0.0, 20.0), (-2.0, 10.0, -1.0, 20.0)]
        eye = np.array([5.0 * sign, 3.0, 0.5])
        assert depth_order(footprints, eye) == [0, 1]
        assert depth_order(footprints[::-1], eye) == [1, 0]


def test_distance_decides_without_a_separating_line_on_the_camera_side() -> None:
    eye = np.array([0.0, 3.0, 0.0])
    assert depth_order([(-1, 5, 1, 6), (3, 20, 4, 21), (-4, 1, -3, 2)], eye) == [1, 0, 2]
    assert depth_order([], eye) == []
