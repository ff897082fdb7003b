"""The Python interface."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detector, open_source
from realtime_ssd.core.errors import UsageError
from tests.tiny import picture
from tests.videos import make_video


def test_one_image(tiny: Path) -> None:
    image = picture((1, 2))
    before = image.copy()
    with Detector(tiny) as detector:
        found = detector(image)
        assert np.array_equal(image, before)
        assert image.flags.writeable
        best = found.to_dicts()[0]
        assert best["label"] == "bright"
        assert best["box"] == pytest.approx([80, 30, 120, 60], abs=0.01)
        assert len(detector(np.zeros((50, 60, 3), np.uint8))) == 0
        with pytest.raises(ValueError, match="H × W × 3 uint8"):
            detector(np.zeros((50, 60), np.uint8))


def test_streams_one_after_the_other(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(6)])
    with Detector(tiny, score_threshold=0.2, classes=["bright"]) as detector:
        assert detector.spec.thresholds.score_threshold == 0.2
        frames = [frame.index for frame, _ in detector.stream(video)]
        assert frames == list(range(6))
        with open_source(video) as source:
            assert len(list(detector.stream(source, max_frames=2))) == 2
        for _frame, _found in detector.stream(video):
            break
        assert len(detector(picture((0, 0)))) == 1


def test_a_detector_that_is_busy_says_so(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(6)])
    with Detector(tiny) as detector:
        running = detector.stream(video)
        next(running)
        with pytest.raises(UsageError, match="second Detector"):
            detector(picture((0, 0)))
        with pytest.raises(UsageError, match="second Detector"):
            next(detector.stream(video))
        running.close()  # type: ignore[attr-defined]
        assert len(detector(picture((0, 0)))) == 1


def test_what_does_not_exist(tiny: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Detector("missing.onnx")
    with pytest.raises(UsageError, match="class 'x' is unknown"):
        Detector(tiny, classes=["x"])


def test_a_photo_read_by_opencv(coco_model: Path, shared_data: Path) -> None:
    dog = cv2.imread(str(shared_data / "photos/darknet/dog.jpg"))
    with Detector(coco_model) as detector:
        labels = {found.label for found in detector(dog) if found.score > 0.6}
    assert {"bicycle", "car"} <= labels
