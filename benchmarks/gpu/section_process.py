"""Runs a section in a process of its own, so that an error of the GPU affects only one check.

An error such as an illegal address makes every later call of the process fail, and a crash ends it.
In both cases a new process runs the remaining checks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.gpu.checks import GPU_LOST, SectionRequest
from benchmarks.gpu.report_rows import Row

__all__ = ["run_in_process"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class _Progress:
    """What the processes of a section have reported.

    Attributes:
        plan: Names of all checks; None until they are known.
        begun: Names of checks that were started.
        current: The check that is running, or "".
    """

    plan: list[str] | None = None
    begun: list[str] = field(default_factory=list)
    current: str = ""


def run_in_process(
    request: SectionRequest,
    limit: float,
    on_row: Callable[[Row], None],
    *,
    log: Path,
    prefix: Sequence[str] = (),
) -> None:
    """Run a section, restarting its process after a crash.

    Args:
        request: The section and its options.
        limit: Time limit in seconds for all processes together.
        on_row: Called with each row as soon as it is known.
        log: File to append the output of the processes to.
        prefix: Command that runs the process, such as a sanitizer.
    """
    progress = _Progress()
    with _TimeLimit(limit) as timer:
        while True:
            done = tuple(progress.begun)
            command = [*prefix, *_command(replace(request, done=done))]
            status = _run_once(command, timer, progress, on_row, log)
            if timer.expired:
                _report_limit(request.section, limit, progress, on_row)
                return
            if status not in (0, GPU_LOST):
                name, reason = progress.current or "whole section", _exit_reason(status)
                on_row(Row(request.section, name, f"failed: {reason}; see {log.name}"))
            if status == 0 or len(progress.begun) == len(done):
                return
            progress.current = ""


def _command(request: SectionRequest) -> list[str]:
    return [sys.executable, "-m", request.module, request.to_json()]


class _TimeLimit:
    """Kills the watched process, and the processes it started, when the time is over."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(max(seconds, 0.0), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> _TimeLimit:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, process: subprocess.Popen[str] | None) -> None:
        """Kill this process when the time is over, at once if it is over already."""
        with self._lock:
            self._process = process
            if self.expired and process is not None:
                _kill(process)

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self._process is not None:
                _kill(self._process)


def _run_once(
    command: Sequence[str],
    limit: _TimeLimit,
    progress: _Progress,
    on_row: Callable[[Row], None],
    log: Path,
) -> int:
    """Run one process and return its exit status, negative for a signal."""
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        limit.watch(process)
        try:
            for line in process.stdout or ():
                if not _handle(line, progress, on_row):
                    output.write(line)
                    output.flush()
        finally:
            limit.watch(None)
            if sys.exc_info()[0] is not None:  # the user stopped the benchmark
                _kill(process)
    return process.wait()


def _handle(line: str, progress: _Progress, on_row: Callable[[Row], None]) -> bool:
    """Process a message; return False for a line that is none."""
    try:
        ((kind, value),) = json.loads(line).items()
    except (ValueError, AttributeError):
        return False
    if kind == "row":
        on_row(Row(**value))
    elif kind == "plan":
        progress.plan = value
    elif kind == "begin":
        progress.current = value
        progress.begun.append(value)
    else:
        progress.current = ""
    return True


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process that was not waited for yet, with its children where the system allows."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _report_limit(
    section: str, limit: float, progress: _Progress, on_row: Callable[[Row], None]
) -> None:
    """Add a row for the check that was stopped and for each that did not start."""
    if progress.current or progress.plan is None:
        name = progress.current or "whole section"
        on_row(Row(section, name, f"failed: not finished within {limit:.0f} s"))
    for name in progress.plan or ():
        if name not in progress.begun:
            on_row(Row(section, name, f"skipped: the time limit of {limit:.0f} s was reached"))


def _exit_reason(status: int) -> str:
    if status >= 0:
        return f"the process ended with status {status}"
    try:
        return f"the process was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"the process was ended by signal {-status}"
