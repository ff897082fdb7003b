"""Loops over a video file as most scripts write them, with the same model and thresholds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import SAME_DETECTIONS, agreement
from benchmarks.timing import frames_per_second
from realtime_ssd import Detections, open_source
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.frames import Image
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.pipeline import Pipeline

__all__ = ["BASELINES", "measure", "our_loop", "repeat_clip", "skipped"]

Floats = NDArray[np.float32]
Network = Callable[[Floats], tuple[Floats, Floats]]
MIN_FRAMES = 200


def onnxruntime_network(model: Path, spec: ModelSpec) -> Network:
    """Open ONNX Runtime with its default settings: all cores work on one frame."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    outputs = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        scores, offsets = session.run(outputs, {spec.input.name: tensor})
        return scores[0], offsets[0]

    return run


def opencv_network(model: Path, spec: ModelSpec) -> Network:
    """Open OpenCV's DNN module with its default settings."""
    network = cv2.dnn.readNetFromONNX(str(model))
    outputs = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        network.setInput(tensor, spec.input.name)
        scores, offsets = network.forward(outputs)
        return scores.reshape(-1, spec.num_classes), offsets.reshape(-1, 4)

    return run


def openvino_network(model: Path, spec: ModelSpec) -> Network:
    """Open OpenVINO with the latency settings of its tutorials."""
    import openvino

    # By default OpenVINO computes in bfloat16 where it can, which changes the detections.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    scores_port = compiled.output(spec.scores_output)
    offsets_port = compiled.output(spec.offsets_output)

    def run(tensor: Floats) -> tuple[Floats, Floats]:
        outputs = compiled({spec.input.name: tensor})
        return outputs[scores_port][0], outputs[offsets_port][0]

    return run


BASELINES: dict[str, Callable[[Path, ModelSpec], Network]] = {
    "cv2.VideoCapture + OpenCV DNN": opencv_network,
    "cv2.VideoCapture + ONNX Runtime": onnxruntime_network,
    "cv2.VideoCapture + OpenVINO": openvino_network,
}


def blob(image: Image, spec: ModelSpec) -> Floats:
    """Pre-process with OpenCV; the model must scale all channels by the same factor.

    Args:
        image: H × W × 3, uint8, BGR.
        spec: Specification of the model.

    Returns:
        1 × 3 × height × width of the model's input.
    """
    size = (spec.input.width, spec.input.height)
    tensor: Floats = cv2.dnn.blobFromImage(
        image, 1.0, size, spec.input.mean, swapRB=spec.input.channels == "RGB"
    )
    tensor *= np.float32(spec.input.scale[0])
    return tensor


def sequential_loop(video: Path, spec: ModelSpec, network: Network) -> Iterator[Detections]:
    """Read, infer and decode one frame after the other."""
    post = PostProcessor(spec)
    capture = cv2.VideoCapture(str(video))
    while True:
        ok, image = capture.read()
        if not ok:
            break
        height, width = image.shape[:2]
        yield to_frame_detections(post(*network(blob(image, spec))), spec, width, height)
    capture.release()


def our_loop(backend: Backend, video: Path) -> Iterator[Detections]:
    """Run this project's pipeline over the file."""
    for result in Pipeline([open_source(video)], backend):
        yield result.detections


def repeat_clip(video: Path, folder: Path) -> tuple[Path, int]:
    """Write a short clip several times in a row into one file, without re-encoding.

    A run of a third of a second would measure how fast a file is opened.

    Args:
        video: Clip whose first frame is a key frame.
        folder: Folder for the file.

    Returns:
        The file, or the clip itself if it is long enough; and the number of repetitions.
    """
    with av.open(str(video)) as container:
        repeats = -(-MIN_FRAMES // max(1, container.streams.video[0].frames))
    if repeats == 1:
        return video, 1
    output = folder / f"{video.stem}-{repeats}-times.mp4"
    with av.open(str(output), "w") as muxer, av.open(str(video)) as container:
        target = muxer.add_stream_from_template(container.streams.video[0])
        shift = 0
        for _ in range(repeats):
            container.seek(0)
            end = shift
            for packet in container.demux(video=0):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                end = max(end, packet.pts + (packet.duration or 1))
                packet.stream = target
                muxer.mux(packet)
            shift = end
    return output, repeats


def measure(model: Path, video: Path, rounds: int) -> dict[str, Any]:
    """Compare the detections, then time all loops in turn; a short clip is repeated.

    Returns:
        For this project and every baseline, frames per second of each round and the agreement of
        the detections; or "skipped" with the reason.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        open_backend(model, "onnxruntime", BackendOptions()) as backend,
    ):
        clip, repeats = repeat_clip(video, Path(folder))
        rows = _compare(backend, model, clip, rounds)
    rows["realtime-ssd"]["clip_in_a_row"] = repeats
    return rows


def skipped(error: Exception) -> dict[str, str]:
    """Return the row of a baseline that cannot run."""
    return {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"}


def _compare(backend: Backend, model: Path, video: Path, rounds: int) -> dict[str, Any]:
    spec = read_spec(model)
    expected = list(our_loop(backend, video))
    rows: dict[str, Any] = {"realtime-ssd": {"fps": []}}
    networks: dict[str, Network] = {}
    for name, open_network in BASELINES.items():
        try:
            network = open_network(model, spec)
            share = agreement(expected, list(sequential_loop(video, spec, network)))
        except Exception as error:
            rows[name] = skipped(error)
            continue
        same = share >= SAME_DETECTIONS
        rows[name] = {"agreement": round(share, 4), "same_answers": same, "fps": []}
        networks[name] = network
    for _ in range(rounds):
        ours = frames_per_second(our_loop(backend, video))
        rows["realtime-ssd"]["fps"].append(round(ours, 2))
        for name, network in networks.items():
            rate = frames_per_second(sequential_loop(video, spec, network))
            rows[name]["fps"].append(round(rate, 2))
    return rows
