"""How cost grows: with picture size, boxes, classes, detections, batch, streams and threads.

`python -m benchmarks.cpu.scaling [--rounds N]` needs the bundled model only. Each curve is fitted by a
straight line and by a power, and drawn with the better one into
`results/<machine>-<date>-scaling.png`. Memory is the peak of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import result_path, write
from benchmarks.timing import in_turn, seconds_of
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds, read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.profiling.memory_sources import Memory
from realtime_ssd.zoo import find_model

SIZES = ((320, 180), (640, 360), (1280, 720), (1920, 1080), (3840, 2160))
BOXES = (500, 1000, 2000, 4000, 8000, 16000)
CLASSES = (2, 5, 11, 21, 41, 91, 201)
CANDIDATES = (0, 50, 100, 200, 400, 800, 1600)
BATCHES = (1, 2, 4, 8, 16)
STREAMS = (1, 2, 4, 8)
FRAMES = 64  # of all streams together
LEAST = 0.15

Curve = dict[str, Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Make a picture with something in it."""
    from realtime_ssd.synthetic import StreetScene

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
        AnchorSpec.from_array(default.astype(np.float32)),
        ("background", *(f"class {k}" for k in range(1, classes))),
        activation="none",
        thresholds=Thresholds(score_threshold=0.3),
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


def _threads() -> list[int]:
    return sorted({1, 2, 4, cpu_count()})


