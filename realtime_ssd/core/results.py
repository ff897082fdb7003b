"""`FrameResult`: what travels from inference to processors, annotators and sinks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame, Image

__all__ = ["Annotator", "Event", "FrameResult"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a source, reported by a processor.

    Attributes:
        kind: What happened, such as "enter" or "cross".
        time: When, in seconds of the stream.
        data: More values, ready for JSON.
    """

    kind: str
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)


class Annotator(Protocol):
    """Draws onto a copy of a frame."""

    def annotate(self, image: Image, result: FrameResult) -> None:
        """Draw in place.

        Args:
            image: H × W × 3, uint8, BGR; shared by all annotators of the frame.
            result: The frame with its detections and events.
        """
        ...


@dataclass(slots=True, eq=False)
class FrameResult:
    """A frame with everything found in it.

    Attributes:
        frame: The captured frame, read-only.
        detections: Objects found in it.
        timings: Seconds spent in each stage so far.
        events: Events that processors reported.
        annotators: What draws onto the annotated image, in order.
        live: Whether the source is a camera or stream rather than a file.
    """

    frame: Frame
    detections: Detections
    timings: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    annotators: Sequence[Annotator] = ()
    live: bool = False
    _image: Image | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def annotated_image(self) -> Image:
        """Return the frame with all annotations, drawn when the first sink asks.

        Returns:
            H × W × 3, uint8, BGR, read-only; the same array for every caller.
        """
        with self._lock:
            if self._image is None:
                image = self.frame.image.copy()
                for annotator in self.annotators:
                    annotator.annotate(image, self)
                image.flags.writeable = False
                self._image = image
            return self._image
