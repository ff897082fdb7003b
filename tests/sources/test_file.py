from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.sources.file import FrameConverter, decoders
from tests.videos import make_video, readable

STAMPS = [0, 1001, 2002, 5005, 6006, 9009]


def test_variable_rate_keeps_every_time_stamp(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", STAMPS)
    frames, said = readable(path)
    assert not said
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
        assert source.info.frame_count == 30


@pytest.mark.parametrize(
    "clip",
    [
        "carnd_vehicle_test_video.mp4",
        "solidWhiteRight.mp4",
        "nasa_13013.mp4",
    ],
)
def test_real_clips_give_the_pixels_of_opencv(shared_data: Path, clip: str) -> None:
    capture = cv2.VideoCapture(str(shared_data / "clips" / clip))
    with open_source(shared_data / "clips" / clip) as source:
        count = 0
        while (frame := source.read()) is not None:
            good, image = capture.read()
            assert good
            if count % 10 == 0:
                np.testing.assert_array_equal(frame.image, image)
            count += 1
        assert not capture.read()[0]
        assert count == source.info.frame_count


def test_truncated_file_keeps_what_can_be_read(tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "v.mp4", [1001 * i for i in range(60)], options={"movflags": "faststart"}
    )
    data = whole.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data[: len(data) * 3 // 4])
    frames, said = readable(broken)
    assert 0 < len(frames) < 60
    assert "breaks off after frame" in said
    assert f"the {len(frames)} frames that could be decoded were kept" in said


def test_bit_flips_never_end_the_program_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_video(
        tmp_path / "v.mp4", [1001 * i for i in range(60)], options={"movflags": "faststart"}
    )
    data = bytearray(whole.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 40] = b"\xff" * 40
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(data))
    frames, said = readable(broken)
    assert len(frames) >= 30
    assert "damaged" in said + caplog.text or "breaks off" in said


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 100)
    with pytest.raises(SourceError, match="no video, or it is damaged"):
        open_source(text)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(empty)
    with pytest.raises(UsageError, match="does not exist"):
        open_source(tmp_path / "missing.mp4")


def test_rotation_is_applied(tmp_path: Path) -> None:
    import av

    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a rotated video")
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
        container.mux(stream.encode())
    with open_source(path) as source:
        frame = source.read()
        assert frame is not None
        assert (frame.width, frame.height) == (64, 96) == (source.info.width, source.info.height)


def test_an_upright_video_stands_upright(tmp_path: Path) -> None:
    """A phone's video lies on its side, with a note of how to turn it."""
    import av

    lying = np.zeros((64, 96, 3), np.uint8)
    lying[:32, :48] = 255  # upper left
    for angle, (row, column) in ((90, (1, 0)), (180, (1, 1)), (270, (0, 1))):
        path = tmp_path / f"{angle}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", 25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotated video")
            stream.set_display_rotation(angle)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="bgr24")))
            container.mux(stream.encode())
        with open_source(path) as source:
            frame = source.read()
        assert frame is not None
        high, wide = frame.height // 2, frame.width // 2
        quarters = frame.image.reshape(2, high, 2, wide, 3).mean(axis=(1, 3, 4))
        assert np.unravel_index(quarters.argmax(), (2, 2)) == (row, column), angle


def test_an_avi_with_a_picture_left_out_is_whole(tmp_path: Path) -> None:
    import av

    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stamp in (0, 1, 2, 4, 5):  # AVI keeps the place of 3 with an empty packet
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = stamp, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(path) as source:
        assert source.info.frame_count == 6
    frames, said = readable(path)
    assert (len(frames), said) == (5, "")


def test_pictures_that_cannot_be_converted_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paint(_: FrameConverter, frame: object) -> None:
        raise ValueError("no conversion")

    monkeypatch.setattr(FrameConverter, "paint", paint)
    with open_source(make_video(tmp_path / "a.mp4", [0, 1001])) as source:
        frame = source.read()
        assert frame is not None
        assert (frame.width, frame.height) == (source.info.width, source.info.height)
        with pytest.raises(SourceError, match=r"a.mp4' holds pictures .* into BGR: no conversion"):
            _ = frame.image


@pytest.mark.parametrize(
    ("width", "height", "cores", "threads"),
    [(1280, 720, 2, 1), (1920, 1080, 2, 2), (1280, 720, 8, 4), (320, 240, 8, 1), (0, 0, 8, 1)],
)
def test_decoders_are_as_few_as_keep_up(width: int, height: int, cores: int, threads: int) -> None:
    assert decoders(width, height, cores) == threads
