"""Prove and time everything on an NVIDIA GPU: `python -m benchmarks.gpu [--quick] [--only ...]`.

One JSON file comes out. Whatever this machine lacks becomes a row "skipped: REASON"; an error
becomes a row "failed: SENTENCE", and the rest goes on.
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
from benchmarks.gpu.context import Room
from benchmarks.gpu.engine import check_engines
from benchmarks.gpu.environment import describe_machine
from benchmarks.gpu.frame import check_frames
from benchmarks.gpu.kernels import check_kernels
from benchmarks.gpu.rows import Report
from benchmarks.gpu.sanitizer import check_sanitizer
from benchmarks.gpu.speed import time_kernels, time_models
from realtime_ssd.profiling import machine

__all__ = ["main"]

SECTIONS: dict[str, Callable[[Room, int], None]] = {
    "machine": lambda room, seed: describe_machine(room),
    "kernels": check_kernels,
    "frame": check_frames,
    "speed": time_kernels,
    "models": time_models,
    "engines": lambda room, seed: check_engines(room),
    "sanitizer": lambda room, seed: check_sanitizer(room),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the sections and write the JSON file.

    Args:
        words: Command line; the process's own if None.

    Returns:
        0, or 1 if a row failed.
    """
    options = _options(words)
    seed = options.seed if options.seed is not None else int(time.time())
    batches = (1, 4) if options.quick else (1, 8, 32)
    report = Report(lambda line: print(line, flush=True), options.budget)
    room = Room(report, options.data.folder, options.quick, batches, options.models)
    os.environ.setdefault("REALTIME_SSD_ENGINES", str(room.place / "engines"))
    for name in options.only or SECTIONS:
        with report.guard(name, "whole section"):
            SECTIONS[name](room, seed)
        _write(options.output, room, seed)
    counts = report.counts()
    print(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
    print(options.output)
    return 1 if counts.get("failed") else 0


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="few repetitions, small batches")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="just these sections")
    parser.add_argument("--seed", type=int, help="of the random heads and pictures; the time")
    parser.add_argument(
        "--budget", type=float, default=480.0, help="seconds after which nothing long is begun"
    )
    parser.add_argument("--models", type=Path, help="folder that benchmarks.gpu.subjects wrote")
    add_option(parser)
    return parser.parse_args(words)


def _write(path: Path, room: Room, seed: int) -> None:
    """Write what there is so far, so that a later crash loses nothing."""
    values = {
        "machine": machine.describe_machine(),
        "command": sys.argv[1:],
        "seed": seed,
        "quick": room.quick,
        "seconds": round(room.report.seconds, 1),
        "counts": room.report.counts(),
        "rows": room.report.to_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
