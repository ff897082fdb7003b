"""Pretrained backbone weights: located by path or URL, verified, and adapted to a network.

Published weights expect various channel orders and input scales. The first layer is rewritten so
that the network computes the same features from its own input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from realtime_ssd.core.downloads import download, download_member
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import cache_folder
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.checkpoint import read_checkpoint
from realtime_ssd_training.models.initial_weights import adapt_first_layer
from realtime_ssd_training.weights.caffe_weights import read_weights
from realtime_ssd_training.weights.pytorch_file import read_state_dict

__all__ = ["PUBLISHED", "find_backbone", "is_backbone_present", "load_backbone"]

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
# Layer index in torchvision's and amdegroot's VGG16 → layer name in `SSD.backbone`.
_VGG = {
    **{index: f"low.{index}" for index in range(23)},
    **{24: "high.1", 26: "high.3", 28: "high.5", 31: "high.8", 33: "high.10"},
}
_CAFFE = {
    f"conv{stage}_{number}": _VGG[index]
    for stage, indices in enumerate(
        ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), start=1
    )
    for number, index in enumerate(indices, start=1)
} | {"fc6": "high.8", "fc7": "high.10"}


@dataclass(frozen=True, slots=True, eq=False)
class _Backbone:
    """Weights of a backbone.

    Attributes:
        tensors: The weights by name in `SSD.backbone`.
        input: Input that they were trained with; None if it is that of the network.
        first_layer: Name of the first convolution.
    """

    tensors: dict[str, Tensor]
    input: InputSpec | None = None
    first_layer: str = ""


def load_backbone(
    model: SSD, source: str, images: Callable[[], Sequence[Image]] = tuple
) -> tuple[int, int]:
    """Load pretrained weights into the backbone of a network.

    Args:
        model: Network to change; layers that the file does not contain keep their weights.
        source: A file, "URL#SHA256", or a name in `PUBLISHED`; downloads are cached.
        images: Returns pictures for the statistics of normalizations; called for TFLite files only.

    Returns:
        Number of tensors (convolutions of a TFLite file) loaded, and number of those of the
        backbone.

    Raises:
        UsageError: If the file does not exist, or the URL has no checksum.
        ModelError: If the file is damaged or does not fit the network.
    """
    path = find_backbone(source, model.architecture)
    if path.suffix.lower() == ".tflite":
        from realtime_ssd_training.models.tflite_backbone import load_tflite_backbone

        return load_tflite_backbone(model, path, images())
    backbone = _read(path, model)
    current = model.backbone.state_dict()
    wrong = [
        name
        for name, value in backbone.tensors.items()
        if name not in current or current[name].shape != value.shape
    ]
    if wrong or not backbone.tensors:
        reason = f"its '{wrong[0]}' has another shape" if wrong else "it has none of its layers"
        raise ModelError(
            f"'{path}' does not fit the backbone of '{model.architecture}': {reason}; use weights "
            "of the same network with the same width, or `init` for a whole detector"
        )
    tensors = backbone.tensors
    if backbone.input is not None:
        tensors = adapt_first_layer(tensors, backbone.first_layer, backbone.input, model.spec.input)
    model.backbone.load_state_dict(tensors, strict=False)
    return len(backbone.tensors), len(current)


def find_backbone(source: str, architecture: str = "") -> Path:
    """Return a file with backbone weights, downloading it to the cache if necessary.

    Args:
        source: A file, "URL#SHA256" with at least the first 8 digits of the checksum, or a name in
            `PUBLISHED`.
        architecture: Network, for a name.

    Raises:
        UsageError: If the file does not exist, the URL has no checksum, or there are no published
            weights of this name for the network.
        RealtimeSSDError: If the download fails.
        ModelError: If the downloaded file has another checksum.
    """
    if source in PUBLISHED and not Path(source).exists():
        return _published(source, architecture).fetch()
    if not re.match(r"https?://", source):
        path = Path(source).expanduser()
        if not path.is_file():
            raise UsageError(
                f"`backbone` file '{source}' does not exist; use a file, URL#SHA256, or "
                f"{' or '.join(PUBLISHED)}"
            )
        return path
    url, _, digest = source.partition("#")
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", digest):
        raise UsageError(
            f"'{url}' needs a checksum; use URL#SHA256 with at least 8 digits of the SHA-256"
        )
    path = cache_folder("backbones") / url.rsplit("/", 1)[1]
    download(url, digest, path, hint="set `backbone` to its path")
    return path


def is_backbone_present(source: str, architecture: str) -> bool:
    """Return whether a backbone can be loaded without a download."""
    if source in PUBLISHED:
        return _published(source, architecture).path().is_file()
    return Path(source).expanduser().is_file()


@dataclass(frozen=True, slots=True)
class _Published:
    """Weights of a backbone that their authors publish.

    Attributes:
        url: Address of the file, or of a zip archive that contains it.
        file: Name of the file.
        sha256: SHA-256 of the file.
    """

    url: str
    file: str
    sha256: str

    def path(self) -> Path:
        """Return where the file is cached."""
        return cache_folder("backbones") / self.file

    def fetch(self) -> Path:
        """Return the cached file, downloaded if necessary."""
        path, hint = self.path(), "set `backbone` to its path"
        if self.url.endswith(".zip"):
            download_member(self.url, self.file, self.sha256, path, hint=hint)
        else:
            download(self.url, self.sha256, path, hint=hint)
        return path


_CORAL = "https://raw.githubusercontent.com/google-coral/test_data/master/"
_V1 = ("ssd300_mobilenet_v1", "ssd300_mobilenet_v1_3x3", "ssd_mobilenet_v1_fpn")
_IMAGENET_V1 = _Published(
    f"{_CORAL}mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
    "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
    "f409ef4f73fcbb9667841965623c5c8524aac33d41b9bf5f3667161fb4a76319",
)
_IMAGENET_V2 = _Published(
    f"{_CORAL}tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "5d3137241276e79c86d14a74fe43581398ae0e815191d3dba45495b810840e8c",
)
_COCO_V1 = _Published(
    "https://storage.googleapis.com/download.tensorflow.org/models/tflite/"
    "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.zip",
    "detect.tflite",
    "e4b118e5e4531945de2e659742c7c590f7536f8d0ed26d135abcfe83b4779d13",
)
PUBLISHED: dict[str, dict[str, _Published]] = {
    "imagenet": {**dict.fromkeys(_V1, _IMAGENET_V1), "ssd300_mobilenet_v2": _IMAGENET_V2},
    "coco": dict.fromkeys(_V1, _COCO_V1),
}
"""Weights of backbones by name and network: Google's, trained on ImageNet or COCO."""


