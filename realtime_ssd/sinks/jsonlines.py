"""JSON lines: one object a frame, flushed at once, so that nothing is lost whatever happens."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import open_output
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink

__all__ = ["JsonSink", "record"]


def record(result: FrameResult) -> dict[str, Any]:
    """Give what one line holds: boxes in pixels of the frame, time in seconds of the stream."""
    frame = result.frame
    return {
        "source": frame.name or frame.source,
        "frame": frame.index,
        "time": round(frame.time, 6),
        "width": frame.width,
        "height": frame.height,
        "detections": result.detections.to_dicts(),
    }


class JsonSink(BaseSink):
    """Writes JSON lines to a file, or to standard output for "-".

    Args:
        target: File or "-".
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written.
    """

    def __init__(self, target: str, *, overwrite: bool = False) -> None:
        self._name = "standard output" if target == "-" else f"'{target}'"
        self._path = None if target == "-" else Path(target)
        self._file: BinaryIO | None = None
        if self._path is not None:
            self._file = open_output(self._path, overwrite=overwrite)
        self._good = 0

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        line = json.dumps(record(result), separators=(",", ":")) + "\n"
        try:
            if self._path is None:
                sys.stdout.write(line)
                sys.stdout.flush()
            elif self._file is not None:
                self._append(self._file, line.encode())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RealtimeSSDError(
                f"{self._name} cannot be written any further ({error.strerror}); the lines "
                "before are complete"
            ) from None

    def _append(self, file: BinaryIO, line: bytes) -> None:
        """Write one line whole, or take back what of it was written."""
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):
                file.truncate(self._good)
            raise
        self._good += len(line)

    def close(self) -> None:
        """See `Sink.close`; a file into which no line ever came is taken away again."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        with suppress(OSError):  # the failure was told when it was written
            file.close()
            if not self._good and self._path.is_file() and not self._path.stat().st_size:
                self._path.unlink()
