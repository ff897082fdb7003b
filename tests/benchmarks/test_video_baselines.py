"""Video baselines produce the same detections, and short clips are repeated."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from benchmarks import readme
from benchmarks.cpu import video_baselines
from benchmarks.cpu.video_baselines import measure, repeat_clip
from tests.videos import make_video


def read_frames(video: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(video)) as container:
        return [
            (frame.pts, frame.to_ndarray(format="gray").tobytes())
            for frame in container.decode(video=0)
        ]


def test_short_clip_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_baselines, "MIN_FRAMES", 20)
    clip = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(8)])
    clip_pixels = [pixels for _, pixels in read_frames(clip)]
    long_clip, repeats = repeat_clip(clip, tmp_path)
    frames = read_frames(long_clip)
    assert repeats == 3
    assert [pixels for _, pixels in frames] == clip_pixels * 3
    stamps = [pts for pts, _ in frames if pts is not None]
    assert len(set(stamps)) == 24
    assert stamps == sorted(stamps)
    assert repeat_clip(long_clip, tmp_path) == (long_clip, 1)


def test_detections_are_compared_before_speed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_baselines, "MIN_FRAMES", 20)
    clip = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(10)])
    rows = measure(tiny, clip, 2)
    assert rows["realtime-ssd"]["clip_in_a_row"] == 2
    for name in ("cv2.VideoCapture + OpenCV DNN", "cv2.VideoCapture + ONNX Runtime"):
        assert rows[name]["same_answers"]
        assert len(rows[name]["fps"]) == len(rows["realtime-ssd"]["fps"]) == 2
    table = readme.comparisons({"loops": {"clip.mp4": rows}})
    assert table[0].title.startswith("video file to detections, clip.mp4 × 2: cv2.VideoCapture")
