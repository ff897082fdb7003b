"""The window sink on a stub of OpenCV's window functions, with a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks import window as window_module
from realtime_ssd.sinks.window import WindowSink
from realtime_ssd.sinks.window_keys import KEYS, key_of
from realtime_ssd.sinks.window_view import add_bar, enlarged, offline_image
from realtime_ssd.sources import SourceInfo

FILE, CAMERA = SourceInfo("file"), SourceInfo("camera", live=True)
IMAGES = SourceInfo("images", still=True, names=("0.png", "1.png", "2.png"))


ARROWS = {"left": 0xFF51, "right": 0xFF53}
ALL_KEYS = "   ".join(KEYS)


class StubGui:
    """Windows, a keyboard and a clock that advances while `waitKeyEx` waits.

    Attributes:
        keys: Keys to press, one per call of `waitKeyEx`; "" for none.
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
        return ARROWS.get(key) or (ord(key) if key else -1)

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
    monkeypatch.setattr(cv2, "waitKeyEx", stub.wait_key)
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


def bar_image(text: str, mark: str = "", keys: str = "", level: int = 100) -> Image:
    """Return what the window shows for a frame of `result`."""
    return add_bar(enlarged(np.full((180, 320, 3), level, np.uint8)), text, mark, keys)


class Window(WindowSink):
    """A window sink that counts stop requests."""

    def __init__(self, *infos: SourceInfo, paced: bool = False, snapshots: Path = Path()) -> None:
        self.statistics = FixedStatistics(tuple(info.name for info in infos))
        self.stops = 0
        super().__init__(self.statistics, self._count_stop, infos, paced=paced, snapshots=snapshots)

    def _count_stop(self) -> None:
        self.stops += 1


STATUS = "25.0 FPS   7 ms   0 dropped"


def test_status_of_a_camera_has_rate_latency_and_drops(gui: StubGui) -> None:
    window = Window(CAMERA)
    for _ in range(3):
        window.statistics.on_frame("camera", "replaced")
    window.write(result(CAMERA))
    np.testing.assert_array_equal(gui.shown[0], bar_image("25.0 FPS   42 ms   3 dropped"))


def test_status_of_a_file_is_below_the_enlarged_picture(gui: StubGui) -> None:
    Window(FILE).write(result(FILE))
    np.testing.assert_array_equal(gui.shown[0], bar_image(STATUS))
    assert (gui.shown[0][:360, :640] == 100).all()
    assert gui.shown[0].shape[0] < 400


def test_help_is_shown_immediately_and_hidden_again(gui: StubGui) -> None:
    window = Window(FILE)
    gui.keys = ["h", "h"]
    window.write(result(FILE))
    window.poll()
    assert len(gui.shown) == 3
    np.testing.assert_array_equal(gui.shown[1], bar_image(STATUS, keys=ALL_KEYS))
    np.testing.assert_array_equal(gui.shown[2], bar_image(STATUS))


def photo(index: int, level: int) -> FrameResult:
    frame = Frame(np.full((90, 200, 3), level, np.uint8), index, "images", name=f"{index}.png")
    return FrameResult(frame, Detections.empty())


def photo_image(index: int, level: int, keys: str = "") -> Image:
    text = f"{index + 1}/3   {index}.png   any key: next"
    return add_bar(np.full((90, 200, 3), level, np.uint8), text, keys=keys)


def test_photo_is_shown_at_its_size_until_a_key_that_does_not_act_on_it(
    gui: StubGui, tmp_path: Path
) -> None:
    window = Window(IMAGES, snapshots=tmp_path)
    gui.keys = ["", "", "h", "s", "h", "x"]
    window.write(photo(0, 50))
    assert not gui.keys
    np.testing.assert_array_equal(gui.shown[0], photo_image(0, 50))
    np.testing.assert_array_equal(gui.shown[1], photo_image(0, 50, ALL_KEYS))
    snapshot = cv2.imread(str(tmp_path / "realtime-ssd-001.png"))
    np.testing.assert_array_equal(snapshot, np.full((90, 200, 3), 50, np.uint8))
    gui.keys = ["", " ", ""]
    window.write(photo(1, 60))
    window.poll()
    assert window.stops == 0


def test_arrows_step_through_photos(gui: StubGui) -> None:
    window = Window(IMAGES)
    gui.keys = ["", "right"]
    window.write(photo(0, 50))
    gui.keys = ["", "left", "left", "right", "right"]
    window.write(photo(1, 60))
    gui.keys = ["", "left", "left", "x"]
    window.write(photo(2, 70))
    expected = [(0, 50), (1, 60), (0, 50), (1, 60), (2, 70), (1, 60), (0, 50)]
    assert len(gui.shown) == len(expected)
    for shown, item in zip(gui.shown, expected, strict=True):
        np.testing.assert_array_equal(shown, photo_image(*item))


