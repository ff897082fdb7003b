"""Inference backends and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from realtime_ssd.backends.base import Backend, BackendOptions, BackendPlugin, PendingBatch
from realtime_ssd.backends.model_options import check_device, check_options, class_ids, with_options
from realtime_ssd.backends.tiled import TiledBackend
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.registry import load_plugin, plugins
from realtime_ssd.core.spec import ModelSpec, read_spec

__all__ = [
    "Backend",
    "BackendOptions",
    "BackendPlugin",
    "PendingBatch",
    "backend_names",
    "best_backend",
    "check_batch",
    "check_device",
    "check_options",
    "class_ids",
    "decodes_surfaces",
    "default_precision",
    "open_backend",
    "with_options",
]

_log = logging.getLogger(__name__)


def open_backend(
    model: str | Path, name: str = "auto", options: BackendOptions | None = None
) -> Backend:
    """Load a model into a backend, which cuts frames into tiles if `options.tile` is set.

    Args:
        model: ONNX file that carries its specification, or an engine (.engine) with its side-car.
        name: Name of an installed backend ("onnxruntime", "tensorrt"), or "auto": the one with the
            highest priority that can run here.
        options: Choices of the user.

    Returns:
        The backend; close it when done.

    Raises:
        UsageError: If the backend or a class is unknown, or an option does not fit the model.
        ModelError: If the model cannot be read or run.
    """
    options = options or BackendOptions()
    backend = _open(Path(model), name, options)
    return backend if options.tile is None else TiledBackend(backend, options.tile)


def _open(path: Path, name: str, options: BackendOptions) -> Backend:
    if name != "auto" and name not in plugins("backends"):
        raise UsageError(f"backend '{name}' is unknown; choose one of {', '.join(backend_names())}")
    check_options(options)
    engine_backend = _engine_backend(path)
    if engine_backend:
        if name not in ("auto", engine_backend):
            raise UsageError(
                f"'{path}' is an engine of backend '{engine_backend}', which backend '{name}' "
                "cannot run; use the ONNX file"
            )
        return _plugin(engine_backend).open_engine(path, options)
    spec = with_options(read_spec(path, trust_model=options.trust_model), options)
    if name == "auto":
        return _open_best(path, spec, options)
    return _plugin(name).open(path, spec, options)


def backend_names() -> tuple[str, ...]:
    """Return "auto" and the names of all installed backends."""
    return ("auto", *sorted(plugins("backends")))


def best_backend() -> str:
    """Return the name of the backend that "auto" tries first on this machine."""
    able = [name for name in _by_priority() if not _plugin(name).missing()]
    return able[0]


def default_precision(name: str) -> str:
    """Return the precision in which a backend ("auto": the best one here) builds engines.

    Returns:
        Such as "fp16"; empty if the backend runs models as they are, or is unknown.
    """
    chosen = best_backend() if name == "auto" else name
    return _plugin(chosen).default_precision if chosen in plugins("backends") else ""


def decodes_surfaces(name: str) -> bool:
    """Return whether a backend ("auto": the best one here) takes frames in GPU memory."""
    chosen = best_backend() if name == "auto" else name
    if chosen not in plugins("backends"):
        return False  # `open_backend` reports the unknown name
    plugin = _plugin(chosen)
    return plugin.decodes_surfaces and not plugin.missing()


def _plugin(name: str) -> BackendPlugin:
    plugin: BackendPlugin = load_plugin("backends", name)
    return plugin


def _by_priority() -> list[str]:
    return sorted(plugins("backends"), key=lambda name: -_plugin(name).priority)


def _engine_backend(path: Path) -> str:
    """Return the backend whose engine files end like `path`, or an empty string."""
    if path.suffix == ".onnx":
        return ""
    names = (n for n in plugins("backends") if path.suffix == _plugin(n).engine_suffix != "")
    return next(names, "")


def _open_best(path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    """Open the backend of the highest priority that runs this model, and log what was skipped."""
    *better, last = _by_priority()
    skipped = []
    for name in better:
        plugin = _plugin(name)
        missing = plugin.missing()
        if missing:
            skipped.append(f"'{name}' needs {', and '.join(missing)}")
            continue
        try:
            return plugin.open(path, spec, options)
        except ModelError as error:
            _log.warning("backend '%s' cannot be used: %s", name, error)
    if skipped:
        level = logging.WARNING if find_gpus() else logging.INFO
        _log.log(level, "running on backend '%s': %s", last, "; ".join(skipped))
    return _plugin(last).open(path, spec, options)


def check_batch(shape: Sequence[int | str | None], path: Path, batch: int) -> None:
    """Check that a model supports a batch size.

    Args:
        shape: Declared shape of its input; dynamic sizes are names or None.
        path: File of the model, for messages.
        batch: Requested batch size.

    Raises:
        ModelError: If the batch size of the model is fixed and above 1.
        UsageError: If it is fixed to 1 and `batch` is larger.
    """
    fixed = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None
    if fixed not in (None, 1):
        raise ModelError(
            f"'{path}' has a fixed batch of {fixed}; export it with a batch of 1 or a dynamic one"
        )
    if fixed == 1 and batch > 1:
        raise UsageError(
            f"'{path}' has a fixed batch of 1, so `batch` cannot be {batch}; "
            "export the model with a dynamic batch"
        )
