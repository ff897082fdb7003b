"""Orderly stop on Ctrl+C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(on_stop: Callable[[int], None] | None = None) -> Iterator[Callable[[], int]]:
    """Record SIGINT and SIGTERM instead of ending the process; a second signal interrupts at once.

    Must be entered in the main thread.

    Args:
        on_stop: Called by the signal handler with the number of the first signal.

    Yields:
        A function that returns the number of the signal that was received, or 0.

    Raises:
        KeyboardInterrupt: At the second signal, from wherever the main thread is.
    """
    received = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal received
        if received:
            raise KeyboardInterrupt
        received = number
        if on_stop is not None:
            on_stop(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
