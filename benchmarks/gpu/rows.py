"""Rows of the proof: what was asked, what came out, and whether that reaches its target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Report", "Row", "SkippedError", "one_line"]


class SkippedError(Exception):
    """Something cannot be asked on this machine; the text says why."""


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        section: Group it belongs to.
        name: What was asked.
        status: "ok", "met", "missed", "failed: SENTENCE" or "skipped: REASON".
        value: What was measured; None if it is no number.
        unit: Of the value.
        target: What was to be reached, with its sign, such as "≤ 30"; "" if nothing was.
        note: What else is worth knowing.
    """

    section: str
    name: str
    status: str
    value: float | None = None
    unit: str = ""
    target: str = ""
    note: str = ""


def one_line(error: BaseException) -> str:
    """Give an error as one short line."""
    text = " ".join(str(error).split()) or "no message"
    kind = type(error).__name__
    return (text if kind == "ModelError" else f"{kind}: {text}")[:300]


class Report:
    """Collects rows and tells each on the terminal as it comes.

    Args:
        tell: Called with every line.
        budget: Seconds after which nothing long is begun any more.
    """

    def __init__(self, tell: Callable[[str], None] = print, budget: float = 480.0) -> None:
        self.rows: list[Row] = []
        self._tell, self._begun, self._budget = tell, time.monotonic(), budget

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def check_time(self) -> None:
        """Refuse to begin something long when the time is spent.

        Raises:
            SkippedError: If it is.
        """
        if self.seconds > self._budget:
            raise SkippedError(f"the {self._budget:.0f} s of --budget are spent")

    def add(self, row: Row) -> None:
        """Keep and tell a row."""
        self.rows.append(row)
        value = "" if row.value is None else f"{row.value:.6g} {row.unit}"
        target = f"(target {row.target})" if row.target else ""
        line = f"{row.section:<9} {row.name:<64} {value:>16} {target:<18} {row.status}"
        self._tell(line.rstrip() + (f"  [{row.note}]" if row.note else ""))

    def number(self, section: str, name: str, value: float, unit: str, **more: Any) -> None:
        """Keep a measured number.

        Args:
            section: Group it belongs to.
            name: What was measured.
            value: The number.
            unit: Its unit.
            **more: `most` or `least` with the target's number, and `note`.
        """
        most, least = more.get("most"), more.get("least")
        status, target = "ok", ""
        if most is not None:
            status, target = ("met" if value <= most else "missed"), f"≤ {most:g}"
        if least is not None:
            status, target = ("met" if value >= least else "missed"), f"≥ {least:g}"
        self.add(Row(section, name, status, float(value), unit, target, more.get("note", "")))

    def truth(self, section: str, name: str, good: bool, sentence: str, note: str = "") -> None:
        """Keep the answer to a question; `sentence` says what is wrong if it is no."""
        self.add(Row(section, name, "ok" if good else f"failed: {sentence}", note=note))

    @contextmanager
    def guard(self, section: str, name: str) -> Iterator[None]:
        """Turn whatever goes wrong inside into one row, and go on."""
        try:
            yield
        except SkippedError as reason:
            self.add(Row(section, name, f"skipped: {reason}"))
        except ModuleNotFoundError as error:
            self.add(Row(section, name, f"skipped: the package {error.name} is not installed"))
        except Exception as error:
            self.add(Row(section, name, f"failed: {one_line(error)}"))

    def counts(self) -> dict[str, int]:
        """Count the rows by the first word of their status."""
        counts: dict[str, int] = {}
        for row in self.rows:
            word = row.status.partition(":")[0]
            counts[word] = counts.get(word, 0) + 1
        return counts

    def to_dict(self) -> list[dict[str, Any]]:
        """Give plain values ready for JSON."""
        return [asdict(row) for row in self.rows]
