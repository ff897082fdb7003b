"""SSD300 on VGG16, as in the paper: 8732 default boxes on maps of 38 to 1 cells per side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd_training.models.default_boxes import select_boxes
from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.models.vgg16 import build_vgg, vgg_boxes

__all__ = ["BOXES", "EXTRAS", "build"]

MAPS, STEPS = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
VOC, COCO = (30, 60, 111, 162, 213, 264, 315), (21, 45, 99, 153, 207, 261, 315)
BOXES: dict[str, AnchorSpec] = {
    "voc": vgg_boxes(300, MAPS, STEPS, VOC),
    "coco": vgg_boxes(300, MAPS, STEPS, COCO),
    "voc_clipped": vgg_boxes(300, MAPS, STEPS, VOC, clip=True),
    "coco_clipped": vgg_boxes(300, MAPS, STEPS, COCO, clip=True),
    "voc_clamped": vgg_boxes(300, MAPS, STEPS, VOC, clamp=True),
    "coco_clamped": vgg_boxes(300, MAPS, STEPS, COCO, clamp=True),
    # Cells of equal size, and boxes whose corners are clipped to the image.
    "evenly": replace(vgg_boxes(300, MAPS, [300 / side for side in MAPS], VOC), clip=True),
}
EXTRAS = ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0))


def build(labels: Sequence[str], *, boxes: str = "voc", norm: str = "l2") -> SSD:
    """Build SSD300 on VGG16 with random weights.

    Args:
        labels: Class names, "background" first.
        boxes: Default boxes: "voc" or "coco" as in the paper's Caffe models; "…_clipped" limits
            sizes to the image (torchvision: "coco_clipped"); "…_clamped" also limits centers
            (amdegroot, lufficc, qfgaohao); "evenly" has the centers and clipping of bubbliiiing.
        norm: Normalization of conv4_3, "l2" or "batch" (qfgaohao since 2018).

    Returns:
        The network; 35,641,826 parameters at 91 classes.

    Raises:
        UsageError: If there are no such default boxes.
    """
    spec = select_boxes(BOXES, boxes, "ssd300_vgg16")
    return build_vgg("ssd300_vgg16", labels, spec, 300, EXTRAS, norm)
