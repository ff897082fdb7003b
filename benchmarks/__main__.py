"""All comparisons on this machine, one after the other, and the README from them.

`python -m benchmarks [--data FOLDER] [--short]` writes `results/<machine>-<date>.json`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.data import VARIABLE, add_option

ROOT = Path(__file__).resolve().parents[1]


def commands(model: Path, *, short: bool) -> list[list[str]]:
    """List the modules to run with their words."""
    return [
        ["pipeline", "--model", str(model)],
        ["latency", "--model", str(model), "--seconds", "10" if short else "60"],
        ["memory", "--frames", "10000" if short else "100000"],
        ["postprocess"],
        ["int8"],
        ["peers", "--rounds", "3" if short else "7"],
        ["scaling", "--rounds", "3" if short else "7"],
        ["readme"],
    ]


def main() -> int:
    """Run all; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--short", action="store_true", help="fewer repeats and frames")
    words = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        model = words.data.coco_model(Path(place))
        environment = {**os.environ, VARIABLE: str(words.data.folder.resolve())}
        for name, *rest in commands(model, short=words.short):
            print(f"== {name}", flush=True)
            command = [sys.executable, "-m", f"benchmarks.{name}", *rest]
            done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
