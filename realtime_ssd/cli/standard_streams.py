"""Standard streams that may be closed, or whose reader may leave, while the program runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

__all__ = ["discard_standard_output", "tolerant_streams"]


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Ignore errors of standard error, and of standard output at the end.

    Messages that nobody can read never end a run. Closed descriptors 0 to 2 are connected to the
    null device, because the next file that is opened would otherwise receive what libraries write
    to them.
    """
    for descriptor in range(3):
        _open_descriptor(descriptor)
    previous = sys.stderr
    sys.stderr = cast("TextIO", _TolerantStream(previous))
    try:
        yield
    finally:
        sys.stderr = previous
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except (OSError, ValueError):
            discard_standard_output()


def discard_standard_output() -> None:
    """Redirect standard output, whose reader left, to the null device for the last flush."""
    with suppress(OSError, ValueError):
        _redirect_to_null(sys.stdout.fileno())


class _TolerantStream:
    """A text stream whose write errors are ignored; after the first one it writes nothing.

    Args:
        stream: The stream to write to; None if it is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _discard(self) -> None:
        """Write to the null device from now on, so that the flush at exit does not fail either."""
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError):
            if stream is not None:
                _redirect_to_null(stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream or sys.__stderr__, name)


def _open_descriptor(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        _redirect_to_null(descriptor)


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
