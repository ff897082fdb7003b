"""What the loop adds to the latency of a live source.

`python -m benchmarks.cpu.latency --model M.onnx [--seconds 60]` gives a live source at 30 frames a
second, in 720p from memory, to the loop, and compares the time from capture to result with the
time that inference itself took (pre-processing, network, decoding and NMS).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.spec import read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sources import SourceInfo
from realtime_ssd.sources.base import BaseSource

RATE = 30
GOAL_MS = 5.0
WARM_UP = 30
SHARES = (50, 90, 99, 100)


class Paced(BaseSource):
    """A live source that gives pictures from memory at a fixed rate.

    Args:
        images: Pictures, given in turn.
        frames: Frames to give in all.
    """

    def __init__(self, images: list[Image], frames: int) -> None:
        self.info = SourceInfo("paced", live=True)
        self._images, self._frames, self._next, self._begun = images, frames, 0, 0.0

    def read(self) -> Frame | None:
        """See `Source.read`."""
        number = self._next
        if number >= self._frames:
            return None
        self._begun = self._begun or time.monotonic()
        time.sleep(max(0.0, self._begun + number / RATE - time.monotonic()))
        self._next += 1
        return Frame(self._images[number % len(self._images)], number, "paced")


def measure(model: Path, video: str, seconds: float) -> dict[str, Any]:
    """Run the live source and give both distributions in milliseconds."""
    images = []
    with open_source(video) as source:
        while len(images) < 64 and (frame := source.read()) is not None:
            images.append(frame.image)
    whole, inference = [], []
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        loop = Pipeline([Paced(images, int(seconds * RATE))], backend)
        for result in loop:
            if result.frame.index < WARM_UP:
                continue
            whole.append(time.monotonic() - result.frame.captured_at)
            inference.append(sum(result.timings.values()))
    total = loop.statistics.total
    rows = {
        name: {
            f"p{share}": round(float(np.percentile(values, share)) * 1000, 3) for share in SHARES
        }
        for name, values in (("end_to_end_ms", whole), ("inference_ms", inference))
    }
    added = rows["end_to_end_ms"]["p99"] - rows["inference_ms"]["p99"]
    return {
        **rows,
        "frames": total.processed,
        "dropped": dict(total.dropped),
        "added_p99_ms": round(added, 3),
        "goal_added_p99_ms": GOAL_MS,
        "met": added <= GOAL_MS,
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Give the percentiles in milliseconds; p100 is the maximum."""
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1000, 3) for share in SHARES}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--video", default="demo:1280x720@30,seed=1,frames=64")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    values = measure(words.model, words.video, words.seconds)
    path = write("latency", {"model": read_spec(words.model).name, **values}, words.json)
    for name, value in values.items():
        print(f"{name:20} {value}")
    print(path)


if __name__ == "__main__":
    main()
