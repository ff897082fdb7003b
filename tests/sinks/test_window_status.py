"""The window sink on a stub of OpenCV's window functions, with a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.annotators.text import draw_lines
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks import window as window_module
from realtime_ssd.sinks.window import KEYS, WindowSink
from realtime_ssd.sources import SourceInfo

FILE, CAMERA = SourceInfo("file"), SourceInfo("camera", live=True)
IMAGES = SourceInfo("images", still=True)


class StubGui:
    """Windows, a keyboard and a clock that advances while `waitKey` waits.

    Attributes:
        keys: Keys to press, one per call of `waitKey`; "" for none.
        shown: Images in the order in which they were shown.
        times: Time in seconds at which each was shown.
        sizes: Width and height of each window.
        visible: Whether windows are open; None if OpenCV knows none.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.shown: list[Image] = []
        self.times: list[float] = []
        self.sizes: dict[str, tuple[int, int]] = {}
        self.visible: bool | None = True
        self.destroyed = 0
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def named_window(self, name: str, flags: int) -> None:
        assert flags == cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL

    def resize_window(self, name: str, width: int, height: int) -> None:
        self.sizes[name] = width, height

    def show(self, name: str, image: Image) -> None:
        self.shown.append(image.copy())
        self.times.append(self.now)

    def wait_key(self, milliseconds: int) -> int:
        assert milliseconds > 0
        assert self.now < 2000, "no key ends the wait"
        self.now += milliseconds / 1000
        key = self.keys.pop(0) if self.keys else ""
        return ord(key) if key else -1

    def window_property(self, name: str, number: int) -> float:
        assert number == cv2.WND_PROP_VISIBLE
        if self.visible is None:
            raise cv2.error("no window")
        return float(self.visible)

    def destroy(self) -> None:
        self.destroyed += 1
        raise cv2.error("the last window is closed")


@pytest.fixture
def gui(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubGui]:
    stub = StubGui()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("realtime_ssd.sinks.window.time.monotonic", stub.monotonic)
    monkeypatch.setattr(cv2, "namedWindow", stub.named_window)
    monkeypatch.setattr(cv2, "resizeWindow", stub.resize_window)
    monkeypatch.setattr(cv2, "imshow", stub.show)
    monkeypatch.setattr(cv2, "waitKey", stub.wait_key)
    monkeypatch.setattr(cv2, "getWindowProperty", stub.window_property)
    monkeypatch.setattr(cv2, "destroyAllWindows", stub.destroy)
    yield stub
    assert not stub.keys, "keys were not read"


class FixedStatistics(Statistics):
    """Statistics with a fixed frame rate and latency."""

    recent_fps = 24.96

    def latency(self, stage: str = "end_to_end", share: float = 0.5) -> float:
        assert (stage, share) == ("end_to_end", 0.5)
        return 0.0421


def result(info: SourceInfo, index: int = 0, pts: int = 0, level: int = 100) -> FrameResult:
    image = np.full((180, 320, 3), level, np.uint8)
    frame = Frame(image, index, info.name, pts)
    return FrameResult(frame, Detections.empty(), {"network": 0.005, "postprocess": 0.0021})


def text_image(*lines: str, level: int = 100) -> Image:
    image = np.full((180, 320, 3), level, np.uint8)
    draw_lines(image, lines)
    return image


class Window(WindowSink):
    """A window sink that counts stop requests."""

    def __init__(self, *infos: SourceInfo, paced: bool = False, snapshots: Path = Path()) -> None:
        self.statistics = FixedStatistics(tuple(info.name for info in infos))
        self.stops = 0
        super().__init__(self.statistics, self._count_stop, infos, paced=paced, snapshots=snapshots)

    def _count_stop(self) -> None:
        self.stops += 1


def test_status_of_a_camera_has_rate_latency_and_drops(gui: StubGui) -> None:
    window = Window(CAMERA, FILE)
    for source, outcome in (*[("camera", "replaced")] * 3, ("file", "stopped")):
        window.statistics.on_frame(source, outcome)  # type: ignore[arg-type]
    window.write(result(CAMERA))
    np.testing.assert_array_equal(gui.shown[0], text_image("25.0 FPS   42 ms   4 dropped"))


def test_status_of_a_file_has_the_time_per_frame(gui: StubGui) -> None:
    Window(FILE).write(result(FILE))
    np.testing.assert_array_equal(gui.shown[0], text_image("25.0 FPS   7 ms   0 dropped"))


def test_help_is_shown_immediately_and_hidden_again(gui: StubGui) -> None:
    window = Window(FILE)
    gui.keys = ["h", "h"]
    window.write(result(FILE))
    window.poll()
    status = "25.0 FPS   7 ms   0 dropped"
    assert len(gui.shown) == 3
    np.testing.assert_array_equal(gui.shown[1], text_image(status, *KEYS))
    np.testing.assert_array_equal(gui.shown[2], text_image(status))


