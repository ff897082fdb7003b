"""Where results go, and what they were measured on."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from realtime_ssd.backends import cpu_count
from realtime_ssd.benchmark.machine import cpu_name, describe

__all__ = ["RESULTS", "describe", "result_path", "write"]

RESULTS = Path(__file__).parent / "results"


def result_path(name: str) -> Path:
    """Give the file of a result: what was measured, on which processor, on which day."""
    slug = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")[:40]
    return RESULTS / f"{name}-{slug}-{cpu_count()}c-{date.today().isoformat()}.json"


def write(name: str, values: dict[str, Any], path: Path | None = None) -> Path:
    """Write a result with the machine it was measured on."""
    path = path or result_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"benchmark": name, "machine": describe(), **values}, indent=1) + "\n"
    )
    return path
