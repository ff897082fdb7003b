"""Imports TensorRT lazily and provides the objects it calls back: logger, monitor and profiler.

TensorRT is imported on first use, after the driver has been queried for a GPU: TensorRT 8.6
terminates the process on a machine without one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from realtime_ssd.core.errors import ModelError

__all__ = [
    "MessageLog",
    "library",
    "message_log",
    "monitor_progress",
    "profile_layers",
    "version",
]

_log = logging.getLogger(__name__)


@cache
def library() -> ModuleType:
    """Import and return the TensorRT module.

    Raises:
        ModelError: If it is not installed or fails to load.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ModelError(
            f"TensorRT cannot be loaded ({error}); install it with: pip install "
            "'realtime-ssd[gpu]', or set `backend` to onnxruntime"
        ) from error
    module: ModuleType = tensorrt
    return module


def version() -> str:
    """Return TensorRT's version, such as "8.6.0"."""
    return str(library().__version__)


class MessageLog:
    """Collects TensorRT's log messages, so that errors can be explained.

    Attributes:
        errors: Messages of severity error and internal error.
        logger: The `ILogger` to pass to TensorRT.
    """

    def __init__(self) -> None:
        trt = library()
        self.errors: list[str] = []
        errors = self.errors

        class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    errors.append(message)
                _log.debug("TensorRT: %s", message)

        self.logger = _Logger()

    def last_error(self) -> str:
        """Return the last error message."""
        return self.errors[-1].strip() if self.errors else "no reason given"


@cache
def message_log() -> MessageLog:
    """Return the log of the process: TensorRT uses only the first logger it receives."""
    return MessageLog()


def monitor_progress(config: Any, report: Callable[[float], None]) -> bool:
    """Call `report(completed share)` during a build, if TensorRT supports it (10 and later)."""
    trt = library()
    if not hasattr(trt, "IProgressMonitor"):
        return False

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.root_steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.root_steps[phase_name] = max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.root_steps:
                report((step + 1) / self.root_steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.root_steps.pop(phase_name, None)

    config.progress_monitor = _Monitor()
    return True


def profile_layers(context: Any, run: Callable[[], None], rounds: int) -> dict[str, float]:
    """Measure the layers of an execution context.

    Args:
        context: Execution context; it remains in profiling mode.
        run: Enqueues the context once and waits for completion.
        rounds: Number of runs.

    Returns:
        Mean milliseconds per layer, in execution order.
    """
    trt = library()
    times: dict[str, float] = defaultdict(float)

    class _Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name] += ms

    context.profiler = _Profiler()
    for _ in range(rounds):
        run()
    return {name: total / rounds for name, total in times.items()}
