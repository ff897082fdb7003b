"""Interfaces of sinks and of the plug-ins that open them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sources.base import SourceInfo

__all__ = ["BaseSink", "Policy", "Sink", "SinkPlugin"]

Policy = Literal["block", "latest"]
"""Whether a sink receives every result, or only the latest one in a thread of its own."""


class Sink(AbstractContextManager[Any], Protocol):
    """Receives results.

    Attributes:
        policy: With "block", the thread that iterates over the pipeline calls `write` with every
            result and waits for it. With "latest", a thread of the sink's own calls `write` with
            the latest result; older ones are skipped, and nothing waits for it.
    """

    policy: Policy

    def write(self, result: FrameResult) -> None:
        """Receive one result; the results of each source arrive in order.

        Raises:
            RealtimeSSDError: If the result cannot be written. This ends the run if the policy is
                "block"; a "latest" sink is closed, and the error reported at the end.
        """
        ...

    def close(self) -> None:
        """Complete the output so that it can be read; may be called any number of times."""
        ...


class BaseSink(Closeable):
    """Base class of sinks: a context manager that receives every result."""

    policy: Policy = "block"

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Sink.close`."""


class SinkPlugin(Protocol):
    """Object that an entry point of the group `realtime_ssd.sinks` registers.

    Importing the module that defines it must be cheap: `open` imports the libraries of the sink.

    Attributes:
        suffixes: Lower-case file suffixes, such as ".mp4", of the targets that this plug-in opens
            without being named; empty if it is only opened by name.
        per_source: Whether every source has a sink of its own. Otherwise one sink receives the
            results of all sources.

    A plug-in may also have `schemes`, a tuple of the lower-case schemes of the URLs that it opens
    without being named, such as "rtsp".
    """

    suffixes: tuple[str, ...]
    per_source: bool

    def files(self, target: str, info: SourceInfo) -> Sequence[Path]:
        """Return the files that `open` writes with these arguments; empty if there are none.

        They are checked before any output is opened: none may be a source, another output, or an
        existing file that must be kept.
        """
        ...

    def open(self, target: str, info: SourceInfo, overwrite: bool) -> Sink:
        """Open a sink.

        Args:
            target: Where to write: a path, URL or address, as the plug-in defines it.
            info: The source, or the first one if a single sink receives the results of all.
            overwrite: Whether existing files may be replaced.

        Raises:
            UsageError: If the target is malformed, exists or cannot be written.
        """
        ...
