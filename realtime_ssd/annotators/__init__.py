"""Annotators, which draw onto a copy of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from realtime_ssd.annotators.box_annotator import BoxAnnotator
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.image_conversion import to_bgr
from realtime_ssd.core.results import Annotator, FrameResult

__all__ = ["Annotator", "BoxAnnotator", "annotate"]


def annotate(
    image: Any, detections: Detections, annotators: Sequence[Annotator] | None = None
) -> Image:
    """Draw detections onto a copy of an image.

    Args:
        image: Array, uint8 (H × W × 3 BGR, H × W gray, H × W × 4 BGRA), or PIL image; not changed.
        detections: Boxes in pixels of the image.
        annotators: What to draw, in order; boxes with labels by default.

    Returns:
        A new image, H × W × 3, uint8, BGR.

    Raises:
        UsageError: If `image` has another type or shape, or `detections` is something else.

    Example:
        >>> import numpy as np
        >>> from realtime_ssd import Detector, annotate
        >>> image = np.zeros((120, 160, 3), np.uint8)
        >>> with Detector("street") as detector:
        ...     annotated = annotate(image, detector(image))
        >>> annotated.shape
        (120, 160, 3)
    """
    if not isinstance(detections, Detections):
        raise UsageError(
            f"`detections` must be Detections, not {type(detections).__name__}; convert those of "
            "supervision with Detections.from_supervision"
        )
    chosen = (BoxAnnotator(),) if annotators is None else annotators
    result = FrameResult(Frame(to_bgr(image)), detections, annotators=chosen)
    annotated = result.annotated_image()
    annotated.flags.writeable = True
    return annotated
