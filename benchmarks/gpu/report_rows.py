"""Rows of the report: check or measurement, result, and target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Report", "Row", "SkippedError", "count_rows", "format_row", "one_line"]


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
        clock: Clock of the multiprocessors in MHz right after the measurement, or None.
    """

    section: str
    name: str
    status: str
    value: float | None = None
    unit: str = ""
    target: str = ""
    note: str = ""
    clock: int | None = None


def one_line(error: BaseException) -> str:
    """Return an error message as one short line."""
    text = " ".join(str(error).split()) or "no message"
    name = type(error).__name__
    return (text if name == "ModelError" else f"{name}: {text}")[:300]


def format_row(row: Row) -> str:
    """Return a row as one line of text."""
    value = "" if row.value is None else f"{row.value:.6g} {row.unit}"
    target = f"(target {row.target})" if row.target else ""
    line = f"{row.section:<9} {row.name:<64} {value:>16} {target:<18} {row.status}".rstrip()
    notes = [row.note, f"{row.clock} MHz" if row.clock else ""]
    note = ", ".join(filter(None, notes))
    return line + (f"  [{note}]" if note else "")


def count_rows(rows: Iterable[Row]) -> dict[str, int]:
    """Return the number of rows by status."""
    counts: dict[str, int] = {}
    for row in rows:
        status = row.status.partition(":")[0]
        counts[status] = counts.get(status, 0) + 1
    return counts


class Report:
    """Collects rows.

    Args:
        on_row: Called with each row as it is added.
    """

    def __init__(self, on_row: Callable[[Row], None]) -> None:
        self.rows: list[Row] = []
        self._on_row = on_row

    def add(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        self._on_row(row)

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
        clock: int | None = None,
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
            clock: Clock of the multiprocessors in MHz.
        """
        status, target = "ok", ""
        if most is not None:
            status, target = ("met" if value <= most else "missed"), f"≤ {most:g}"
        if least is not None:
            status, target = ("met" if value >= least else "missed"), f"≥ {least:g}"
        self.add(Row(section, name, status, float(value), unit, target, note, clock))

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
