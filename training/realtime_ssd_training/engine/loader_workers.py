"""Why a process that loads images ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from realtime_ssd.core.errors import RealtimeSSDError, reached_limit

__all__ = ["WorkerError", "explain_failures"]


class WorkerError(RealtimeSSDError):
    """A process that loads images ended."""


_CAUSES = {
    signal.SIGKILL: "killed, as the system does when the memory of the machine or container is "
    "full; use fewer `workers` or a smaller `batch`",
    signal.SIGBUS: "stopped because the shared memory is full; enlarge it (df -h /dev/shm, "
    "docker run --shm-size), or use fewer `workers`",
    signal.SIGXCPU: "stopped because the limit of processor time was reached; raise it (ulimit -t)",
    signal.SIGXFSZ: "stopped because the limit of the file size was reached; raise it (ulimit -f)",
}


@contextmanager
def explain_failures(loader: Any) -> Iterator[None]:
    """Convert the error about a worker that ended into one that says which limit it was.

    Args:
        loader: The `torch.utils.data.DataLoader` that is used within the `with` statement.

    Raises:
        WorkerError: If a worker was killed, crashed or could not be started.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        reason = _reason(loader) or reached_limit(error)
        if not reason:
            raise
        with suppress(RuntimeError):  # PyTorch reports the worker until its iterator is deleted
            loader._iterator = None
        raise WorkerError(f"loading images failed: {reason}") from error


def _exit_status(worker: Any) -> int | None:
    """Wait a moment for a worker, whose exit status may arrive after the end of its pipe."""
    for _ in range(2):
        with suppress(RuntimeError):  # of PyTorch's handler of SIGCHLD, in the middle of this
            worker.join(0.5)
            break
    status: int | None = worker.exitcode
    return status


def _reason(loader: Any) -> str:
    """Return how the first worker that failed ended; empty if none did."""
    iterator = getattr(loader, "_iterator", None)
    for worker in getattr(iterator, "_workers", ()):
        status = _exit_status(worker)
        if status is not None and status < 0:
            number = signal.Signals(-status)
            return f"a worker was {_CAUSES.get(number, f'stopped by the signal {number.name}')}"
        if status:
            return f"a worker ended with status {status}"
    return ""
