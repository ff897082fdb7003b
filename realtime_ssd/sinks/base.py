"""What every output of the program looks like to the loop."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult

__all__ = ["BaseSink", "Sink", "make_folder"]


class Sink(Protocol):
    """A window, a video file, a JSON file, a folder of images."""

    def write(self, result: FrameResult) -> None:
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


class BaseSink(Closeable):
    """What all sinks share: `with`."""

    def write(self, result: FrameResult) -> None:
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
