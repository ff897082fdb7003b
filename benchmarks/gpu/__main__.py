"""Check and time everything on an NVIDIA GPU: `python -m benchmarks.gpu [--quick] [--only ...]`.

The results are written to one JSON file. What this machine does not support becomes a row "skipped:
REASON", and an error becomes a row "failed: MESSAGE"; neither stops the other checks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.data import add_option
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.engine import check_engines
from benchmarks.gpu.environment import describe_machine
from benchmarks.gpu.frame import check_frames
from benchmarks.gpu.kernels import check_kernels
from benchmarks.gpu.report_rows import Report
from benchmarks.gpu.sanitizer import check_sanitizer
from benchmarks.gpu.speed import time_kernels, time_models
from realtime_ssd.profiling import machine

__all__ = ["main"]

SECTIONS: dict[str, Callable[[GpuContext, int], None]] = {
    "machine": lambda context, seed: describe_machine(context),
    "kernels": check_kernels,
    "frame": check_frames,
    "speed": time_kernels,
    "models": time_models,
    "engines": lambda context, seed: check_engines(context),
    "sanitizer": lambda context, seed: check_sanitizer(context),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections and write the JSON file.

    Args:
        arguments: Command-line arguments; by default those of the process.

    Returns:
        0, or 1 if a row failed.
    """
    options = _parse(arguments)
    seed = options.seed if options.seed is not None else int(time.time())
    batches = (1, 4) if options.quick else (1, 8, 32)
    report = Report(lambda line: print(line, flush=True), options.budget)
    context = GpuContext(report, options.data.folder, options.quick, batches, options.models)
    os.environ.setdefault("REALTIME_SSD_ENGINES", str(context.workdir / "engines"))
    for name in options.only or SECTIONS:
        with report.guard(name, "whole section"):
            SECTIONS[name](context, seed)
        _write(options.output, context, seed)
    counts = report.counts()
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    print(options.output)
    return 1 if counts.get("failed") else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="few repetitions and small batches")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="run only these sections")
    parser.add_argument("--seed", type=int, help="random seed; the current time by default")
    parser.add_argument(
        "--budget",
        type=float,
        default=480.0,
        help="seconds after which no further long check starts",
    )
    parser.add_argument("--models", type=Path, help="folder written by benchmarks.gpu.models")
    add_option(parser)
    return parser.parse_args(arguments)


def _write(path: Path, context: GpuContext, seed: int) -> None:
    """Write the results so far, so that a later crash loses none."""
    values = {
        "machine": machine.describe_machine(),
        "command": sys.argv[1:],
        "seed": seed,
        "quick": context.quick,
        "seconds": round(context.report.seconds, 1),
        "counts": context.report.counts(),
        "rows": context.report.to_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
