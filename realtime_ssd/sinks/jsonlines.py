"""JSON lines: one object per frame, each flushed immediately, so that a crash loses none."""

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

__all__ = ["JsonSink", "to_record"]


def to_record(result: FrameResult) -> dict[str, Any]:
    """Return the object of one line: boxes in pixels of the frame, stream time in seconds."""
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
    """Writes JSON lines to a file, or to standard output if the target is "-".

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
        self._complete_bytes = 0

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        line = json.dumps(to_record(result), separators=(",", ":")) + "\n"
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
                f"writing to {self._name} failed ({error.strerror}); the lines written before are "
                "complete"
            ) from None

    def _append(self, file: BinaryIO, line: bytes) -> None:
        """Write a complete line, or remove the part of it that was written."""
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        except OSError:
            with suppress(OSError):
                file.truncate(self._complete_bytes)
            raise
        self._complete_bytes += len(line)

    def close(self) -> None:
        """See `Sink.close`; a file without a single line is deleted."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        with suppress(OSError):  # a write error was already reported by `write`
            file.close()
            if not self._complete_bytes and self._path.is_file() and not self._path.stat().st_size:
                self._path.unlink()
