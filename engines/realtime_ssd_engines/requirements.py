"""What this machine lacks to run TensorRT; imports no GPU package."""

from __future__ import annotations

from importlib.util import find_spec

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

__all__ = ["has_bindings", "missing_parts", "require_gpu"]


def has_bindings() -> bool:
    """Tell whether Python can reach the driver: by PyCUDA, or else by cuda-bindings."""
    if find_spec("pycuda") is not None:
        return True
    try:
        return find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        return False


def missing_parts() -> list[str]:
    """Name what this machine lacks to run TensorRT; empty if nothing."""
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
    """Make sure that TensorRT can run here.

    Args:
        purpose: What is wanted, as in "this machine cannot ...".

    Raises:
        ModelError: If not; the sentence names all that is missing.
    """
    missing = missing_parts()
    if missing:
        raise ModelError(
            f"this machine cannot {purpose}: it lacks {', and '.join(missing)}; install what is "
            "missing (pip install 'realtime-ssd[gpu]' brings the packages) or use --backend "
            "onnxruntime"
        )
