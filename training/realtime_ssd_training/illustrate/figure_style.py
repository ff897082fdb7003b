"""Colors, layout and files of the figures: no window, small files, reproducible bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "INK",
    "ORANGE",
    "RED",
    "draw_boxes",
    "new_figure",
    "save_figure",
    "show_image",
]

# A palette for readers with color vision deficiency (Okabe and Ito, 2008).
BLUE, GREEN, ORANGE, RED, GRAY, INK = (
    "#0072b2",
    "#009e73",
    "#e69f00",
    "#d55e00",
    "#6e7781",
    "#1f2328",
)
_DPI = 130
_BACKGROUND_COLORS = 56
_MAX_COVERAGE = 1  # Pillow's quantization method that keeps rare colors, such as those of lines


def new_figure(width: float, height: float) -> Figure:
    """Create a figure of width × height inches on white, so that dark pages show it too."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of 256 colors; the same figure always gives the same bytes.

    Raises:
        UsageError: If the file cannot be written.
    """
    from PIL import Image as Pillow

    png = io.BytesIO()
    figure.savefig(png, format="png")
    image = Pillow.open(png).convert("RGB").quantize(256, _MAX_COVERAGE, dither=Pillow.Dither.NONE)
    try:
        image.save(path, optimize=True)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from None


def show_image(axes: Any, image: Image, *, whiten: float = 0.4) -> None:
    """Show a frame as a faint background, with axes in pixels of the frame.

    Args:
        axes: Axes to draw on.
        image: H × W × 3, BGR.
        whiten: Fraction of white to blend in.
    """
    from PIL import Image as Pillow

    mixed = cv2.medianBlur(image, 5)[:, :, ::-1] * (1 - whiten) + 255 * whiten
    # Few flat colors keep the file small and the lines legible.
    flat = Pillow.fromarray(mixed.astype(np.uint8)).quantize(
        _BACKGROUND_COLORS, _MAX_COVERAGE, dither=Pillow.Dither.NONE
    )
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(np.asarray(flat.convert("RGB")), extent=extent, interpolation="nearest")
    axes.set(xticks=(), yticks=(), xlim=(0, width), ylim=(height, 0))


def draw_boxes(
    axes: Any, boxes: Sequence[Sequence[float]], color: str, linewidth: float, **style: Any
) -> None:
    """Draw the outlines of boxes (x1, y1, x2, y2)."""
    for x1, y1, x2, y2 in boxes:
        size = (x2 - x1, y2 - y1)
        axes.add_patch(Rectangle((x1, y1), *size, fill=False, ec=color, lw=linewidth, **style))
