"""Pretrained backbones: found by path or address, checked, and fitted to a network.

Every file says in which colours and on which scale it was trained. The first layer is rewritten
so that the network sees on its own input what the file's network saw on its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from realtime_ssd.core.downloads import download
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import cache_folder
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.engine.checkpoint import read_checkpoint, read_pickled
from realtime_ssd_training.importers.caffe_weights import read_weights
from realtime_ssd_training.models import SSD

__all__ = ["Backbone", "find_backbone", "load_backbone"]

Weights = Mapping[str, Tensor]

_IMAGENET = InputSpec(
    224,
    224,
    "RGB",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    scale=(1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255)),
)
_CAFFE_RGB = InputSpec(300, 300, "RGB", mean=(123.0, 117.0, 104.0))
_CAFFE_BGR = InputSpec(300, 300, "BGR", mean=(104.0, 117.0, 123.0))
# Number in torchvision's and amdegroot's lists of VGG's layers → name here.
_VGG = {
    **{number: f"low.{number}" for number in range(23)},
    **{24: "high.1", 26: "high.3", 28: "high.5", 31: "high.8", 33: "high.10"},
}
_CAFFE = {
    f"conv{stage}_{number}": _VGG[place]
    for stage, places in enumerate(
        ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), start=1
    )
    for number, place in enumerate(places, start=1)
} | {"fc6": "high.8", "fc7": "high.10"}


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """Weights of a backbone by the names they have in `SSD.backbone`.

    Attributes:
        tensors: The weights.
        fed: What they were trained on; None if just what the network takes.
        first: Name of the first convolution.
    """

    tensors: dict[str, Tensor]
    fed: InputSpec | None = None
    first: str = ""


def load_backbone(model: SSD, text: str) -> tuple[int, int]:
    """Start the backbone of a network from pretrained weights.

    Args:
        model: Network to start; layers that the file does not have keep their new weights.
        text: A file, or "URL#SHA256"; what was fetched is kept for the next time.

    Returns:
        Number of tensors that start from the file, and number of all tensors of the backbone.

    Raises:
        UsageError: If there is no such file, or the address has no checksum.
        ModelError: If what is in it is damaged, or does not fit.
    """
    path = find_backbone(text)
    found = _read(path, model)
    own = model.backbone.state_dict()
    wrong = [k for k, v in found.tensors.items() if k not in own or own[k].shape != v.shape]
    if wrong or not found.tensors:
        what = f"its '{wrong[0]}' has another shape" if wrong else "it has none of its layers"
        raise ModelError(
            f"'{path}' does not fit the backbone of '{model.architecture}': {what}; give weights "
            "of the same network, with the same width"
        )
    if found.fed is not None:
        _adapt(found, model.spec.input)
    model.backbone.load_state_dict(found.tensors, strict=False)
    return len(found.tensors), len(own)


def find_backbone(text: str) -> Path:
    """Find the file that a recipe names, and fetch it if need be.

    Args:
        text: A file, or "URL#SHA256" with at least the first 8 digits of the checksum.

    Raises:
        UsageError: If there is no such file, or the address has no checksum.
        RealtimeSSDError: If it cannot be downloaded.
        ModelError: If what came has another checksum.
    """
    if not re.match(r"https?://", text):
        path = Path(text).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no file '{text}' with weights of a backbone")
        return path
    url, _, digest = text.partition("#")
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", digest):
        raise UsageError(f"'{url}' needs its checksum; write URL#SHA256, at least 8 digits of it")
    path = cache_folder("backbones") / url.rsplit("/", 1)[1]
    download(url, digest, path, hint="set `backbone` to its path")
    return path


def _read(path: Path, model: SSD) -> Backbone:
    """Read a file of any known kind, its tensors by their names in the network's backbone."""
    if path.suffix == ".safetensors":
        named = read_checkpoint(path).weights
        inside = {k: v for k, v in named.items() if k.startswith("backbone.")}
        return Backbone({k.removeprefix("backbone."): v for k, v in inside.items()})
    reader = _READERS.get(model.architecture)
    if reader is None:
        raise UsageError(
            f"no pretrained weights of other projects are known for '{model.architecture}'; give a "
            ".safetensors checkpoint of this program"
        )
    if path.suffix == ".caffemodel":
        blobs = {name: read for name, read in read_weights(path).items() if name in _CAFFE}
        kinds = ("weight", "bias")
        tensors = {
            f"{_CAFFE[name]}.{kind}": torch.from_numpy(array)
            for name, arrays in blobs.items()
            for kind, array in zip(kinds, arrays, strict=False)
        }
        return Backbone(tensors, _CAFFE_BGR, "low.0")
    return reader(_load(path), model)


