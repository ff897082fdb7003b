"""Two benchmark files against each other, with their noise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError

__all__ = ["Change", "compare", "differences", "read"]


@dataclass(frozen=True, slots=True)
class Change:
    """One row, now and before.

    Attributes:
        what: What was measured.
        batch: Batch size.
        ratio: How many times faster it is now; below 1 it is slower.
        noise: Share by which the ratio may be off, from the repeats of both.
        verdict: "faster", "slower" or "same within noise".
    """

    what: str
    batch: int
    ratio: float
    noise: float
    verdict: str


def read(path: Path) -> dict[str, Any]:
    """Read a file that `realtime-ssd benchmark --json` wrote.

    Raises:
        UsageError: If it is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        differences(values, values)
        for row in values["rows"]:
            _ = row["what"] + row["unit"], int(row["batch"])
            if not (isfinite(row["value"]) and isfinite(row["noise"])):
                raise ValueError("not a number")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"'{path}' is no result of realtime-ssd benchmark --json") from None
    return dict(values)


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[Change]:
    """Compare the rows that both results have.

    Args:
        now: Result of `run`.
        before: An earlier one.
    """
    old = {(row["what"], row["batch"]): row for row in before["rows"]}
    changes = []
    for row in now["rows"]:
        other = old.get((row["what"], row["batch"]))
        if other is None or not row["value"] or not other["value"]:
            continue
        ratio = row["value"] / other["value"]
        if row["unit"] == "ms":
            ratio = 1 / ratio
        noise = (row["noise"] ** 2 + other["noise"] ** 2) ** 0.5
        changes.append(Change(row["what"], row["batch"], ratio, noise, _word(ratio, noise)))
    return changes


def differences(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Say what else differs, so that nobody compares apples with pears."""
    names = ("backend", "precision", "source", "picture", "streams")
    pairs = {
        "processor": [(one["machine"]["cpu"], one["machine"]["cores"]) for one in (now, before)],
        "GPUs": [one["machine"]["gpus"] for one in (now, before)],
        "versions": [_versions(one["machine"]) for one in (now, before)],
        "model": [one["model"]["sha256"] for one in (now, before)],
        **{name: [one[name] for one in (now, before)] for name in names},
    }
    return [name for name, (new, old) in pairs.items() if new != old]


def _versions(machine: dict[str, Any]) -> dict[str, str]:
    """Give the versions of what does the work, and the driver's."""
    return {**machine["packages"], "Python": machine["python"], "driver": machine["driver"]}


def _word(ratio: float, noise: float) -> str:
    if abs(ratio - 1) <= max(2 * noise, 0.02):
        return "same within noise"
    return "faster" if ratio > 1 else "slower"
