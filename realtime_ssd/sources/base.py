"""Interfaces of sources and of the plug-ins that open them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame

if TYPE_CHECKING:
    from realtime_ssd.sources.packet_feed import PacketFeed

__all__ = ["BaseSource", "InputLimits", "Source", "SourceInfo", "SourceOptions", "SourcePlugin"]


MAX_PIXELS = 200_000_000
"""Pixels that a frame or image may have by default: 600 MB as BGR."""
_LARGEST = 2**30  # of OpenCV


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What a source may contain, checked before memory for it is allocated.

    Attributes:
        max_pixels: Pixels that a frame or image may have.
        local_redirects: Whether a web server may redirect to addresses of this machine or of a
            private network. If not, playlists are refused too, as their entries are such redirects.

    Raises:
        UsageError: If a value is out of range.
    """

    max_pixels: int = MAX_PIXELS
    local_redirects: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= _LARGEST:
            raise UsageError(
                f"`max_pixels` must be between 1 and {_LARGEST}, not {self.max_pixels}"
            )

    def problem(self, width: int, height: int) -> str:
        """Return a clause about a frame or image with too many pixels; empty if it has not."""
        if width * height <= self.max_pixels:
            return ""
        return (
            f"has {width}x{height} pixels, more than the {self.max_pixels} that are accepted; "
            "raise `max_pixels` if there is enough memory"
        )


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of an open source.

    Attributes:
        name: Display name, without credentials.
        width: Width of the delivered frames in pixels, after rotation; 0 if it is not known before
            the first frame.
        height: Height of the delivered frames in pixels, after rotation; 0 if it is not known
            before the first frame.
        live: Whether frames that are not read in time are lost (cameras and network streams).
        rate: Frames per second, exact (30000/1001), or None if unknown or variable.
        time_base: Seconds per unit of the frames' time stamps.
        frame_count: Number of frames, or None if unknown.
        path: Video file behind the source, or None.
        still: Whether each frame is a separate image rather than part of a video.
        files: All files behind the source; for images, one per frame, in order.
        names: Names of the images in the order of `files`; empty for a video.
        pixel_aspect: Displayed width of a pixel divided by its displayed height.
        media: File or URL from which sound and subtitles can be copied, or an empty string. A URL
            may contain credentials, so it is not part of the representation.
        feed: The packets of sound and subtitles of a source that can be read only once, or None.
        start: Time of the source, in seconds, at which a video of it begins.
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
    media: str = field(default="", repr=False)
    feed: PacketFeed | None = field(default=None, repr=False, compare=False)
    start: Fraction = Fraction(0)


class Source(AbstractContextManager[Any], Protocol):
    """Camera, video file, network stream, images or demo.

    Attributes:
        info: Properties of the source; complete after `open`.
    """

    info: SourceInfo

    def open(self) -> None:
        """Open the source, or reopen it after a loss.

        Raises:
            UsageError: If the source does not exist (missing file or camera).
            SourceError: If it exists but cannot be opened; opening a live source can be retried.
        """
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame and return it, or None at the end.

        Raises:
            SourceError: If a live source was lost, or the rest of a file is damaged.
        """
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the remaining frames, then close the source; a live source is opened first.

        Raises:
            UsageError: See `open`.
            SourceError: See `open` and `read`; a live source is not reopened after a loss.
        """
        ...

    def interrupt(self) -> None:
        """Ask a `read` in another thread to end; only `close` may follow.

        It ends at once where the source can wake it, and otherwise when the library or driver that
        it waits for returns. The end of a run does not wait for it longer than
        `PipelineOptions.join_timeout`.
        """
        ...

    def close(self) -> None:
        """Release the device or file; may be called any number of times."""
        ...


class BaseSource(Closeable):
    """Base class of sources, with defaults for those that never block."""

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
        """See `Source.interrupt`; does nothing, as for a `read` that returns by itself."""

    def close(self) -> None:
        """See `Source.close`."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of `open_source` that are passed to every plug-in.

    Attributes:
        decoder: Where to decode video files; "gpu" only where that is possible.
        recursive: Whether to search the subfolders of folders.
        interval: Seconds after which a single image, local or on a web server, is read again and
            again; None to read it once.
        wait: Whether a live source that cannot be opened at the start is tried again like one that
            was lost.
        start: Seconds from the first frame of a file at which to begin.
        end: Seconds from the first frame of a file at which to stop; None for its end.
        frame_step: Read every n-th frame.
        limits: What the source may contain.

    Raises:
        UsageError: If a value is out of range.
    """

    decoder: Literal["cpu", "gpu"] = "cpu"
    recursive: bool = False
    interval: float | None = None
    wait: bool = False
    start: float = 0.0
    end: float | None = None
    frame_step: int = 1
    limits: InputLimits = InputLimits()

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 < self.interval < inf:
            raise UsageError(f"`interval` must be above 0 seconds, not {self.interval:g}")
        if not 0 <= self.start < inf:
            raise UsageError(f"`start` must be at least 0 seconds, not {self.start:g}")
        if self.end is not None and not self.start < self.end < inf:
            raise UsageError(
                f"`end` must be after `start` ({self.start:g} seconds), not {self.end:g}"
            )
        if self.frame_step < 1:
            raise UsageError(f"`frame_step` must be at least 1, not {self.frame_step}")


class SourcePlugin(Protocol):
    """Object that an entry point of the group `realtime_ssd.sources` registers.

    Importing the module that defines it must be cheap: `open` imports the libraries of the source.

    Attributes:
        priority: The plug-in with the highest priority that matches a text opens it; the built-in
            ones have 0 to 99.
    """

    priority: int

    def matches(self, text: str) -> bool:
        """Return whether this plug-in opens a text; `file:` URLs are passed as paths."""
        ...

    def open(self, text: str, options: SourceOptions) -> Source:
        """Return the source that a text describes.

        Files are opened here, so that errors are found early; a live source is opened later by
        `Source.open`, in the thread that reads it.

        Args:
            text: Text that `matches` accepted.
            options: Options of the caller.

        Raises:
            UsageError: If the text is malformed or the source does not exist.
            SourceError: If the source exists but cannot be read.
        """
        ...
