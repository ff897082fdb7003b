"""How cost grows: with picture size, boxes, classes, detections, batch, streams and threads.

`python -m benchmarks.scaling [--rounds N]` needs the bundled model only. Each curve is fitted by a
straight line and by a power, and drawn into `results/<machine>-<date>-scaling.png`. Memory is the
peak of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import result_path, write
from benchmarks.timing import in_turn, seconds_of
from realtime_ssd.backends import BackendOptions, cpu_count, open_backend
from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.benchmark.sources import Memory
from realtime_ssd.boxes import BoxRecipe
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.postprocess import PostProcessor
from realtime_ssd.preprocess import preprocess
from realtime_ssd.spec import InputSpec, ModelSpec, Thresholds, read_spec
from realtime_ssd.zoo import find_model

SIZES = ((320, 180), (640, 360), (1280, 720), (1920, 1080), (3840, 2160))
BOXES = (500, 1000, 2000, 4000, 8000, 16000)
CLASSES = (2, 5, 11, 21, 41, 91, 201)
CANDIDATES = (0, 50, 100, 200, 400, 800, 1600)
BATCHES = (1, 2, 4, 8, 16)
STREAMS = (1, 2, 4, 8)
LEAST = 0.15

Curve = dict[str, Any]
Floats = NDArray[np.float32]


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Make a picture with something in it."""
    from realtime_ssd.demo import StreetScene

    return StreetScene(width, height, seed=1).render(30)


def heads(boxes: int, classes: int, candidates: int) -> tuple[Floats, Floats, ModelSpec]:
    """Make heads with a known number of candidates above 0.3, spread over the picture."""
    random = np.random.default_rng(0)
    centers = random.uniform(0, 1, (boxes, 2))
    default = np.concatenate([centers, random.uniform(0.05, 0.3, (boxes, 2))], axis=1)
    scores = random.uniform(0, 0.2, (boxes, classes)).astype(np.float32)
    rows = random.choice(boxes, min(candidates, boxes), replace=False)
    scores[rows, random.integers(1, classes, len(rows))] = random.uniform(0.31, 1, len(rows))
    offsets = random.normal(0, 0.5, (boxes, 4)).astype(np.float32)
    spec = ModelSpec(
        "made",
        InputSpec(300, 300),
        BoxRecipe.from_array(default.astype(np.float32)),
        ("background", *(f"class {k}" for k in range(1, classes))),
        activation="none",
        thresholds=Thresholds(score=0.3),
    )
    return scores, offsets, spec


def _decoding(boxes: int = 2000, classes: int = 21, candidates: int = 100) -> Callable[[], object]:
    scores, offsets, spec = heads(boxes, classes, candidates)
    post = PostProcessor(spec)
    return lambda: post(scores, offsets)


def _network(model: Path, batch: int, threads: int) -> Callable[[], object]:
    session, spec = open_session(model, threads), read_spec(model)
    tensor = np.zeros((batch, 3, spec.input.height, spec.input.width), np.float32)
    return lambda: session.run(None, {spec.input.name: tensor})


