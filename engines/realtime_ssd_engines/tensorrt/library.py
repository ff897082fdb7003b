"""TensorRT's module, and the objects it calls back: logger, progress monitor, profiler.

`tensorrt` is imported when first needed. Before that the driver is asked for a GPU, because
TensorRT ends the process on a machine without one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from realtime_ssd.core.errors import ModelError

__all__ = ["Messages", "layer_times", "library", "messages", "version", "watch"]

_log = logging.getLogger(__name__)


@cache
def library() -> ModuleType:
    """Import TensorRT.

    Raises:
        ModelError: If it is not installed or does not load.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ModelError(
            f"TensorRT cannot be loaded ({error}); install it with: pip install "
            "'realtime-ssd[gpu]', or use --backend onnxruntime"
        ) from error
    loaded: ModuleType = tensorrt
    return loaded


def version() -> str:
    """Give TensorRT's version, such as "8.6.0"."""
    return str(library().__version__)


class Messages:
    """What TensorRT said, kept so that a failure can be explained.

    Attributes:
        errors: Texts of errors and internal errors.
        logger: The object TensorRT wants.
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

    def last(self) -> str:
        """Give the last error, or a general word."""
        return self.errors[-1].strip() if self.errors else "it gave no reason"


@cache
def messages() -> Messages:
    """One logger for all runtimes: TensorRT keeps only the first it is given."""
    return Messages()


def watch(config: Any, report: Callable[[float], None]) -> bool:
    """Call `report(share done)` during a build, where TensorRT can tell (10 and later)."""
    trt = library()
    if not hasattr(trt, "IProgressMonitor"):
        return False

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.whole: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.whole[phase_name] = max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.whole:
                report((step + 1) / self.whole[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.whole.pop(phase_name, None)

    config.progress_monitor = _Monitor()
    return True


def layer_times(context: Any, run: Callable[[], None], rounds: int) -> dict[str, float]:
    """Measure the layers of an execution context.

    Args:
        context: The execution context; it goes on being measured afterwards.
        run: Enqueues it once and waits for its end.
        rounds: How often to run it.

    Returns:
        Mean milliseconds of a run by layer, in the order of execution.
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
