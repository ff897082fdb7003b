"""SSDs on MobileNets: torchvision's SSDLite on V3, qfgaohao's mb1-ssd and mb2-ssd-lite.

Pre-processing, default boxes and thresholds are those of the networks in
`realtime_ssd_training.models`, which follow these projects.
"""

from __future__ import annotations

from collections.abc import Mapping

from realtime_ssd_training.importers.class_names import numbered_labels
from realtime_ssd_training.importers.pytorch_family import Family, Weights, prefix_renamer
from realtime_ssd_training.models import SSD, create

__all__ = ["FAMILIES"]

MAPS = 6
FULL_TAIL_CHANNELS = 960  # of the last layer; half as many in torchvision's reduced tail


def _head_names(scores: str, offsets: str, parts: Mapping[str, str]) -> dict[str, str]:
    """Map the names of all heads.

    Args:
        scores: Prefix of the score heads, before their number.
        offsets: Prefix of the offset heads, before their number.
        parts: New by old name of the parts of a head.
    """
    return {
        f"{old_prefix}{k}{old_part}": f"{new_prefix}.{k}{new_part}"
        for old_prefix, new_prefix in ((scores, "score_heads"), (offsets, "offset_heads"))
        for k in range(MAPS)
        for old_part, new_part in parts.items()
    }


def _torchvision_block(old: str, new: str, *, expands: bool = True) -> dict[str, str]:
    """Map an inverted residual: optional expansion, depthwise, squeeze-excitation, projection."""
    first = {f"{old}.0": f"{new}.expand"} if expands else {f"{old}.0": f"{new}.rest.0"}
    table = {**first, **{f"{old}.{k}": f"{new}.rest.{k - expands}" for k in (1, 2, 3)}}
    squeeze_excitation = {}
    for k in (1, 2):
        squeeze_excitation[f"{old}.{k}.fc1"] = f"{new}.rest.{k - expands}.squeeze"
        squeeze_excitation[f"{old}.{k}.fc2"] = f"{new}.rest.{k - expands}.excite"
    return {**table, **squeeze_excitation}


def _torchvision() -> dict[str, str]:
    """Map the backbone, which is split at the first feature map, the extras and the heads."""
    low, high, blocks = "backbone.features.0", "backbone.features.1", "backbone.blocks"
    table = {
        f"{low}.0": "backbone.stem",
        f"{low}.13": f"{blocks}.12.expand",
        f"{high}.3": "backbone.last",
        "backbone.extra": "backbone.extras",
    }
    for k in range(12):
        table |= _torchvision_block(f"{low}.{k + 1}.block", f"{blocks}.{k}", expands=k > 0)
    table |= _torchvision_block(f"{high}.0", f"{blocks}.12")
    for k in (1, 2):
        table |= _torchvision_block(f"{high}.{k}.block", f"{blocks}.{12 + k}")
    scores, offsets = "head.classification_head.module_list.", "head.regression_head.module_list."
    return {**table, **_head_names(scores, offsets, {"": ""})}


