"""Run all CPU benchmarks on this machine and update the README from the results.

`python -m benchmarks [--data FOLDER] [--short]` writes `results/<machine>-<date>.json`. On two
cores it takes a quarter of an hour, plus some minutes for the first installation of the baselines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cpu.run_baselines import VENV
from benchmarks.data import VARIABLE, add_option

ROOT = Path(__file__).resolve().parents[1]


def commands(model: Path, venv: Path, *, short: bool) -> list[list[str]]:
    """List the modules to run with their arguments.

    Args:
        model: COCO detector.
        venv: Virtual environment of the baselines.
        short: Whether to use fewer repeats and frames.
    """
    rounds = "3" if short else "7"
    return [
        ["cpu.pipeline", "--model", str(model)],
        ["cpu.latency", "--model", str(model), "--seconds", "10" if short else "60"],
        ["cpu.memory", "--frames", "10000" if short else "100000"],
        ["cpu.decode_nms"],
        ["cpu.int8"],
        ["cpu.run_baselines", "--rounds", rounds, "--venv", str(venv)],
        ["cpu.scaling", "--rounds", rounds],
        ["readme"],
    ]


def main() -> int:
    """Run all benchmarks; return the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--short", action="store_true", help="fewer repeats and frames")
    parser.add_argument(
        "--venv", type=Path, default=VENV, help="virtual environment of the baselines"
    )
    args = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        model = args.data.coco_model(Path(folder))
        environment = {**os.environ, VARIABLE: str(args.data.folder.resolve())}
        for name, *options in commands(model, args.venv.resolve(), short=args.short):
            print(f"== {name}", flush=True)
            start = time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", *options]
            done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
            failures += done.returncode != 0
            print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
