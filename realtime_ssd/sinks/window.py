"""The window: annotated frames, how fast it goes, and a few keys."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2

from realtime_ssd.annotators.boxes import draw_lines
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sources.base import SourceInfo

__all__ = ["KEYS", "WindowSink", "no_display"]

KEYS = ("q/Esc quit", "space pause", "s snapshot", "h help")
_QUIT = (ord("q"), 27)
_STAYING = b"hs"
_NEXT = "press a key to go on"


def no_display() -> str:
    """Say why no window can be shown; empty if one can."""
    if "headless" in _gui():
        return "this OpenCV was built without windows; install opencv-python"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no display"
    return ""


def _gui() -> str:
    lines = cv2.getBuildInformation().splitlines()
    found = [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("GUI:")]
    return "headless" if found[:1] == ["NONE"] else "".join(found)


class WindowSink(BaseSink):
    """Shows annotated frames, one window for each source.

    All calls must come from the main thread.

    Args:
        statistics: Gives FPS, latency and drops.
        stop: Called when the user quits.
        infos: The sources. A pause lets the frames of live ones pass instead of holding them up; a
            photo stays until a key is pressed.
        paced: Whether to show files no faster than they were recorded.
        snapshots: Folder for the pictures of key s.

    Raises:
        UsageError: If no window can be opened.
    """

    def __init__(
        self,
        statistics: Statistics,
        stop: Callable[[], None],
        infos: Sequence[SourceInfo] = (),
        *,
        paced: bool = False,
        snapshots: Path = Path(),
    ) -> None:
        reason = no_display()
        if reason:
            raise UsageError(f"no window can be shown: {reason}")
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # about fonts it has not
        self._statistics, self._stop, self._snapshots = statistics, stop, snapshots
        self._live = {info.name for info in infos if info.live}
        self._still = {info.name for info in infos if info.still}
        self._paced = paced
        self._shown: dict[str, tuple[FrameResult, Image]] = {}
        self._dues: dict[str, tuple[float, float]] = {}
        self._paused = self._help = self._quit = False

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        name = result.frame.source
        if self._paused and name in self._live:
            self.poll()
            return
        if self._paced and name not in self._live | self._still:
            self._wait_for(result.frame)
            self._stay()
        if self._quit:  # pressed while it waited
            return
        self._draw(result)
        self.poll()
        if name in self._still:
            self._hold()
        elif name not in self._live:
            self._stay()

    def _draw(self, result: FrameResult) -> None:
        name = result.frame.source
        picture = result.annotated_image().copy()
        draw_lines(picture, self._lines(result))
        if name not in self._shown:
            cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(name, *_fitting(picture))
        self._shown[name] = result, picture
        cv2.imshow(name, picture)

    def _stay(self) -> None:
        """Wait until a pause is over."""
        while self._paused and not self._quit:
            self._react(cv2.waitKey(30))

    def _hold(self) -> None:
        """Show a photo until a key asks for the next one."""
        while not self._quit:
            key = cv2.waitKey(30)
            self._react(key)
            if key >= 0 and key & 0xFF not in _STAYING:
                self._paused = False
                return

    def _wait_for(self, frame: Frame) -> None:
        """Wait until a frame is due; after a delay the clock of its source starts anew."""
        begun, first = self._dues.setdefault(frame.source, (time.monotonic(), frame.time))
        due = begun + frame.time - first
        now = time.monotonic()
        if due < now:
            self._dues[frame.source] = now, frame.time
        while not self._quit and (left := due - time.monotonic()) > 0.001:
            self._react(cv2.waitKey(max(1, min(30, int(left * 1000)))))

    def poll(self) -> None:
        """React to keys and to closed windows; also to be called while no frame comes."""
        self._react(cv2.waitKey(1))

    def quit(self) -> None:
        """Show nothing more, and wait no longer for a key; may be called by a signal handler."""
        self._quit = True

    def close(self) -> None:
        """See `Sink.close`."""
        if self._shown:
            self._shown.clear()
            with suppress(cv2.error):  # the user may have closed the last one
                cv2.destroyAllWindows()

    def _lines(self, result: FrameResult) -> list[str]:
        """Say how it goes: how late a live frame is, and how long one of a file took."""
        if result.frame.source in self._still:
            return [_NEXT, *KEYS] if self._help else [_NEXT]
        statistics = self._statistics
        drops = sum(statistics.total.dropped.values())
        live = result.frame.source in self._live
        latency = (statistics.latency() if live else sum(result.timings.values())) * 1000
        lines = [f"{statistics.recent_fps:.1f} FPS   {latency:.0f} ms   {drops} dropped"]
        return [*lines, *KEYS] if self._help else lines

    def _react(self, key: int) -> None:
        key &= 0xFF
        if key in _QUIT or self._closed_by_user():
            self._quit = True
            self._stop()
        elif key == ord(" "):
            self._paused = not self._paused
        elif key == ord("h"):
            self._help = not self._help
            for result, _ in list(self._shown.values()):
                self._draw(result)  # no new picture may come for long
        elif key == ord("s"):
            self._save()

    def _closed_by_user(self) -> bool:
        try:
            return any(
                cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1 for name in self._shown
            )
        except cv2.error:  # Qt has nothing left once its last window is closed
            return True

    def _save(self) -> None:
        for _, picture in self._shown.values():
            number = 1
            while (path := self._snapshots / f"realtime-ssd-{number:03d}.png").exists():
                number += 1
            good = cv2.imwrite(str(path), picture)
            said = f"snapshot {path}" if good else f"no snapshot: '{path}' cannot be written"
            print(said, file=sys.stderr)


def _fitting(picture: Image) -> tuple[int, int]:
    """Give a window size that fits on usual screens."""
    height, width = picture.shape[:2]
    ratio = min(1.0, 1280 / width, 720 / height)
    return max(1, round(width * ratio)), max(1, round(height * ratio))
