"""The interface of every sink: windows, files and services that receive results."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.results import FrameResult

__all__ = ["BaseSink", "Policy", "Sink"]

Policy = Literal["block", "latest"]
"""Whether a sink receives every result, or the newest one in a thread of its own."""


class Sink(AbstractContextManager[Any], Protocol):
    """Receives results.

    Attributes:
        policy: With "block", `write` is called with every result by the thread that iterates over
            the pipeline, which waits for it. With "latest", a thread of the sink's own calls
            `write` with the newest result; older ones are skipped, and nothing waits for it.
    """

    policy: Policy

    def write(self, result: FrameResult) -> None:
        """Receive one result; results of a source arrive in order.

        Raises:
            RealtimeSSDError: If it cannot be written; a "block" sink ends the run with it, a
                "latest" sink is closed and named at the end.
        """
        ...

    def close(self) -> None:
        """Finish what was begun so that it can be read; may be called any number of times."""
        ...


class BaseSink(Closeable):
    """Base class of the sinks here: a context manager that receives every result."""

    policy: Policy = "block"

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Sink.close`."""
