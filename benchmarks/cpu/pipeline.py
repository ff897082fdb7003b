"""Throughput of the whole program against the upper bound that the machine's cores allow.

`python -m benchmarks.cpu.pipeline --model M.onnx [--video FILE]` measures, in turn, the processor
time per frame of decoding, of the conversion to BGR, of a bare `session.run` and of the H.264
encoder. The number of cores divided by their sum is the rate of a program that does nothing else
and never waits. The whole pipeline runs over the same file in between, without output and with
H.264 output.

The bare `session.run` is measured on all cores together, because a core of a busy machine shares
caches and memory. `network_alone_ms` is that of one core while the others are idle, and
`share_of_idle_bound` the share of the bound computed from it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

from benchmarks.result_file import write_result
from realtime_ssd import Detections, open_source
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.results import FrameResult
from realtime_ssd.core.spec import read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sinks.encoders import add_video
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources.ffmpeg import FrameConverter

ROUNDS = 5
DEMO_FRAMES = 900
ENCODER_FRAMES = 300  # annotated frames kept in memory for the bare encoder
NETWORK_RUNS = 60

Work = Callable[[], int]
"""Returns the number of frames it processed."""


def cpu_seconds_per_frame(work: Work) -> float:
    """Return the processor time per frame, of all threads together."""
    start = time.process_time()
    frames = work()
    return (time.process_time() - start) / frames


def decode(video: Path, *, convert: bool) -> int:
    """Decode a file, with or without the conversion to BGR."""
    converter, count = FrameConverter(), 0
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if convert:
                converter.to_bgr(frame)
            count += 1
    return count


def bare_network(model: Path, video: Path) -> Work:
    """Prepare a bare loop over `session.run` on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    spec = read_spec(model)
    with open_source(video) as source:
        frame = source.read()
    if frame is None:
        raise SystemExit(f"'{video}' has no frames")
    tensor = preprocess(frame.image, spec.input)[None].astype(np.float32)

    def run() -> int:
        for _ in range(NETWORK_RUNS):
            session.run([spec.scores_output, spec.offsets_output], {spec.input.name: tensor})
        return NETWORK_RUNS

    return run


def on_all_cores(work: Work) -> int:
    """Run the same work on every core simultaneously; return the frames of all."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        return sum(pool.map(lambda _: work(), range(cpu_count())))


def bare_encoder(video: Path, output: Path) -> Work:
    """Prepare an encoder with the program's settings that encodes a video's frames from memory."""
    with av.open(str(video)) as container:
        rate = container.streams.video[0].average_rate or Fraction(30)
        frames = list(islice(container.decode(video=0), ENCODER_FRAMES))

    def run() -> int:
        with av.open(str(output), "w") as container:
            stream = add_video(container, "libx264", rate, (frames[0].width, frames[0].height))
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return len(frames)

    return run


def run_pipeline(model: Path, video: Path, output: Path | None) -> dict[str, float]:
    """Run the pipeline over a file.

    Returns:
        Frames per second from first capture to last result, and processor time per frame in ms.
    """
    source = open_source(video)
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:
        pipeline = Pipeline([source], backend)
        sink = VideoSink(output, source.info, overwrite=True) if output else None
        start, cpu_start, frames = time.perf_counter(), time.process_time(), 0
        for result in pipeline:
            frames += 1
            if sink:
                sink.write(result)
        if sink:
            sink.close()
        seconds = time.perf_counter() - start
    return {"fps": frames / seconds, "cpu_ms": (time.process_time() - cpu_start) / frames * 1000}


def measure(model: Path, video: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure all parts in turn; return the medians of the rounds."""
    network = bare_network(model, video)
    network()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.mp4"
        run_pipeline(model, video, output)
        encoder = bare_encoder(output, Path(folder) / "bare.mp4")
        for _ in range(rounds):
            for name, value in _measure_once(model, video, output, network, encoder).items():
                rows.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    return {**medians, "shares": [round(share, 3) for share in rows["share_of_bound"]]}


def _measure_once(
    model: Path, video: Path, output: Path, network: Work, encoder: Work
) -> dict[str, float]:
    decoding = cpu_seconds_per_frame(lambda: decode(video, convert=False))
    conversion = cpu_seconds_per_frame(lambda: decode(video, convert=True)) - decoding
    without_output = run_pipeline(model, video, None)
    inference = cpu_seconds_per_frame(lambda: on_all_cores(network))
    inference_alone = cpu_seconds_per_frame(network)
    with_output = run_pipeline(model, video, output)
    encoding = cpu_seconds_per_frame(encoder)
    bound = cpu_count() / (decoding + conversion + inference)
    bound_with_output = cpu_count() / (decoding + conversion + inference + encoding)
    idle_bound = cpu_count() / (decoding + conversion + inference_alone)
    return {
        "decode_ms": decoding * 1000,
        "convert_ms": conversion * 1000,
        "network_ms": inference * 1000,
        "network_alone_ms": inference_alone * 1000,
        "encode_ms": encoding * 1000,
        "bound_fps": bound,
        "fps": without_output["fps"],
        "cpu_ms": without_output["cpu_ms"],
        "share_of_bound": without_output["fps"] / bound,
        "share_of_idle_bound": without_output["fps"] / idle_bound,
        "bound_fps_with_output": bound_with_output,
        "fps_with_output": with_output["fps"],
        "cpu_ms_with_output": with_output["cpu_ms"],
        "share_with_output": with_output["fps"] / bound_with_output,
    }


def write_demo_video(path: Path, frames: int = DEMO_FRAMES) -> Path:
    """Write a 720p video of the demo source."""
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
    parser.add_argument("--repeats", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or write_demo_video(Path(folder) / "street720.mp4")
        values = measure(args.model, video, args.repeats)
    conditions = {
        "model": read_spec(args.model).name,
        "video": args.video.name if args.video else "demo 720p",
    }
    path = write_result("pipeline", {**conditions, **values}, args.json)
    for name, value in values.items():
        print(f"{name:20} {value}")
    print(path)


if __name__ == "__main__":
    main()
