"""Window with the annotated frames, the frame rate, and keyboard control."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2

from realtime_ssd.annotators.text import draw_lines
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sources.base import SourceInfo

__all__ = ["KEYS", "WindowSink", "unavailable_reason"]

KEYS = ("q/Esc quit", "space pause", "s snapshot", "h help")
_QUIT_KEYS = (ord("q"), 27)
_KEYS_THAT_KEEP_IMAGE = b"hs"
_CONTINUE = "press any key to continue"
_POLL_MS = 30
_MAX_WAIT = 1.0  # in seconds; longer gaps between the frames of a file are shortened


def unavailable_reason() -> str:
    """Return why no window can be shown; an empty string if one can."""
    if "headless" in _gui():
        return "this OpenCV was built without windows; install opencv-python"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no display"
    return ""


def _gui() -> str:
    lines = cv2.getBuildInformation().splitlines()
    values = [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("GUI:")]
    return "headless" if values[:1] == ["NONE"] else "".join(values)


class WindowSink(BaseSink):
    """Shows annotated frames, with one window per source.

    All methods except `quit` must be called from the main thread.

    Args:
        statistics: Frame rate, latency and drop counts to show.
        stop: Called when the user quits.
        infos: The sources. During a pause, frames of live sources are discarded and other sources
            wait; an image is shown until a key is pressed.
        paced: Whether to show files no faster than they were recorded.
        snapshots: Folder for the images that the key s saves.

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
        reason = unavailable_reason()
        if reason:
            raise UsageError(f"no window can be shown: {reason}")
        # Qt otherwise warns about fonts that the OpenCV wheel does not contain.
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
        self._statistics, self._stop, self._snapshots = statistics, stop, snapshots
        self._live = {info.name for info in infos if info.live}
        self._still = {info.name for info in infos if info.still}
        self._paced = paced
        self._shown: dict[str, tuple[FrameResult, Image]] = {}
        self._clocks: dict[str, tuple[float, float]] = {}
        self._paused = self._help = self._quit = False

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        name = result.frame.source
        if self._paused and name in self._live:
            self.poll()
            return
        if self._paced and name not in self._live | self._still:
            self._wait_until_due(result.frame)
            self._wait_while_paused()
        if self._quit:  # while waiting
            return
        self._show(result)
        self.poll()
        if name in self._still:
            self._wait_for_key()
        elif name not in self._live:
            self._wait_while_paused()

    def _show(self, result: FrameResult) -> None:
        name = result.frame.source
        image = result.annotated_image().copy()
        draw_lines(image, self._status(result))
        if name not in self._shown:
            cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(name, *_window_size(image))
        self._shown[name] = result, image
        cv2.imshow(name, image)

    def _wait_while_paused(self) -> None:
        while self._paused and not self._quit:
            self._handle_key(cv2.waitKey(_POLL_MS))

    def _wait_for_key(self) -> None:
        """Show an image until a key requests the next one."""
        while not self._quit:
            key = cv2.waitKey(_POLL_MS)
            self._handle_key(key)
            if key >= 0 and key & 0xFF not in _KEYS_THAT_KEEP_IMAGE:
                self._paused = False
                return

    def _wait_until_due(self, frame: Frame) -> None:
        """Wait until a frame is due; a late frame restarts the clock of its source."""
        start, first_time = self._clocks.setdefault(frame.source, (time.monotonic(), frame.time))
        due = start + frame.time - first_time
        now = time.monotonic()
        if due < now:
            self._clocks[frame.source] = now, frame.time
        elif due > now + _MAX_WAIT:
            due = now + _MAX_WAIT
            self._clocks[frame.source] = due, frame.time
        while not self._quit and (left := due - time.monotonic()) > 0.001:
            self._handle_key(cv2.waitKey(max(1, min(_POLL_MS, int(left * 1000)))))

    def poll(self) -> None:
        """Handle keys and closed windows; call it also while no frame arrives."""
        self._handle_key(cv2.waitKey(1))

    def quit(self) -> None:
        """Show no more frames and stop waiting for keys; may be called by a signal handler."""
        self._quit = True

    def close(self) -> None:
        """See `Sink.close`."""
        if self._shown:
            self._shown.clear()
            with suppress(cv2.error):  # the user may have closed the last window
                cv2.destroyAllWindows()

    def _status(self, result: FrameResult) -> list[str]:
        """Return the lines to show: frame rate, delay of a live frame or time per file frame."""
        if result.frame.source in self._still:
            return [_CONTINUE, *KEYS] if self._help else [_CONTINUE]
        statistics = self._statistics
        drops = sum(statistics.total.dropped.values())
        live = result.frame.source in self._live
        latency = (statistics.latency() if live else sum(result.timings.values())) * 1000
        lines = [f"{statistics.recent_fps:.1f} FPS   {latency:.0f} ms   {drops} dropped"]
        return [*lines, *KEYS] if self._help else lines

    def _handle_key(self, key: int) -> None:
        key &= 0xFF
        if key in _QUIT_KEYS or self._closed_by_user():
            self._quit = True
            self._stop()
        elif key == ord(" "):
            self._paused = not self._paused
        elif key == ord("h"):
            self._help = not self._help
            for result, _ in list(self._shown.values()):
                self._show(result)  # the next frame may take long
        elif key == ord("s"):
            self._save_snapshots()

    def _closed_by_user(self) -> bool:
        try:
            return any(
                cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1 for name in self._shown
            )
        except cv2.error:  # Qt knows no window after the last one is closed
            return True

    def _save_snapshots(self) -> None:
        for _, image in self._shown.values():
            number = 1
            while (path := self._snapshots / f"realtime-ssd-{number:03d}.png").exists():
                number += 1
            saved = cv2.imwrite(str(path), image)
            message = f"snapshot {path}" if saved else f"no snapshot: '{path}' cannot be written"
            print(message, file=sys.stderr)


def _window_size(image: Image) -> tuple[int, int]:
    """Return the width and height of a window for an image that fits on common screens."""
    height, width = image.shape[:2]
    scale = min(1.0, 1280 / width, 720 / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
