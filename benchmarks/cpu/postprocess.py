"""Decode + NMS in numpy on real heads, against its goals: `python -m benchmarks.cpu.postprocess`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cpu.nms_baselines import measure_ours, widened
from benchmarks.data import Data, add_option
from benchmarks.machine import write
from realtime_ssd.core.spec import read_spec

GOALS_MS = {(1917, 0.3): 1.0, (1917, 0.01): 4.0, (8732, 0.3): 3.0, (8732, 0.01): 6.0}


def measure(data: Data, rounds: int) -> list[dict[str, Any]]:
    """Time both sizes at both thresholds over the kept heads of real photos."""
    with tempfile.TemporaryDirectory() as place:
        spec = read_spec(data.coco_model(Path(place)))
    heads = list(data.heads().values())
    rows = []
    for given, contract in ((heads, spec), widened(heads, spec)):
        for score in (0.3, 0.01):
            row = measure_ours(given, contract, score, rounds)
            goal = GOALS_MS[contract.num_boxes, score]
            rows.append({**row, "goal_ms": goal, "met": row["ms"] <= goal})
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    rows = measure(words.data, words.rounds)
    for row in rows:
        print(row)
    print(write("postprocess", {"rows": rows}, words.json))


if __name__ == "__main__":
    main()
