"""Graceful shutdown on Ctrl+C, on SIGTERM and when the terminal is closed (SIGHUP)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["answer_signals", "stop_on_signals"]


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


_END = b"\0"
"""What tells the thread of `answer_signals` to stop; no signal has this number."""


@contextmanager
def answer_signals(text: str) -> Iterator[None]:
    """Write a line to standard error as soon as SIGINT or SIGTERM arrives.

    A handler in Python runs only when the main thread returns from a library, which may take
    seconds; a thread answers meanwhile. Must be entered in the main thread.

    Args:
        text: The line, written for the first signal.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer_first, args=(reading, text), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        # Processes started meanwhile may hold the pipe open, so that its end would never be read.
        os.write(writing, _END)
        thread.join()
        os.close(writing)
        os.close(reading)


def _answer_first(descriptor: int, text: str) -> None:
    """Wait for the number of a signal in a pipe, then write the answer; stop at `_END`."""
    numbers = b""
    while _END not in numbers:
        numbers = os.read(descriptor, 64)
        if signal.SIGINT in numbers or signal.SIGTERM in numbers:
            with suppress(OSError):
                os.write(2, f"\n{text}\n".encode())
            return
