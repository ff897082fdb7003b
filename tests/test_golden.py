"""The COCO MobileNet SSD returns the detections of another implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime_ssd import Detections, Detector, open_source

CLIPS = [
    "clips/carnd_vehicle_test_video.mp4",
    "clips/nasa_13013.mp4",
    "clips/solidWhiteRight.mp4",
    "clips/one-by-one-person-detection.mp4",
    "clips/Retail02_short.mp4",
]


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, Any]:
    text = (shared_data / "golden/ssd_mobilenet_v1_coco_onnx.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return data


def assert_same(detections: Detections, expected: list[dict[str, Any]]) -> None:
    """Compare as sets, since rounded scores may change the order."""
    assert len(detections) == len(expected)
    unmatched = list(detections)
    for item in expected:
        match = next(
            detection
            for detection in unmatched
            if detection.class_id == item["coco_id"]
            and abs(detection.score - item["score"]) <= 1e-3
            and np.abs(np.subtract(detection.box, item["box_px_xyxy"])).max() <= 0.5
        )
        assert match.label == item["name"]
        unmatched.remove(match)


def test_photos(coco_model: Path, shared_data: Path, golden: dict[str, Any]) -> None:
    with Detector(coco_model, score_threshold=0.3) as detector:
        for name, expected in golden["images"].items():
            assert_same(detector(shared_data / name), expected["detections"])


@pytest.mark.parametrize("clip", CLIPS)
def test_clips(coco_model: Path, shared_data: Path, golden: dict[str, Any], clip: str) -> None:
    expected = {entry["frame"]: entry for entry in golden["clips"][clip]["frames"]}
    last = sorted(expected)[9]
    compared = 0
    detector = Detector(coco_model, score_threshold=0.3)
    with detector, open_source(shared_data / clip) as source:
        while (frame := source.read()) is not None and frame.index <= last:
            if frame.index in expected:
                mean = expected[frame.index]["mean_bgr"]
                if np.allclose(frame.image.mean((0, 1)), mean, atol=0.001):
                    assert_same(detector(frame), expected[frame.index]["detections"])
                    compared += 1
    if not compared:
        pytest.skip("FFmpeg converts the colors of this clip differently from OpenCV 4.11")
