"""Graceful shutdown on Ctrl+C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(on_stop: Callable[[int], None] | None = None) -> Iterator[Callable[[], int]]:
    """Record SIGINT and SIGTERM instead of ending the process; the second signal interrupts.

    Must be entered in the main thread.

    Args:
        on_stop: Called in the signal handler with the number of the first signal.

    Yields:
        A function that returns the number of the received signal, or 0.

    Raises:
        KeyboardInterrupt: In the main thread, on the second signal.
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
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
