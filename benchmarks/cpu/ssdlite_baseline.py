"""torchvision's SSDLite320 in PyTorch against the same weights here, video file to detections.

There are no trained weights to take along, so a network is made that behaves like a trained one:
its normalisations know what flows through them, and the background's bias lets some dozens of
scores a frame through. Weights straight from the generator would score every class of every box
alike, which leaves either nothing to decode and suppress or all of it.

The machine must be idle: PyTorch's threads wait for each other at every layer, so that a core busy
with something else slows it a hundredfold and flatters this project.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from realtime_ssd_training.importers import import_model
from torch import Tensor, nn

from benchmarks.answers import agreement
from benchmarks.cpu.video_baselines import SAME, ours
from benchmarks.timing import in_turn, ratio
from realtime_ssd import Detections
from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.frames import Image

__all__ = ["measure", "torchvision_loop"]

SIDE, SCORE = 320, 0.3
CANDIDATES = 60  # scores of a frame above the threshold before NMS
SPREAD = 1.5  # standard deviation of the class logits
SAMPLES = 8


def frames(video: Path) -> Iterator[Image]:
    """Read a file as most scripts do."""
    capture = cv2.VideoCapture(str(video))
    while True:
        good, image = capture.read()
        if not good:
            break
        yield image
    capture.release()


def to_tensor(image: Image) -> Tensor:
    """Turn a BGR image into what torchvision's detectors take: RGB, 0 to 1, 3 × H × W."""
    rgb = np.ascontiguousarray(image[..., ::-1])
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255


@torch.no_grad()
def network(video: Path) -> nn.Module:
    """Make torchvision's network with weights that score like trained ones on a clip."""
    torch.manual_seed(0)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=91, score_thresh=SCORE
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            # Blurring kernels: sharp random ones magnify the rounding of pixels.
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics become those of the one batch
    seen = list(frames(video))
    picked = [to_tensor(image) for image in seen[:: max(1, len(seen) // SAMPLES)][:SAMPLES]]
    images = model.transform(picked)[0].tensors
    # More than the clip's frames, which are so alike that their differences would be magnified.
    others = [-images.flip(3), images.roll(SIDE // 2, 2), torch.rand_like(images) - 0.5]
    model.head.train()(list(model.backbone.train()(torch.cat([images, *others])).values()))
    model.eval()
    _choose_scores(model, model.head(list(model.backbone(images).values()))["cls_logits"])
    return model  # type: ignore[no-any-return]


def _choose_scores(model: nn.Module, logits: Tensor) -> None:
    """Spread the class logits, and lift the background until few enough scores pass."""
    factor = SPREAD / float(logits.std())
    powers = (logits * factor).double().exp()
    objects = powers[..., 1:]
    # A score passes while the background's power is below this.
    limits = (objects / SCORE - objects.sum(-1, keepdim=True)).clamp(min=1e-9)
    lifts = (limits / powers[..., :1]).log().flatten(1)
    lift = float(lifts.topk(CANDIDATES).values[:, -1].median())
    for head in model.head.classification_head.module_list:
        head[1].weight *= factor
        head[1].bias *= factor
        head[1].bias[::91] += lift


@torch.inference_mode()
def torchvision_loop(
    video: Path, model: nn.Module, *, resized: bool = False
) -> Iterator[Detections]:
    """Read, infer and decode one frame after the other.

    Args:
        video: File.
        model: torchvision's network.
        resized: Whether OpenCV resizes the frames first, in whole grey levels as this project does;
            torchvision resizes in fractions of them.
    """
    for image in frames(video):
        height, width = image.shape[:2]
        given = cv2.resize(image, (SIDE, SIDE)) if resized else image
        found = model([to_tensor(given)])[0]
        boxes, scores, labels = (found[name].numpy() for name in ("boxes", "scores", "labels"))
        if resized:
            boxes = boxes * np.array([width, height] * 2, np.float32) / SIDE
        yield Detections(boxes, scores, labels.astype(np.int32))


def measure(video: Path, place: Path, rounds: int) -> dict[str, Any]:
    """Bring the weights over, compare the answers, then time both in turn.

    Args:
        video: Clip to run over.
        place: Folder for checkpoint and model.
        rounds: Measurements of each.
    """
    model = network(video)
    torch.save(model.state_dict(), place / "ssdlite320.pth")
    ready = import_model(place / "ssdlite320.pth", place / "ssdlite320.onnx").path
    with open_backend(ready, "onnxruntime", BackendOptions(score_threshold=SCORE)) as backend:

        def fps(name: str) -> float:
            begun, count = time.perf_counter(), 0
            loop = torchvision_loop(video, model) if name == "torchvision" else ours(backend, video)
            for _ in loop:
                count += 1
            return count / (time.perf_counter() - begun)

        mine = list(ours(backend, video))
        share = agreement(mine, list(torchvision_loop(video, model, resized=True)))
        as_it_comes = agreement(mine, list(torchvision_loop(video, model)))
        values = in_turn(
            {name: lambda name=name: fps(name) for name in ("realtime-ssd", "torchvision")}, rounds
        )
    return {
        "video": video.name,
        "detections_a_frame": round(sum(map(len, mine)) / len(mine), 1),
        "agreement": round(share, 4),
        "agreement_with_its_own_resizing": round(as_it_comes, 4),
        "same_answers": share >= SAME,
        "fps": {name: [round(value, 2) for value in rows] for name, rows in values.items()},
        **ratio(values["realtime-ssd"], values["torchvision"]),
    }
