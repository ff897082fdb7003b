"""The real MobileNet SSD gives the answers that another implementation gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime_ssd import Detections, Detector, open_source

Wanted = list[dict[str, Any]]
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


def agree(found: Detections, wanted: Wanted) -> None:
    """Compare as sets: what differs in a rounded score may change places."""
    assert len(found) == len(wanted)
    left = list(found)
    for item in wanted:
        match = next(
            one
            for one in left
            if one.class_id == item["coco_id"]
            and abs(one.score - item["score"]) <= 1e-3
            and np.abs(np.subtract(one.box, item["box_px_xyxy"])).max() <= 0.5
        )
        assert match.label == item["name"]
        left.remove(match)


def test_photos(coco_model: Path, shared_data: Path, golden: dict[str, Any]) -> None:
    with Detector(coco_model) as detector:
        for name, wanted in golden["images"].items():
            with open_source(shared_data / name) as source:
                frame = source.read()
                assert frame is not None
                agree(detector(frame.image), wanted["detections"])


@pytest.mark.parametrize("clip", CLIPS)
def test_clips(coco_model: Path, shared_data: Path, golden: dict[str, Any], clip: str) -> None:
    wanted = {entry["frame"]: entry for entry in golden["clips"][clip]["frames"]}
    last = sorted(wanted)[9]
    compared = 0
    with Detector(coco_model) as detector, open_source(shared_data / clip) as source:
        while (frame := source.read()) is not None and frame.index <= last:
            if frame.index in wanted:
                mean = wanted[frame.index]["mean_bgr"]
                if np.allclose(frame.image.mean((0, 1)), mean, atol=0.001):
                    agree(detector(frame.image), wanted[frame.index]["detections"])
                    compared += 1
    if not compared:
        pytest.skip("FFmpeg converts this clip's colours otherwise than OpenCV 4.11 did")