def _load(path: Path) -> Weights:
    problem = (
        f"'{path}' is no PyTorch file of plain weights: it is damaged, or holds objects that "
        "would run code when loaded; fetch it again, or save its state_dict()"
    )
    content = read_pickled(path, problem)
    if not isinstance(content, Mapping):
        raise ModelError(problem)
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def _vgg(weights: Weights, model: SSD) -> Backbone:
    """Read VGG16 of torchvision ("features.0.weight") or of amdegroot ("0.weight")."""
    tensors: dict[str, Tensor] = {}
    for key, value in weights.items():
        part = re.fullmatch(r"(?:features\.|vgg\.)?(\d+)\.(weight|bias)", key)
        if part and int(part[1]) in _VGG:
            tensors[f"{_VGG[int(part[1])]}.{part[2]}"] = value
    dense = weights.get("classifier.0.weight")
    if dense is None or not bool(torch.isfinite(dense).all()):
        # The weights of the SSD projects, torchvision's among them: no classifier, Caffe's input.
        return Backbone(tensors, _CAFFE_RGB, "low.0")
    return Backbone(tensors | _reduced(weights), _IMAGENET, "low.0")


def _reduced(weights: Weights) -> dict[str, Tensor]:
    """Turn fc6 and fc7 into convolutions of every fourth channel and every third position.

    Source: Liu et al., "SSD" (2016), section 3, after Chen et al., "DeepLab" (2015), section 3.1.
    """
    try:
        sixth = weights["classifier.0.weight"].view(4096, 512, 7, 7)
        seventh = weights["classifier.3.weight"].view(4096, 4096, 1, 1)
        return {
            "high.8.weight": sixth[::4, :, ::3, ::3].clone(),
            "high.8.bias": weights["classifier.0.bias"][::4].clone(),
            "high.10.weight": seventh[::4, ::4].clone(),
            "high.10.bias": weights["classifier.3.bias"][::4].clone(),
        }
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"the file's classifier is not that of VGG16 ({error})") from error


def _mobilenet(weights: Weights, model: SSD) -> Backbone:
    """Read MobileNetV2 or V3-Large of torchvision, whose layers come in the same order as here."""
    theirs = {key: value for key, value in weights.items() if key.startswith("features.")}
    ours = [key for key in model.backbone.state_dict() if not key.startswith("extras.")]
    if len(theirs) != len(ours):
        return Backbone({})
    return Backbone(dict(zip(ours, theirs.values(), strict=True)), _IMAGENET, "stem.0")


def _adapt(found: Backbone, own: InputSpec) -> None:
    """Rewrite the first layer for another input.

    With x = (pixel - mean) * scale on both sides, w * x of the file is w' * x of the network plus
    a constant, but for the zeros around the image, which stand for either mean.
    """
    fed, name = found.fed, f"{found.first}.weight"
    if fed is None:
        return
    weight = found.tensors[name]
    mean, scale = torch.tensor(fed.mean), torch.tensor(fed.scale)
    if fed.channels != own.channels:
        weight, mean, scale = weight.flip(1), mean.flip(0), scale.flip(0)
    moved = scale * (torch.tensor(own.mean) - mean)
    shift = (weight * moved.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    found.tensors[name] = weight * (scale / torch.tensor(own.scale)).view(1, 3, 1, 1)
    if f"{found.first}.bias" in found.tensors:
        found.tensors[f"{found.first}.bias"] = found.tensors[f"{found.first}.bias"] + shift
    else:
        after = found.first.replace(".0", ".1") + ".running_mean"
        found.tensors[after] = found.tensors[after] - shift


_READERS: dict[str, Callable[[Weights, SSD], Backbone]] = {
    "ssd300_vgg16": _vgg,
    "ssd512_vgg16": _vgg,
    "ssd300_mobilenet_v2": _mobilenet,
    "ssdlite320_mobilenet_v3_large": _mobilenet,
}
