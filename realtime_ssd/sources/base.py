"""What every source of frames looks like to the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.frames import Frame

__all__ = ["BaseSource", "Source", "SourceInfo"]


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source once it is open.

    Attributes:
        name: Name for people, without credentials.
        width: Width in pixels of the frames as they are delivered (rotation applied), or 0 if
            it is not known before the first frame.
        height: Likewise the height.
        live: Whether frames are lost when nobody takes them (cameras and network streams).
        rate: Frames per second, exact (30000/1001), or None if unknown or variable.
        time_base: Seconds per unit of the frames' time stamps.
        frame_count: Number of frames, or None if unknown.
        path: The video file behind the source, from which audio may be copied, or None.
        still: Whether each frame is a picture of its own (images) rather than part of a video.
        files: Every file behind the source; of pictures one a frame, in order.
        names: What each picture is called, in the order of `files`; empty for a video.
        pixel_aspect: Width of a pixel as it is shown, over its height.
    """

    name: str
    width: int = 0
    height: int = 0
    live: bool = False
    rate: Fraction | None = None
    time_base: Fraction = Fraction(1, 1000)
    frame_count: int | None = None
    path: Path | None = None
    still: bool = False
    files: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    pixel_aspect: Fraction = Fraction(1)


class Source(AbstractContextManager[Any], Protocol):
    """A camera, a file, a stream, a folder of images or the demo.

    Attributes:
        info: Valid after `open`.
    """

    info: SourceInfo

    def open(self) -> None:
        """Open, or open again after a loss.

        Raises:
            UsageError: If the source cannot exist (missing file, no such camera).
            SourceError: If it exists but cannot be opened now; a live source may be tried again.
        """
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end.

        Raises:
            SourceError: If a live source was lost, or a file is damaged from here on.
        """
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the remaining frames, then close the source; cameras and streams are opened first.

        Raises:
            UsageError: See `open`.
            SourceError: See `open` and `read`; a lost live source is not reopened.
        """
        ...

    def interrupt(self) -> None:
        """Make a `read` that waits in another thread end soon; the source is then only closed."""
        ...

    def close(self) -> None:
        """Give the device or file back; may be called any number of times."""
        ...


class BaseSource(Closeable):
    """What all sources share: `with`, and defaults for those that never wait."""

    info: SourceInfo

    def open(self) -> None:
        """See `Source.open`."""

    def read(self) -> Frame | None:
        """See `Source.read`."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Frame]:
        """See `Source.__iter__`."""
        try:
            if self.info.live:
                self.open()
            while (frame := self.read()) is not None:
                yield frame
        finally:
            self.close()

    def interrupt(self) -> None:
        """See `Source.interrupt`; a source that never waits has nothing to do."""

    def close(self) -> None:
        """See `Source.close`."""
