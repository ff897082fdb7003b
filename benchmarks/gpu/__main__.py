"""Check and time everything on an NVIDIA GPU: `python -m benchmarks.gpu [--quick] [--only ...]`.

The results are written to one JSON file after every row, the output of each section to a log file
in a folder next to it. Each section runs in a process of its own with a time limit. What this
machine does not support becomes a row "skipped: REASON", and an error becomes a row "failed:
MESSAGE"; neither affects the other checks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.data import add_option
from benchmarks.gpu.checks import SECTIONS, SectionRequest
from benchmarks.gpu.model_names import NAMES
from benchmarks.gpu.report_rows import Row, count_rows, format_row
from benchmarks.gpu.section_process import run_in_process
from realtime_ssd.core.files import replace_file

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, module: str = "benchmarks.gpu.section") -> int:
    """Run the sections and write the JSON file.

    Args:
        arguments: Command-line arguments; by default those of the process.
        module: Module that runs one section (see `benchmarks.gpu.section`).

    Returns:
        0, or 1 if a row failed.
    """
    options = _parse(arguments)
    results = _Results(options.output, sys.argv[1:] if arguments is None else list(arguments))
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-", ignore_cleanup_errors=True) as folder:
        request = _request(options, folder, results.logs, module)
        results.seed = request.seed
        for name in options.only or SECTIONS:
            limit = min(options.limit or SECTIONS[name].limit, options.budget - results.seconds)
            if limit <= 0:
                reason = f"the time budget of {options.budget:.0f} s is exceeded (--budget)"
                results.add(Row(name, "whole section", f"skipped: {reason}"))
                continue
            log = results.logs / f"{name}.log"
            section = replace(request, section=name)
            run_in_process(section, limit, results.add, log=log)
    results.write()
    counts = count_rows(results.rows)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    print(options.output)
    return 1 if counts.get("failed") else 0


def _request(options: argparse.Namespace, workdir: str, logs: Path, module: str) -> SectionRequest:
    return SectionRequest(
        section="",
        seed=options.seed if options.seed is not None else int(time.time()),
        data=str(options.data.folder.resolve()),
        workdir=workdir,
        logs=str(logs.resolve()),
        quick=options.quick,
        batches=tuple(options.batches or ((1, 4) if options.quick else (1, 8, 32))),
        names=tuple(options.names),
        models=str(options.models.resolve()) if options.models else "",
        torch_compile=options.torch_compile,
        module=module,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("gpu.json"), help="JSON file to write")
    add("--quick", action="store_true", help="few repetitions and small batches")
    add("--only", nargs="+", choices=list(SECTIONS), help="run only these sections")
    add("--names", nargs="+", choices=NAMES, default=NAMES, help="models to time and build")
    add("--batches", nargs="+", type=_positive, metavar="N", help="batch sizes (default: 1 8 32)")
    add("--seed", type=int, help="random seed; the current time by default")
    add("--budget", type=float, default=900.0, help="time limit of all sections in seconds")
    add("--limit", type=float, help="time limit of each section in seconds; each has a default")
    add("--models", type=Path, help="folder written by benchmarks.gpu.models")
    add("--torch-compile", action="store_true", help="time torch.compile too, which takes minutes")
    add_option(parser)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"a batch has 1 to 1024 images, not {value}")
    return value


class _Results:
    """Prints rows and writes them to the JSON file, so that a crash loses none.

    Args:
        path: JSON file.
        command: Arguments of the benchmark.

    Attributes:
        rows: All rows so far.
        logs: Folder of log files, next to the JSON file.
        seed: Seed of random heads and images.
    """

    def __init__(self, path: Path, command: list[str]) -> None:
        self.rows: list[Row] = []
        self.logs, self.seed = path.with_name(f"{path.stem}-logs"), 0
        self._path, self._command, self._begin = path, command, time.monotonic()
        self._machine = _describe_machine()
        self.logs.mkdir(parents=True, exist_ok=True)
        for log in self.logs.glob("*.log"):
            log.unlink()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin

    def add(self, row: Row) -> None:
        """Print a row and write all rows."""
        self.rows.append(row)
        print(format_row(row), flush=True)
        self.write()

    def write(self) -> None:
        """Write all rows."""
        values: dict[str, Any] = {
            "machine": self._machine,
            "command": self._command,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "counts": count_rows(self.rows),
            "rows": [vars(row) for row in self.rows],
        }
        replace_file(self._path, (json.dumps(values, indent=1) + "\n").encode())


def _describe_machine() -> dict[str, Any]:
    try:
        from realtime_ssd.profiling.machine import describe_machine
    except ModuleNotFoundError as error:
        return {"problem": f"not described: the package {error.name} is not installed"}
    return describe_machine()


if __name__ == "__main__":
    sys.exit(main())
