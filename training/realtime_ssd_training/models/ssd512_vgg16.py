"""SSD512 on VGG16, as in the paper: 24,564 default boxes on maps of 64 to 1 cells per side."""

from __future__ import annotations

from collections.abc import Sequence

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd_training.models.default_boxes import select_boxes
from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.models.vgg16 import build_vgg, vgg_boxes

__all__ = ["BOXES", "EXTRAS", "build"]

MAPS, STEPS = (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512)
VOC = (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6)
COCO = (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)
BOXES: dict[str, AnchorSpec] = {
    "voc": vgg_boxes(512, MAPS, STEPS, VOC),
    "coco": vgg_boxes(512, MAPS, STEPS, COCO),
    "voc_clipped": vgg_boxes(512, MAPS, STEPS, VOC, clip=True),
    "coco_clipped": vgg_boxes(512, MAPS, STEPS, COCO, clip=True),
    # lufficc, the only source of clamped boxes at this size, uses 537.65 as the last size.
    "voc_clamped": vgg_boxes(512, MAPS, STEPS, (*VOC[:-1], 537.65), clamp=True),
    "coco_clamped": vgg_boxes(512, MAPS, STEPS, COCO, clamp=True),
    "voc_whole": vgg_boxes(512, MAPS, STEPS, [int(size) for size in VOC]),
    "coco_whole": vgg_boxes(512, MAPS, STEPS, [int(size) for size in COCO]),
}
EXTRAS = (
    (256, 512, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 4, 1, 1),
)


def build(labels: Sequence[str], *, boxes: str = "voc", norm: str = "l2") -> SSD:
    """Build SSD512 on VGG16 with random weights.

    Args:
        labels: Class names, "background" first.
        boxes: Default boxes, as for `ssd300_vgg16`; "…_whole" has whole pixels (mmdetection).
        norm: Normalization of conv4_3, "l2" or "batch".

    Raises:
        UsageError: If there are no such default boxes.
    """
    spec = select_boxes(BOXES, boxes, "ssd512_vgg16")
    return build_vgg("ssd512_vgg16", labels, spec, 512, EXTRAS, norm)
