"""Result files: one per machine and day, with the hardware and package versions."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.profiling.machine import cpu_name, describe_machine

__all__ = ["RESULTS", "result_path", "write_result"]

RESULTS = Path(__file__).parent / "results"


def result_path() -> Path:
    """Return the path of today's results of this machine."""
    name = re.sub(r"\((r|tm)\)", "", cpu_name().lower())
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40]
    return RESULTS / f"{slug}-{cpu_count()}c-{date.today().isoformat()}.json"


def write_result(name: str, values: dict[str, Any], path: Path | None = None) -> Path:
    """Add a result to a result file.

    Args:
        name: Name of the benchmark; an earlier result of that name is replaced.
        values: The result.
        path: Result file; today's of this machine by default.

    Returns:
        The path written.
    """
    path = path or result_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    load = machine.pop("load")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # The baselines run in a virtual environment of their own.
    versions = {**results.get("versions", {}), name: machine["packages"]}
    results |= {"machine": machine, "versions": versions, name: {"load_at_end": load, **values}}
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return path