def test_pause_is_marked_and_arrows_step_through_a_file(gui: StubGui) -> None:
    window = Window(FILE, paced=True)
    window.write(result(FILE, 0, 0, 50))
    gui.keys = ["", " ", "left", "right", "right"]
    window.write(result(FILE, 1, 10, 60))
    gui.keys = ["", " "]
    window.write(result(FILE, 2, 20, 70))
    expected = [
        bar_image(STATUS, level=50),
        bar_image(STATUS, level=60),
        bar_image(STATUS, "PAUSED", level=60),
        bar_image(STATUS, "PAUSED -1", level=50),
        bar_image(STATUS, "PAUSED", level=60),
        bar_image(STATUS, "PAUSED", level=70),
        bar_image(STATUS, level=70),
    ]
    assert len(gui.shown) == len(expected)
    for shown, image in zip(gui.shown, expected, strict=True):
        np.testing.assert_array_equal(shown, image)


def test_lost_camera_is_dimmed_and_marked_until_it_is_back(gui: StubGui) -> None:
    window = Window(CAMERA)
    window.statistics.on_state("camera", "online")
    window.write(result(CAMERA))
    window.statistics.on_state("camera", "offline")
    window.poll()
    window.poll()
    _, since = window.statistics.state_of("camera")
    shown, picture = gui.shown[-1], gui.shown[0][:360]
    assert len(gui.shown) == 2
    np.testing.assert_array_equal(shown[:360], offline_image(picture, since))
    assert (shown[:100] == 30).all()
    assert (shown[150:200, 200:440] == 255).any()
    window.statistics.on_state("camera", "online")
    window.write(result(CAMERA, 1))
    np.testing.assert_array_equal(gui.shown[-1][:360], picture)


def test_camera_that_never_answered_is_shown_as_offline(gui: StubGui) -> None:
    window = Window(CAMERA)
    window.poll()
    assert gui.shown == []
    window.statistics.on_state("camera", "offline")
    window.poll()
    assert gui.shown[0].shape[1] == 640
    assert (gui.shown[0][:360] == 255).any()


def test_several_sources_are_side_by_side(gui: StubGui) -> None:
    sources = [SourceInfo(f"source {n}", live=n > 1) for n in range(4)]
    window = Window(*sources)
    for number, source in enumerate(sources):
        window.write(result(source, level=50 + number * 50))
    window.statistics.on_state("source 3", "offline")
    window.poll()
    assert list(gui.sizes) == ["realtime-ssd: 4 sources"]
    levels = [int(gui.shown[-1][y, x, 0]) for y in (60, 420) for x in (300, 940)]
    assert levels == [50, 100, 150, 60]


@pytest.mark.parametrize(
    ("code", "key"),
    [
        (-1, ""),
        (ord("q"), "quit"),
        (0x100000 | ord("q"), "quit"),
        (0xFF51, "left"),
        (0x110000 | 0xFF53, "right"),
        (0x270000, "right"),
        (63234, "left"),
        (0xFFE1, ""),
        (0xFF50, "other"),
        (13, "other"),
    ],
)
def test_codes_of_keys(code: int, key: str) -> None:
    assert key_of(code) == key


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
    window.write(result(CAMERA))
    gui.keys = [" "]
    window.poll()
    count = len(gui.shown)
    window.write(result(CAMERA, 1))
    assert len(gui.shown) == count
    gui.keys = [""] * 9 + [" "]
    window.write(result(FILE))  # returns when the pause is over
    assert len(gui.shown) > count
    count = len(gui.shown)
    window.write(result(CAMERA, 2))
    assert len(gui.shown) == count + 1


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
    "shape",
    [
        (180, 320),
        (32, 32),
        (720, 1280),
        (2160, 3840),
        (1000, 4000),
        (4000, 1000),
        (4000, 1),
    ],
)
def test_window_is_usable_and_fits_on_the_screen(gui: StubGui, shape: tuple[int, int]) -> None:
    frame = Frame(np.zeros((*shape, 3), np.uint8), source="file")
    Window(FILE).write(FrameResult(frame, Detections.empty()))
    width, height = gui.sizes["file"]
    assert width <= 1280
    assert height <= 720
    assert width >= 480 or height >= 600


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
