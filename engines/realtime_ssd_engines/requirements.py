"""Checks what this machine needs to run TensorRT; imports no GPU package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

__all__ = [
    "FLAVOR_NAMES",
    "Flavor",
    "flavor_version",
    "has_bindings",
    "install_command",
    "installed_flavors",
    "missing_parts",
    "require_gpu",
]

Flavor = Literal["tensorrt", "rtx"]
"""TensorRT, or TensorRT-RTX for GeForce and RTX cards."""

FLAVOR_NAMES: dict[Flavor, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
"""Flavors by name, the preferred one first."""
_MODULES: dict[Flavor, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_DISTRIBUTIONS: dict[Flavor, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx"),
}
_JETPACK = Path("/etc/nv_tegra_release")
_OLDEST_CUDA_13_GPU = (7, 5)


def installed_flavors() -> list[Flavor]:
    """Return the installed flavors of TensorRT, the preferred one first."""
    return [name for name, modules in _MODULES.items() if any(map(find_spec, modules))]


def flavor_version(flavor: Flavor) -> str:
    """Return the version of an installed flavor without importing it; "" if it is not installed."""
    if flavor not in installed_flavors():
        return ""
    for name in _DISTRIBUTIONS[flavor]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown version"


def has_bindings() -> bool:
    """Return whether PyCUDA or cuda-bindings is installed."""
    if find_spec("pycuda") is not None:
        return True
    try:
        return find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        return False


def install_command(flavor: Flavor | None = None) -> str:
    """Return the command that installs TensorRT and the CUDA packages for this machine.

    Args:
        flavor: Flavor to install; by default the one for this driver and GPU.
    """
    return f"pip install 'realtime-ssd[{_extra(flavor)}]'"


def _extra(flavor: Flavor | None) -> str:
    """Return the extra for this driver and GPU; CUDA 13 requires newer ones than CUDA 12."""
    if flavor == "rtx":
        return "rtx"
    if _JETPACK.exists():
        return "jetson"
    driver = cuda_version()
    old_driver = driver is not None and driver < (13, 0)
    old_gpu = any(gpu.capability < _OLDEST_CUDA_13_GPU for gpu in find_gpus())
    return "gpu-cu12" if old_driver or old_gpu else "gpu"


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
    packages = _missing_packages(flavor)
    if packages:
        missing.append(f"the Python package{'s'[: len(packages) - 1]} {' and '.join(packages)}")
    return missing


def _missing_packages(flavor: Flavor | None) -> list[str]:
    installed = installed_flavors()
    found = bool(installed) if flavor is None else flavor in installed
    packages = [] if found else [_DISTRIBUTIONS[flavor or "tensorrt"][0]]
    return packages if has_bindings() else [*packages, "cuda-bindings"]


def require_gpu(purpose: str, flavor: Flavor | None = None, alternative: str = "") -> None:
    """Raise an error unless TensorRT can run on this machine.

    Args:
        purpose: Verb phrase that completes "this machine cannot ...".
        flavor: Required flavor of TensorRT; any by default.
        alternative: Remedy other than an installation; by default another backend.

    Raises:
        ModelError: If anything is missing; the message lists every missing part.
    """
    missing = missing_parts(flavor)
    if not missing:
        return
    remedy = alternative or "set `backend` to onnxruntime"
    if _missing_packages(flavor):
        remedy = f"install the packages with: {install_command(flavor)}, or {remedy}"
    raise ModelError(f"this machine cannot {purpose}: missing {', and '.join(missing)}; {remedy}")