def _streams(backend: Backend, streams: int) -> Callable[[], object]:
    image = picture(1280, 720)

    def run() -> None:
        sources = [Memory([image], f"m{n}", frames=FRAMES // streams) for n in range(streams)]
        for _ in Pipeline(sources, backend):
            pass

    return run


def actions(
    model: Path, backend: Backend
) -> dict[str, tuple[str, dict[float, Callable[[], object]]]]:
    """Give for each curve its unit of x and the work at each x."""
    spec = read_spec(model)
    pictures = {w * h / 1e6: picture(w, h) for w, h in SIZES}
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
        "network, threads": ("threads", {n: _network(model, 1, n) for n in _threads()}),
        f"whole loop, {FRAMES} frames in all, streams": (
            "streams",
            {n: _streams(backend, n) for n in STREAMS},
        ),
    }


def curve(works: Mapping[float, Callable[[], object]], unit: str, rounds: int) -> Curve:
    """Time the work at each x in turn, and fit."""
    contenders = {str(x): (lambda work=work: seconds_of(work, LEAST)) for x, work in works.items()}
    times = in_turn(contenders, rounds)
    xs = list(works)
    ms = [statistics.median(times[str(x)]) * 1000 for x in xs]
    return {"x": unit, "values": xs, "ms": [round(value, 4) for value in ms], **fits(xs, ms)}


def fits(xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    """Fit y = a + b·x, and y = c·x^p where x is positive, each with its R²."""
    x, y = np.array(xs, float), np.array(ys, float)
    slope, start = np.polyfit(x, y, 1)
    positive = x > 0
    power, begin = np.polyfit(np.log(x[positive]), np.log(y[positive]), 1)
    return {
        "line": {"at_zero": round(float(start), 4), "per_unit": round(float(slope), 6)},
        "r_squared": _r_squared(y, start + slope * x),
        "power": round(float(power), 3),
        "power_at_one": round(float(np.exp(begin)), 6),
        "power_r_squared": _r_squared(y[positive], np.exp(begin) * x[positive] ** power),
    }


def _r_squared(values: Doubles, fitted: Doubles) -> float:
    spread = float(((values - values.mean()) ** 2).sum())
    rest = float(((values - fitted) ** 2).sum())
    return round(1 - rest / spread, 4) if spread else 1.0


def cases() -> dict[str, Sequence[float]]:
    """Give for each unit of x the values at which memory is measured."""
    return {
        "batch": BATCHES,
        "streams": STREAMS,
        "threads": _threads(),
        "megapixels": [w * h / 1e6 for w, h in SIZES],
        "default boxes": BOXES,
        "classes": CLASSES,
        "candidates": CANDIDATES,
    }


def memory(model: Path) -> dict[str, Curve]:
    """Give the peak memory of fresh processes, in MB."""
    found = {}
    for unit, xs in cases().items():
        peaks = [_peak(model, unit, index) for index in range(len(xs))]
        found[f"memory, {unit}"] = {"x": unit, "values": list(xs), "mb": peaks, **fits(xs, peaks)}
    return found


def _peak(model: Path, unit: str, index: int) -> float:
    command = [sys.executable, "-m", "benchmarks.cpu.scaling", "--peak", unit, str(index)]
    done = subprocess.run(
        [*command, "--model", str(model)], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak(model: Path, unit: str, index: int) -> None:
    """Do one piece of work in this process and print its peak memory in MB."""
    value = int(cases()[unit][index])
    if unit == "default boxes":
        _decoding(boxes=value)()
    elif unit == "classes":
        _decoding(classes=value)()
    elif unit == "candidates":
        _decoding(candidates=value)()
    elif unit == "threads":
        _network(model, 1, value)()
    else:
        _whole_loop(model, unit, index)
    # The peak that getrusage gives begins with that of the process which started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps(round(int(kilobytes) * 1024 / 1e6, 1)))


def _whole_loop(model: Path, unit: str, index: int) -> None:
    width, height = SIZES[index] if unit == "megapixels" else (1280, 720)
    batch = BATCHES[index] if unit == "batch" else 1
    streams = STREAMS[index] if unit == "streams" else 1
    # Drawing the street would need more memory than all the rest.
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    sources = [Memory([image], f"m{n}", frames=max(32, 4 * batch)) for n in range(streams)]
    with open_backend(model, "onnxruntime", BackendOptions(batch=batch)) as backend:
        for _ in Pipeline(sources, backend):
            pass


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw every curve with the better of its two fits."""
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns).ravel()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes, (name, found) in zip(panels, curves.items(), strict=False):
        unit = "mb" if "mb" in found else "ms"
        xs, ys = np.array(found["values"], float), found[unit]
        axes.plot(xs, ys, "o", color="#3b7dd8")
        points, words = _fitted(found, np.linspace(xs.min(), xs.max(), 200))
        axes.plot(*points, "--", color="#888")
        axes.set_title(f"{name}\n{words}", size=10)
        axes.set_xlabel(found["x"])
        axes.set_ylabel(unit.upper() if unit == "mb" else unit)
        axes.set_ylim(0, 1.1 * max(ys))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(str(path), dpi=100)


def _fitted(found: Curve, xs: Doubles) -> tuple[tuple[Doubles, Doubles], str]:
    """Give the better fit of a curve, and its formula."""
    if found["power_r_squared"] > found["r_squared"]:
        xs = xs[xs > 0]
        start, power, share = (found[k] for k in ("power_at_one", "power", "power_r_squared"))
        return (xs, start * xs**power), f"{start:.3g} · x^{power:.2f}, R² {share:.2f}"
    start, slope = found["line"]["at_zero"], found["line"]["per_unit"]
    formula = f"{start:.3g} {'+' if slope >= 0 else '−'} {abs(slope):.3g} · x"
    return (xs, start + slope * xs), f"{formula}, R² {found['r_squared']:.2f}"


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
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        curves = {
            name: curve(works, unit, words.rounds)
            for name, (unit, works) in actions(model, backend).items()
        }
    curves |= memory(model)
    path = write("scaling", {"model": read_spec(model).name, "curves": curves}, words.json)
    for name, found in curves.items():
        xs = np.array(found["values"], float)
        print(f"{name:40} {_fitted(found, xs)[1]}")
    draw(curves, path.with_name(f"{(words.json or result_path()).stem}-scaling.png"))
    print(path)


if __name__ == "__main__":
    main()
