"""Plug-in that registers the TensorRT backend; imports no GPU package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from realtime_ssd.core.gpu import find_gpus
from realtime_ssd_engines.requirements import missing_parts

if TYPE_CHECKING:
    from realtime_ssd.backends import Backend, BackendOptions
    from realtime_ssd.core.spec import ModelSpec

__all__ = ["TENSORRT", "TensorRTPlugin"]

_INSTALL = "pip install 'realtime-ssd[gpu]'"


class TensorRTPlugin:
    """See `realtime_ssd.backends.BackendPlugin`."""

    priority = 20
    engine_suffix = ".engine"
    decodes_surfaces = True
    default_precision = "fp16"

    def missing(self) -> list[str]:
        """See `BackendPlugin.missing`."""
        return missing_parts()

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
        """See `BackendPlugin.open`."""
        from realtime_ssd_engines.backend import open_backend

        return open_backend(path, spec, options)

    def open_engine(self, path: Path, options: BackendOptions) -> Backend:
        """See `BackendPlugin.open_engine`."""
        from realtime_ssd_engines.backend import open_engine

        return open_engine(path, options)

    def diagnose(self) -> Iterator[tuple[str, str, str]]:
        """See `BackendPlugin.diagnose`."""
        from realtime_ssd_engines.cuda.compile import compiler_name

        gpus = find_gpus()
        packages = (
            ("TensorRT", "tensorrt"),
            ("TensorRT-RTX", "tensorrt-rtx-cu13-bindings"),
            ("PyCUDA", "pycuda"),
            ("cuda-bindings", "cuda-bindings"),
        )
        for name, package in packages:
            installed = _installed_version(package)
            yield name, installed or "not installed", _INSTALL if gpus and not installed else ""
        compiler = compiler_name()
        yield "kernel compiler", compiler or "none", "" if compiler or not gpus else _INSTALL


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


TENSORRT = TensorRTPlugin()
