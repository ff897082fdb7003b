"""What a result was measured on."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from realtime_ssd.backends import cpu_count
from realtime_ssd.cuda.probe import driver_release, find_gpus

__all__ = ["describe", "result_path", "write"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "opencv-python", "onnxruntime", "av", "torch", "supervision")


def describe() -> dict[str, Any]:
    """Give processor, cores, GPU, load and versions."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "gpus": [gpu.name for gpu in find_gpus()],
        "driver": driver_release(),
        "python": platform.python_version(),
        "packages": packages,
        "date": date.today().isoformat(),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.processor()


def result_path(name: str) -> Path:
    """Give the file of a result: what was measured, on which processor, on which day."""
    slug = re.sub(r"[^a-z0-9]+", "-", _cpu().lower()).strip("-")[:40]
    return RESULTS / f"{name}-{slug}-{cpu_count()}c-{date.today().isoformat()}.json"


def write(name: str, values: dict[str, Any], path: Path | None = None) -> Path:
    """Write a result with the machine it was measured on."""
    path = path or result_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"benchmark": name, "machine": describe(), **values}, indent=1) + "\n"
    )
    return path
