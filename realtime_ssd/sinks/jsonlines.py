"""JSON lines: one object a frame, flushed at once, so that nothing is lost whatever happens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

from realtime_ssd.errors import RealtimeSSDError, UsageError
from realtime_ssd.sinks.base import BaseSink, Result

__all__ = ["JsonSink", "record"]


def record(result: Result) -> dict[str, Any]:
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
        self._target = target
        self._own = target != "-"
        self._file: IO[str] | None = _open(target, overwrite) if self._own else sys.stdout

    def write(self, result: Result) -> None:
        """See `Sink.write`."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record(result), separators=(",", ":")) + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RealtimeSSDError(
                f"'{self._target}' cannot be written any further ({error.strerror}); the lines "
                "before are complete"
            ) from None

    def close(self) -> None:
        """See `Sink.close`."""
        file, self._file = self._file, None
        if file is not None and self._own:
            try:
                file.close()
            except OSError:
                return  # the failure was told when it was written


def _open(target: str, overwrite: bool) -> IO[str]:
    path = Path(target)
    try:
        return path.open("w" if overwrite else "x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"'{target}' exists; add --overwrite to replace it") from None
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from None
