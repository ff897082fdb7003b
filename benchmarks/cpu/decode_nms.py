"""Decoding and NMS in numpy on real heads: `python -m benchmarks.cpu.decode_nms`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cpu.nms_baselines import measure_ours, widen_to_ssd300
from benchmarks.data import Data, add_option
from benchmarks.result_file import write_result
from realtime_ssd.core.spec import read_spec

TARGETS_MS = {(1917, 0.3): 1.0, (1917, 0.01): 4.0, (8732, 0.3): 3.0, (8732, 0.01): 6.0}
"""Upper limits by default boxes and score threshold."""


def measure(data: Data, rounds: int) -> list[dict[str, Any]]:
    """Time both head sizes with both thresholds on stored heads of real photos."""
    with tempfile.TemporaryDirectory() as folder:
        spec = read_spec(data.coco_model(Path(folder)))
    coco_heads = list(data.heads().values())
    rows = []
    for heads, head_spec in ((coco_heads, spec), widen_to_ssd300(coco_heads, spec)):
        for threshold in (0.3, 0.01):
            row = measure_ours(heads, head_spec, threshold, rounds)
            target = TARGETS_MS[head_spec.num_boxes, threshold]
            rows.append({**row, "goal_ms": target, "met": row["ms"] <= target})
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    rows = measure(args.data, args.rounds)
    for row in rows:
        print(row)
    print(write_result("postprocess", {"rows": rows}, args.json))


if __name__ == "__main__":
    main()
