"""`Relay`: the process that sends published video, as seen from the one that encodes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, cast

from realtime_ssd.core.errors import redact
from realtime_ssd.sinks.publish_targets import PublishTarget
from realtime_ssd.sinks.relay_process import URL_VARIABLE
from realtime_ssd.sources.formats import scheme_of

__all__ = ["Relay"]


class Relay:
    """A process that sends a NUT stream to a URL.

    Args:
        target: Where to send.
    """

    def __init__(self, target: PublishTarget) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe, it never fills
        self._process = subprocess.Popen(
            _command(target),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, URL_VARIABLE: target.url},
            start_new_session=True,  # Ctrl+C must not end it before its input does
        )
        self._connected = False
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        os.set_blocking(self._output.fileno(), False)

    def write(self, data: bytes) -> int:
        """Write a part of the NUT stream; `has_ended` shows a failure, as PyAV only prints it."""
        remaining = memoryview(data)
        with suppress(OSError, ValueError):
            while remaining:
                remaining = remaining[self._input.write(remaining) :]
        return len(data)

    @property
    def connected(self) -> bool:
        """Whether the server accepted the stream."""
        output = self._output.read() if not self._output.closed else b""
        self._connected = self._connected or bool(output)
        return self._connected

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, which it does only after a failure or its input."""
        return self._process.poll() is not None

    def finish(self, timeout: float) -> str:
        """End the stream and wait for the process.

        Args:
            timeout: Seconds after which it is killed.

        Returns:
            Why it failed, or an empty string.
        """
        with suppress(OSError):
            self._input.close()
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "no answer in time"
        return self._reason() if status else ""

    def kill(self) -> None:
        """End the process immediately."""
        self._process.kill()

    def _reason(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        # The program ffmpeg writes "URL: reason".
        last = redact(lines[-1].rpartition(": ")[2]) if lines else ""
        return last[:1].lower() + last[1:] if last else "the connection ended"


def _command(target: PublishTarget) -> list[str]:
    """Return the command; PyAV's FFmpeg has no SRT, which the program ffmpeg usually has."""
    ffmpeg = shutil.which("ffmpeg")
    if scheme_of(target.url) == "srt" and ffmpeg is not None:
        read = ["-nostdin", "-v", "error", "-progress", "pipe:1", "-probesize", "100000"]
        copy = ["-f", "nut", "-i", "pipe:0", "-c", "copy", "-f", target.format.name, target.url]
        return [ffmpeg, *read, *copy]
    module = "realtime_ssd.sinks.relay_process"
    return [sys.executable, "-m", module, target.format.name, json.dumps(target.format.options)]
