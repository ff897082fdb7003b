"""Import of PyTorch checkpoints: SSD on VGG16 of torchvision, amdegroot, lufficc and qfgaohao.

Each project names the same layers otherwise and prepares images in its own way. The tables below
say how; a checkpoint is of the family whose keys it has, all of them and no others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realtime_ssd.errors import ModelError, UsageError
from realtime_ssd.spec import InputSpec, Thresholds
from training.export import export_onnx
from training.importers import labels as names
from training.importers.options import Imported, ImportOptions
from training.importers.overrides import apply
from training.models import SSD, create

__all__ = ["FAMILIES", "Family", "import_model"]

Weights = Mapping[str, Tensor]
_MEAN_RGB = (123.0, 117.0, 104.0)
_LOW = {number: f"backbone.low.{number}" for number in range(23)}
_HIGH = {24: 1, 26: 3, 28: 5, 31: 8, 33: 10}  # number in the list of VGG layers → in `high`


@dataclass(frozen=True, slots=True)
class Family:
    """How one project writes SSD on VGG16.

    Attributes:
        mark: A key that only its checkpoints have.
        rename: Gives the name of a tensor here, or None for one that is no weight.
        input: Pre-processing, but for the size.
        thresholds: Its published settings.
        clip_before_nms: Whether it clips boxes before NMS.
        about: Where it comes from.
    """

    mark: str
    rename: Callable[[str], str | None]
    input: InputSpec
    thresholds: Thresholds
    clip_before_nms: bool
    about: str


def _numbered(prefix: str) -> dict[str, str]:
    """Map the layers of VGG that are numbered in one list."""
    high = {number: f"backbone.high.{place}" for number, place in _HIGH.items()}
    return {f"{prefix}{number}": name for number, name in {**_LOW, **high}.items()}


def _flat_extras(prefix: str) -> dict[str, str]:
    """Map extra layers that are numbered one by one; here two make an extra."""
    return {f"{prefix}{k}": f"backbone.extras.{k // 2}.{k % 2 * 2}" for k in range(10)}


def _heads(scores: str, offsets: str) -> dict[str, str]:
    return {
        **{f"{scores}{k}": f"score_heads.{k}" for k in range(7)},
        **{f"{offsets}{k}": f"offset_heads.{k}" for k in range(7)},
    }


def _renamer(table: Mapping[str, str], norm: str) -> Callable[[str], str | None]:
    def rename(key: str) -> str | None:
        if key == norm:
            return "backbone.norm.weight"
        layer, _, kind = key.rpartition(".")
        return f"{table[layer]}.{kind}" if layer in table else None

    return rename


_TORCHVISION = {
    **{f"backbone.features.{k}": name for k, name in _LOW.items()},
    **{f"backbone.extra.0.{k}": f"backbone.high.{k}" for k in (1, 3, 5)},
    "backbone.extra.0.7.1": "backbone.high.8",
    "backbone.extra.0.7.3": "backbone.high.10",
    **{f"backbone.extra.{k + 1}.{i}": f"backbone.extras.{k}.{i}" for k in range(5) for i in (0, 2)},
    **_heads("head.classification_head.module_list.", "head.regression_head.module_list."),
}
_AMDEGROOT = {**_numbered("vgg."), **_flat_extras("extras."), **_heads("conf.", "loc.")}
_LUFFICC = {
    **_numbered("backbone.vgg."),
    **_flat_extras("backbone.extras."),
    **_heads("box_head.predictor.cls_headers.", "box_head.predictor.reg_headers."),
}
_QFGAOHAO = {
    **_numbered("base_net."),
    **{f"extras.{k}.{i}": f"backbone.extras.{k}.{i}" for k in range(5) for i in (0, 2)},
    **_heads("classification_headers.", "regression_headers."),
}
_RGB = InputSpec(300, 300, "RGB", mean=_MEAN_RGB)

FAMILIES = {
    "torchvision": Family(
        "backbone.scale_weight",
        _renamer(_TORCHVISION, "backbone.scale_weight"),
        replace(_RGB, mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255)),
        Thresholds(score=0.5, nms=0.45, top_k=400, keep=200),
        True,
        "torchvision's SSD on VGG16",
    ),
    "amdegroot": Family(
        "L2Norm.weight",
        _renamer(_AMDEGROOT, "L2Norm.weight"),
        _RGB,
        Thresholds(score=0.5, nms=0.45, top_k=200, keep=200),
        False,
        "SSD on VGG16 of amdegroot/ssd.pytorch",
    ),
    "lufficc": Family(
        "backbone.l2_norm.weight",
        _renamer(_LUFFICC, "backbone.l2_norm.weight"),
        _RGB,
        Thresholds(score=0.5, nms=0.45, top_k=400, keep=100),
        False,
        "SSD on VGG16 of lufficc/SSD",
    ),
    "qfgaohao": Family(
        "source_layer_add_ons.0.scale",
        _renamer(_QFGAOHAO, "source_layer_add_ons.0.scale"),
        _RGB,
        Thresholds(score=0.5, nms=0.45, top_k=200, keep=200),
        False,
        "vgg16-ssd of qfgaohao/pytorch-ssd",
    ),
}
_NO_WEIGHT = re.compile(r"^(priors|default_boxes|.*num_batches_tracked)$")
_LABELS = {21: names.VOC_21, 81: names.COCO_80, 91: names.COCO_91}


def import_model(path: Path, output: Path, options: ImportOptions) -> Imported:
    """Import a PyTorch checkpoint; see `training.importers.import_model`."""
    weights = _read(path)
    family = _family(path, weights, options.family)
    model = _network(path, weights, FAMILIES[family], family, options)
    export_onnx(model, output)
    return Imported(model.spec, output, family, dynamic_batch=True)


def _read(path: Path) -> Weights:
    """Read a checkpoint; only tensors and plain values, never code."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"'{path}' is no PyTorch checkpoint of plain weights: it is damaged, or holds objects "
            "that would run code when loaded; save its state_dict() and import that"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"'{path}' holds no state_dict; save the model's state_dict() and retry")
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def _family(path: Path, weights: Weights, given: str | None) -> str:
    if given is not None:
        if given not in FAMILIES:
            raise UsageError(
                f"family '{given}' has no PyTorch checkpoints here; choose {', '.join(FAMILIES)}"
            )
        return given
    found = [name for name, family in FAMILIES.items() if family.mark in weights]
    if len(found) != 1:
        raise ModelError(
            f"'{path}' is no checkpoint of a known SSD (torchvision's ssd300_vgg16, amdegroot, "
            "lufficc or qfgaohao's vgg16-ssd); convert it to ONNX and import that"
        )
    return found[0]


