"""Memory growth over a long run: `python -m benchmarks.cpu.memory [--frames 100000]`.

The demo source runs through the pipeline in one process. Resident memory is sampled regularly, and
the slope of a line through the second half of the samples is the growth. Rendering a demo frame
costs far more than detection, so each one is repeated, every time in newly allocated memory.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result_file import write_result
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sources.base import BaseSource, Source
from realtime_ssd.zoo import find_model

SAMPLES = 50
MAX_GROWTH_MB = 2.0
REPEATS = 10


class RepeatedFrames(BaseSource):
    """Yields every frame of another source several times, each time with newly allocated pixels.

    Args:
        source: Source to read; closed with this one.
        repeats: How often each frame is repeated.
    """

    def __init__(self, source: Source, repeats: int) -> None:
        self.info, self._source, self._repeats = source.info, source, repeats
        self._index = 0
        self._frame: Frame | None = None

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._index % self._repeats == 0:
            self._frame = self._source.read()
        if self._frame is None:
            return None
        self._index += 1
        return Frame(self._frame.image.copy(), self._index - 1, self.info.name)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


def resident_megabytes() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(model: Path, frames: int) -> dict[str, Any]:
    """Run the pipeline and sample the memory."""
    rendered = -(-frames // REPEATS)
    source = RepeatedFrames(open_source(f"demo:160x96,frames={rendered}"), REPEATS)
    samples: list[tuple[int, float]] = []
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        pipeline = Pipeline([source], backend)
        for result in pipeline:
            if result.frame.index % max(1, frames // SAMPLES) == 0:
                samples.append((result.frame.index, resident_megabytes()))
    second_half = np.array(samples[len(samples) // 2 :])
    growth = float(np.polyfit(second_half[:, 0], second_half[:, 1], 1)[0]) * 100_000
    return {
        "frames": pipeline.statistics.total.processed,
        "pictures_drawn": rendered,
        "fps": round(pipeline.statistics.fps, 1),
        "resident_mb": [[index, round(value, 2)] for index, value in samples],
        "growth_mb_per_100000_frames": round(growth, 3),
        "goal_growth_mb": MAX_GROWTH_MB,
        "met": growth <= MAX_GROWTH_MB,
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    model, _ = find_model(args.model)
    values = measure(model, args.frames)
    print(write_result("memory", {"model": model.stem, **values}, args.json))
    print({name: value for name, value in values.items() if name != "resident_mb"})


if __name__ == "__main__":
    main()
