"""`SinkGroup`: passes results to the sinks of their source, each by its own policy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.errors import RealtimeSSDError, describe
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import Sink

__all__ = ["SinkGroup"]

LATEST_CLOSE_TIMEOUT = 2.0
"""Seconds that closing waits for a "latest" sink that does not return from `write`."""

_log = logging.getLogger(__name__)


class SinkGroup(Closeable):
    """Owns the sinks of a run.

    "block" sinks receive every result in the thread that calls `write`. A "latest" sink has a
    thread of its own and receives the newest result of each source: neither its speed nor its
    failure affects the others.
    """

    def __init__(self) -> None:
        self._blocking: list[tuple[Sink, str | None]] = []
        self._latest: list[tuple[_LatestSinkThread, str | None]] = []

    def __len__(self) -> int:
        return len(self._blocking) + len(self._latest)

    def add(self, sink: Sink, source: str | None = None) -> None:
        """Add a sink, which is closed with the group.

        Args:
            sink: The sink.
            source: Name of the only source it receives; None for all sources.
        """
        if sink.policy == "latest":
            self._latest.append((_LatestSinkThread(sink), source))
        else:
            self._blocking.append((sink, source))

    def write(self, result: FrameResult) -> None:
        """Pass a result to every sink of its source.

        A "block" sink whose reader left is closed, and the others continue.

        Raises:
            RealtimeSSDError: If a "block" sink fails; the error names it.
            BrokenPipeError: If the reader of the only sink left.
        """
        name = result.frame.source
        for thread, source in self._latest:
            if source in (None, name):
                thread.offer(result)
        for entry in tuple(self._blocking):
            sink, source = entry
            if source not in (None, name):
                continue
            try:
                _write(sink, result)
            except BrokenPipeError as error:
                if len(self) == 1:
                    raise
                reader = error.filename or type(sink).__name__
                _log.warning("the reader of %s left; the other outputs continue", reader)
                self._blocking.remove(entry)
                sink.close()

    def close_source(self, name: str) -> None:
        """Close the sinks that receive only one source, which has ended.

        Raises:
            RealtimeSSDError: If a sink cannot complete its output.
        """
        ended = [sink for sink, source in self._blocking if source == name]
        self._blocking = [one for one in self._blocking if one[0] not in ended]
        for sink in ended:
            sink.close()

    def close(self) -> None:
        """Close all sinks, then raise the first failure: of closing, or of a "latest" sink."""
        failures = [*self._close_blocking(), *self._close_latest()]
        if failures:
            raise failures[0]

    def _close_blocking(self) -> Iterator[Exception]:
        while self._blocking:
            sink, _ = self._blocking.pop(0)
            try:
                sink.close()
            except Exception as error:
                yield error

    def _close_latest(self) -> Iterator[Exception]:
        threads, self._latest = self._latest, []
        for thread, _ in threads:
            thread.request_stop()
        for thread, _ in threads:
            failure = thread.join()
            if failure is not None:
                yield failure


class _LatestSinkThread:
    """Writes the newest result of each source to a sink, in a thread.

    Args:
        sink: The sink; written to and closed by the thread alone.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._name = type(sink).__name__
        self._pending: dict[str, FrameResult] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"sink-{self._name}", daemon=True)
        self._thread.start()

    def offer(self, result: FrameResult) -> None:
        """Replace the result of the same source that still waits; never blocks."""
        with self._changed:
            if not self._stopping and self._failure is None:
                self._pending[result.frame.source] = result
                self._changed.notify()

    def request_stop(self) -> None:
        """Ask the thread to write what waits, close the sink and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self) -> Exception | None:
        """Wait for the thread and return what failed, if anything did."""
        self._thread.join(LATEST_CLOSE_TIMEOUT)
        if self._thread.is_alive():
            return RealtimeSSDError(
                f"{self._name} did not finish within {LATEST_CLOSE_TIMEOUT:g} s and was abandoned"
            )
        return self._failure

    def _run(self) -> None:
        try:
            while (result := self._next()) is not None:
                _write(self._sink, result)
        except Exception as error:
            self._fail(error)
        try:
            self._sink.close()
        except Exception as error:
            self._fail(error)

    def _next(self) -> FrameResult | None:
        """Wait for the result that has waited longest; None when all is written after a stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._stopping)
            if not self._pending:
                return None
            return self._pending.pop(next(iter(self._pending)))

    def _fail(self, error: Exception) -> None:
        if self._failure is not None:
            return
        with self._changed:
            self._pending.clear()
            self._failure = error
        _log.warning("%s stopped: %s", self._name, error)


def _write(sink: Sink, result: FrameResult) -> None:
    """Write a result; errors of other libraries become one sentence that names the sink."""
    try:
        sink.write(result)
    except (RealtimeSSDError, BrokenPipeError):
        raise
    except Exception as error:
        raise RealtimeSSDError(
            f"{type(sink).__name__} failed on frame {result.frame.index} of "
            f"'{result.frame.source}': {describe(error)}"
        ) from error