def _qfgaohao_v1() -> dict[str, str]:
    """Map MobileNetV1, whose blocks are lists of six layers."""
    table = {"base_net.0": "backbone.stem", "extras": "backbone.extras"}
    for k in range(13):
        for old, new in {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1"}.items():
            table[f"base_net.{k + 1}.{old}"] = f"backbone.blocks.{k}.{new}"
    return {**table, **_head_names("classification_headers.", "regression_headers.", {"": ""})}


def _qfgaohao_v1_lite() -> dict[str, str]:
    """Map MobileNetV1 with depthwise separable extra layers and heads."""
    table = {name: new for name, new in _qfgaohao_v1().items() if "headers" not in name}
    parts = {".0": ".0", ".2": ".2", ".weight": ".weight", ".bias": ".bias"}
    return {**table, **_head_names("classification_headers.", "regression_headers.", parts)}


_EXPANSION = {0: "expand.0", 1: "expand.1"}
_PROJECTION = {0: "rest.0.0", 1: "rest.0.1", 3: "rest.1.0", 4: "rest.1.1"}


def _qfgaohao_block(old: str, new: str, *, expands: bool = True) -> dict[str, str]:
    """Map an inverted residual, whose layers are one list."""
    layers = _PROJECTION
    if expands:
        layers = {**_EXPANSION, **{number + 3: name for number, name in _PROJECTION.items()}}
    return {f"{old}.conv.{number}": f"{new}.{name}" for number, name in layers.items()}


def _qfgaohao_v2() -> dict[str, str]:
    """Map MobileNetV2 with SSDLite heads, the last of which is a single convolution."""
    table = {"base_net.0": "backbone.stem", "base_net.18": "backbone.last"}
    for k in range(17):
        table |= _qfgaohao_block(f"base_net.{k + 1}", f"backbone.blocks.{k}", expands=k > 0)
    for k in range(4):
        table |= _qfgaohao_block(f"extras.{k}", f"backbone.extras.{k}")
    parts = {".0": ".0.0", ".1": ".0.1", ".3": ".1", ".weight": ".weight", ".bias": ".bias"}
    return {**table, **_head_names("classification_headers.", "regression_headers.", parts)}


def _build_ssdlite(weights: Weights, classes: int) -> SSD:
    last = weights.get("backbone.last.0.weight")
    reduced = last is None or last.shape[0] != FULL_TAIL_CHANNELS
    return create("ssdlite320_mobilenet_v3_large", numbered_labels(classes), reduced_tail=reduced)


def _build_mb1(weights: Weights, classes: int) -> SSD:
    return create("ssd300_mobilenet_v1_3x3", numbered_labels(classes))


def _build_mb1_lite(weights: Weights, classes: int) -> SSD:
    return create("ssd300_mobilenet_v1_3x3", numbered_labels(classes), lite=True)


def _build_mb2(weights: Weights, classes: int) -> SSD:
    width = _mb2_width(weights)
    labels = numbered_labels(classes)
    if width == 1:
        return create("ssd300_mobilenet_v2", labels)
    return create("ssd300_mobilenet_v2", labels, width=width, truncated=True)


def _mb2_width(weights: Weights) -> float:
    """Return the width multiplier, derived from the channels of three layers of MobileNetV2."""
    layers = {"stem.0": 32, "blocks.13.rest.1.0": 160, "blocks.16.rest.1.0": 320}
    actual = {
        count: int(weights[name].shape[0])
        for layer, count in layers.items()
        if (name := f"backbone.{layer}.weight") in weights
    }
    for percent in (100, *range(200, 9, -1)):
        if all(int(count * percent / 100) == size for count, size in actual.items()):
            return float(percent / 100)
    return 1.0


FAMILIES = {
    "torchvision-ssdlite320": Family(
        ("backbone.features.0.0.0.weight", "head.classification_head.module_list.0.1.bias"),
        prefix_renamer(_torchvision()),
        _build_ssdlite,
        "1.bias",
        "torchvision's SSDLite320 on MobileNetV3-Large",
    ),
    "qfgaohao-mb1-ssd": Family(
        ("base_net.13.3.weight", "classification_headers.0.bias"),
        prefix_renamer(_qfgaohao_v1()),
        _build_mb1,
        "bias",
        "mb1-ssd of qfgaohao/pytorch-ssd",
    ),
    "qfgaohao-mb1-ssd-lite": Family(
        ("base_net.13.3.weight", "classification_headers.0.2.bias"),
        prefix_renamer(_qfgaohao_v1_lite()),
        _build_mb1_lite,
        "2.bias",
        "mb1-ssd-lite of qfgaohao/pytorch-ssd",
    ),
    "qfgaohao-mb2-ssd-lite": Family(
        ("base_net.14.conv.7.weight", "classification_headers.0.3.bias"),
        prefix_renamer(_qfgaohao_v2()),
        _build_mb2,
        "1.bias",
        "mb2-ssd-lite of qfgaohao/pytorch-ssd",
    ),
}