def _streams(model: Path, streams: int, frames: int = 60) -> Callable[[], object]:
    image = picture(1280, 720)

    def run() -> None:
        sources = [Memory([image], f"m{n}", frames=frames // streams) for n in range(streams)]
        with open_backend(model, "onnxruntime", BackendOptions()) as backend:
            for _ in Pipeline(sources, backend):
                pass

    return run


def actions(model: Path) -> dict[str, tuple[str, dict[float, Callable[[], object]]]]:
    """Give for each curve its unit of x and the work at each x."""
    spec = read_spec(model)
    pictures = {w * h / 1e6: picture(w, h) for w, h in SIZES}
    threads = sorted({1, 2, 4, cpu_count()})
    return {
        "pre-processing": (
            "megapixels",
            {x: lambda image=image: preprocess(image, spec.input) for x, image in pictures.items()},  # type: ignore[misc]
        ),
        "decode + NMS, boxes": ("default boxes", {n: _decoding(boxes=n) for n in BOXES}),
        "decode + NMS, classes": ("classes", {n: _decoding(classes=n) for n in CLASSES}),
        "decode + NMS, candidates": (
            "candidates",
            {n: _decoding(candidates=n) for n in CANDIDATES},
        ),
        "network, batch": ("batch", {n: _network(model, n, cpu_count()) for n in BATCHES}),
        "network, threads": ("threads", {n: _network(model, 1, n) for n in threads}),
        "whole loop, 60 frames in all, streams": (
            "streams",
            {n: _streams(model, n) for n in STREAMS},
        ),
    }


def curve(works: Mapping[float, Callable[[], object]], unit: str, rounds: int) -> Curve:
    """Time the work at each x in turn, and fit."""
    contenders = {str(x): (lambda work=work: seconds_of(work, LEAST)) for x, work in works.items()}  # type: ignore[misc]
    times = in_turn(contenders, rounds)
    xs = list(works)
    ms = [statistics.median(times[str(x)]) * 1000 for x in xs]
    return {"x": unit, "values": xs, "ms": [round(value, 4) for value in ms], **fits(xs, ms)}


def fits(xs: list[float], ys: list[float]) -> dict[str, Any]:
    """Fit y = a + b·x with its R², and the power of x where all x are positive."""
    x, y = np.array(xs, float), np.array(ys, float)
    slope, start = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    rest = float(((y - start - slope * x) ** 2).sum())
    positive = x > 0
    power = np.polyfit(np.log(x[positive]), np.log(y[positive]), 1)[0]
    return {
        "line": {"at_zero": round(float(start), 4), "per_unit": round(float(slope), 6)},
        "r_squared": round(1 - rest / spread, 4) if spread else 1.0,
        "power": round(float(power), 3),
    }


def memory(model: Path) -> dict[str, Curve]:
    """Give the peak memory of fresh processes, in MB."""
    cases = {
        "memory, batch": ("batch", BATCHES),
        "memory, streams": ("streams", STREAMS),
        "memory, picture": ("megapixels", [w * h / 1e6 for w, h in SIZES]),
    }
    found = {}
    for name, (unit, xs) in cases.items():
        peaks = [_peak(model, unit, index) for index in range(len(xs))]
        found[name] = {"x": unit, "values": list(xs), "mb": peaks, **fits(list(xs), peaks)}
    return found


def _peak(model: Path, unit: str, index: int) -> float:
    command = [sys.executable, "-m", "benchmarks.scaling", "--peak", unit, str(index)]
    done = subprocess.run(
        [*command, "--model", str(model)], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak(model: Path, unit: str, index: int) -> None:
    """Do one piece of work in this process and print its peak memory in MB."""
    width, height = SIZES[index] if unit == "megapixels" else (1280, 720)
    batch = BATCHES[index] if unit == "batch" else 1
    streams = STREAMS[index] if unit == "streams" else 1
    image = picture(width, height)
    sources = [Memory([image], f"m{n}", frames=max(32, 4 * batch)) for n in range(streams)]
    with open_backend(model, "onnxruntime", BackendOptions(batch=batch)) as backend:
        for _ in Pipeline(sources, backend):
            pass
    # The peak that getrusage gives begins with that of the process which started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps(round(int(kilobytes) * 1024 / 1e6, 1)))


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw every curve with its line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8), layout="constrained")
    panels = figure.subplots(2, (len(curves) + 1) // 2).ravel()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes, (name, found) in zip(panels, curves.items(), strict=False):
        unit = "mb" if "mb" in found else "ms"
        xs, ys = np.array(found["values"], float), found[unit]
        axes.plot(xs, ys, "o", color="#3b7dd8")
        line = found["line"]
        axes.plot(xs, line["at_zero"] + line["per_unit"] * xs, "--", color="#888")
        axes.set_title(f"{name}\nR² {found['r_squared']:.2f}, power {found['power']:.2f}", size=10)
        axes.set_xlabel(found["x"])
        axes.set_ylabel(unit.upper() if unit == "mb" else unit)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(str(path), dpi=100)


def main() -> None:
    """Measure, fit, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("X", "INDEX"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    model, _ = find_model(words.model)
    if words.peak:
        print_peak(model, words.peak[0], int(words.peak[1]))
        return
    curves = {
        name: curve(works, unit, words.rounds) for name, (unit, works) in actions(model).items()
    }
    curves |= memory(model)
    path = write("scaling", {"model": read_spec(model).name, "curves": curves}, words.json)
    for name, found in curves.items():
        print(f"{name:40} power {found['power']:6.3f}  R² {found['r_squared']:.3f}")
    draw(curves, path.with_name(f"{(words.json or result_path()).stem}-scaling.png"))
    print(path)


if __name__ == "__main__":
    main()
