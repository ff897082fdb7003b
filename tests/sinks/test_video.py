"""Annotated video: time stamps, audio, colors, and what is readable after a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from realtime_ssd import Detections, open_source
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import SourceInfo
from tests.videos import audio_of, make_video, stamps_of

TEN_FPS = SourceInfo("x", rate=Fraction(10), time_base=Fraction(1, 10))


def copy(source_path: Path, target: Path, frames: int = 10**9) -> None:
    with open_source(source_path) as source, VideoSink(target, source.info) as sink:
        for frame in source:
            if frame.index == frames:
                break
            sink.write(FrameResult(frame, Detections.empty()))


def write_images(path: Path, images: Sequence[Image]) -> None:
    """Write images at 10 frames per second."""
    with VideoSink(path, TEN_FPS) as sink:
        for number, image in enumerate(images):
            frame = Frame(image, number, "x", number, TEN_FPS.time_base)
            sink.write(FrameResult(frame, Detections.empty()))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_time_stamps_and_audio_are_those_of_the_source(tmp_path: Path, suffix: str) -> None:
    stamps = [0, 1001, 2002, 5005, 6006, 9009, 30030]
    source = make_video(tmp_path / f"a{suffix}", stamps, audio=True)
    copy(source, tmp_path / f"b{suffix}")
    assert stamps_of(tmp_path / f"b{suffix}") == stamps_of(source)
    assert audio_of(tmp_path / f"b{suffix}") == audio_of(source)


def make_video_with_audio(path: Path, codec: str, seconds: float = 3.0) -> Path:
    """Write one second of video with audio of another length."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, 16000, layout="mono")
        for number in range(25):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = np.sin(np.arange(int(16000 * seconds)) * 0.17) * 9000
        tone = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        tone.sample_rate, tone.pts = 16000, 0
        for piece in av.AudioResampler(audio.format, "mono", 16000, 1024).resample(tone):
            container.mux(audio.encode(piece))
        container.mux(audio.encode())
    return path


def test_aac_from_mpeg_ts_is_copied_to_mp4(tmp_path: Path) -> None:
    """MPEG-TS carries AAC with a header in each packet, which MP4 does not support."""
    source = make_video_with_audio(tmp_path / "a.ts", "aac", 1.0)
    copy(source, tmp_path / "b.mp4")
    assert stamps_of(tmp_path / "b.mp4") == stamps_of(source)
    assert len(audio_of(tmp_path / "b.mp4")) == len(audio_of(source))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16000


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".webm"), ("flac", ".mov")])
def test_unsupported_audio_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, suffix: str
) -> None:
    source = make_video_with_audio(tmp_path / "a.mkv", codec, 1.0)
    copy(source, tmp_path / f"b{suffix}")
    target = tmp_path / f"b{suffix}"
    assert caplog.messages == [
        f"'{target}' is written without sound: {suffix} does not support the source's {codec}"
    ]
    assert len(stamps_of(target)) == 25
    with av.open(str(target)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_longer_than_the_video_is_copied_completely(tmp_path: Path, suffix: str) -> None:
    source = make_video_with_audio(tmp_path / f"a{suffix}", "aac")
    copy(source, tmp_path / f"b{suffix}")
    assert audio_of(tmp_path / f"b{suffix}") == audio_of(source)
    copy(source, tmp_path / f"c{suffix}", frames=10)
    assert len(audio_of(tmp_path / f"c{suffix}")) * 1024 / 16000 == pytest.approx(0.4, abs=0.15)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_audio_before_the_video_does_not_shift_it(tmp_path: Path, suffix: str) -> None:
    """MP4 stores the 1024 samples of AAC encoder delay before time 0."""
    copy(make_video_with_audio(tmp_path / "a.mp4", "aac"), tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        times = [
            packet.dts * packet.time_base for packet in container.demux(video=0) if packet.size
        ]
    assert times == [Fraction(number, 25) for number in range(25)]


def test_pixel_aspect_ratio_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    copy(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


def write_live(path: Path, stamps: Sequence[int | None]) -> list[Fraction]:
    """Write frames of a live source with time stamps in milliseconds, and read them back."""
    info = SourceInfo("x", live=True, rate=Fraction(10))
    image = np.zeros((48, 64, 3), np.uint8)
    with VideoSink(path, info) as sink:
        for number, stamp in enumerate(stamps):
            sink.write(FrameResult(Frame(image, number, "x", stamp), Detections.empty()))
    return stamps_of(path)


def test_recording_starts_at_0_and_continues_after_a_clock_reset(tmp_path: Path) -> None:
    times = write_live(tmp_path / "o.mp4", [5000, 5100, 5200, 0, 100, 90, 200])
    assert times == [Fraction(str(time)) for time in (0.0, 0.1, 0.2, 0.3, 0.4, 0.401, 0.5)]


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 2000, 1000, 1001, 3000], ["0", "2", "2.001", "2.002", "3"]),
        ([0, 2000, 999, 1099, 1098], ["0", "2", "2.1", "2.2", "2.201"]),
    ],
)
def test_clock_reset_is_a_step_back_of_more_than_a_second(
    tmp_path: Path, stamps: list[int], times: list[str]
) -> None:
    assert write_live(tmp_path / "o.mp4", stamps) == [Fraction(time) for time in times]


