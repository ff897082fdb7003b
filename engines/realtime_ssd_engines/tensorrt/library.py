"""Imports TensorRT or TensorRT-RTX lazily, and provides its logger, monitor and profiler.

TensorRT is imported on first use, after the driver has been queried for a GPU: TensorRT 8.6
terminates the process on a machine without one.
"""

from __future__ import annotations

import ctypes
import logging
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd_engines.requirements import FLAVOR_NAMES, Flavor, install_command

__all__ = [
    "MessageLog",
    "library",
    "message_log",
    "monitor_progress",
    "profile_layers",
    "version",
]

_RTX_LIBRARIES = ("libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*")
_log = logging.getLogger(__name__)


@cache
def library(flavor: Flavor = "tensorrt") -> ModuleType:
    """Import and return the module of TensorRT or TensorRT-RTX.

    Raises:
        ModelError: If it is not installed or fails to load.
    """
    try:
        return _import_rtx() if flavor == "rtx" else import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise ModelError(
            f"{FLAVOR_NAMES[flavor]} cannot be loaded ({error}); install it with: "
            f"{install_command(flavor)}, or set `backend` to onnxruntime"
        ) from error


def _import_rtx() -> ModuleType:
    """Import the bindings, whose libraries come with ONNX Runtime's plug-in or NVIDIA's package."""
    if find_spec("tensorrt_rtx") is not None:
        return import_module("tensorrt_rtx")
    plugin = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if plugin is not None and plugin.origin is not None:
        for pattern in _RTX_LIBRARIES:  # the parser links to the library
            for path in sorted(Path(plugin.origin).parent.glob(pattern))[:1]:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return import_module("tensorrt_rtx_bindings")


def version(flavor: Flavor = "tensorrt") -> str:
    """Return the flavor's version, such as "8.6.0" or "RTX 1.7.1"."""
    number = str(library(flavor).__version__)
    return f"RTX {number}" if flavor == "rtx" else number


class MessageLog:
    """Collects TensorRT's log messages, so that errors can be explained.

    Args:
        flavor: Flavor of TensorRT.

    Attributes:
        errors: Messages of severity error and internal error.
        layers: Description of the layers that the last build logged; "" if it logged none.
        logger: The `ILogger` to pass to TensorRT.
    """

    def __init__(self, flavor: Flavor = "tensorrt") -> None:
        trt = library(flavor)
        self.errors: list[str] = []
        self.layers = ""
        record = self

        class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    record.errors.append(message)
                elif message.startswith("Layers:"):
                    record.layers = message
                _log.debug("TensorRT: %s", message)

        self.logger = _Logger()

    def last_error(self) -> str:
        """Return the last error message."""
        return self.errors[-1].strip() if self.errors else "no reason given"


@cache
def message_log(flavor: Flavor = "tensorrt") -> MessageLog:
    """Return the log of the process: TensorRT uses only the first logger it receives."""
    return MessageLog(flavor)


def monitor_progress(
    config: Any, report: Callable[[float], None], flavor: Flavor = "tensorrt"
) -> bool:
    """Call `report(completed share)` during a build, if TensorRT supports it (10 and later)."""
    trt = library(flavor)
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


def profile_layers(
    context: Any, run: Callable[[], None], rounds: int, flavor: Flavor = "tensorrt"
) -> dict[str, float]:
    """Measure the layers of an execution context.

    Args:
        context: Execution context; it remains in profiling mode.
        run: Enqueues the context once and waits for completion.
        rounds: Number of runs.
        flavor: Flavor of TensorRT.

    Returns:
        Mean milliseconds per layer, in execution order.
    """
    trt = library(flavor)
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
