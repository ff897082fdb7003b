"""Frames of extreme or changing size, and hosts that never answer."""

from __future__ import annotations

import json
import socket
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tests.cli.program import run
from tests.videos import make_video

MPEG_CLOCK = Fraction(1, 90000)


def sizes_of(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


def test_changing_resolution_keeps_every_frame(tiny: Path, tmp_path: Path) -> None:
    parts = [
        make_video(
            tmp_path / f"{size[0]}.ts",
            [3003 * (k + first) for k in range(5)],
            time_base=MPEG_CLOCK,
            size=size,
        )
        for size, first in (((160, 120), 0), ((320, 240), 5))
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    output = tmp_path / "out.mp4"
    finished = run("--video", both, "--model", tiny, "--output", output, "--json", "-")
    assert finished.returncode == 0, finished.stderr
    rows = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [(row["width"], row["height"]) for row in rows] == [(160, 120)] * 5 + [(320, 240)] * 5
    assert sizes_of(output) == [(160, 120)] * 10  # a video has the size of its first frame


def test_smallest_and_largest_frames(tiny: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, (width, height) in {"a": (1, 1), "b": (7680, 4320), "c": (1, 300)}.items():
        cv2.imwrite(str(photos / f"{name}.png"), np.full((height, width, 3), 255, np.uint8))
    finished = run("--source", photos, "--model", tiny, "--output", tmp_path / "out", "--json", "-")
    assert finished.returncode == 0, finished.stderr
    for row in map(json.loads, finished.stdout.splitlines()):
        for found in row["detections"]:
            left, top, right, bottom = found["box"]
            assert 0 <= left <= right <= row["width"]
            assert 0 <= top <= bottom <= row["height"]
        assert row["detections"]
    images = [cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()]
    written = sorted(image.shape[:2] for image in images if image is not None)
    assert written == [(1, 1), (300, 1), (4320, 7680)]


def test_8k_video(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "8k.mp4", [0, 1001], size=(7680, 4320))
    output = tmp_path / "out.mp4"
    finished = run("--video", video, "--model", tiny, "--output", output)
    assert finished.returncode == 0, finished.stderr
    assert sizes_of(output) == [(7680, 4320)] * 2


def test_video_without_frames(tiny: Path, tmp_path: Path) -> None:
    video = tmp_path / "zero.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", 30)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        container.start_encoding()
    output = tmp_path / "out.mp4"
    finished = run("--video", video, "--model", tiny, "--output", output)
    assert finished.returncode == 1
    assert "'" + str(video) + "' contains no video" in finished.stderr
    assert not output.exists()


def test_host_that_never_answers(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and never answers
        url = f"http://user:hunter2@127.0.0.1:{server.getsockname()[1]}/live"
        finished = run("--source", url, "--model", tiny, "--json", "-")
    assert finished.returncode == 1
    assert "no answer in time" in finished.stderr
    assert "hunter2" not in finished.stderr + finished.stdout
