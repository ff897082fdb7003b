"""torchvision's SSDLite320 in PyTorch against the same weights here, video file to detections.

No trained weights are available offline, so a network is initialized to behave like a trained one:
its normalization statistics fit its activations, and the bias of the background class leaves a few
dozen candidates per frame. Plain random weights would score all classes of all boxes alike, which
leaves either nothing or everything to decode and suppress.

The machine must be idle: PyTorch's threads synchronize at every layer, so that one core busy with
another program slows it down a hundredfold and flatters this project.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from realtime_ssd_training.importers import import_model
from torch import Tensor, nn

from benchmarks.agreement import SAME_DETECTIONS, agreement
from benchmarks.cpu.video_baselines import our_loop
from benchmarks.timing import frames_per_second, median_ratio, time_in_turn
from realtime_ssd import Detections
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Image

__all__ = ["measure", "torchvision_loop"]

INPUT_SIZE, SCORE_THRESHOLD = 320, 0.3
NUM_CLASSES = 91
CANDIDATES = 60  # scores of a frame above the threshold before NMS
LOGIT_DEVIATION = 1.5  # standard deviation of the class logits
SAMPLES = 8


def read_frames(video: Path) -> Iterator[Image]:
    """Read a file as most scripts do."""
    capture = cv2.VideoCapture(str(video))
    while True:
        ok, image = capture.read()
        if not ok:
            break
        yield image
    capture.release()


def to_tensor(image: Image) -> Tensor:
    """Convert H × W × 3 BGR to torchvision's input: 3 × H × W RGB from 0 to 1."""
    rgb = np.ascontiguousarray(image[..., ::-1])
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255


@torch.no_grad()
def make_network(video: Path) -> Any:
    """Return torchvision's network with weights that behave like trained ones on a clip."""
    torch.manual_seed(0)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        score_thresh=SCORE_THRESHOLD,
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            # Smoothing kernels: sharp random ones amplify the rounding of pixels.
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # take the statistics of the one batch
    clip = list(read_frames(video))
    samples = [to_tensor(image) for image in clip[:: max(1, len(clip) // SAMPLES)][:SAMPLES]]
    images = model.transform(samples)[0].tensors
    # The clip's frames are so similar that statistics of them alone would amplify differences.
    others = [-images.flip(3), images.roll(INPUT_SIZE // 2, 2), torch.rand_like(images) - 0.5]
    model.head.train()(list(model.backbone.train()(torch.cat([images, *others])).values()))
    model.eval()
    _adjust_scores(model, model.head(list(model.backbone(images).values()))["cls_logits"])
    return model


def _adjust_scores(model: Any, logits: Tensor) -> None:
    """Spread the class logits, and raise the background until few enough scores pass."""
    factor = LOGIT_DEVIATION / float(logits.std())
    exponentials = (logits * factor).double().exp()
    objects = exponentials[..., 1:]
    # A score passes while the background's exponential is below this limit.
    limits = (objects / SCORE_THRESHOLD - objects.sum(-1, keepdim=True)).clamp(min=1e-9)
    margins = (limits / exponentials[..., :1]).log().flatten(1)
    bias = float(margins.topk(CANDIDATES).values[:, -1].median())
    for head in model.head.classification_head.module_list:
        head[1].weight *= factor
        head[1].bias *= factor
        head[1].bias[::NUM_CLASSES] += bias


@torch.inference_mode()
def torchvision_loop(video: Path, model: Any, *, resize: bool = False) -> Iterator[Detections]:
    """Read, infer and decode one frame after the other.

    Args:
        video: Video file.
        model: torchvision's network.
        resize: Whether OpenCV resizes the frames first, to 8 bits per channel as in this project;
            torchvision resizes in floating point.
    """
    for image in read_frames(video):
        height, width = image.shape[:2]
        pixels = cv2.resize(image, (INPUT_SIZE, INPUT_SIZE)) if resize else image
        output = model([to_tensor(pixels)])[0]
        boxes, scores, labels = (output[name].numpy() for name in ("boxes", "scores", "labels"))
        if resize:
            boxes = boxes * np.array([width, height] * 2, np.float32) / INPUT_SIZE
        yield Detections(boxes, scores, labels.astype(np.int32))


def measure(video: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Import the weights, compare the detections, then time both in turn.

    Args:
        video: Clip to run over.
        folder: Folder for checkpoint and model.
        rounds: Measurements of each program.
    """
    network = make_network(video)
    torch.save(network.state_dict(), folder / "ssdlite320.pth")
    model = import_model(folder / "ssdlite320.pth", folder / "ssdlite320.onnx").path
    options = BackendOptions(score_threshold=SCORE_THRESHOLD)
    with open_backend(model, "onnxruntime", options) as backend:

        def fps(name: str) -> float:
            if name == "torchvision":
                return frames_per_second(torchvision_loop(video, network))
            return frames_per_second(our_loop(backend, video))

        expected = list(our_loop(backend, video))
        share = agreement(expected, list(torchvision_loop(video, network, resize=True)))
        share_own_resize = agreement(expected, list(torchvision_loop(video, network)))
        contenders = ("realtime-ssd", "torchvision")
        rates = time_in_turn({name: partial(fps, name) for name in contenders}, rounds)
    return {
        "video": video.name,
        "detections_a_frame": round(sum(map(len, expected)) / len(expected), 1),
        "agreement": round(share, 4),
        "agreement_with_its_own_resizing": round(share_own_resize, 4),
        "same_answers": share >= SAME_DETECTIONS,
        "fps": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        **median_ratio(rates["realtime-ssd"], rates["torchvision"]),
    }
