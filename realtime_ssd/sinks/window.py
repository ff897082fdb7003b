"""Window with the annotated frames, the frame rate, and keyboard control."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.window_keys import KEYS, Key, key_of
from realtime_ssd.sinks.window_view import TileGrid, add_bar, enlarged, fit_size, offline_image
from realtime_ssd.sources.base import SourceInfo

__all__ = ["WindowSink", "unavailable_reason"]

_KEYS_THAT_KEEP_PHOTO: tuple[Key, ...] = ("", "help", "snapshot", "left")
_POLL_MS = 30
_MAX_WAIT = 1.0  # in seconds; longer gaps between the frames of a file are shortened
_HISTORY_BYTES = 128 << 20  # of the last pictures of a source, for steps back


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


@dataclass(frozen=True, slots=True)
class _Picture:
    """An annotated image and the text of the bar below it."""

    image: Image
    status: str


@dataclass(slots=True)
class _History:
    """The last pictures of a source; `back` is how many the shown one is before the newest."""

    pictures: deque[_Picture] = field(default_factory=deque)
    back: int = 0

    def add(self, picture: _Picture) -> None:
        self.pictures.append(picture)
        self.back = 0
        most = max(2, _HISTORY_BYTES // max(1, picture.image.nbytes))
        while len(self.pictures) > most:
            self.pictures.popleft()

    def shown(self) -> _Picture | None:
        return self.pictures[-1 - self.back] if self.pictures else None

    def step(self, steps: int) -> bool:
        """Go back (negative) or forward; return whether there is such a picture."""
        back = self.back - steps
        if not 0 <= back < len(self.pictures):
            return False
        self.back = back
        return True


class WindowSink(BaseSink):
    """Shows annotated frames, several sources side by side.

    A bar below the picture has the frame rate; a lost source is dimmed and marked. All methods
    except `quit` must be called from the main thread.

    Args:
        statistics: Frame rate, latency, drop counts and states of the sources to show.
        stop: Called when the user quits.
        infos: The sources. During a pause, frames of live sources are discarded and other sources
            wait; a photo is shown until a key is pressed.
        paced: Whether to show files no faster than they were recorded.
        snapshots: Folder for the images that the key s saves, without the bar.

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
        self._infos = {info.name: info for info in infos}
        self._live = {info.name for info in infos if info.live}
        self._still = {info.name for info in infos if info.still}
        self._paced = paced
        self._tiles = TileGrid(tuple(self._infos)) if len(infos) > 1 else None
        self._title = f"realtime-ssd: {len(infos)} sources" if self._tiles else ""
        self._opened, self._canvas_shape = False, (0, 0, 0)
        self._histories: dict[str, _History] = {name: _History() for name in self._infos}
        self._states: dict[str, str] = {}
        self._clocks: dict[str, tuple[float, float]] = {}
        self._paused = self._help = self._quit = self._advance = False

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
        self._advance = False
        image = result.annotated_image()
        self._histories.setdefault(name, _History()).add(_Picture(image, self._status(result)))
        self._render(name)
        self.poll()
        if name in self._still:
            self._wait_for_key()
        elif name not in self._live:
            self._wait_while_paused()

    def _render(self, name: str) -> None:
        """Draw what a source shows now, and the bar."""
        self._states[name], _ = self._statistics.state_of(name)
        picture, offline_since = self._histories[name].shown(), self._offline_since(name)
        image = None if picture is None else picture.image
        if offline_since is not None:
            image = np.zeros((360, 640, 3), np.uint8) if image is None else image
        if self._tiles is None and image is not None and name not in self._still:
            image = enlarged(image)
        if offline_since is not None and image is not None:
            image = offline_image(image, offline_since)
        status = picture.status if picture else name
        if self._tiles is not None:
            self._tiles.show(name, image, self._caption(name, status))
            image, status = self._tiles.image, self._totals()
        if image is not None:
            keys = "   ".join(KEYS) if self._help else ""
            self._show(name, add_bar(image, status, self._mark(name), keys))

    def _show(self, name: str, canvas: Image) -> None:
        if not self._opened:
            self._opened, self._title = True, self._title or name
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(self._title, flags)
        first = self._canvas_shape == (0, 0, 0)
        if first or (name in self._still and canvas.shape != self._canvas_shape):
            cv2.resizeWindow(self._title, *fit_size(canvas))
        self._canvas_shape = canvas.shape
        cv2.imshow(self._title, canvas)

    def _render_all(self) -> None:
        for name in self._histories if self._tiles is not None else list(self._histories)[-1:]:
            self._render(name)

    def _offline_since(self, name: str) -> float | None:
        state, since = self._statistics.state_of(name)
        return since if state == "offline" and name in self._live else None

    def _mark(self, name: str) -> str:
        if not self._paused:
            return ""
        back = self._histories[name].back
        return f"PAUSED -{back}" if back else "PAUSED"

    def _caption(self, name: str, status: str) -> str:
        """Return the text below a tile."""
        if name in self._still:
            return f"{name}   {status}"
        state, _ = self._statistics.state_of(name)
        return name if state == "online" else f"{name}   {state}"

    def _status(self, result: FrameResult) -> str:
        """Return the text of the bar: position of a photo, or rate, delay and drops."""
        frame = result.frame
        if frame.source in self._still:
            names = self._infos[frame.source].names
            position = f"{frame.index + 1}/{len(names)}   {frame.name}" if names else frame.name
            return f"{position}   any key: next"
        statistics = self._statistics
        live = frame.source in self._live
        latency = (statistics.latency() if live else sum(result.timings.values())) * 1000
        return f"{statistics.recent_fps:.1f} FPS   {latency:.0f} ms   {self._dropped()} dropped"

    def _totals(self) -> str:
        return f"{self._statistics.recent_fps:.1f} FPS   {self._dropped()} dropped"

    def _dropped(self) -> int:
        return sum(self._statistics.total.dropped.values())

    def _wait_while_paused(self) -> None:
        while self._paused and not self._quit and not self._advance:
            self._handle_key(cv2.waitKeyEx(_POLL_MS))

    def _wait_for_key(self) -> None:
        """Show a photo until a key requests the next one."""
        while not self._quit:
            key = self._handle_key(cv2.waitKeyEx(_POLL_MS))
            if key not in _KEYS_THAT_KEEP_PHOTO and (key != "right" or self._advance):
                self._paused = False
                return

    def _wait_until_due(self, frame: Frame) -> None:
        """Wait until a frame is due; a late frame restarts the clock of its source."""
        start, first_time = self._clocks.setdefault(frame.source, (time.monotonic(), frame.time))
        due = start + frame.time - first_time
        now = time.monotonic()
        if due < now or self._advance:
            due = now
            self._clocks[frame.source] = now, frame.time
        elif due > now + _MAX_WAIT:
            due = now + _MAX_WAIT
            self._clocks[frame.source] = due, frame.time
        while not self._quit and (left := due - time.monotonic()) > 0.001:
            self._handle_key(cv2.waitKeyEx(max(1, min(_POLL_MS, int(left * 1000)))))

    def poll(self) -> None:
        """Handle keys, closed windows and lost sources; call it also while no frame arrives."""
        for name in self._live:
            state, _ = self._statistics.state_of(name)
            if self._states.get(name) != state:
                self._render(name)
        self._handle_key(cv2.waitKeyEx(1))

    def quit(self) -> None:
        """Show no more frames and stop waiting for keys; may be called by a signal handler."""
        self._quit = True

    def close(self) -> None:
        """See `Sink.close`."""
        if self._opened:
            self._opened = False
            with suppress(cv2.error):  # the user may have closed the last window
                cv2.destroyAllWindows()

    def _handle_key(self, code: int) -> Key:
        """Do what a key stands for, and return it."""
        key = key_of(code)
        if key == "quit" or self._closed_by_user():
            self._quit = True
            self._stop()
        elif key in ("pause", "help"):
            if key == "pause":
                self._paused = not self._paused
            else:
                self._help = not self._help
            self._render_all()  # the next frame may take long
        elif key in ("left", "right"):
            self._step(-1 if key == "left" else 1)
        elif key == "snapshot":
            self._save_snapshots()
        return key

    def _step(self, steps: int) -> None:
        """Show the picture before or after the shown one, during a pause or of photos."""
        names = [name for name in self._histories if self._paused or name in self._still]
        moved = [name for name in names if self._histories[name].step(steps)]
        for name in moved:
            self._render(name)
        self._advance = bool(names) and steps > 0 and not moved

    def _closed_by_user(self) -> bool:
        try:
            return self._opened and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # Qt knows no window after the last one is closed
            return True

    def _save_snapshots(self) -> None:
        """Save the shown pictures without the bar and at their full size."""
        for history in self._histories.values():
            picture = history.shown()
            if picture is None:
                continue
            number = 1
            while (path := self._snapshots / f"realtime-ssd-{number:03d}.png").exists():
                number += 1
            saved = cv2.imwrite(str(path), picture.image)
            message = f"snapshot {path}" if saved else f"no snapshot: '{path}' cannot be written"
            print(message, file=sys.stderr)
