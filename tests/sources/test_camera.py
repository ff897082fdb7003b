"""The camera source on a stub device in place of `cv2.VideoCapture`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.sources import camera as camera_module
from realtime_ssd.sources import open_source
from realtime_ssd.sources.camera import list_cameras


class StubDevice:
    """A camera whose driver queues frames until they are read.

    Frame i has level i. The queue holds four frames, unless a smaller buffer is requested; further
    frames replace the oldest.
    """

    def __init__(self, rate: float = 29.97, opened: bool = True) -> None:
        self.rate, self.opened = rate, opened
        self.calls: list[tuple[int | str, int]] = []
        self.requests: list[tuple[int, float]] = []
        self.size, self.format = (64.0, 48.0), "YUYV"
        self.buffer_size = 4
        self.released = 0
        self.connected = True
        self._queue: list[int] = []
        self._next = 0

    def __call__(self, number: int | str, api: int) -> StubDevice:
        """Open the device, as the constructor of `cv2.VideoCapture` does."""
        self.calls.append((number, api))
        return self

    def capture_frames(self, count: int) -> None:
        for _ in range(count):
            self._queue = [*self._queue, self._next][-self.buffer_size :]
            self._next += 1

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def set(self, name: int, value: float) -> bool:
        if name == cv2.CAP_PROP_BUFFERSIZE:
            self.buffer_size = int(value)
        else:
            self.requests.append((name, value))
        return True

    def get(self, name: int) -> float:
        return {
            cv2.CAP_PROP_FPS: self.rate,
            cv2.CAP_PROP_FRAME_WIDTH: self.size[0],
            cv2.CAP_PROP_FRAME_HEIGHT: self.size[1],
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*self.format)),
        }[name]

    def read(self) -> tuple[bool, Image | None]:
        if not self.connected:
            return False, None
        return True, np.full((48, 64, 3), self._queue.pop(0), np.uint8)

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubDevice:
    """Camera 2 of a Linux machine that also has camera 0."""
    stub = StubDevice()
    for name in ("video2", "video0", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(camera_module, "_DEVICES", tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", stub)
    monkeypatch.setattr("sys.platform", "linux")
    return stub


def test_camera_is_opened_when_the_pipeline_starts(device: StubDevice) -> None:
    source = open_source(2)
    assert device.calls == []
    assert (source.info.name, source.info.live) == ("camera 2", True)
    assert source.read() is None
    source.open()
    assert device.calls == [(2, cv2.CAP_V4L2)]
    info = source.info
    assert (info.name, info.width, info.height, info.live) == ("camera 2", 64, 48, True)
    assert info.rate == Fraction(2997, 100)


def test_device_path_selects_the_camera(device: StubDevice) -> None:
    with open_source("/dev/video2") as source:
        source.open()
    assert device.calls == [(2, cv2.CAP_V4L2)]


def test_only_the_newest_frame_is_buffered(device: StubDevice) -> None:
    with open_source("2") as source:
        source.open()
        device.capture_frames(10)
        frame = source.read()
    assert frame is not None
    assert (frame.image == 9).all()


def test_frames_are_numbered_and_timed_on_arrival(
    device: StubDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [100.0, 100.5, 100.75, 103.0]
    monkeypatch.setattr("realtime_ssd.sources.camera.time.monotonic", lambda: times.pop(0))
    with open_source("2") as source:
        source.open()
        frames = []
        for _ in range(3):
            device.capture_frames(1)
            frames.append(source.read())
            source.open()  # as after a loss
    read = [(f.index, f.source, f.time, f.captured_at) for f in frames if f is not None]
    assert read == [
        (0, "camera 2", 0.5, 100.5),
        (1, "camera 2", 0.75, 100.75),
        (2, "camera 2", 3.0, 103.0),
    ]


def test_unknown_rate_is_none(device: StubDevice) -> None:
    device.rate = 0.0
    with open_source("2") as source:
        source.open()
        assert source.info.rate is None


def test_lost_camera_is_an_error_from_which_it_recovers(device: StubDevice) -> None:
    with open_source("2") as source:
        source.open()
        device.capture_frames(1)
        assert source.read() is not None
        device.connected = False
        with pytest.raises(SourceError, match=r"^camera 2 returned no frame; is it still conn"):
            source.read()
        device.connected = True
        source.open()
        assert device.released == 1
        device.capture_frames(1)
        assert source.read() is not None
    assert device.released == 2


def test_camera_in_use_is_an_error_that_names_the_causes(device: StubDevice) -> None:
    device.opened = False
    with open_source("2") as source:
        with pytest.raises(SourceError) as caught:
            source.open()
        assert device.released == 1
        assert source.read() is None
    assert str(caught.value) == (
        "camera 2 cannot be opened; another program may be using it, or this user may lack "
        "permission (group 'video')"
    )


@pytest.mark.usefixtures("device")
def test_missing_camera_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(5).open()
    cameras = f"{tmp_path}/video0, {tmp_path}/video2"
    assert str(caught.value) == f"camera 5 does not exist; this machine has {cameras}"
    for path in tmp_path.glob("video*"):
        path.unlink()
    with pytest.raises(UsageError, match="does not exist; this machine has no camera"):
        open_source(2).open()


@pytest.mark.usefixtures("device")
def test_cameras_are_listed_by_path(tmp_path: Path) -> None:
    assert list_cameras() == [f"{tmp_path}/video0", f"{tmp_path}/video2"]


def test_other_systems_choose_the_capture_api(
    device: StubDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with open_source("7") as source:
        source.open()
    assert device.calls == [(7, cv2.CAP_ANY)]


def test_settings_are_requested_in_the_order_that_drivers_need(
    device: StubDevice, caplog: pytest.LogCaptureFixture
) -> None:
    device.size, device.format, device.rate = (1280.0, 720.0), "MJPG", 30.0
    with open_source("camera:2?size=1280x720&fps=30") as source:
        source.open()
        assert (source.info.width, source.info.height) == (1280, 720)
    assert device.requests == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30),
    ]
    assert caplog.messages == ["camera 2 delivers 1280x720 at 30 FPS as MJPG"]


@pytest.mark.parametrize("setting", ["size=1920x1080", "fps=60", "format=mjpg"])
def test_settings_that_the_camera_ignores_are_reported(
    device: StubDevice, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    with open_source(f"2?{setting}") as source:
        source.open()
    (message,) = caplog.messages
    assert message.startswith("camera 2 delivers 64x48 at 29.97 FPS as YUYV, not what was requ")


def test_nothing_is_requested_without_settings(
    device: StubDevice, caplog: pytest.LogCaptureFixture
) -> None:
    with open_source("2") as source:
        source.open()
    assert device.requests == []
    assert not caplog.messages


def test_device_is_opened_by_its_stable_path(device: StubDevice, tmp_path: Path) -> None:
    stable = tmp_path / "v4l" / "by-id" / "usb-046d_C920-video-index0"
    stable.parent.mkdir(parents=True)
    stable.symlink_to(tmp_path / "video2")
    with open_source(f"camera:{stable}?fps=15") as source:
        source.open()
        assert source.info.name == f"camera {stable}"
    assert device.calls == [(str(stable), cv2.CAP_V4L2)]


def test_stable_path_is_a_camera_even_while_it_is_unplugged(device: StubDevice) -> None:
    with open_source("/dev/v4l/by-id/usb-none-video-index0") as source:
        assert source.info.live
        with pytest.raises(UsageError, match="does not exist; this machine has"):
            source.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera:front", "is not a camera; use a number or a device"),
        ("camera:", "is not a camera"),
        ("0?size=1280", "settings that are not understood; use size=WIDTHxHEIGHT, fps=N"),
        ("0?fps=nan", "settings that are not understood"),
        ("0?fps", "settings that are not understood"),
        ("0?format=MJPEG", "settings that are not understood"),
        ("camera:0?zoom=2", "settings that are not understood"),
    ],
)
def test_malformed_cameras_are_errors(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(text)
