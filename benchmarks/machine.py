"""Where results go, and what they were measured on: one file a machine and day."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.profiling.machine import cpu_name, describe

__all__ = ["RESULTS", "describe", "result_path", "write"]

RESULTS = Path(__file__).parent / "results"


def result_path() -> Path:
    """Give the file of today's results of this machine: processor, cores and day."""
    name = re.sub(r"\((r|tm)\)", "", cpu_name().lower())
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40]
    return RESULTS / f"{slug}-{cpu_count()}c-{date.today().isoformat()}.json"


def write(name: str, values: dict[str, Any], path: Path | None = None) -> Path:
    """Put a result into a file beside those of other benchmarks, with what it was measured on.

    Args:
        name: What was measured; an earlier result of that name is replaced.
        values: The result.
        path: File; today's of this machine by default.
    """
    path = path or result_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = describe()
    load = machine.pop("load")
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # Peers run in an environment of their own.
    versions = {**kept.get("versions", {}), name: machine["packages"]}
    kept |= {"machine": machine, "versions": versions, name: {"load_at_end": load, **values}}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return path
