from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.sources.ffmpeg import FrameConverter
from realtime_ssd.sources.file import decoder_threads
from tests.videos import make_video, readable

STAMPS = [0, 1001, 2002, 5005, 6006, 9009]


def test_variable_rate_keeps_every_time_stamp(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", STAMPS)
    frames, problem = readable(path)
    assert not problem
    assert [Fraction(f.pts or 0) * f.time_base for f in frames] == [
        Fraction(stamp, 30000) for stamp in STAMPS
    ]
    assert [frame.index for frame in frames] == list(range(6))
    levels = [frame.image.mean() for frame in frames]
    assert np.allclose(levels, range(20, 26), atol=4)
    assert not frames[0].image.flags.writeable


def test_ntsc_rate_is_exact(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [1001 * i for i in range(30)])
    with open_source(path) as source:
        assert source.info.rate == Fraction(30000, 1001)
        assert source.info.time_base == Fraction(1, 30000)
        assert source.info.frame_count == 30
        assert source.info.files == (path,)
        assert not source.info.live


def test_reopened_file_starts_over_and_closed_file_ends(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [0, 1001, 2002])
    with open_source(path) as source:
        assert source.read() is not None
        source.open()
        assert [frame.index for frame in source] == [0, 1, 2]
        source.open()
        source.close()
        source.close()
        assert source.read() is None


@pytest.mark.parametrize(
    "clip", ["carnd_vehicle_test_video.mp4", "solidWhiteRight.mp4", "nasa_13013.mp4"]
)
def test_real_clips_have_the_pixels_of_opencv(shared_data: Path, clip: str) -> None:
    capture = cv2.VideoCapture(str(shared_data / "clips" / clip))
    with open_source(shared_data / "clips" / clip) as source:
        count = 0
        for frame in source:
            success, image = capture.read()
            assert success
            if count % 10 == 0:
                np.testing.assert_array_equal(frame.image, image)
            count += 1
        assert not capture.read()[0]
        assert count == source.info.frame_count


def make_faststart(path: Path, frames: int) -> bytes:
    stamps = [1001 * i for i in range(frames)]
    return make_video(path, stamps, options={"movflags": "faststart"}).read_bytes()


def test_truncated_file_keeps_the_readable_frames(tmp_path: Path) -> None:
    data = make_faststart(tmp_path / "v.mp4", 60)
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(data[: len(data) * 3 // 4])
    frames, problem = readable(truncated)
    assert 0 < len(frames) < 60
    packets = re.search(r"truncated.mp4' is truncated after frame (\d+) of 60; ", problem)
    assert packets is not None
    assert int(packets[1]) - len(frames) in (0, 1)  # the last packet may be incomplete
    assert f"the {len(frames)} frames that could be decoded were kept" in problem


def test_bit_errors_are_reported_and_the_other_frames_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(make_faststart(tmp_path / "v.mp4", 60))
    middle = len(data) * 2 // 3
    data[middle : middle + 40] = b"\xff" * 40
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(bytes(data))
    frames, problem = readable(damaged)
    assert len(frames) >= 30
    assert "damaged" in problem + caplog.text or "is truncated" in problem


def test_undecodable_packets_are_counted(tmp_path: Path) -> None:
    """Packets of zeros in place of those of some frames in an MPEG-4 video in AVI."""
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            image = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in stream.encode(frame):
                if number in (3, 4):
                    damaged = av.Packet(bytes(packet.size))
                    damaged.stream, damaged.pts, damaged.dts = stream, number, number
                    damaged.time_base = Fraction(1, 25)
                container.mux(damaged if number in (3, 4) else packet)
    frames, problem = readable(path)
    assert len(frames) == 8
    assert problem == (
        f"'{path}' is damaged in 2 places; the 8 frames that could be decoded were kept"
    )


def test_files_without_video_are_reported(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("just text\n" * 100)
    with pytest.raises(SourceError, match="it is not a video, or it is damaged"):
        open_source(text)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(empty)
    with pytest.raises(UsageError, match="does not exist"):
        open_source(tmp_path / "missing.mp4")
    audio = tmp_path / "audio.mp4"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("aac", 16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="contains no video; use a video file"):
        open_source(audio)


def test_video_without_a_decodable_frame_is_reported(tmp_path: Path) -> None:
    data = make_faststart(tmp_path / "v.mp4", 3)
    start = data.index(b"mdat") + 4
    hollow = tmp_path / "hollow.mp4"
    hollow.write_bytes(data[:start] + bytes(len(data) - start))
    frames, problem = readable(hollow)
    assert not frames
    assert problem == f"'{hollow}' has no frame that can be decoded; it may be damaged"


def make_rotated_video(path: Path, angle: int, image: Image) -> Path:
    """Write one frame with the rotation in its metadata, as phones do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a rotated video")
        stream.set_display_rotation(angle)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("angle", "size", "aspect", "corner"),
    [
        (90, (64, 96), Fraction(15, 16), (1, 0)),
        (180, (96, 64), Fraction(16, 15), (1, 1)),
        (270, (64, 96), Fraction(15, 16), (0, 1)),
    ],
)
def test_rotation_is_applied(
    tmp_path: Path, angle: int, size: tuple[int, int], aspect: Fraction, corner: tuple[int, int]
) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 255  # upper left quarter
    with open_source(make_rotated_video(tmp_path / "v.mp4", angle, image)) as source:
        assert (source.info.width, source.info.height) == size
        assert source.info.pixel_aspect == aspect
        frame = source.read()
    assert frame is not None
    assert (frame.width, frame.height) == size
    height, width = frame.height // 2, frame.width // 2
    assert frame.image.shape == (size[1], size[0], 3)
    quarters = frame.image.reshape(2, height, 2, width, 3).mean(axis=(1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner


def make_avi(path: Path, stamps: Sequence[int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stamp in stamps:
            image = np.full((48, 64, 3), 20 * stamp, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = stamp, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_avi_with_a_dropped_frame_is_complete(tmp_path: Path) -> None:
    """AVI stores an empty packet in place of frame 3."""
    path = make_avi(tmp_path / "v.avi", [0, 1, 2, 4, 5])
    with open_source(path) as source:
        assert source.info.frame_count == 6
    frames, problem = readable(path)
    assert (len(frames), problem) == (5, "")


def test_avi_without_its_last_frame_is_truncated(tmp_path: Path) -> None:
    data = make_avi(tmp_path / "v.avi", range(6)).read_bytes()
    truncated = tmp_path / "truncated.avi"
    truncated.write_bytes(data[: data.rindex(b"00dc", 0, data.rindex(b"idx1"))])
    frames, problem = readable(truncated)
    assert len(frames) == 5
    assert problem == (
        f"'{truncated}' is truncated after frame 5 of 6; the 5 frames that could be decoded were "
        "kept"
    )


def test_failed_conversion_is_reported_when_the_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: FrameConverter, frame: object) -> None:
        raise ValueError("no conversion")

    monkeypatch.setattr(FrameConverter, "to_bgr", fail)
    with open_source(make_video(tmp_path / "a.mp4", [0, 1001])) as source:
        frame = source.read()
        assert frame is not None
        assert (frame.width, frame.height) == (source.info.width, source.info.height)
        message = r"a.mp4' has frames that cannot be converted to BGR: no conversion"
        with pytest.raises(SourceError, match=message):
            _ = frame.image


class WebServer:
    """Serves the files of a folder without range requests."""

    def __init__(self, folder: Path) -> None:
        handler: Callable[..., SimpleHTTPRequestHandler]
        handler = partial(QuietHandler, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://me:hunter2@127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> WebServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_video_on_a_web_server_is_read_completely(tmp_path: Path) -> None:
    make_faststart(tmp_path / "v.mp4", 10)
    with WebServer(tmp_path) as server, open_source(f"{server.url}/v.mp4") as source:
        info = source.info
        assert (info.live, info.path, info.files, info.frame_count) == (False, None, (), 10)
        assert info.name == f"{server.url}/v.mp4".replace("me:hunter2@", "")
        assert len(list(source)) == 10


@pytest.mark.parametrize(
    ("width", "height", "cores", "threads"),
    [
        (1280, 720, 2, 1),
        (1920, 1080, 2, 2),
        (1280, 720, 8, 4),
        (3840, 2160, 16, 4),
        (1920, 1080, 1, 1),
        (320, 240, 8, 1),
        (0, 0, 8, 1),
    ],
)
def test_decoder_has_as_few_threads_as_it_needs(
    width: int, height: int, cores: int, threads: int
) -> None:
    assert decoder_threads(width, height, cores) == threads
