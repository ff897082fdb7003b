"""Whether memory stays flat: `python -m benchmarks.cpu.memory [--model M.onnx] [--frames 100000]`.

The built-in street runs through the whole loop in one process; the resident memory is noted every
few thousand frames, and a line fitted through the second half tells the growth. Drawing a picture
costs far more than finding what is in it, so each one passes several times, in new memory.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sources.base import BaseSource, Source
from realtime_ssd.zoo import find_model

NOTES = 50
GOAL_MB = 2.0
TIMES = 10


class Again(BaseSource):
    """Gives every picture of a source several times, each time as a frame with pixels of its own.

    Args:
        source: Where pictures come from; closed with this one.
        times: How often each is given.
    """

    def __init__(self, source: Source, times: int) -> None:
        self.info, self._source, self._times = source.info, source, times
        self._index = 0
        self._shown: Frame | None = None

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._index % self._times == 0:
            self._shown = self._source.read()
        if self._shown is None:
            return None
        self._index += 1
        return Frame(self._shown.image.copy(), self._index - 1, self.info.name)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


def resident_mb() -> float:
    """Give the memory this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(model: Path, frames: int) -> dict[str, Any]:
    """Run the loop and note the memory."""
    drawn = -(-frames // TIMES)
    source = Again(open_source(f"demo:160x96,frames={drawn}"), TIMES)
    notes: list[tuple[int, float]] = []
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        loop = Pipeline([source], backend)
        for result in loop:
            if result.frame.index % max(1, frames // NOTES) == 0:
                notes.append((result.frame.index, resident_mb()))
    late = np.array(notes[len(notes) // 2 :])
    growth = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 100_000
    return {
        "frames": loop.statistics.total.processed,
        "pictures_drawn": drawn,
        "fps": round(loop.statistics.fps, 1),
        "resident_mb": [[index, round(value, 2)] for index, value in notes],
        "growth_mb_per_100000_frames": round(growth, 3),
        "goal_growth_mb": GOAL_MB,
        "met": growth <= GOAL_MB,
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    model, _ = find_model(words.model)
    values = measure(model, words.frames)
    print(write("memory", {"model": model.stem, **values}, words.json))
    print({name: value for name, value in values.items() if name != "resident_mb"})


if __name__ == "__main__":
    main()
