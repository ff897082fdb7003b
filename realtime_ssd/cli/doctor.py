"""`realtime-ssd doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

__all__ = ["doctor"]

TRAIN = "pip install 'realtime-ssd[train]'"
DISPLAY = "ssh -X brings one along; --output and --json need none"
Row = tuple[str, str, str]


def doctor() -> None:
    """Show versions, devices and codecs; say what is missing and how to get it."""
    print(f"{'Python':<16}{platform.python_version()} on {platform.platform()}")
    rows = [*_libraries(), *_gpu(), *_devices()]
    for name, found, mend in rows:
        print(f"{name:<16}{found}" + (f"  -> {mend}" if mend else ""))
    missing = [name for name, _, mend in rows if mend]
    from realtime_ssd.backends import best_backend
    from realtime_ssd.core.cpu import cpu_count

    print(f"\nmodels run on {best_backend()} with {cpu_count()} CPU cores", end="")
    print(f"; missing: {', '.join(missing)}" if missing else "")


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _libraries() -> Iterator[Row]:
    import cv2

    from realtime_ssd.sinks.video import available_encoders, ffmpeg_version

    yield "OpenCV", cv2.__version__, ""
    yield "FFmpeg", f"{ffmpeg_version()} (PyAV {_package('av')})", ""
    encoders = available_encoders()
    fix = "" if "libx264" in encoders else "pip install --force-reinstall av"
    yield "encoders", ", ".join(encoders) or "none", fix
    torch = _package("torch")
    yield "PyTorch", torch or "not installed (only training needs it)", "" if torch else TRAIN


def _gpu() -> Iterator[Row]:
    from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus
    from realtime_ssd.core.registry import load_plugin, plugins

    cuda, gpus = cuda_version(), find_gpus()
    if cuda is None:
        yield "NVIDIA driver", "none; the CPU does all the work", ""
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
    shut = [path for path in cameras if not os.access(path, os.R_OK | os.W_OK)]
    mend = "sudo usermod -aG video $USER, then log in again" if shut else ""
    yield "cameras", ", ".join(cameras) or "none found", mend
    reason = unavailable_reason()
    yield "display", reason or "yes", DISPLAY if reason else ""
