"""SSD on VGG16 as torchvision, amdegroot, lufficc and qfgaohao write it.

Default boxes differ in what is cut off. torchvision limits sizes and always has its COCO scales;
the others limit centres too, and choose the scales by data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from realtime_ssd.core.spec import InputSpec, Thresholds
from realtime_ssd_training.importers.families import Family, Weights, renamer
from realtime_ssd_training.importers.labels import numbered
from realtime_ssd_training.models import SSD, create

__all__ = ["FAMILIES"]

_LOW = {number: f"backbone.low.{number}" for number in range(23)}
_HIGH = {24: 1, 26: 3, 28: 5, 31: 8, 33: 10}  # number in the list of VGG layers → in `high`
_COCO_SIZES = (81, 91, 201)  # score columns of the COCO models; amdegroot's has 201


def _numbered(prefix: str) -> dict[str, str]:
    """Map the layers of VGG that are numbered in one list."""
    high = {number: f"backbone.high.{place}" for number, place in _HIGH.items()}
    return {f"{prefix}{number}": name for number, name in {**_LOW, **high}.items()}


def _flat_extras(prefix: str) -> dict[str, str]:
    """Map extra layers that are numbered one by one; here two make an extra."""
    return {f"{prefix}{k}": f"backbone.extras.{k // 2}.{k % 2 * 2}" for k in range(10)}


def _ends(scores: str, offsets: str, norm: str) -> dict[str, str]:
    """Map the heads and the factors of L2Norm."""
    return {
        **{f"{scores}{k}": f"score_heads.{k}" for k in range(7)},
        **{f"{offsets}{k}": f"offset_heads.{k}" for k in range(7)},
        norm: "backbone.norm.weight",
    }


_TORCHVISION = {
    **{f"backbone.features.{k}": name for k, name in _LOW.items()},
    **{f"backbone.extra.0.{k}": f"backbone.high.{k}" for k in (1, 3, 5)},
    "backbone.extra.0.7.1": "backbone.high.8",
    "backbone.extra.0.7.3": "backbone.high.10",
    **{f"backbone.extra.{k + 1}.{i}": f"backbone.extras.{k}.{i}" for k in range(5) for i in (0, 2)},
    **_ends(
        "head.classification_head.module_list.",
        "head.regression_head.module_list.",
        "backbone.scale_weight",
    ),
}
_AMDEGROOT = {
    **_numbered("vgg."),
    **_flat_extras("extras."),
    **_ends("conf.", "loc.", "L2Norm.weight"),
}
_LUFFICC = {
    **_numbered("backbone.vgg."),
    **_flat_extras("backbone.extras."),
    **_ends(
        "box_head.predictor.cls_headers.",
        "box_head.predictor.reg_headers.",
        "backbone.l2_norm.weight",
    ),
}
_QFGAOHAO = {
    **_numbered("base_net."),
    **{f"extras.{k}.{i}": f"backbone.extras.{k}.{i}" for k in range(5) for i in (0, 2)},
    **_ends("classification_headers.", "regression_headers.", "source_layer_add_ons.0.scale"),
}
_RGB = InputSpec(300, 300, "RGB", mean=(123.0, 117.0, 104.0))
_RGB_TORCHVISION = replace(_RGB, mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255))


def _by_data_set(classes: int) -> str:
    return "coco_clamped" if classes in _COCO_SIZES else "voc_clamped"


def _family(
    table: Mapping[str, str],
    mark: str,
    boxes: Callable[[int], str],
    thresholds: Thresholds,
    about: str,
    *,
    torchvision: bool = False,
) -> Family:
    """Describe a project.

    Args:
        table: Names there → here.
        mark: Key of the factors of L2Norm, which everybody names otherwise.
        boxes: Default-box recipe by number of classes.
        thresholds: Its published settings, with a score to show detections at.
        about: Where it comes from.
        torchvision: Whether it prepares images and clips boxes as torchvision does.
    """

    def build(weights: Weights, classes: int) -> SSD:
        big = "score_heads.6.bias" in weights
        model = create(
            "ssd512_vgg16" if big else "ssd300_vgg16", numbered(classes), boxes=boxes(classes)
        )
        size = model.spec.input
        taken = replace(
            _RGB_TORCHVISION if torchvision else _RGB, width=size.width, height=size.height
        )
        model.replace_spec(
            replace(model.spec, input=taken, thresholds=thresholds, clip_before_nms=torchvision)
        )
        return model

    return Family((mark,), renamer(table), build, "bias", about)


FAMILIES = {
    "torchvision": _family(
        _TORCHVISION,
        "backbone.scale_weight",
        lambda classes: "coco_clipped",
        Thresholds(pre_nms_top_k=400, max_detections=200),
        "torchvision's SSD on VGG16",
        torchvision=True,
    ),
    "amdegroot": _family(
        _AMDEGROOT,
        "L2Norm.weight",
        _by_data_set,
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "SSD on VGG16 of amdegroot/ssd.pytorch",
    ),
    "lufficc": _family(
        _LUFFICC,
        "backbone.l2_norm.weight",
        _by_data_set,
        Thresholds(pre_nms_top_k=400, max_detections=100),
        "SSD on VGG16 of lufficc/SSD",
    ),
    "qfgaohao": _family(
        _QFGAOHAO,
        "source_layer_add_ons.0.scale",
        lambda classes: "voc_clamped",
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "vgg16-ssd of qfgaohao/pytorch-ssd",
    ),
}
