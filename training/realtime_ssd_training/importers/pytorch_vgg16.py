"""SSD on VGG16 as torchvision, amdegroot, bubbliiiing, lufficc, mmdetection and qfgaohao store it.

The projects clip default boxes differently. torchvision clips sizes and has its COCO scales for
every dataset; the others clip centers too, and their scales depend on the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

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
_QFGAOHAO_BATCH = {
    **_QFGAOHAO,
    "source_layer_add_ons.0": "backbone.norm",
}
del _QFGAOHAO_BATCH["source_layer_add_ons.0.scale"]
_MMDET = {
    **_backbone_names("backbone.features."),
    **{
        f"neck.extra_layers.{k}.{i}.conv": f"backbone.extras.{k}.{2 * i}"
        for k in range(5)
        for i in (0, 1)
    },
    **{f"bbox_head.cls_convs.{k}.0": f"score_heads.{k}" for k in range(7)},
    **{f"bbox_head.reg_convs.{k}.0": f"offset_heads.{k}" for k in range(7)},
    "neck.l2_norm.weight": "backbone.norm.weight",
}
_RGB = InputSpec(300, 300, "RGB", mean=(123.0, 117.0, 104.0))
_RGB_BUBBLIIIING = replace(_RGB, mean=(104.0, 117.0, 123.0))
_RGB_MMDET = replace(_RGB, mean=(123.675, 116.28, 103.53))
_RGB_TORCHVISION = replace(_RGB, mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255))


def _boxes_by_data_set(classes: int, _: bool = False) -> str:
    return "coco_clamped" if classes in _COCO_CLASSES else "voc_clamped"


def _with_first_background(renamed: Weights, classes: int) -> dict[str, Tensor]:
    """Return the weights with the last score column, the background, moved to the front."""
    order = [classes - 1, *range(classes - 1)]
    moved = dict(renamed)
    for name, value in renamed.items():
        if name.startswith("score_heads.") and value.shape[0] % classes == 0:
            columns = value.view(-1, classes, *value.shape[1:])
            moved[name] = columns[:, order].reshape(value.shape)
    return moved


def _boxes_of_mmdet(classes: int, large: bool) -> str:
    """Return the boxes of the configurations for VOC (21 columns) or for COCO and all others."""
    name = "voc" if classes == 21 else "coco"
    return f"{name}_whole" if large else name


def _family(
    table: Mapping[str, str],
    signature: str,
    boxes: Callable[[int, bool], str],
    thresholds: Thresholds,
    description: str,
    *,
    image: InputSpec = _RGB,
    clip_before_nms: bool = False,
    norm: str = "l2",
    order: tuple[str, ...] = (),
    prepare: Callable[[Weights, int], dict[str, Tensor]] | None = None,
) -> Family:
    """Describe a project.

    Args:
        table: New name by old name.
        signature: Name of a tensor of the normalization, which is different in every project.
        boxes: Function from the number of classes, and whether the input has 512 pixels, to the
            name of the default boxes.
        thresholds: Published settings, with a score threshold for display.
        description: Network and project.
        image: Pre-processing.
        clip_before_nms: Whether boxes are clipped before NMS as in torchvision.
        norm: Normalization of conv4_3.
        order: See `Family`.
        prepare: See `Family`.
    """

    def build(weights: Weights, classes: int) -> SSD:
        large = "score_heads.6.bias" in weights
        model = create(
            "ssd512_vgg16" if large else "ssd300_vgg16",
            numbered_labels(classes),
            boxes=boxes(classes, large),
            norm=norm,
        )
        size = model.spec.input
        adapted = replace(image, width=size.width, height=size.height)
        model.replace_spec(
            replace(
                model.spec, input=adapted, thresholds=thresholds, clip_before_nms=clip_before_nms
            )
        )
        return model

    return Family(
        (signature,),
        prefix_renamer(table),
        build,
        "bias",
        description,
        order,
        prepare,
    )


FAMILIES = {
    "torchvision": _family(
        _TORCHVISION,
        "backbone.scale_weight",
        lambda *_: "coco_clipped",
        Thresholds(pre_nms_top_k=400, max_detections=200),
        "torchvision's SSD on VGG16",
        image=_RGB_TORCHVISION,
        clip_before_nms=True,
    ),
    "amdegroot": _family(
        _AMDEGROOT,
        "L2Norm.weight",
        _boxes_by_data_set,
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "SSD on VGG16 of amdegroot/ssd.pytorch",
        order=("L2Norm.weight", "extras.0.weight"),
    ),
    "bubbliiiing": _family(
        _AMDEGROOT,
        "L2Norm.weight",
        lambda *_: "evenly",
        Thresholds(pre_nms_top_k=400, max_detections=200),
        "SSD on VGG16 of bubbliiiing/ssd-pytorch",
        image=_RGB_BUBBLIIIING,
        order=("extras.0.weight", "L2Norm.weight"),
    ),
    "mmdet": _family(
        _MMDET,
        "neck.l2_norm.weight",
        _boxes_of_mmdet,
        Thresholds(pre_nms_top_k=1000, max_detections=200),
        "SSD on VGG16 of open-mmlab/mmdetection",
        image=_RGB_MMDET,
        prepare=_with_first_background,
    ),
    "qfgaohao-vgg16-ssd": _family(
        _QFGAOHAO_BATCH,
        "source_layer_add_ons.0.running_mean",
        lambda *_: "voc_clamped",
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "vgg16-ssd of qfgaohao/pytorch-ssd (since 2018)",
        norm="batch",
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
        lambda *_: "voc_clamped",
        Thresholds(pre_nms_top_k=200, max_detections=200),
        "vgg16-ssd of qfgaohao/pytorch-ssd",
    ),
}
