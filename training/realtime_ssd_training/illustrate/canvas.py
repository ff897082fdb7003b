"""Paper and pens for the pictures: figures without a window, small files, the same every time."""

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
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "RED",
    "boxes",
    "new_figure",
    "picture",
    "save",
]

# Colours that people with colour blindness can tell apart (Okabe and Ito, 2008).
BLUE, GREEN, ORANGE, RED, GREY, INK = (
    "#0072b2",
    "#009e73",
    "#e69f00",
    "#d55e00",
    "#6e7781",
    "#1f2328",
)
_DPI = 130
_TONES = 56
_METHOD = 1  # maximum coverage: rare colours, those of the lines, are kept


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of width × height inches on white paper, legible on a dark page too."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of 256 colours, with the same bytes on every run.

    Raises:
        UsageError: If the file cannot be written.
    """
    from PIL import Image as Pillow

    page = io.BytesIO()
    figure.savefig(page, format="png")
    small = Pillow.open(page).convert("RGB").quantize(256, _METHOD, dither=Pillow.Dither.NONE)
    try:
        small.save(path, optimize=True)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from None


def picture(axes: Any, image: Image, *, pale: float = 0.4) -> None:
    """Show a frame as a quiet background, in its own pixels.

    Args:
        axes: Where to.
        image: H × W × 3, BGR.
        pale: Share of white that is mixed in.
    """
    from PIL import Image as Pillow

    mixed = cv2.medianBlur(image, 5)[:, :, ::-1] * (1 - pale) + 255 * pale
    # Few flat colours keep the file small and the lines on top clear.
    flat = Pillow.fromarray(mixed.astype(np.uint8)).quantize(
        _TONES, _METHOD, dither=Pillow.Dither.NONE
    )
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(np.asarray(flat.convert("RGB")), extent=extent, interpolation="nearest")
    axes.set(xticks=(), yticks=(), xlim=(0, width), ylim=(height, 0))


def boxes(axes: Any, rows: Sequence[Sequence[float]], color: str, line: float, **more: Any) -> None:
    """Draw boxes (x1, y1, x2, y2) as outlines of `line` points."""
    for x1, y1, x2, y2 in rows:
        frame = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=color, lw=line, **more)
        axes.add_patch(frame)
