"""Growth of cost with image size, boxes, classes, candidates, batch, streams and threads.

`python -m benchmarks.cpu.scaling [--rounds N]` needs only the bundled model. A straight line and a
power law are fitted to each curve, and the better fit is drawn into
`results/<machine>-<date>-scaling.png`. Memory is the peak of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result_file import result_path, write_result
from benchmarks.timing import seconds_per_call, time_in_turn
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds, read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.profiling.memory_sources import MemorySource
from realtime_ssd.synthetic import StreetScene
from realtime_ssd.zoo import find_model

SIZES = ((320, 180), (640, 360), (1280, 720), (1920, 1080), (3840, 2160))
BOXES = (500, 1000, 2000, 4000, 8000, 16000)
CLASSES = (2, 5, 11, 21, 41, 91, 201)
CANDIDATES = (0, 50, 100, 200, 400, 800, 1600)
BATCHES = (1, 2, 4, 8, 16)
STREAMS = (1, 2, 4, 8)
FRAMES = 64  # of all streams together
MIN_SECONDS = 0.15  # of one measurement
COLUMNS = 5  # of panels in the drawing

Curve = dict[str, Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Work = Callable[[], object]


def demo_image(width: int, height: int) -> NDArray[np.uint8]:
    """Render an image with some objects in it."""
    return StreetScene(width, height, seed=1).render(30)


def random_heads(boxes: int, classes: int, candidates: int) -> tuple[Floats, Floats, ModelSpec]:
    """Return heads with a known number of candidates above 0.3, spread over the image.

    Returns:
        Scores (`boxes` × `classes`), offsets (`boxes` × 4) and the specification that fits them.
    """
    random = np.random.default_rng(0)
    centers = random.uniform(0, 1, (boxes, 2))
    default = np.concatenate([centers, random.uniform(0.05, 0.3, (boxes, 2))], axis=1)
    scores = random.uniform(0, 0.2, (boxes, classes)).astype(np.float32)
    rows = random.choice(boxes, min(candidates, boxes), replace=False)
    scores[rows, random.integers(1, classes, len(rows))] = random.uniform(0.31, 1, len(rows))
    offsets = random.normal(0, 0.5, (boxes, 4)).astype(np.float32)
    spec = ModelSpec(
        "random",
        InputSpec(300, 300),
        AnchorSpec.from_array(default.astype(np.float32)),
        ("background", *(f"class {number}" for number in range(1, classes))),
        activation="none",
        thresholds=Thresholds(score_threshold=0.3),
    )
    return scores, offsets, spec


def _decode_nms(boxes: int = 2000, classes: int = 21, candidates: int = 100) -> Work:
    scores, offsets, spec = random_heads(boxes, classes, candidates)
    return partial(PostProcessor(spec), scores, offsets)


def _network(model: Path, batch: int, threads: int) -> Work:
    session, spec = open_session(model, threads), read_spec(model)
    tensor = np.zeros((batch, 3, spec.input.height, spec.input.width), np.float32)
    return lambda: session.run(None, {spec.input.name: tensor})


def _thread_counts() -> list[int]:
    return sorted({1, 2, 4, cpu_count()})


def _streams(backend: Backend, streams: int) -> Work:
    image = demo_image(1280, 720)

    def run() -> None:
        sources = [MemorySource([image], f"m{n}", frames=FRAMES // streams) for n in range(streams)]
        for _ in Pipeline(sources, backend):
            pass

    return run


def timed_work(model: Path, backend: Backend) -> dict[str, tuple[str, dict[float, Work]]]:
    """Return the unit of x and the work for each x, by name of the curve."""
    spec = read_spec(model)
    images = {w * h / 1e6: demo_image(w, h) for w, h in SIZES}
    return {
        "pre-processing": (
            "megapixels",
            {x: partial(preprocess, image, spec.input) for x, image in images.items()},
        ),
        "decode + NMS, boxes": ("default boxes", {n: _decode_nms(boxes=n) for n in BOXES}),
        "decode + NMS, classes": ("classes", {n: _decode_nms(classes=n) for n in CLASSES}),
        "decode + NMS, candidates": (
            "candidates",
            {n: _decode_nms(candidates=n) for n in CANDIDATES},
        ),
        "network, batch": ("batch", {n: _network(model, n, cpu_count()) for n in BATCHES}),
        "network, threads": ("threads", {n: _network(model, 1, n) for n in _thread_counts()}),
        f"whole loop, {FRAMES} frames in all, streams": (
            "streams",
            {n: _streams(backend, n) for n in STREAMS},
        ),
    }


def time_curve(works: Mapping[float, Work], unit: str, rounds: int) -> Curve:
    """Time the work for each x in turn and fit the medians."""
    timers = {str(x): partial(seconds_per_call, work, MIN_SECONDS) for x, work in works.items()}
    seconds = time_in_turn(timers, rounds)
    xs = list(works)
    ms = [statistics.median(seconds[str(x)]) * 1000 for x in xs]
    return {"x": unit, "values": xs, "ms": [round(value, 4) for value in ms], **fits(xs, ms)}


def fits(xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    """Fit y = a + b·x, and y = c·x^p where x is positive, each with its R²."""
    x, y = np.array(xs, float), np.array(ys, float)
    slope, intercept = np.polyfit(x, y, 1)
    positive = x > 0
    power, log_factor = np.polyfit(np.log(x[positive]), np.log(y[positive]), 1)
    return {
        "line": {"at_zero": round(float(intercept), 4), "per_unit": round(float(slope), 6)},
        "r_squared": _r_squared(y, intercept + slope * x),
        "power": round(float(power), 3),
        "power_at_one": round(float(np.exp(log_factor)), 6),
        "power_r_squared": _r_squared(y[positive], np.exp(log_factor) * x[positive] ** power),
    }


def _r_squared(values: Doubles, fitted: Doubles) -> float:
    total = float(((values - values.mean()) ** 2).sum())
    residual = float(((values - fitted) ** 2).sum())
    return round(1 - residual / total, 4) if total else 1.0


def memory_cases() -> dict[str, Sequence[float]]:
    """Return the values of x at which memory is measured, by unit of x."""
    return {
        "batch": BATCHES,
        "streams": STREAMS,
        "threads": _thread_counts(),
        "megapixels": [w * h / 1e6 for w, h in SIZES],
        "default boxes": BOXES,
        "classes": CLASSES,
        "candidates": CANDIDATES,
    }


def memory_curves(model: Path) -> dict[str, Curve]:
    """Return the peak memory of new processes in MB, by name of the curve."""
    curves = {}
    for unit, xs in memory_cases().items():
        peaks = [_peak(model, unit, index) for index in range(len(xs))]
        curves[f"memory, {unit}"] = {"x": unit, "values": list(xs), "mb": peaks, **fits(xs, peaks)}
    return curves


def _peak(model: Path, unit: str, index: int) -> float:
    command = [sys.executable, "-m", "benchmarks.cpu.scaling", "--peak", unit, str(index)]
    done = subprocess.run(
        [*command, "--model", str(model)], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak(model: Path, unit: str, index: int) -> None:
    """Run one case in this process and print its peak memory in MB."""
    value = int(memory_cases()[unit][index])
    if unit == "default boxes":
        _decode_nms(boxes=value)()
    elif unit == "classes":
        _decode_nms(classes=value)()
    elif unit == "candidates":
        _decode_nms(candidates=value)()
    elif unit == "threads":
        _network(model, 1, value)()
    else:
        _run_pipeline(model, unit, index)
    # The peak reported by getrusage includes that of the parent process before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps(round(int(kilobytes) * 1024 / 1e6, 1)))


def _run_pipeline(model: Path, unit: str, index: int) -> None:
    width, height = SIZES[index] if unit == "megapixels" else (1280, 720)
    batch = BATCHES[index] if unit == "batch" else 1
    streams = STREAMS[index] if unit == "streams" else 1
    # Rendering the demo would need more memory than everything else.
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    sources = [MemorySource([image], f"m{n}", frames=max(32, 4 * batch)) for n in range(streams)]
    with open_backend(model, "onnxruntime", BackendOptions(batch=batch)) as backend:
        for _ in Pipeline(sources, backend):
            pass


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw every curve with the better of its two fits."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS).ravel()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes, (name, curve) in zip(panels, curves.items(), strict=False):
        unit = "mb" if "mb" in curve else "ms"
        xs, ys = np.array(curve["values"], float), curve[unit]
        axes.plot(xs, ys, "o", color="#3b7dd8")
        points, formula = best_fit(curve, np.linspace(xs.min(), xs.max(), 200))
        axes.plot(*points, "--", color="#888")
        axes.set_title(f"{name}\n{formula}", size=10)
        axes.set_xlabel(curve["x"])
        axes.set_ylabel(unit.upper() if unit == "mb" else unit)
        axes.set_ylim(0, 1.1 * max(ys))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(str(path), dpi=100)


def best_fit(curve: Curve, xs: Doubles) -> tuple[tuple[Doubles, Doubles], str]:
    """Return the points of the better fit at `xs`, and its formula."""
    if curve["power_r_squared"] > curve["r_squared"]:
        xs = xs[xs > 0]
        factor, power = curve["power_at_one"], curve["power"]
        formula = f"{factor:.3g} · x^{power:.2f}, R² {curve['power_r_squared']:.2f}"
        return (xs, factor * xs**power), formula
    intercept, slope = curve["line"]["at_zero"], curve["line"]["per_unit"]
    formula = f"{intercept:.3g} {'+' if slope >= 0 else '−'} {abs(slope):.3g} · x"
    return (xs, intercept + slope * xs), f"{formula}, R² {curve['r_squared']:.2f}"


def main() -> None:
    """Measure, fit, draw and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--peak", nargs=2, metavar=("UNIT", "INDEX"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    model, _ = find_model(args.model)
    if args.peak:
        print_peak(model, args.peak[0], int(args.peak[1]))
        return
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        curves = {
            name: time_curve(works, unit, args.rounds)
            for name, (unit, works) in timed_work(model, backend).items()
        }
    curves |= memory_curves(model)
    values = {"model": read_spec(model).name, "curves": curves}
    path = write_result("scaling", values, args.json)
    for name, curve in curves.items():
        print(f"{name:45} {best_fit(curve, np.array(curve['values'], float))[1]}")
    draw(curves, path.with_name(f"{(args.json or result_path()).stem}-scaling.png"))
    print(path)


if __name__ == "__main__":
    main()
