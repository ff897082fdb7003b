"""Checks what this machine needs to run TensorRT; imports no GPU package."""

from __future__ import annotations

from importlib.util import find_spec

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

__all__ = ["has_bindings", "missing_parts", "require_gpu"]


def has_bindings() -> bool:
    """Return whether PyCUDA or cuda-bindings is installed."""
    if find_spec("pycuda") is not None:
        return True
    try:
        return find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        return False


def missing_parts() -> list[str]:
    """Return the hardware, driver and packages that TensorRT needs and this machine lacks."""
    missing = []
    if cuda_version() is None:
        missing.append("an NVIDIA driver")
    elif not find_gpus():
        missing.append("an NVIDIA GPU that the driver can use")
    packages = ["tensorrt"] if find_spec("tensorrt") is None else []
    packages += [] if has_bindings() else ["pycuda"]
    if packages:
        missing.append(f"the Python package{'s'[: len(packages) - 1]} {' and '.join(packages)}")
    return missing


def require_gpu(purpose: str) -> None:
    """Raise an error unless TensorRT can run on this machine.

    Args:
        purpose: Verb phrase that completes "this machine cannot ...".

    Raises:
        ModelError: If anything is missing; the message lists every missing part.
    """
    missing = missing_parts()
    if missing:
        raise ModelError(
            f"this machine cannot {purpose}: missing {', and '.join(missing)}; install the "
            "packages with: pip install 'realtime-ssd[gpu]', or set `backend` to onnxruntime"
        )
