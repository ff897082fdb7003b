"""INT8 on the CPU against FP32: speed and average precision.

`python -m benchmarks.cpu.int8 [--data FOLDER]` quantises the trained MobileNet SSD (Q/DQ in the graph,
`realtime_ssd_engines.onnx.quantize`) on the photos of one set, then compares speed in turn and average precision on
sets that the calibration has not seen.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from realtime_ssd_engines.onnx.quantize import quantize
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.evaluation.evaluator import evaluate, open_model

from benchmarks.data import Data, add_option
from benchmarks.machine import write
from benchmarks.timing import in_turn, ratio, seconds_of, summary
from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.spec import read_spec

GOAL_RATIO, GOAL_AP = 2.0, 0.01
CALIBRATION = "dali_coco61"
SETS = ("coco_mini", "coco_person_val")
IMAGES = ("images", "JPEGImages")


def bare_run(model: Path, threads: int) -> Callable[[], float]:
    """Prepare a bare `session.run`; gives the seconds of a run."""
    session, spec = open_session(model, threads), read_spec(model)
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, spec.input.height, spec.input.width))
    feed = {spec.input.name: noise.astype(np.float32)}
    names = [spec.scores_output, spec.offsets_output]
    return lambda: seconds_of(lambda: session.run(names, feed), 0.3)


def speed(fp32: Path, int8: Path, rounds: int) -> list[dict[str, Any]]:
    """Time both networks in turn, on one core and on all."""
    rows = []
    for threads in sorted({1, cpu_count()}):
        times = in_turn({"fp32": bare_run(fp32, threads), "int8": bare_run(int8, threads)}, rounds)
        rows.append(
            {
                "threads": threads,
                "fp32_ms": summary([value * 1000 for value in times["fp32"]]),
                "int8_ms": summary([value * 1000 for value in times["int8"]]),
                **ratio(times["fp32"], times["int8"]),
            }
        )
    return rows


def precision(model: Path, data: Data) -> dict[str, float]:
    """Give COCO's AP of a model on each set."""
    found = {}
    for name in SETS:
        folder = data.path(name)
        images = next(path for path in sorted(folder.iterdir()) if path.name in IMAGES)
        annotated = open_dataset(f"coco:{folder / 'instances.json'}:{images}")
        with open_model(model, "onnxruntime") as backend:
            found[name] = round(evaluate(backend, annotated).metrics.mean, 4)
    return found


def measure(data: Data, rounds: int) -> dict[str, Any]:
    """Quantise and compare."""
    calibration = data.path(CALIBRATION)
    photos = next((path for path in sorted(calibration.iterdir()) if path.is_dir()), calibration)
    with tempfile.TemporaryDirectory() as place:
        fp32, int8 = data.coco_model(Path(place)), Path(place) / "int8.onnx"
        used = quantize(fp32, int8, photos, symmetric=False)
        speeds = speed(fp32, int8, rounds)
        points = {"fp32": precision(fp32, data), "int8": precision(int8, data)}
        sizes = [round(path.stat().st_size / 1e6, 2) for path in (fp32, int8)]
    change = {name: round(points["int8"][name] - points["fp32"][name], 4) for name in SETS}
    best = speeds[-1]["ratio"]
    return {
        "calibrated_on": f"{used} photos of {CALIBRATION}",
        "speed": speeds,
        "ap": points,
        "ap_change": change,
        "megabytes": {"fp32": sizes[0], "int8": sizes[1]},
        "goal": {"ratio": GOAL_RATIO, "ap_change": GOAL_AP},
        "met": {"ratio": best >= GOAL_RATIO, "ap": all(abs(v) <= GOAL_AP for v in change.values())},
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    values = measure(words.data, words.rounds)
    for name, value in values.items():
        print(f"{name:14} {value}")
    print(write("int8", values, words.json))


if __name__ == "__main__":
    main()
