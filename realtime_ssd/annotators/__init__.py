"""Annotators, which draw onto a copy of a frame."""

from __future__ import annotations

from collections.abc import Sequence

from realtime_ssd.annotators.box_annotator import BoxAnnotator
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import Annotator, FrameResult

__all__ = ["Annotator", "BoxAnnotator", "annotate"]


def annotate(
    image: Image, detections: Detections, annotators: Sequence[Annotator] | None = None
) -> Image:
    """Draw detections onto a copy of an image.

    Args:
        image: H × W × 3, uint8, BGR; not changed.
        detections: Boxes in pixels of the image.
        annotators: What to draw, in order; boxes with labels by default.

    Returns:
        A new image of the same size.
    """
    chosen = (BoxAnnotator(),) if annotators is None else annotators
    result = FrameResult(Frame(image.view()), detections, annotators=chosen)
    annotated = result.annotated_image()
    annotated.flags.writeable = True
    return annotated
