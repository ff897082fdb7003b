"""INT8 against FP32 on the CPU: speed and average precision.

`python -m benchmarks.cpu.int8 [--data FOLDER]` quantizes the trained MobileNet SSD (Q/DQ nodes in
the graph) with the photos of one dataset, then compares speed in turn, and average precision on
datasets that calibration did not use.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from realtime_ssd_engines.onnx.quantize import quantize
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.evaluation.evaluator import evaluate, open_model

from benchmarks.data import Data, add_option
from benchmarks.result_file import write_result
from benchmarks.timing import median_ratio, seconds_per_call, summary, time_in_turn
from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.spec import read_spec

TARGET_RATIO, MAX_AP_CHANGE = 2.0, 0.01
CALIBRATION_SET = "dali_coco61"
EVALUATION_SETS = ("coco_mini", "coco_person_val")
IMAGE_FOLDERS = ("images", "JPEGImages")


def network_timer(model: Path, threads: int) -> Callable[[], float]:
    """Return a function that returns the seconds of one `session.run`."""
    session, spec = open_session(model, threads), read_spec(model)
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, spec.input.height, spec.input.width))
    inputs = {spec.input.name: noise.astype(np.float32)}
    outputs = [spec.scores_output, spec.offsets_output]
    return lambda: seconds_per_call(lambda: session.run(outputs, inputs), 0.3)


def measure_speed(fp32: Path, int8: Path, rounds: int) -> list[dict[str, Any]]:
    """Time both networks in turn, on one core and on all cores."""
    rows = []
    for threads in sorted({1, cpu_count()}):
        timers = {"fp32": network_timer(fp32, threads), "int8": network_timer(int8, threads)}
        seconds = time_in_turn(timers, rounds)
        rows.append(
            {
                "threads": threads,
                "fp32_ms": summary([value * 1000 for value in seconds["fp32"]]),
                "int8_ms": summary([value * 1000 for value in seconds["int8"]]),
                **median_ratio(seconds["fp32"], seconds["int8"]),
            }
        )
    return rows


def average_precision(
    model: Path, data: Data, names: Sequence[str] = EVALUATION_SETS
) -> dict[str, float]:
    """Return the COCO AP of a model on each evaluation set."""
    precision = {}
    for name in names:
        folder = data.path(name)
        images = next(path for path in sorted(folder.iterdir()) if path.name in IMAGE_FOLDERS)
        dataset = open_dataset(f"coco:{folder / 'instances.json'}:{images}")
        with open_model(model, "onnxruntime") as backend:
            precision[name] = round(evaluate(backend, dataset).metrics.mean, 4)
    return precision


def measure(data: Data, rounds: int) -> dict[str, Any]:
    """Quantize the model and compare both precisions."""
    calibration = data.path(CALIBRATION_SET)
    photos = next((path for path in sorted(calibration.iterdir()) if path.is_dir()), calibration)
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = data.coco_model(Path(folder)), Path(folder) / "int8.onnx"
        photo_count = quantize(fp32, int8, photos, symmetric=False)
        speed = measure_speed(fp32, int8, rounds)
        ap = {"fp32": average_precision(fp32, data), "int8": average_precision(int8, data)}
        sizes = {
            name: round(path.stat().st_size / 1e6, 2)
            for name, path in (("fp32", fp32), ("int8", int8))
        }
    change = {name: round(ap["int8"][name] - ap["fp32"][name], 4) for name in EVALUATION_SETS}
    return {
        "calibrated_on": f"{photo_count} photos of {CALIBRATION_SET}",
        "speed": speed,
        "ap": ap,
        "ap_change": change,
        "megabytes": sizes,
        "goal": {"ratio": TARGET_RATIO, "ap_change": MAX_AP_CHANGE},
        "met": {
            "ratio": speed[-1]["ratio"] >= TARGET_RATIO,
            "ap": all(abs(value) <= MAX_AP_CHANGE for value in change.values()),
        },
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    values = measure(args.data, args.rounds)
    for name, value in values.items():
        print(f"{name:14} {value}")
    print(write_result("int8", values, args.json))


if __name__ == "__main__":
    main()
