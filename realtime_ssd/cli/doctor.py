"""`realtime-ssd doctor`: what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

__all__ = ["doctor"]

INSTALL_TRAIN = "pip install 'realtime-ssd[train]'"
NO_DISPLAY_HINT = "ssh -X provides one; --output and --json need none"
Row = tuple[str, str, str]
"""Name, what was found, and the command that fixes it; empty if nothing is missing."""


def doctor() -> None:
    """Show versions, devices and codecs, and how to install what is missing."""
    from realtime_ssd.backends import best_backend
    from realtime_ssd.core.cpu import cpu_count

    print(f"{'Python':<16}{platform.python_version()} on {platform.platform()}")
    rows = [*_libraries(), *_gpu(), *_devices()]
    for name, found, fix in rows:
        print(f"{name:<16}{found}" + (f"  -> {fix}" if fix else ""))
    missing = [name for name, _, fix in rows if fix]
    print(f"\nmodels run on {best_backend()} with {cpu_count()} CPU cores", end="")
    print(f"; missing: {', '.join(missing)}" if missing else "")


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _libraries() -> Iterator[Row]:
    import cv2

    from realtime_ssd.sinks.encoders import available_encoders
    from realtime_ssd.sinks.video import ffmpeg_version

    yield "OpenCV", cv2.__version__, ""
    yield "FFmpeg", f"{ffmpeg_version()} (PyAV {_package_version('av')})", ""
    encoders = available_encoders()
    fix = "" if "libx264" in encoders else "pip install --force-reinstall av"
    yield "encoders", ", ".join(encoders) or "none", fix
    torch = _package_version("torch")
    found = torch or "not installed (only training needs it)"
    yield "PyTorch", found, "" if torch else INSTALL_TRAIN


def _gpu() -> Iterator[Row]:
    from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus
    from realtime_ssd.core.registry import load_plugin, plugins

    cuda, gpus = cuda_version(), find_gpus()
    if cuda is None:
        yield "NVIDIA driver", "none; everything runs on the CPU", ""
    else:
        newest = f"CUDA {cuda[0]}.{cuda[1]}"
        yield "NVIDIA driver", f"{driver_release() or 'unknown release'}, up to {newest}", ""
    for gpu in gpus:
        size = gpu.memory / 2**30
        yield "GPU", f"{gpu.name}, {gpu.architecture}, {size:.0f} GiB", ""
    for name in plugins("backends"):
        yield from load_plugin("backends", name).diagnose()


def _devices() -> Iterator[Row]:
    from realtime_ssd.sinks.window import unavailable_reason
    from realtime_ssd.sources.camera import list_cameras

    cameras = list_cameras() if sys.platform.startswith("linux") else []
    unreadable = [path for path in cameras if not os.access(path, os.R_OK | os.W_OK)]
    fix = "sudo usermod -aG video $USER, then log in again" if unreadable else ""
    yield "cameras", ", ".join(cameras) or "none found", fix
    reason = unavailable_reason()
    yield "display", reason or "yes", NO_DISPLAY_HINT if reason else ""
