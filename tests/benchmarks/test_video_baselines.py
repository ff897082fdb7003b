"""The loops that people write give our answers, and short clips are made long enough."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from benchmarks import readme
from benchmarks.cpu import video_baselines as video_peers
from benchmarks.cpu.video_baselines import measure, prolonged
from tests.videos import make_video


def frames_of(video: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(video)) as container:
        return [
            (frame.pts, frame.to_ndarray(format="gray").tobytes())
            for frame in container.decode(video=0)
        ]


def test_a_short_clip_is_put_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_peers, "LEAST_FRAMES", 20)
    clip = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(8)])
    single = [pixels for _, pixels in frames_of(clip)]
    long, times = prolonged(clip, tmp_path)
    found = frames_of(long)
    assert times == 3
    assert [pixels for _, pixels in found] == single * 3
    stamps = [pts for pts, _ in found if pts is not None]
    assert len(set(stamps)) == 24
    assert stamps == sorted(stamps)
    assert prolonged(long, tmp_path) == (long, 1)


def test_answers_are_compared_before_speed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_peers, "LEAST_FRAMES", 20)
    clip = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(10)])
    rows = measure(tiny, clip, 2)
    assert rows["realtime-ssd"]["clip_in_a_row"] == 2
    for name in ("cv2.VideoCapture + OpenCV DNN", "cv2.VideoCapture + ONNX Runtime"):
        assert rows[name]["same_answers"]
        assert len(rows[name]["fps"]) == len(rows["realtime-ssd"]["fps"]) == 2
    lines = readme.lines_of({"loops": {"clip.mp4": rows}})
    assert lines[0].what.startswith("video file to detections, clip.mp4 × 2: cv2.VideoCapture")
