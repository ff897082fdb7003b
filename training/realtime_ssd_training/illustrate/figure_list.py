"""The figures of `docs/ssd.md` by file name."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from realtime_ssd_training.illustrate import diagrams, street_figures

__all__ = ["FIGURES"]

FIGURES: dict[str, Callable[[], Figure]] = {
    "ssd_pyramid": diagrams.pyramid,
    "ssd_default_boxes": street_figures.default_boxes,
    "ssd_matching": street_figures.matching,
    "ssd_losses": diagrams.losses,
    "ssd_example": diagrams.worked_example,
    "ssd_hard_negatives": street_figures.hard_negatives_figure,
    "ssd_small_objects": diagrams.small_objects,
}
"""Function that draws each figure; the file has the suffix `.png`."""