def _network(
    path: Path, weights: Weights, family: Family, name: str, options: ImportOptions
) -> SSD:
    """Build the network of a checkpoint with its weights and its contract."""
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if _NO_WEIGHT.match(key):
            continue
        own = family.rename(key)
        if own is None:
            raise ModelError(f"'{path}' has a tensor '{key}' that no {family.about} has")
        renamed[own] = value.float()
    model = _empty(path, renamed, family)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in renamed]
    wrong = [k for k, value in renamed.items() if k not in wanted or wanted[k].shape != value.shape]
    if missing or wrong:
        raise ModelError(
            f"'{path}' does not hold {family.about} whole: "
            f"{len(missing)} tensors are missing and {len(wrong)} have another shape, the first is "
            f"'{[*missing, *wrong][0]}'"
        )
    model.load_state_dict(renamed)
    size = model.spec.input.width
    classes = model.spec.num_classes
    spec = replace(
        model.spec,
        name=f"{model.spec.name}_{name}",
        input=replace(family.input, width=size, height=size),
        labels=_LABELS.get(classes, model.spec.labels),
        thresholds=family.thresholds,
        clip_before_nms=family.clip_before_nms,
        description=f"{family.about}, {classes - 1} classes",
    )
    model.adopt(apply(spec, options))
    return model.eval()


def _empty(path: Path, renamed: Weights, family: Family) -> SSD:
    """Build the network that fits the number of heads and classes."""
    heads = {
        key: value for key, value in renamed.items() if re.match(r"score_heads\.\d\.bias", key)
    }
    offsets = renamed.get("offset_heads.0.bias")
    if not heads or offsets is None:
        raise ModelError(f"'{path}' has no heads of {family.about}")
    boxes = len(offsets) // 4
    classes = len(heads["score_heads.0.bias"]) // boxes
    coco = classes > 21
    architecture = "ssd512_vgg16" if len(heads) == 7 else "ssd300_vgg16"
    labels = ["background", *(f"class {k}" for k in range(1, classes))]
    return create(architecture, labels, boxes="coco_clipped" if coco else "voc_clipped")
