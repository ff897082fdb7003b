"""Comparison of two benchmark results, with their noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec_decoder import integer, number, parse_object, text

__all__ = ["Change", "changed_settings", "compare", "read_result"]

_ROW = {
    "what": text(100, shortest=1),
    "unit": text(20),
    "batch": integer(1, 2**20),
    "value": number(0, 1e12),
    "noise": number(0, 1e6),
}
"""Rules of the fields of a measurement that are compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measurement, now and before.

    Attributes:
        what: What was measured.
        batch: Batch size.
        ratio: Speed now as a multiple of the speed before; below 1 it is slower.
        noise: Uncertainty of the ratio as a fraction, from the repeats of both results.
        verdict: "faster", "slower" or "same within noise".
    """

    what: str
    batch: int
    ratio: float
    noise: float
    verdict: str


def read_result(path: Path) -> dict[str, Any]:
    """Read a file that `realtime-ssd benchmark --json` wrote.

    Raises:
        UsageError: If it is not such a file.
    """
    try:
        values = parse_object(path.read_text(encoding="utf-8"))
        changed_settings(values, values)
        for row in values["rows"]:
            for name, rule in _ROW.items():
                rule(name, row[name])
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UsageError(f"'{path}' is not a result of realtime-ssd benchmark --json") from None
    return dict(values)


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[Change]:
    """Compare the measurements that both results have.

    Args:
        now: Result of `realtime_ssd.profiling.benchmark.run`.
        before: An earlier one.
    """
    earlier = {(row["what"], row["batch"]): row for row in before["rows"]}
    changes = []
    for row in now["rows"]:
        old = earlier.get((row["what"], row["batch"]))
        if old is None or not row["value"] or not old["value"]:
            continue
        ratio = row["value"] / old["value"]
        if row["unit"] == "ms":
            ratio = 1 / ratio
        noise = (row["noise"] ** 2 + old["noise"] ** 2) ** 0.5
        changes.append(Change(row["what"], row["batch"], ratio, noise, _verdict(ratio, noise)))
    return changes


def changed_settings(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return the names of settings that differ and make a comparison doubtful."""
    names = ("backend", "precision", "source", "picture", "streams")
    pairs = {
        "processor": [(each["machine"]["cpu"], each["machine"]["cores"]) for each in (now, before)],
        "GPUs": [each["machine"]["gpus"] for each in (now, before)],
        "versions": [_versions(each["machine"]) for each in (now, before)],
        "model": [each["model"]["sha256"] for each in (now, before)],
        **{name: [each[name] for each in (now, before)] for name in names},
    }
    return [name for name, (new, old) in pairs.items() if new != old]


def _versions(machine: dict[str, Any]) -> dict[str, str]:
    """Return the versions of packages, Python and driver."""
    return {**machine["packages"], "Python": machine["python"], "driver": machine["driver"]}


def _verdict(ratio: float, noise: float) -> str:
    if abs(ratio - 1) <= max(2 * noise, 0.02):
        return "same within noise"
    return "faster" if ratio > 1 else "slower"