def test_image_is_shown_until_a_key_that_does_not_act_on_it(gui: StubGui, tmp_path: Path) -> None:
    window = Window(IMAGES, snapshots=tmp_path)
    gui.keys = ["", "", "h", "s", "h", "x"]
    window.write(result(IMAGES))
    assert not gui.keys
    prompt = "press any key to continue"
    np.testing.assert_array_equal(gui.shown[0], text_image(prompt))
    np.testing.assert_array_equal(gui.shown[1], text_image(prompt, *KEYS))
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "realtime-ssd-001.png")), text_image(prompt, *KEYS)
    )
    gui.keys = ["", " ", ""]
    window.write(result(IMAGES, 1))
    window.poll()
    assert window.stops == 0


@pytest.mark.parametrize("key", ["q", "\x1b"])
def test_quit_key_stops_and_nothing_more_is_shown(gui: StubGui, key: str) -> None:
    window = Window(FILE, IMAGES, paced=True)
    gui.keys = ["", key]
    window.write(result(IMAGES))
    assert window.stops == 1
    window.write(result(FILE))
    assert len(gui.shown) == 1


@pytest.mark.parametrize("visible", [False, None])
def test_closed_window_stops(gui: StubGui, visible: bool | None) -> None:
    window = Window(FILE)
    window.write(result(FILE))
    assert window.stops == 0
    gui.visible = visible
    window.poll()
    assert window.stops == 1


def test_pause_holds_a_file_and_discards_frames_of_a_camera(gui: StubGui) -> None:
    window = Window(FILE, CAMERA)
    gui.keys = [" "]
    window.write(result(CAMERA))
    window.write(result(CAMERA, 1))
    assert len(gui.shown) == 1
    gui.keys = [""] * 9 + [" "]
    window.write(result(FILE))  # returns when the pause is over
    assert len(gui.shown) == 2
    window.write(result(CAMERA, 2))
    assert len(gui.shown) == 3


def test_paced_file_is_shown_at_its_time_stamps(gui: StubGui) -> None:
    window = Window(FILE, paced=True)
    for index, pts in enumerate([5000, 5040, 5200]):
        window.write(result(FILE, index, pts))
    assert np.subtract(gui.times, gui.times[0]) == pytest.approx([0.0, 0.04, 0.2], abs=0.003)


def test_late_frame_restarts_the_clock(gui: StubGui) -> None:
    window = Window(FILE, paced=True)
    window.write(result(FILE, 0, 0))
    gui.now += 10
    window.write(result(FILE, 1, 100))
    window.write(result(FILE, 2, 200))
    assert np.diff(gui.times) == pytest.approx([10.0, 0.1], abs=0.003)


def test_gap_of_an_hour_is_shown_as_a_second(gui: StubGui) -> None:
    window = Window(FILE, paced=True)
    for index, pts in enumerate([0, 40, 3_600_040, 3_600_080]):
        window.write(result(FILE, index, pts))
    assert np.diff(gui.times) == pytest.approx([0.04, 1.0, 0.04], abs=0.003)


def test_unpaced_file_and_camera_are_shown_immediately(gui: StubGui) -> None:
    for info, paced in ((FILE, False), (CAMERA, True)):
        window = Window(info, paced=paced)
        window.write(result(info, 0, 0))
        window.write(result(info, 1, 60_000))
    assert gui.times[-1] - gui.times[0] < 0.1


def test_snapshots_have_free_numbers_and_failures_are_reported(
    gui: StubGui, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "realtime-ssd-001.png").touch()
    for folder in (tmp_path, tmp_path / "missing"):
        window = Window(FILE, snapshots=folder)
        gui.keys = ["s"]
        window.write(result(FILE))
    missing = tmp_path / "missing" / "realtime-ssd-001.png"
    assert capsys.readouterr().err.splitlines() == [
        f"snapshot {tmp_path}/realtime-ssd-002.png",
        f"no snapshot: '{missing}' cannot be written",
    ]


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((180, 320), (320, 180)),
        ((720, 1280), (1280, 720)),
        ((2160, 3840), (1280, 720)),
        ((1000, 4000), (1280, 320)),
        ((4000, 1000), (180, 720)),
        ((4000, 1), (1, 720)),
    ],
)
def test_window_fits_on_the_screen(
    gui: StubGui, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    frame = Frame(np.zeros((*shape, 3), np.uint8), source="file")
    Window(FILE).write(FrameResult(frame, Detections.empty()))
    assert gui.sizes == {"file": size}


def test_close_destroys_windows_once(gui: StubGui) -> None:
    window = Window(FILE)
    window.close()
    assert gui.destroyed == 0
    window.write(result(FILE))
    window.close()
    window.close()
    assert gui.destroyed == 1


def test_frame_is_not_changed_by_the_status(gui: StubGui) -> None:
    shown = result(FILE)
    Window(FILE).write(shown)
    assert (shown.annotated_image() == 100).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("  GUI:                           NONE\n", "built without windows; install opencv-python"),
        ("  GUI:                           QT5\n", "there is no display"),
    ],
)
def test_missing_display_is_an_error(
    monkeypatch: pytest.MonkeyPatch, build: str, message: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: build)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match=f"no window can be shown: .*{message}"):
        Window(FILE)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert bool(window_module.unavailable_reason()) == ("NONE" in build)
