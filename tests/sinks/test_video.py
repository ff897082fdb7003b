from __future__ import annotations

import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from realtime_ssd import Detections, open_source
from realtime_ssd.errors import UsageError
from realtime_ssd.frames import Frame
from realtime_ssd.sinks.base import Result
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import SourceInfo
from tests.videos import audio_of, make_video, stamps_of


def copy(source_path: Path, target: Path) -> None:
    with open_source(source_path) as source, VideoSink(target, source.info) as sink:
        while (frame := source.read()) is not None:
            sink.write(Result(frame, Detections.empty()))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_time_stamps_and_audio_are_the_source_s(tmp_path: Path, suffix: str) -> None:
    stamps = [0, 1001, 2002, 5005, 6006, 9009, 30030]
    source = make_video(tmp_path / f"a{suffix}", stamps, audio=True)
    copy(source, tmp_path / f"b{suffix}")
    assert stamps_of(tmp_path / f"b{suffix}") == stamps_of(source)
    assert audio_of(tmp_path / f"b{suffix}") == audio_of(source)


def test_real_clip_with_audio(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "clips/nasa_13013.mp4"
    copy(clip, tmp_path / "out.mp4")
    assert stamps_of(tmp_path / "out.mp4") == stamps_of(clip)
    assert audio_of(tmp_path / "out.mp4") == audio_of(clip)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(clip)) as source:
        assert out.streams.video[0].average_rate == source.streams.video[0].average_rate
        assert out.streams.video[0].frames == 325


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    info = SourceInfo("x", rate=Fraction(10), time_base=Fraction(1, 10))
    with VideoSink(tmp_path / "o.mp4", info) as sink:
        for number, size in enumerate([(33, 51), (33, 51), (60, 80)]):
            image = np.full((*size, 3), 90, np.uint8)
            sink.write(
                Result(Frame(image, number, "x", number, info.time_base), Detections.empty())
            )
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(52, 34)] * 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_text("precious")
    with pytest.raises(UsageError, match="add --overwrite"):
        VideoSink(path, SourceInfo("x"))
    assert path.read_text() == "precious"
    with pytest.raises(UsageError, match="no video format"):
        VideoSink(tmp_path / "o.xyz", SourceInfo("x"))
    with pytest.raises(UsageError, match="cannot be written"):
        VideoSink(tmp_path / "missing" / "o.mp4", SourceInfo("x"))


_WRITER = """
import sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.sinks.base import Result
from realtime_ssd.sinks.video import VideoSink
source = open_source("demo:160x96@30,frames=0")
sink = VideoSink(Path(sys.argv[1]), source.info)
for number in range(10**9):
    sink.write(Result(source.read(), Detections.empty()))
    if number == 150:
        print("ready", flush=True)
"""


def test_killed_writer_leaves_a_video(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    stamps = stamps_of(path)
    assert len(stamps) >= 60  # all but the fragment that was under way and what the encoder held
    assert stamps == [Fraction(number, 30) for number in range(len(stamps))]


_FULL = """
import resource, sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.errors import RealtimeSSDError
from realtime_ssd.sinks.base import Result
from realtime_ssd.sinks.video import VideoSink
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
source = open_source("demo:320x180@30,frames=0")
with VideoSink(Path(sys.argv[1]), source.info) as sink:
    try:
        while True:
            sink.write(Result(source.read(), Detections.empty()))
    except RealtimeSSDError as error:
        print(error)
"""


def test_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written any further" in done.stdout
    assert len(stamps_of(path)) > 10
