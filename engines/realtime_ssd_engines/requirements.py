"""Checks what this machine needs to run TensorRT; imports no GPU package."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

__all__ = ["Flavor", "has_bindings", "installed_flavors", "missing_parts", "require_gpu"]

Flavor = Literal["tensorrt", "rtx"]
"""TensorRT, or TensorRT-RTX for GeForce and RTX cards."""

_PACKAGES: dict[Flavor, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}


def installed_flavors() -> list[Flavor]:
    """Return the installed flavors of TensorRT, the preferred one first."""
    return [name for name, packages in _PACKAGES.items() if any(map(find_spec, packages))]


def has_bindings() -> bool:
    """Return whether PyCUDA or cuda-bindings is installed."""
    if find_spec("pycuda") is not None:
        return True
    try:
        return find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        return False


def missing_parts(flavor: Flavor | None = None) -> list[str]:
    """Return the hardware, driver and packages that TensorRT needs and this machine lacks.

    Args:
        flavor: Required flavor; any by default.
    """
    missing = []
    if cuda_version() is None:
        missing.append("an NVIDIA driver")
    elif not find_gpus():
        missing.append("an NVIDIA GPU that the driver can use")
    installed = installed_flavors()
    found = bool(installed) if flavor is None else flavor in installed
    packages = [] if found else [_PACKAGES[flavor or "tensorrt"][-1]]
    packages += [] if has_bindings() else ["pycuda"]
    if packages:
        missing.append(f"the Python package{'s'[: len(packages) - 1]} {' and '.join(packages)}")
    return missing


def require_gpu(purpose: str, flavor: Flavor | None = None) -> None:
    """Raise an error unless TensorRT can run on this machine.

    Args:
        purpose: Verb phrase that completes "this machine cannot ...".
        flavor: Required flavor of TensorRT; any by default.

    Raises:
        ModelError: If anything is missing; the message lists every missing part.
    """
    missing = missing_parts(flavor)
    if missing:
        raise ModelError(
            f"this machine cannot {purpose}: missing {', and '.join(missing)}; install the "
            "packages with: pip install 'realtime-ssd[gpu]', or set `backend` to onnxruntime"
        )
