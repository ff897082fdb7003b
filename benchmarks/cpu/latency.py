"""Latency that the pipeline adds for a live source.

`python -m benchmarks.cpu.latency --model M.onnx [--seconds 60]` runs the pipeline over a live
source with 30 frames per second in 720p from memory, and compares the time from capture to result
with the time of inference alone (pre-processing, network, decoding and NMS).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result_file import write_result
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.profiling.memory_sources import MemorySource

FPS = 30
MAX_ADDED_P99_MS = 5.0
WARM_UP_FRAMES = 30
IMAGES = 64  # kept in memory
PERCENTILES = (50, 90, 99, 100)


def measure(model: Path, video: str, seconds: float) -> dict[str, Any]:
    """Run a live source and return the percentiles of both latencies in milliseconds."""
    images: list[Image] = []
    with open_source(video) as clip:
        while len(images) < IMAGES and (frame := clip.read()) is not None:
            images.append(frame.image)
    end_to_end, inference = [], []
    source = MemorySource(images, rate=FPS, frames=int(seconds * FPS))
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        pipeline = Pipeline([source], backend)
        for result in pipeline:
            if result.frame.index < WARM_UP_FRAMES:
                continue
            end_to_end.append(time.monotonic() - result.frame.captured_at)
            inference.append(sum(result.timings.values()))
    total = pipeline.statistics.total
    rows = {"end_to_end_ms": percentiles(end_to_end), "inference_ms": percentiles(inference)}
    added = rows["end_to_end_ms"]["p99"] - rows["inference_ms"]["p99"]
    return {
        **rows,
        "frames": total.processed,
        "dropped": dict(total.dropped),
        "added_p99_ms": round(added, 3),
        "goal_added_p99_ms": MAX_ADDED_P99_MS,
        "met": added <= MAX_ADDED_P99_MS,
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return percentiles in milliseconds; p100 is the maximum."""
    return {
        f"p{percent}": round(float(np.percentile(seconds, percent)) * 1000, 3)
        for percent in PERCENTILES
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--video", default=f"demo:1280x720@30,seed=1,frames={IMAGES}")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    values = measure(args.model, args.video, args.seconds)
    path = write_result("latency", {"model": read_spec(args.model).name, **values}, args.json)
    for name, value in values.items():
        print(f"{name:20} {value}")
    print(path)


if __name__ == "__main__":
    main()
