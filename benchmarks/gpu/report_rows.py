"""Rows of the report: check or measurement, result, and target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Report", "Row", "SkippedError", "one_line"]


class SkippedError(Exception):
    """A check cannot run on this machine; the message is the reason."""


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        section: Section of the report.
        name: Check or measurement.
        status: "ok", "met", "missed", "failed: MESSAGE" or "skipped: REASON".
        value: Measured value, or None.
        unit: Unit of the value.
        target: Target of the value, such as "≤ 30", or "".
        note: Additional information.
    """

    section: str
    name: str
    status: str
    value: float | None = None
    unit: str = ""
    target: str = ""
    note: str = ""


def one_line(error: BaseException) -> str:
    """Return an error message as one short line."""
    text = " ".join(str(error).split()) or "no message"
    name = type(error).__name__
    return (text if name == "ModelError" else f"{name}: {text}")[:300]


class Report:
    """Collects rows and prints each as it is added.

    Args:
        emit: Called with each line of text.
        budget: Seconds after which no further long check starts.
    """

    def __init__(self, emit: Callable[[str], None] = print, budget: float = 480.0) -> None:
        self.rows: list[Row] = []
        self._emit, self._begin, self._budget = emit, time.monotonic(), budget

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin

    def check_time(self) -> None:
        """Raise `SkippedError` if the time budget is exceeded."""
        if self.seconds > self._budget:
            raise SkippedError(f"the time budget of {self._budget:.0f} s is exceeded (--budget)")

    def add(self, row: Row) -> None:
        """Add and print a row."""
        self.rows.append(row)
        value = "" if row.value is None else f"{row.value:.6g} {row.unit}"
        target = f"(target {row.target})" if row.target else ""
        line = f"{row.section:<9} {row.name:<64} {value:>16} {target:<18} {row.status}"
        self._emit(line.rstrip() + (f"  [{row.note}]" if row.note else ""))

    def number(
        self,
        section: str,
        name: str,
        value: float,
        unit: str,
        *,
        most: float | None = None,
        least: float | None = None,
        note: str = "",
    ) -> None:
        """Add a measured number.

        Args:
            section: Section of the report.
            name: Measurement.
            value: Measured value.
            unit: Unit of the value.
            most: Upper limit of the target.
            least: Lower limit of the target.
            note: Additional information.
        """
        status, target = "ok", ""
        if most is not None:
            status, target = ("met" if value <= most else "missed"), f"≤ {most:g}"
        if least is not None:
            status, target = ("met" if value >= least else "missed"), f"≥ {least:g}"
        self.add(Row(section, name, status, float(value), unit, target, note))

    def check(self, section: str, name: str, passed: bool, error: str, note: str = "") -> None:
        """Add the result of a check, with an error message if it failed."""
        self.add(Row(section, name, "ok" if passed else f"failed: {error}", note=note))

    @contextmanager
    def guard(self, section: str, name: str) -> Iterator[None]:
        """Turn an exception inside the block into one row."""
        try:
            yield
        except SkippedError as reason:
            self.add(Row(section, name, f"skipped: {reason}"))
        except ModuleNotFoundError as error:
            self.add(Row(section, name, f"skipped: the package {error.name} is not installed"))
        except Exception as error:
            self.add(Row(section, name, f"failed: {one_line(error)}"))

    def counts(self) -> dict[str, int]:
        """Return the number of rows by status."""
        counts: dict[str, int] = {}
        for row in self.rows:
            status = row.status.partition(":")[0]
            counts[status] = counts.get(status, 0) + 1
        return counts

    def to_dict(self) -> list[dict[str, Any]]:
        """Return JSON-serializable rows."""
        return [asdict(row) for row in self.rows]
