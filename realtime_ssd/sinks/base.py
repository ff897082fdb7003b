"""What every output of the program looks like to the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from realtime_ssd.closing import Closing
from realtime_ssd.detections import Detections
from realtime_ssd.errors import UsageError
from realtime_ssd.frames import Frame, Image

__all__ = ["BaseSink", "Result", "Sink", "make_folder"]


@dataclass(slots=True, eq=False)
class Result:
    """A frame with its detections on its way to the sinks.

    Attributes:
        frame: The captured frame, read-only.
        detections: What was found in it.
        timings: Seconds spent in each stage so far.
        picture: The annotated copy, drawn once when the first sink asks for it.
    """

    frame: Frame
    detections: Detections
    timings: dict[str, float] = field(default_factory=dict)
    picture: Image | None = None

    def annotated(self) -> Image:
        """Give the frame with boxes and labels drawn on a copy; shared by all sinks, read-only."""
        if self.picture is None:
            from realtime_ssd.render import draw

            self.picture = draw(self.frame.image, self.detections)
            self.picture.flags.writeable = False
        return self.picture


class Sink(Protocol):
    """A window, a video file, a JSON file, a folder of images."""

    def write(self, result: Result) -> None:
        """Take one result; results of a source come in order."""
        ...

    def close(self) -> None:
        """Finish what was begun so that it can be read; may be called any number of times."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BaseSink(Closing):
    """What all sinks share: `with`."""

    def write(self, result: Result) -> None:
        """See `Sink.write`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Sink.close`."""


def make_folder(folder: Path) -> None:
    """Make a folder for results, with those above it, where it is not there yet.

    Raises:
        UsageError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"folder '{folder}' cannot be made: {error.strerror}") from None
