"""Pipes: opened once, read while they are written, with their sound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import SourceError
from realtime_ssd.sources.packet_feed import PacketFeed
from tests.cli.program import ENVIRONMENT
from tests.flash_and_beep import FRAMES, annotate, beep_time, flash_time, frames_of, make_clip
from tests.videos import readable


class Pipe:
    """A named pipe into which a thread writes once; a second reader would wait forever."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self._data = path, data
        self.broken = False
        os.mkfifo(path)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            self.path.write_bytes(self._data)
        except BrokenPipeError:
            self.broken = True

    def wait(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
@pytest.mark.parametrize("target", ["o.mp4", "o.mkv"])
def test_named_pipe_keeps_its_sound(tmp_path: Path, suffix: str, target: str) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", sounds=["aac", "aac"])
    pipe = Pipe(tmp_path / "pipe", clip.read_bytes())
    annotate(pipe.path, tmp_path / target)
    pipe.wait()
    assert not pipe.broken
    assert len(frames_of(tmp_path / target)[0]) == FRAMES
    flash = flash_time(tmp_path / target)
    for track in range(2):
        offset = beep_time(clip, track) - flash_time(clip)
        assert beep_time(tmp_path / target, track) - flash == pytest.approx(offset, abs=0.003)


def test_pipe_that_no_sink_copies_from_keeps_little_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.sources.packet_feed.MAX_BYTES", 2000)
    clip = make_clip(tmp_path / "clip.ts", sounds=["aac"])
    pipe = Pipe(tmp_path / "pipe", clip.read_bytes())
    with open_source(pipe.path) as source:
        feed = source.info.feed
        assert isinstance(feed, PacketFeed)
        assert len(list(source)) == FRAMES
        assert feed._bytes <= 2000
        assert not feed.attach()  # too late


def test_second_reader_of_a_pipe_is_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", sounds=["aac"])
    pipe = Pipe(tmp_path / "pipe", clip.read_bytes())
    with open_source(pipe.path) as source:
        feed = source.info.feed
        assert feed is not None
        assert [feed.attach(), feed.attach()] == [True, False]
        list(source)
        feed.close()
    pipe.wait()


def test_pipe_that_ends_early_is_reported(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe", b"no video")
    with pytest.raises(SourceError, match=r"damaged; an MP4 file can only be piped if"):
        open_source(pipe.path)
    pipe.wait()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_a_video_with_sound(tmp_path: Path, tiny: Path, name: str) -> None:
    clip = make_clip(tmp_path / "clip.ts", sounds=["aac"])
    target = tmp_path / "o.mp4"
    with clip.open("rb") as file:
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
    finished = subprocess.run(
        [sys.executable, "-m", "realtime_ssd", name, "--model", tiny, "--output", target],
        stdin=cat.stdout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )
    cat.wait(10)
    assert finished.returncode == 0, finished.stderr
    assert len(readable(target)[0]) == FRAMES
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == 1
