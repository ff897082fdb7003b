"""Annotated files: `cv2.VideoCapture` + `VideoWriter` against ours, for speed and for truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import cv2

from benchmarks.cpu.video_baselines import Network, blob, onnxruntime_network
from benchmarks.timing import in_turn, ratio
from realtime_ssd import open_source
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sinks.video import VideoSink

__all__ = ["facts", "measure"]


def with_opencv(video: Path, output: Path, spec: ModelSpec, network: Network) -> int:
    """Annotate as most scripts do; the number of frames."""
    post, count = PostProcessor(spec), 0
    capture = cv2.VideoCapture(str(video))
    size = tuple(int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(output), code, capture.get(cv2.CAP_PROP_FPS), size)
    while True:
        good, image = capture.read()
        if not good:
            break
        for found in to_frame_detections(post(*network(blob(image, spec))), spec, *size):
            x1, y1, x2, y2 = map(int, found.box)
            cv2.rectangle(image, (x1, y1), (x2, y2), (0, 255, 0), 2)
            text = f"{found.label} {found.score:.2f}"
            cv2.putText(image, text, (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1)
        writer.write(image)
        count += 1
    writer.release()
    capture.release()
    return count


def with_ours(video: Path, output: Path, backend: Backend) -> int:
    """Annotate with this project's loop and sink; the number of frames."""
    source, count = open_source(video), 0
    with VideoSink(output, source.info, overwrite=True) as sink:
        for result in Pipeline([source], backend):
            sink.write(result)
            count += 1
    return count


def facts(video: Path) -> dict[str, Any]:
    """Read what a file holds: frames, duration of the picture in seconds, audio packets, codec."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stamps = [frame.pts for frame in container.decode(video=0) if frame.pts is not None]
        base, codec = stream.time_base, stream.codec_context.name
    sound = 0
    with av.open(str(video)) as container:
        if container.streams.audio:
            sound = sum(packet.size > 0 for packet in container.demux(audio=0))
    span = float((max(stamps) - min(stamps)) * base) if stamps and base else 0.0
    return {
        "frames": len(stamps),
        "seconds_first_to_last": round(span, 4),
        "audio_packets": sound,
        "codec": codec,
        "bytes": video.stat().st_size,
    }


def measure(model: Path, video: Path, place: Path, rounds: int) -> dict[str, Any]:
    """Time both in turn, and read what they wrote."""
    spec, network = read_spec(model), onnxruntime_network(model, read_spec(model))
    outputs = {name: place / f"{video.stem}-{name}.mp4" for name in ("realtime-ssd", "opencv")}
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:

        def seconds(name: str) -> float:
            begun = time.perf_counter()
            if name == "opencv":
                count = with_opencv(video, outputs[name], spec, network)
            else:
                count = with_ours(video, outputs[name], backend)
            return count / (time.perf_counter() - begun)

        fps = in_turn(
            {"realtime-ssd": lambda: seconds("realtime-ssd"), "opencv": lambda: seconds("opencv")},
            rounds,
        )
    written = {name: facts(path) for name, path in outputs.items()}
    source = facts(video)
    kept = {
        name: {
            key: found[key] == source[key]
            for key in ("frames", "seconds_first_to_last", "audio_packets")
        }
        for name, found in written.items()
    }
    return {
        "fps": {name: [round(value, 2) for value in values] for name, values in fps.items()},
        **ratio(fps["realtime-ssd"], fps["opencv"]),
        "source": source,
        "written": written,
        "same_as_source": kept,
    }
