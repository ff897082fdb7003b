"""Graceful shutdown on Ctrl+C, on SIGTERM and when the terminal is closed (SIGHUP)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(on_stop: Callable[[int], None] | None = None) -> Iterator[Callable[[], int]]:
    """Record SIGINT, SIGTERM and SIGHUP instead of ending the process; a second one interrupts.

    A second SIGHUP does not, because a terminal and its shell both send one. An ignored SIGHUP
    (`nohup`) stays ignored. Must be entered in the main thread.

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
            if number == signal.SIGHUP:
                return
            raise KeyboardInterrupt
        received = number
        if on_stop is not None:
            on_stop(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
