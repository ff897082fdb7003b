"""Plug-in that registers the TensorRT backend; imports no GPU package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from realtime_ssd.core.gpu import find_gpus
from realtime_ssd_engines.requirements import (
    FLAVOR_NAMES,
    flavor_version,
    install_command,
    missing_parts,
)

if TYPE_CHECKING:
    from realtime_ssd.backends import Backend, BackendOptions
    from realtime_ssd.core.spec import ModelSpec

__all__ = ["TENSORRT", "TensorRTPlugin"]


class TensorRTPlugin:
    """See `realtime_ssd.backends.BackendPlugin`."""

    priority = 20
    engine_suffix = ".engine"
    decodes_surfaces = True
    default_precision = "fp16"

    def missing(self) -> list[str]:
        """See `BackendPlugin.missing`."""
        missing = missing_parts()
        if missing:
            return missing
        from realtime_ssd_engines.tensorrt.flavors import explain_flavor, usable_flavors

        usable, _ = usable_flavors()
        return [] if usable else [f"a TensorRT that runs here ({explain_flavor()})"]

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
        """See `BackendPlugin.open`."""
        from realtime_ssd_engines.loading import open_backend

        return open_backend(path, spec, options)

    def open_engine(self, path: Path, options: BackendOptions) -> Backend:
        """See `BackendPlugin.open_engine`."""
        from realtime_ssd_engines.loading import open_engine

        return open_engine(path, options)

    def diagnose(self) -> Iterator[tuple[str, str, str]]:
        """See `BackendPlugin.diagnose`."""
        from realtime_ssd_engines.cuda.compile import compiler_name
        from realtime_ssd_engines.tensorrt.flavors import explain_flavor, usable_flavors

        fix = install_command() if find_gpus() else ""
        usable, _ = usable_flavors()
        for flavor, name in FLAVOR_NAMES.items():
            found = flavor_version(flavor) or "not installed"
            yield name, found, "" if usable or flavor == "rtx" else fix
        for name in ("PyCUDA", "cuda-bindings"):
            found = _installed_version(name.lower())
            required = name == "cuda-bindings" and not found
            yield name, found or "not installed", fix if required else ""
        compiler = compiler_name()
        yield "kernel compiler", compiler or "none", "" if compiler else fix
        yield "engines", explain_flavor(), ""


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


TENSORRT = TensorRTPlugin()
