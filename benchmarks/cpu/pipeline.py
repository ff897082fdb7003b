"""The whole program against the most that the machine's cores allow.

`python -m benchmarks.cpu.pipeline --model M.onnx [--video FILE]` measures, each alone and in turn, the
processor time a frame of decoding, of the conversion to BGR, of a bare `session.run` and of the
H.264 encoder; cores divided by their sum is what a program could reach that does nothing else and
never waits. The whole loop runs over the same file in between: without output, and with H.264.

A bare `session.run` is measured on all cores at once, for no core of a busy machine has the caches
and the memory to itself; `network_alone_ms` is one core's beside idle ones, and
`share_of_idle_bound` what the program reaches of the bound made with it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

from benchmarks.machine import write
from realtime_ssd import open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sinks.video import VideoSink, add_video
from realtime_ssd.sources.ffmpeg import FrameConverter

REPEATS = 5
FRAMES = 900
ENCODED = 300  # annotated frames that are kept in memory for the encoder alone


def cpu_of(action: Callable[[], int]) -> float:
    """Give the processor seconds a frame of an action that returns its number of frames."""
    begun = time.process_time()
    frames = action()
    return (time.process_time() - begun) / frames


def decode(video: Path, *, paint: bool) -> int:
    """Decode a file, with or without the conversion to BGR."""
    painter, count = FrameConverter(), 0
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if paint:
                painter.to_bgr(frame)
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


def on_all_cores(run: Callable[[], int]) -> int:
    """Let every core do the same at once; give the frames of all."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        return sum(pool.map(lambda _: run(), range(cpu_count())))


def bare_encoder(video: Path, place: Path) -> Callable[[], int]:
    """Prepare a bare encoder, set as the program sets it, for frames of a video from memory."""
    with av.open(str(video)) as container:
        rate = container.streams.video[0].average_rate
        pictures = list(islice(container.decode(video=0), ENCODED))

    def run() -> int:
        with av.open(str(place), "w") as container:
            size = pictures[0].width, pictures[0].height
            stream = add_video(container, "libx264", rate, size)
            for number, picture in enumerate(pictures):
                picture.pts, picture.time_base = number, 1 / rate
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return len(pictures)

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
        output = Path(place) / "out.mp4"
        whole(model, video, output)
        encoder = bare_encoder(output, Path(place) / "bare.mp4")
        for _ in range(repeats):
            for name, value in _once(model, video, output, bare, encoder).items():
                rows.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    return {**medians, "shares": [round(share, 3) for share in rows["share_of_bound"]]}


def _once(
    model: Path, video: Path, output: Path, bare: Callable[[], int], encoder: Callable[[], int]
) -> dict[str, float]:
    decoding = cpu_of(lambda: decode(video, paint=False))
    painting = cpu_of(lambda: decode(video, paint=True)) - decoding
    plain = whole(model, video, None)
    network = cpu_of(lambda: on_all_cores(bare))
    alone = cpu_of(bare)
    written = whole(model, video, output)
    encoding = cpu_of(encoder)
    bound = cpu_count() / (decoding + painting + network)
    bound_written = cpu_count() / (decoding + painting + network + encoding)
    idle = cpu_count() / (decoding + painting + alone)
    return {
        "decode_ms": decoding * 1000,
        "convert_ms": painting * 1000,
        "network_ms": network * 1000,
        "network_alone_ms": alone * 1000,
        "encode_ms": encoding * 1000,
        "bound_fps": bound,
        "fps": plain["fps"],
        "cpu_ms": plain["cpu_ms"],
        "share_of_bound": plain["fps"] / bound,
        "share_of_idle_bound": plain["fps"] / idle,
        "bound_fps_with_output": bound_written,
        "fps_with_output": written["fps"],
        "cpu_ms_with_output": written["cpu_ms"],
        "share_with_output": written["fps"] / bound_written,
    }


def make_video(path: Path, frames: int = FRAMES) -> Path:
    """Write a 720p file of the built-in street."""
    from realtime_ssd import Detections
    from realtime_ssd.core.results import FrameResult

    source = open_source(f"demo:1280x720@30,seed=1,frames={frames}")
    with VideoSink(path, source.info) as sink:
        while (frame := source.read()) is not None:
            sink.write(FrameResult(frame, Detections.empty()))
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
