"""Description of the machine a result was measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.gpu import driver_release, find_gpus

__all__ = ["cpu_name", "current_clocks", "describe_machine"]

_PACKAGES = (
    "numpy",
    "opencv-python",
    "onnxruntime",
    "av",
    "supervision",
    "torch",
    "torchvision",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "pycuda",
    "cuda-bindings",
)


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, clocks, GPUs, load and versions, as plain values for JSON."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "cpu_mhz": _cpu_clock(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpus": [gpu.name for gpu in find_gpus()],
        "gpu_clocks": _gpu_clocks(),
        "driver": driver_release(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
        "date": date.today().isoformat(),
    }


def current_clocks() -> dict[str, Any]:
    """Return the current clocks of processor and GPUs."""
    return {"cpu_mhz": _cpu_clock(), "gpus": _gpu_clocks()}


def cpu_name() -> str:
    """Return the name of the processor."""
    match = re.search(r"model name\s*:\s*(.+)", _cpuinfo())
    return match[1].strip() if match else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu_clock() -> float | None:
    """Return the current mean clock of the cores in MHz; None if unknown."""
    clocks = [float(value) for value in re.findall(r"cpu MHz\s*:\s*([\d.]+)", _cpuinfo())]
    return round(sum(clocks) / len(clocks), 1) if clocks else None


def _gpu_clocks() -> list[str]:
    """Return graphics and memory clock of every GPU, as nvidia-smi prints them."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not find_gpus():
        return []
    query = "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.draw"
    result = subprocess.run(
        [tool, query, "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return result.stdout.strip().splitlines()
