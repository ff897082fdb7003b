"""Stopping in good order: signals become a question that a loop asks when it is safe to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Asked", "Interrupted", "stop_requests"]

Asked = Callable[[], int]
"""Gives the number of the signal that asked to stop, or 0."""


class Interrupted(Exception):  # noqa: N818 - nothing is wrong
    """Work that need not be finished was broken off because somebody asked to stop."""


@contextmanager
def stop_requests() -> Iterator[Asked]:
    """Note SIGTERM and Ctrl+C instead of dying of them; the same one again ends at once.

    Yields:
        A function that gives the number of the signal that came, or 0.
    """
    asked = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked == number:
            raise KeyboardInterrupt
        asked = number

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield lambda: asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
