"""Inference backends and the choice between them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from realtime_ssd.backends.base import Backend, Ticket
from realtime_ssd.errors import UsageError
from realtime_ssd.spec import ModelSpec, read_spec

__all__ = ["NAMES", "Backend", "BackendOptions", "Ticket", "class_ids", "cpu_count", "open_backend"]

_MODULES = {
    "onnxruntime": "realtime_ssd.backends.onnxruntime",
    "tensorrt": "realtime_ssd.backends.tensorrt",
}
NAMES = ("auto", *_MODULES)

OpenBackend = Callable[[Path, ModelSpec, "BackendOptions"], Backend]


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a user may choose about inference; None leaves the model's own default.

    Attributes:
        live: Whether to hurry each single frame rather than to get the most frames done.
        batch: Largest number of frames that go through the network together.
        score: Detections must score above this.
        nms: Boxes of a class that overlap a better one by more than this IoU are dropped.
        top_k: Best candidates of a class that enter NMS.
        classes: Names of the classes to look for; empty for all.
    """

    live: bool = False
    batch: int = 1
    score: float | None = None
    nms: float | None = None
    top_k: int | None = None
    classes: tuple[str, ...] = ()


def open_backend(
    model: str | Path, name: str = "auto", options: BackendOptions | None = None
) -> Backend:
    """Load a model into a backend.

    Args:
        model: ONNX file that carries its specification.
        name: "onnxruntime", "tensorrt", or "auto": TensorRT where it can run, else ONNX Runtime.
        options: What the user chose.

    Returns:
        The backend; close it when done.

    Raises:
        UsageError: If the backend or a class is unknown, or an option does not fit the model.
        ModelError: If the model cannot be read or run.
    """
    options = options or BackendOptions()
    if name not in NAMES:
        raise UsageError(f"backend '{name}' is unknown; choose one of {', '.join(NAMES)}")
    if options.batch < 1:
        raise UsageError(f"--batch must be at least 1, not {options.batch}")
    path = Path(model)
    spec = read_spec(path).with_thresholds(
        score=options.score, nms=options.nms, top_k=options.top_k
    )
    chosen = _MODULES[_automatic() if name == "auto" else name]
    opener: OpenBackend = import_module(chosen).open_backend
    return opener(path, spec, options)


def _automatic() -> str:
    """Choose TensorRT where a driver, a GPU and the library are present, else ONNX Runtime."""
    try:
        usable: bool = import_module(_MODULES["tensorrt"]).usable()
    except ImportError:
        return "onnxruntime"
    return "tensorrt" if usable else "onnxruntime"


def class_ids(spec: ModelSpec, names: Sequence[str]) -> tuple[int, ...] | None:
    """Find the score columns of class names.

    Args:
        spec: Contract of the model.
        names: Names as in the model's labels, in any case; empty for all classes.

    Returns:
        The columns, or None for all.

    Raises:
        UsageError: If the model does not know a name.
    """
    columns = {
        label.lower(): column
        for column, label in enumerate(spec.labels)
        if column != spec.background
    }
    for name in names:
        if name.lower() not in columns:
            close = difflib.get_close_matches(name.lower(), columns, n=1, cutoff=0.6)
            hint = f"did you mean '{close[0]}'" if close else f"it knows {_some(list(columns))}"
            raise UsageError(f"class '{name}' is unknown to model '{spec.name}'; {hint}")
    return tuple(columns[name.lower()] for name in names) or None


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def cpu_count() -> int:
    """Count the processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
