"""All comparisons on this machine, one after the other, and the README from them.

`python -m benchmarks [--data FOLDER] [--short]` writes `results/<machine>-<date>.json`. On two
cores it takes a quarter of an hour, and some minutes more when the peers are first installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cpu.baselines import VENV
from benchmarks.data import VARIABLE, add_option

ROOT = Path(__file__).resolve().parents[1]


def commands(model: Path, venv: Path, *, short: bool) -> list[list[str]]:
    """List the modules to run with their words.

    Args:
        model: COCO detector.
        venv: Environment of the peers.
        short: Fewer repeats and frames.
    """
    return [
        ["pipeline", "--model", str(model)],
        ["latency", "--model", str(model), "--seconds", "10" if short else "60"],
        ["memory", "--frames", "10000" if short else "100000"],
        ["postprocess"],
        ["int8"],
        ["peers", "--rounds", "3" if short else "7", "--venv", str(venv)],
        ["scaling", "--rounds", "3" if short else "7"],
        ["readme"],
    ]


def main() -> int:
    """Run all; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--short", action="store_true", help="fewer repeats and frames")
    parser.add_argument("--venv", type=Path, default=VENV, help="environment of the peers")
    words = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        model = words.data.coco_model(Path(place))
        environment = {**os.environ, VARIABLE: str(words.data.folder.resolve())}
        for name, *rest in commands(model, words.venv.resolve(), short=words.short):
            print(f"== {name}", flush=True)
            begun = time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", *rest]
            done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
            failed += done.returncode != 0
            print(f"== {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
