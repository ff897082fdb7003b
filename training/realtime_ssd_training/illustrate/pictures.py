"""The pictures by name."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from realtime_ssd_training.illustrate import diagrams, street

__all__ = ["PICTURES"]

PICTURES: dict[str, Callable[[], Figure]] = {
    "ssd_pyramid": diagrams.pyramid,
    "ssd_default_boxes": street.default_boxes,
    "ssd_matching": lambda: street.matching(street.mine()),
    "ssd_losses": diagrams.losses,
    "ssd_example": diagrams.example,
    "ssd_hard_negatives": lambda: street.hard_negatives_picture(street.mine()),
    "ssd_small_objects": diagrams.small_objects,
}
"""What draws each picture; its file is the name with `.png`."""
