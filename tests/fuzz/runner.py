"""Counts of outcomes of mutated files; a worker that ends is replaced after the input at fault."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from signal import SIGALRM

__all__ = ["Counts", "fuzz"]


@dataclass
class Counts:
    """Outcomes of a number of mutated files of one format.

    Attributes:
        inputs: Number of files.
        sentences: Files that were refused, in one printable sentence.
        successes: Files that were read.
        faults: Number and outcome of every other file: unexpected errors, hangs and crashes.
    """

    inputs: int = 0
    sentences: int = 0
    successes: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, outcome: str) -> None:
        """Count the outcome of a file."""
        self.inputs += 1
        if outcome == "sentence":
            self.sentences += 1
        elif outcome == "success":
            self.successes += 1
        else:
            self.faults.append((number, outcome))


def fuzz(kind: str, first: int, count: int) -> Counts:
    """Read mutations of a format in worker processes.

    Args:
        kind: One of `tests.fuzz.formats.KINDS`.
        first: Number of the first mutation, which is its seed.
        count: Number of mutations.
    """
    counts, number = Counts(), first
    while number < first + count:
        command = [sys.executable, "-m", "tests.fuzz.worker", kind]
        process = subprocess.run(
            [*command, str(number), str(first + count - number)],
            capture_output=True,
            text=True,
            check=False,
        )
        outcomes = [line.partition(" ") for line in process.stdout.split("\n") if line]
        for seed, _, outcome in outcomes:
            finished = outcome or _end(process.returncode, process.stderr)
            counts.add(int(seed), finished)
        if not outcomes:
            raise RuntimeError(f"the worker for {kind} did not start: {process.stderr[-2000:]}")
        number = int(outcomes[-1][0]) + 1
    return counts


def _end(status: int, errors: str) -> str:
    if status == -SIGALRM:
        return "hang"
    return f"crash: status {status}: {errors[-300:]}"