def _published(name: str, architecture: str) -> _Published:
    weights = PUBLISHED[name]
    if architecture not in weights:
        raise UsageError(
            f"there is no `backbone` '{name}' for '{architecture}', only for {', '.join(weights)}"
        )
    return weights[architecture]


def _read(path: Path, model: SSD) -> _Backbone:
    """Read a file of any supported format; rename its tensors to those of `SSD.backbone`."""
    if path.suffix == ".safetensors":
        weights = read_checkpoint(path).weights
        prefix = "backbone."
        return _Backbone(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
    reader = _READERS.get(model.architecture)
    if reader is None:
        raise UsageError(
            f"'{model.architecture}' cannot use pretrained weights of other projects; use a "
            ".safetensors checkpoint of this program"
        )
    if path.suffix == ".caffemodel":
        blobs = {name: arrays for name, arrays in read_weights(path).items() if name in _CAFFE}
        tensors = {
            f"{_CAFFE[name]}.{kind}": torch.from_numpy(array)
            for name, arrays in blobs.items()
            for kind, array in zip(("weight", "bias"), arrays, strict=False)
        }
        return _Backbone(tensors, _CAFFE_BGR, "low.0")
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in read_state_dict(path).items()
    }
    return reader(weights, model)


def _vgg(weights: Weights, model: SSD) -> _Backbone:
    """Rename weights of VGG16 from torchvision ("features.0.weight") or amdegroot ("0.weight")."""
    tensors: dict[str, Tensor] = {}
    for key, value in weights.items():
        parts = re.fullmatch(r"(?:features\.|vgg\.)?(\d+)\.(weight|bias)", key)
        if parts and int(parts[1]) in _VGG:
            tensors[f"{_VGG[int(parts[1])]}.{parts[2]}"] = value
    classifier = weights.get("classifier.0.weight")
    if classifier is None or not bool(torch.isfinite(classifier).all()):
        # Weights published for SSD, also by torchvision, have Caffe's input and no classifier.
        return _Backbone(tensors, _CAFFE_RGB, "low.0")
    return _Backbone(tensors | _subsampled_classifier(weights), _IMAGENET, "low.0")


def _subsampled_classifier(weights: Weights) -> dict[str, Tensor]:
    """Convert fc6 and fc7 to convolutions with every fourth channel and every third position.

    Source: Liu et al., "SSD" (2016), section 3, after Chen et al., "DeepLab" (2015), section 3.1.
    """
    try:
        fc6 = weights["classifier.0.weight"].view(4096, 512, 7, 7)
        fc7 = weights["classifier.3.weight"].view(4096, 4096, 1, 1)
        return {
            "high.8.weight": fc6[::4, :, ::3, ::3].clone(),
            "high.8.bias": weights["classifier.0.bias"][::4].clone(),
            "high.10.weight": fc7[::4, ::4].clone(),
            "high.10.bias": weights["classifier.3.bias"][::4].clone(),
        }
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"the classifier of the file is not VGG16's ({error})") from error


def _mobilenet(weights: Weights, model: SSD) -> _Backbone:
    """Rename weights of torchvision's MobileNetV2 or V3-Large, which have the same layer order."""
    features = [value for name, value in weights.items() if name.startswith("features.")]
    names = [name for name in model.backbone.state_dict() if not name.startswith("extras.")]
    if len(features) != len(names):
        return _Backbone({})
    return _Backbone(dict(zip(names, features, strict=True)), _IMAGENET, "stem.0")


_READERS: dict[str, Callable[[Weights, SSD], _Backbone]] = {
    "ssd300_vgg16": _vgg,
    "ssd512_vgg16": _vgg,
    "ssd300_mobilenet_v2": _mobilenet,
    "ssdlite320_mobilenet_v3_large": _mobilenet,
}
