"""Loops over a video file as people write them, with the same model, thresholds and answers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.answers import agreement
from realtime_ssd import Detections, open_source
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.frames import Image
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.pipeline import Pipeline

__all__ = ["PEERS", "measure", "prolonged"]

Floats = NDArray[np.float32]
Network = Callable[[Floats], tuple[Floats, Floats]]
SAME = 0.98
LEAST_FRAMES = 200


def onnxruntime_network(model: Path, spec: ModelSpec) -> Network:
    """ONNX Runtime as it comes: all cores on one frame."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        scores, offsets = session.run(names, {spec.input.name: tensor})
        return scores[0], offsets[0]

    return run


def opencv_network(model: Path, spec: ModelSpec) -> Network:
    """OpenCV's DNN module as it comes."""
    network = cv2.dnn.readNetFromONNX(str(model))
    names = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        network.setInput(tensor, spec.input.name)
        scores, offsets = network.forward(names)
        return scores.reshape(-1, spec.num_classes), offsets.reshape(-1, 4)

    return run


def openvino_network(model: Path, spec: ModelSpec) -> Network:
    """OpenVINO tuned for latency, as its tutorials do it."""
    import openvino

    # Without the second word it computes in bfloat16 where it can, and the answers differ.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    scores_port = compiled.output(spec.scores_output)
    offsets_port = compiled.output(spec.offsets_output)

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        found = compiled({spec.input.name: tensor})
        return found[scores_port][0], found[offsets_port][0]

    return run


PEERS: dict[str, Callable[[Path, ModelSpec], Network]] = {
    "cv2.VideoCapture + OpenCV DNN": opencv_network,
    "cv2.VideoCapture + ONNX Runtime": onnxruntime_network,
    "cv2.VideoCapture + OpenVINO": openvino_network,
}


def blob(image: Image, spec: ModelSpec) -> Floats:
    """Pre-process as OpenCV's users do; the model's factors must be the same for all channels."""
    size = (spec.input.width, spec.input.height)
    tensor = cv2.dnn.blobFromImage(
        image, 1.0, size, spec.input.mean, swapRB=spec.input.channels == "RGB"
    )
    tensor *= np.float32(spec.input.scale[0])
    return tensor  # type: ignore[no-any-return]


def sequential(video: Path, spec: ModelSpec, network: Network) -> Iterator[Detections]:
    """Read, infer and decode one frame after the other."""
    post = PostProcessor(spec)
    capture = cv2.VideoCapture(str(video))
    while True:
        good, image = capture.read()
        if not good:
            break
        height, width = image.shape[:2]
        yield to_frame_detections(post(*network(blob(image, spec))), spec, width, height)
    capture.release()


def ours(backend: Backend, video: Path) -> Iterator[Detections]:
    """Run the loop of this project over the file."""
    for result in Pipeline([open_source(video)], backend):
        yield result.detections


def prolonged(video: Path, place: Path) -> tuple[Path, int]:
    """Put a short clip several times in a row into one file, packets as they are.

    A run of a third of a second would measure how fast a file is opened.

    Args:
        video: Clip whose first frame is a key frame.
        place: Folder for the file.

    Returns:
        The file, or the clip itself if it is long enough; and how often the clip is in it.
    """
    with av.open(str(video)) as container:
        times = -(-LEAST_FRAMES // max(1, container.streams.video[0].frames))
    if times == 1:
        return video, 1
    output = place / f"{video.stem}-{times}-times.mp4"
    with av.open(str(output), "w") as written, av.open(str(video)) as container:
        target = written.add_stream_from_template(container.streams.video[0])
        shift = 0
        for _ in range(times):
            container.seek(0)
            end = shift
            for packet in container.demux(video=0):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                end = max(end, packet.pts + (packet.duration or 1))
                packet.stream = target
                written.mux(packet)
            shift = end
    return output, times


def _timed(answers: Iterator[Detections]) -> float:
    begun, count = time.perf_counter(), 0
    for _ in answers:
        count += 1
    return count / (time.perf_counter() - begun)


def measure(model: Path, video: Path, repeats: int) -> dict[str, Any]:
    """Check the answers, then time all loops in turn; a short clip several times in a row.

    Returns:
        For ours and every peer: frames a second of each repeat, and the agreement of its answers;
        or "skipped" with the reason.
    """
    with (
        tempfile.TemporaryDirectory() as place,
        open_backend(model, "onnxruntime", BackendOptions()) as backend,
    ):
        clip, times = prolonged(video, Path(place))
        rows = _compare(backend, model, clip, repeats)
    rows["realtime-ssd"]["clip_in_a_row"] = times
    return rows


def _compare(backend: Backend, model: Path, video: Path, repeats: int) -> dict[str, Any]:
    spec = read_spec(model)
    reference = list(ours(backend, video))
    rows: dict[str, Any] = {"realtime-ssd": {"fps": []}}
    networks: dict[str, Network] = {}
    for name, make in PEERS.items():
        try:
            network = make(model, spec)
            share = agreement(reference, list(sequential(video, spec, network)))
        except Exception as error:
            rows[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"}
            continue
        rows[name] = {"agreement": round(share, 4), "same_answers": share >= SAME, "fps": []}
        networks[name] = network
    for _ in range(repeats):
        rows["realtime-ssd"]["fps"].append(round(_timed(ours(backend, video)), 2))
        for name, network in networks.items():
            rows[name]["fps"].append(round(_timed(sequential(video, spec, network)), 2))
    return rows
