"""The synthetic street is reproducible, scales with the size, and has exact ground truth."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest

from realtime_ssd.synthetic import LABELS, StreetScene

CODE = """
from hashlib import sha256
from realtime_ssd.synthetic import StreetScene
print(sha256(StreetScene(320, 180, seed=11, fps=30).render(25).tobytes()).hexdigest())
"""


def test_same_seed_gives_the_same_frame_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    frame = StreetScene(320, 180, seed=11, fps=30).render(25)
    assert done.stdout.strip() == sha256(frame.tobytes()).hexdigest()
    other = StreetScene(320, 180, seed=12, fps=30).render(25)
    assert not np.array_equal(frame, other)


def test_frames_do_not_depend_on_the_order_of_rendering() -> None:
    first, second = (StreetScene(240, 136, seed=4) for _ in range(2))
    forward = [first.render(k) for k in (0, 5, 50)]
    backward = [second.render(k) for k in (50, 5, 0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (333, 187), (1280, 720), (120, 400)])
def test_any_size(width: int, height: int) -> None:
    image, truth = StreetScene(width, height, seed=2).frame(10)
    assert image.shape == (height, width, 3)
    assert image.std() > 5
    for item in truth:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert item.label in LABELS


def test_frame_rate_does_not_change_the_scene() -> None:
    slow, fast = StreetScene(240, 136, seed=6, fps=15), StreetScene(240, 136, seed=6, fps=30)
    for number in (0, 10, 40):
        assert [t.label for t in slow.truth(number)] == [t.label for t in fast.truth(2 * number)]
        boxes = [[t.box for t in truth] for truth in (slow.truth(number), fast.truth(2 * number))]
        np.testing.assert_allclose(boxes[0], boxes[1], atol=1e-6)


def test_ground_truth_scales_with_the_frame_size() -> None:
    small, large = StreetScene(320, 180, seed=8), StreetScene(640, 360, seed=8)
    expected = {(t.label, tuple(np.round(t.box, -1))) for t in large.truth(30) if not t.difficult}
    actual = {
        (t.label, tuple(np.round(np.multiply(t.box, 2), -1)))
        for t in small.truth(30)
        if not t.difficult
    }
    assert len(expected & actual) >= len(expected) // 2
    assert expected


def test_scenes_cover_all_classes_and_lighting_conditions() -> None:
    labels, light = set[str](), list[float]()
    for seed in range(12):
        image, truth = StreetScene(320, 180, seed=seed).frame(20)
        labels |= {item.label for item in truth}
        light.append(float(image.mean()))
    assert labels == set(LABELS)
    assert max(light) > 1.5 * min(light)
