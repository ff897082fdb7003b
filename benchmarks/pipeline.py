"""The whole program against the most that the machine's cores allow.

`python -m benchmarks.pipeline --model M.onnx [--video FILE]` measures, each alone and in turn, the
processor time a frame of decoding, of the conversion to BGR and of a bare `session.run`; cores
divided by their sum is what a program could reach that does nothing else and never waits. Then the
whole loop runs over the same file: without output, and with H.264 output.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

from benchmarks.machine import write
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, cpu_count, open_backend
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.preprocess import preprocess
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources.file import Painter
from realtime_ssd.spec import read_spec

REPEATS = 5


def cpu_of(action: Callable[[], int]) -> float:
    """Give the processor seconds a frame of an action that returns its number of frames."""
    begun = time.process_time()
    frames = action()
    return (time.process_time() - begun) / frames


def decode(video: Path, *, paint: bool) -> int:
    """Decode a file, with or without the conversion to BGR."""
    painter, count = Painter(), 0
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if paint:
                painter.paint(frame)
            count += 1
    return count


def bare_runs(model: Path, video: Path) -> Callable[[], int]:
    """Prepare a bare loop over `session.run` on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    spec = read_spec(model)
    with open_source(video) as source:
        frame = source.read()
    if frame is None:
        raise SystemExit(f"'{video}' has no frame")
    tensor = preprocess(frame.image, spec.input)[None].astype(np.float32)

    def run() -> int:
        for _ in range(60):
            session.run([spec.scores_output, spec.offsets_output], {spec.input.name: tensor})
        return 60

    return run


def whole(model: Path, video: Path, output: Path | None) -> dict[str, float]:
    """Run the loop over a file; frames a second from first capture to last result."""
    source = open_source(video)
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        loop = Pipeline([source], backend)
        sink = VideoSink(output, source.info, overwrite=True) if output else None
        begun, cpu, frames = time.perf_counter(), time.process_time(), 0
        for result in loop:
            frames += 1
            if sink:
                sink.write(result)
        if sink:
            sink.close()
        seconds = time.perf_counter() - begun
    return {"fps": frames / seconds, "cpu_ms": (time.process_time() - cpu) / frames * 1000}


def measure(model: Path, video: Path, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure all parts in turn, `repeats` times; medians."""
    bare = bare_runs(model, video)
    bare()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(repeats):
            decoding = cpu_of(lambda: decode(video, paint=False))
            painting = cpu_of(lambda: decode(video, paint=True)) - decoding
            plain = whole(model, video, None)
            network = cpu_of(bare)
            written = whole(model, video, Path(place) / "out.mp4")
            for name, value in (
                ("decode_ms", decoding * 1000),
                ("convert_ms", painting * 1000),
                ("network_ms", network * 1000),
                ("bound_fps", cpu_count() / (decoding + painting + network)),
                ("fps", plain["fps"]),
                ("cpu_ms", plain["cpu_ms"]),
                ("fps_with_output", written["fps"]),
                ("cpu_ms_with_output", written["cpu_ms"]),
            ):
                rows.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    shares = [fps / bound for fps, bound in zip(rows["fps"], rows["bound_fps"], strict=True)]
    return {
        **medians,
        "share_of_bound": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in shares],
    }


def make_video(path: Path, frames: int = 300) -> Path:
    """Write a 720p file of the built-in street."""
    from realtime_ssd import Detections
    from realtime_ssd.sinks.base import Result

    source = open_source(f"demo:1280x720@30,seed=1,frames={frames}")
    with VideoSink(path, source.info) as sink:
        while (frame := source.read()) is not None:
            sink.write(Result(frame, Detections.empty()))
    return path


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        video = words.video or make_video(Path(place) / "street720.mp4")
        values = measure(words.model, video, words.repeats)
    spec = read_spec(words.model)
    about = {"model": spec.name, "video": words.video.name if words.video else "demo 720p"}
    path = write("pipeline", {**about, **values}, words.json)
    for name, value in values.items():
        print(f"{name:20} {value}")
    print(path)


if __name__ == "__main__":
    main()
