"""Annotated video files: `cv2.VideoCapture` + `VideoWriter` against this project."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2

from benchmarks.cpu.video_baselines import Network, blob, onnxruntime_network
from benchmarks.timing import median_ratio, time_in_turn
from realtime_ssd import open_source
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.sinks.video import VideoSink

__all__ = ["measure", "video_metadata"]

GREEN = (0, 255, 0)
PRESERVED = ("frames", "seconds_first_to_last", "audio_packets")
"""Properties of the source that the written file should have too."""


def annotate_with_opencv(video: Path, output: Path, spec: ModelSpec, network: Network) -> int:
    """Annotate as most scripts do; return the number of frames."""
    post, count = PostProcessor(spec), 0
    capture = cv2.VideoCapture(str(video))
    size = (
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(output), code, capture.get(cv2.CAP_PROP_FPS), size)
    while True:
        ok, image = capture.read()
        if not ok:
            break
        heads = network(blob(image, spec))
        for detection in to_frame_detections(post(*heads), spec, *size):
            x1, y1, x2, y2 = map(int, detection.box)
            cv2.rectangle(image, (x1, y1), (x2, y2), GREEN, 2)
            text = f"{detection.label} {detection.score:.2f}"
            cv2.putText(image, text, (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, GREEN, 1)
        writer.write(image)
        count += 1
    writer.release()
    capture.release()
    return count


def annotate_with_ours(video: Path, output: Path, backend: Backend) -> int:
    """Annotate with this project's pipeline and sink; return the number of frames."""
    source, count = open_source(video), 0
    with VideoSink(output, source.info, overwrite=True) as sink:
        for result in Pipeline([source], backend):
            sink.write(result)
            count += 1
    return count


def video_metadata(video: Path) -> dict[str, Any]:
    """Read frame count, duration in seconds, audio packets, codec and size of a video file."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stamps = [frame.pts for frame in container.decode(video=0) if frame.pts is not None]
        time_base, codec = stream.time_base, stream.codec_context.name
    audio_packets = 0
    with av.open(str(video)) as container:
        if container.streams.audio:
            audio_packets = sum(packet.size > 0 for packet in container.demux(audio=0))
    duration = float((max(stamps) - min(stamps)) * time_base) if stamps and time_base else 0.0
    return {
        "frames": len(stamps),
        "seconds_first_to_last": round(duration, 4),
        "audio_packets": audio_packets,
        "codec": codec,
        "bytes": video.stat().st_size,
    }


def measure(model: Path, video: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Time both in turn, and compare the files they wrote with the source.

    Args:
        model: ONNX file.
        video: Clip to annotate.
        folder: Folder for the written files.
        rounds: Measurements of each program.
    """
    spec = read_spec(model)
    network = onnxruntime_network(model, spec)
    outputs = {name: folder / f"{video.stem}-{name}.mp4" for name in ("realtime-ssd", "opencv")}
    with open_backend(model, "onnxruntime", BackendOptions()) as backend:

        def fps(name: str) -> float:
            start = time.perf_counter()
            if name == "opencv":
                count = annotate_with_opencv(video, outputs[name], spec, network)
            else:
                count = annotate_with_ours(video, outputs[name], backend)
            return count / (time.perf_counter() - start)

        rates = time_in_turn({name: partial(fps, name) for name in outputs}, rounds)
    source = video_metadata(video)
    written = {name: video_metadata(path) for name, path in outputs.items()}
    return {
        "fps": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        **median_ratio(rates["realtime-ssd"], rates["opencv"]),
        "source": source,
        "written": written,
        "same_as_source": {
            name: {key: metadata[key] == source[key] for key in PRESERVED}
            for name, metadata in written.items()
        },
    }
