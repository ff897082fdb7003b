"""SSD on VGG16 as torchvision, amdegroot, lufficc and qfgaohao store it.

The projects clip default boxes differently. torchvision clips sizes and has its COCO scales for
every dataset; the others clip centers too, and their scales depend on the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from realtime_ssd.core.spec import InputSpec, Thresholds
from realtime_ssd_training.importers.class_names import numbered_labels
from realtime_ssd_training.importers.pytorch_family import Family, Weights, prefix_renamer
from realtime_ssd_training.models import SSD, create

__all__ = ["FAMILIES"]

_LOW = {number: f"backbone.low.{number}" for number in range(23)}
_HIGH = {24: 1, 26: 3, 28: 5, 31: 8, 33: 10}  # number in VGG's list of layers → number in `high`
_COCO_CLASSES = (81, 91, 201)  # score columns of the COCO models; amdegroot's has 201


def _backbone_names(prefix: str) -> dict[str, str]:
    """Map the layers of VGG, which are numbered in one list."""
    high = {number: f"backbone.high.{new_number}" for number, new_number in _HIGH.items()}
    return {f"{prefix}{number}": name for number, name in {**_LOW, **high}.items()}


def _extra_names(prefix: str) -> dict[str, str]:
    """Map the extra layers, which are numbered in one list; two of them form an extra here."""
    return {f"{prefix}{k}": f"backbone.extras.{k // 2}.{k % 2 * 2}" for k in range(10)}


def _head_names(scores: str, offsets: str, norm: str) -> dict[str, str]:
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
    **_head_names(
        "head.classification_head.module_list.",
        "head.regression_head.module_list.",
        "backbone.scale_weight",
    ),
}
_AMDEGROOT = {
    **_backbone_names("vgg."),
    **_extra_names("extras."),
    **_head_names("conf.", "loc.", "L2Norm.weight"),
}
_LUFFICC = {
    **_backbone_names("backbone.vgg."),
    **_extra_names("backbone.extras."),
    **_head_names(
        "box_head.predictor.cls_headers.",
        "box_head.predictor.reg_headers.",
        "backbone.l2_norm.weight",
    ),
}
_QFGAOHAO = {
    **_backbone_names("base_net."),
    **{f"extras.{k}.{i}": f"backbone.extras.{k}.{i}" for k in range(5) for i in (0, 2)},
    **_head_names("classification_headers.", "regression_headers.", "source_layer_add_ons.0.scale"),
}
_RGB = InputSpec(300, 300, "RGB", mean=(123.0, 117.0, 104.0))
_RGB_TORCHVISION = replace(_RGB, mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255))


def _boxes_by_data_set(classes: int) -> str:
    return "coco_clamped" if classes in _COCO_CLASSES else "voc_clamped"


def _family(
    table: Mapping[str, str],
    norm: str,
    boxes: Callable[[int], str],
    thresholds: Thresholds,
    description: str,
    *,
    torchvision: bool = False,
) -> Family:
    """Describe a project.

    Args:
        table: New name by old name.
        norm: Name of the factors of L2Norm, which is different in every project.
        boxes: Function from the number of classes to the name of the default boxes.
        thresholds: Published settings, with a score threshold for display.
        description: Network and project.
        torchvision: Whether images are normalized and boxes clipped as in torchvision.
    """

    def build(weights: Weights, classes: int) -> SSD:
        large = "score_heads.6.bias" in weights
        model = create(
            "ssd512_vgg16" if large else "ssd300_vgg16",
            numbered_labels(classes),
            boxes=boxes(classes),
        )
        size = model.spec.input
        image = replace(
            _RGB_TORCHVISION if torchvision else _RGB, width=size.width, height=size.height
        )
        model.replace_spec(
            replace(model.spec, input=image, thresholds=thresholds, clip_before_nms=torchvision)
        )
        return model

    return Family((norm,), prefix_renamer(table), build, "bias", description)


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
        _boxes_by_data_set,
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "SSD on VGG16 of amdegroot/ssd.pytorch",
    ),
    "lufficc": _family(
        _LUFFICC,
        "backbone.l2_norm.weight",
        _boxes_by_data_set,
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
