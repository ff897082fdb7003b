"""`ZoneEditor`: a window in which zones and lines are drawn on a frame with the mouse."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from realtime_ssd.annotators.text import draw_lines
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.overlays import ShapeOverlay
from realtime_ssd.processors.zone_shapes import Point, Shape
from realtime_ssd.sinks.window import unavailable_reason

__all__ = ["ZoneEditor"]

_TITLE = "zones"
_POLL_MS = 30
_LARGEST = (1280, 720)
"""Width and height of the window in pixels; larger images are shown smaller."""
_HELP = ("click corners, Enter ends a zone", "two corners and Enter are a line", "u undo, s save")
_FIRST_COLOR = 100


class ZoneEditor:
    """Collects zones and lines as the user clicks; their names are zone1, line1, zone2, ...

    Keys: Enter ends a shape, u removes the last corner or shape, s saves, q or Esc leaves.

    Args:
        image: H × W × 3, uint8, BGR.
        shapes: Shapes to start with.
    """

    def __init__(self, image: Image, shapes: Sequence[Shape] = ()) -> None:
        self._image = image
        self.shapes = list(shapes)
        height, width = image.shape[:2]
        self._scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
        self._corners: list[Point] = []
        self._message = ""

    def run(self) -> bool:
        """Show the window until the user saves or leaves; return whether to save.

        Raises:
            UsageError: If no window can be opened.
        """
        reason = unavailable_reason()
        if reason:
            raise UsageError(f"zones cannot be drawn: {reason}")
        cv2.namedWindow(_TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        cv2.setMouseCallback(_TITLE, self._on_mouse)
        try:
            while cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1:
                cv2.imshow(_TITLE, self.picture())
                key = cv2.waitKey(_POLL_MS) & 0xFF
                if key in (ord("q"), 27):
                    return False
                if key == ord("s"):
                    self.finish()
                    if not self._message:
                        return True
                self.press(key)
            return False
        finally:
            cv2.destroyAllWindows()

    def press(self, key: int) -> None:
        """Handle a key: Enter or u."""
        if key in (10, 13):
            self.finish()
        elif key == ord("u"):
            self._undo()

    def _undo(self) -> None:
        if self._corners:
            self._corners.pop()
        elif self.shapes:
            self.shapes.pop()

    def click(self, x: int, y: int) -> None:
        """Add a corner at a pixel of the image."""
        height, width = self._image.shape[:2]
        self._message = ""
        self._corners.append((min(max(x, 0), width), min(max(y, 0), height)))

    def finish(self) -> None:
        """Turn the corners into a zone, or two of them into a line."""
        corners, self._message = tuple(self._corners), ""
        if len(corners) < 2:
            return
        kind = "line" if len(corners) == 2 else "zone"
        names = {shape.name for shape in self.shapes}
        number = next(n for n in range(1, len(names) + 2) if f"{kind}{n}" not in names)
        try:
            self.shapes.append(Shape(f"{kind}{number}", corners))
            self._corners.clear()
        except UsageError as error:
            self._message = str(error)

    def picture(self) -> Image:
        """Return what the window shows: all shapes, the corners of the next one, and help."""
        image: Image = self._image.copy()
        nothing = FrameResult(Frame(self._image), Detections.empty())
        for number, shape in enumerate(self.shapes, start=_FIRST_COLOR):
            height, width = image.shape[:2]
            points = shape.to_pixels(width, height).astype(np.float32)
            ShapeOverlay(points, shape.name, number).annotate(image, nothing)
        corners = np.array(self._corners, np.int32).reshape(-1, 1, 2)
        cv2.polylines(image, [corners], False, (255, 255, 255), 2)
        for x, y in self._corners:
            cv2.circle(image, (int(x), int(y)), 4, (255, 255, 255), cv2.FILLED)
        if self._scale < 1:
            image = np.asarray(cv2.resize(image, None, fx=self._scale, fy=self._scale), np.uint8)
        draw_lines(image, [self._message] if self._message else _HELP)
        return image

    def _on_mouse(self, event: int, x: int, y: int, _flags: int, _data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self.click(round(x / self._scale), round(y / self._scale))