def test_frames_without_time_stamps_follow_the_rate(tmp_path: Path) -> None:
    times = write_live(tmp_path / "o.mp4", [None, None, None])
    assert times == [Fraction(0), Fraction(1, 10), Fraction(2, 10)]


def test_real_clip_keeps_time_stamps_and_audio(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "clips/nasa_13013.mp4"
    copy(clip, tmp_path / "out.mp4")
    assert stamps_of(tmp_path / "out.mp4") == stamps_of(clip)
    assert audio_of(tmp_path / "out.mp4") == audio_of(clip)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(clip)) as source:
        assert out.streams.video[0].average_rate == source.streams.video[0].average_rate
        assert out.streams.video[0].frames == 325


def make_gradient(width: int, height: int) -> Image:
    """Draw hue from left to right, and saturation and brightness from top to bottom."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 179, width)
    image[..., 1] = np.linspace(255, 120, height)[:, None]
    image[..., 2] = np.linspace(120, 255, height)[:, None]
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_HSV2BGR), np.uint8)


@pytest.mark.parametrize(
    ("width", "height"),
    [(480, 854), (854, 480), (1080, 1350), (480, 270), (160, 90), (162, 90), (64, 48)],
)
def test_every_plane_has_the_values_of_the_image(tmp_path: Path, width: int, height: int) -> None:
    image = make_gradient(width, height)
    write_images(tmp_path / "o.mp4", [image])
    with av.open(str(tmp_path / "o.mp4")) as container:
        (frame,) = container.decode(video=0)
    assert frame.format.name == "yuv420p"
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        size = plane.height * plane.width
        values, expected = expected[:size].reshape(plane.height, plane.width), expected[size:]
        error = np.abs(rows[:, : plane.width].astype(int) - values)
        assert error.mean() < 1.5
        assert error.mean(axis=1).max() < 4  # no row differs, also at the lower edge


def test_image_read_back_has_the_colors_written(tmp_path: Path) -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 200, 40)]
    for number, color in enumerate(colors):
        image[:, 40 * number : 40 * number + 40] = color
    write_images(tmp_path / "o.mp4", [image])
    with open_source(tmp_path / "o.mp4") as source:
        frame = source.read()
    assert frame is not None
    for number, color in enumerate(colors):
        block = frame.image[2:-2, 40 * number + 8 : 40 * number + 32]
        assert np.abs(block.astype(int) - color).max() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm"])
def test_color_tags_are_those_of_the_conversion(tmp_path: Path, suffix: str) -> None:
    """BT.601 in limited range: SMPTE 170M has the value 6 in all three enumerations of FFmpeg."""
    path = tmp_path / f"o{suffix}"
    write_images(path, [make_gradient(64, 48)])
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    assert (frame.colorspace, frame.color_range) == (6, 1)
    assert (frame.color_primaries, frame.color_trc) == (6, 6)


@pytest.mark.parametrize(
    ("rate", "interval"), [(Fraction(10), 20), (Fraction(24000, 1001), 48), (Fraction(1, 5), 1)]
)
def test_key_frames_are_two_seconds_apart(tmp_path: Path, rate: Fraction, interval: int) -> None:
    info = SourceInfo("x", rate=rate, time_base=1 / rate)
    image = make_gradient(64, 48)
    with VideoSink(tmp_path / "o.mp4", info) as sink:
        for number in range(2 * interval + 3):
            frame = Frame(image, number, "x", number, info.time_base)
            sink.write(FrameResult(frame, Detections.empty()))
    with av.open(str(tmp_path / "o.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key_frames = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert key_frames == list(range(0, 2 * interval + 3, interval))


def test_odd_and_changing_sizes_are_fitted_into_the_first_even_size(tmp_path: Path) -> None:
    sizes = [(33, 51), (33, 51), (60, 80)]
    write_images(tmp_path / "o.mp4", [np.full((*size, 3), 90, np.uint8) for size in sizes])
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(52, 34)] * 3
    first = frames[0].to_ndarray(format="gray").astype(int)
    assert np.ptp(first) <= 4  # the added column and row repeat the last ones


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [((60, 80), (120, 80), (60, 40)), ((80, 60), (40, 120), (20, 60)), ((60, 80), (30, 40), None)],
)
def test_image_of_another_shape_keeps_its_proportions(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int], shape: tuple[int, int] | None
) -> None:
    images = [np.full((*size, 3), 200, np.uint8) for size in (first, second)]
    write_images(tmp_path / "o.mp4", images)
    with av.open(str(tmp_path / "o.mp4")) as container:
        last = list(container.decode(video=0))[-1].to_ndarray(format="gray")
    height, width = shape or first
    top, left = (first[0] - height) // 2, (first[1] - width) // 2
    bright = last > 100
    assert int(bright.sum()) == pytest.approx(height * width, rel=0.1)
    assert bright[top + 2 : top + height - 2, left + 2 : left + width - 2].all()


def test_existing_file_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_text("existing")
    with pytest.raises(UsageError, match="exists; set `overwrite` to replace it"):
        VideoSink(path, TEN_FPS)
    assert path.read_text() == "existing"
    with VideoSink(path, TEN_FPS, overwrite=True) as sink:
        sink.write(FrameResult(Frame(make_gradient(64, 48), pts=0), Detections.empty()))
    assert len(stamps_of(path)) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_deleted_file_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    frame = Frame(make_gradient(64, 48), pts=0)
    with VideoSink(path, TEN_FPS) as sink:
        sink.write(FrameResult(frame, Detections.empty()))
        path.unlink()
        with pytest.raises(RealtimeSSDError, match=r"'.*' was deleted while it was written"):
            sink.write(FrameResult(frame, Detections.empty()))
    assert not path.exists()


def test_unusable_paths_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a supported video format; use one of .mp4, .m4v"):
        VideoSink(tmp_path / "o.xyz", TEN_FPS)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file' is not a folder"):
        VideoSink(tmp_path / "file" / "o.mp4", TEN_FPS)


def test_video_without_frames_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with VideoSink(path, TEN_FPS) as sink:
        assert path.exists()
    assert not path.exists()
    sink.close()
    sink.write(FrameResult(Frame(make_gradient(64, 48), pts=0), Detections.empty()))
    assert not path.exists()


WRITER = """
import sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd import Frame
source = open_source("demo:160x96@30,frames=8")
images = [frame.image for frame in iter(source.read, None)]
sink = VideoSink(Path(sys.argv[1]), source.info)
for number in range(10**9):
    frame = Frame(images[number % 8], number, "x", number, source.info.time_base)
    sink.write(FrameResult(frame, Detections.empty()))
    if number == 150:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_killed_process_leaves_a_readable_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    stamps = stamps_of(path)
    assert len(stamps) >= 60  # all but the last fragment and the frames queued in the encoder
    exact = [Fraction(number, 30) for number in range(len(stamps))]
    tolerance = 0 if suffix == ".mp4" else Fraction(1, 1000)  # Matroska counts milliseconds
    assert all(abs(a - b) <= tolerance for a, b in zip(stamps, exact, strict=True))


FULL_DISK = """
import resource, sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
source = open_source("demo:320x180@30,frames=0")
with VideoSink(Path(sys.argv[1]), source.info) as sink:
    try:
        while True:
            sink.write(FrameResult(source.read(), Detections.empty()))
    except RealtimeSSDError as error:
        print(error)
"""


def test_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"writing '{path}' failed (File too large); of the ")
    assert " frames written before, all but about the last second can be played" in done.stdout
    frames = int(done.stdout.split("; of the ")[1].split(" ")[0])
    assert frames - 45 <= len(stamps_of(path)) <= frames
    assert len(stamps_of(path)) > 10
