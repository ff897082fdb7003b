"""`RecordFile`: a file, or standard output, to which complete records are appended."""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import check_not_deleted, open_output

__all__ = ["RecordFile"]


class RecordFile:
    """Appends records at once, so that a crash loses none and a full disk leaves no part of one.

    Args:
        target: File, or "-" for standard output.
        content: What the records are, for messages, such as "lines".
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written, or standard output is closed.
    """

    def __init__(self, target: str, content: str = "lines", *, overwrite: bool = False) -> None:
        if target == "-" and sys.stdout is None:
            raise UsageError(f"standard output is closed; write the {content} to a file")
        self._name = "standard output" if target == "-" else f"'{target}'"
        self._content = content
        self._path = None if target == "-" else Path(target)
        self._file: BinaryIO | None = None
        if self._path is not None:
            self._file = open_output(self._path, overwrite=overwrite)
        self._complete_bytes = 0

    def append(self, text: str) -> None:
        """Write text that ends with a complete record.

        Raises:
            BrokenPipeError: If the reader left, or the terminal was closed.
            RealtimeSSDError: If it cannot be written; the records before are complete.
        """
        try:
            if self._path is None:
                sys.stdout.write(text)
                sys.stdout.flush()
            elif self._file is not None:
                check_not_deleted(self._file, self._path)
                self._append(self._file, text.encode())
        except OSError as error:
            if isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and not self._path):
                raise BrokenPipeError(error.errno, error.strerror, self._name) from None
            raise RealtimeSSDError(
                f"writing to {self._name} failed ({error.strerror}); the {self._content} written "
                "before are complete"
            ) from None

    def _append(self, file: BinaryIO, data: bytes) -> None:
        """Write all data, or remove the part of it that was written."""
        try:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        except OSError:
            with suppress(OSError):
                file.truncate(self._complete_bytes)
            raise
        self._complete_bytes += len(data)

    def close(self) -> None:
        """Close the file; one without a single record is deleted."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        with suppress(OSError):  # a write error was already reported by `append`
            file.close()
            if not self._complete_bytes and self._path.is_file() and not self._path.stat().st_size:
                self._path.unlink()
