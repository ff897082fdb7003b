"""Contact sheet of the worst errors: image crops with boxes, scores and IoUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.evaluation.error_analysis import KINDS, DetectionError, ErrorAnalysis
from realtime_ssd_training.evaluation.metric_plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["describe", "write_error_sheet"]

COLUMNS = 6
TILE_WIDTH, TILE_HEIGHT = 300, 220
_DETECTION_COLOR, _OBJECT_COLOR = (40, 60, 235), (60, 190, 60)  # BGR
_BACKGROUND = 235
_MARGIN = 0.35  # around the boxes, as a fraction of their longer side
_MIN_CROP_SIZE = 40  # in pixels of the image


def write_error_sheet(path: Path, analysis: ErrorAnalysis, data: Dataset, title: str) -> None:
    """Draw the worst errors of every kind, one row per kind.

    Detections are red, their objects green; other objects of the image have thin green outlines.

    Args:
        path: PNG file to write.
        analysis: The errors.
        data: The images.
        title: First line of the heading.

    Raises:
        UsageError: If the file cannot be written.
    """
    counts = analysis.counts
    kinds = [kind for kind in KINDS if counts[kind]] or ["missed"]
    figure = new_figure(15.4, 0.7 + 2.75 * len(kinds))
    figure.suptitle(_heading(analysis, title), fontsize=11, parse_math=False)
    rows = figure.subfigures(len(kinds), 1, squeeze=False)[:, 0]
    for row, kind in zip(rows, kinds, strict=True):
        heading = f"{kind}: {counts[kind]}   ({KINDS[kind]})"
        row.suptitle(heading, x=0.01, ha="left", fontsize=11, weight="bold")
        _draw_row(row, analysis.worst(kind, COLUMNS), data)
    save_figure(figure, path)


def _heading(analysis: ErrorAnalysis, title: str) -> str:
    return (
        f"{title}\n{analysis.true_positives} of {analysis.objects} objects detected at score ≥ "
        f"{analysis.score:.2f} (best F1). Red: detection. Green: object."
    )


def _draw_row(row: SubFigure, errors: Sequence[DetectionError], data: Dataset) -> None:
    axes_row = row.subplots(1, COLUMNS)
    for axes in axes_row:
        axes.set_axis_off()
    for axes, error in zip(axes_row, errors, strict=False):
        axes.imshow(_tile(error, data)[:, :, ::-1])
        text = f"{describe(error, data.labels)}\n{_shorten(error.name, 40)}"
        axes.set_title(text, fontsize=8, parse_math=False)


def describe(error: DetectionError, labels: Sequence[str]) -> str:
    """Return a caption of one or two lines.

    Args:
        error: The error.
        labels: Class names by class id.

    Example:
        >>> describe(error, data.labels).splitlines()
        ['dog 0.91', 'is cat, IoU 0.84']
    """
    detected = "" if error.detection is None else _shorten(labels[error.detection.class_id])
    truth = "" if error.truth is None else _shorten(labels[error.truth.class_id])
    prediction = f"{detected} {error.score:.2f}"
    overlap = f"IoU {error.overlap:.2f}"
    if error.kind == "missed":
        return f"{truth}\n" + (f"nearest: {prediction}, {overlap}" if detected else "nothing near")
    if error.truth is None:
        return prediction
    if error.kind == "wrong class":
        return f"{prediction}\nis {truth}, {overlap}"
    return f"{prediction}\n{overlap}"


def _shorten(text: str, limit: int = 18) -> str:
    return text if len(text) <= limit else f"…{text[1 - limit :]}"


def _tile(error: DetectionError, data: Dataset) -> Image:
    """Return the region of an error, scaled to the size of a tile, with boxes."""
    try:
        sample = data[error.image]
    except RealtimeSSDError:
        return np.full((TILE_HEIGHT, TILE_WIDTH, 3), _BACKGROUND, np.uint8)
    height, width = sample.image.shape[:2]
    left, top, scale = _crop(error, width, height)
    transform = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    tile = cv2.warpAffine(
        np.ascontiguousarray(sample.image),
        transform,
        (TILE_WIDTH, TILE_HEIGHT),
        flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        borderValue=(_BACKGROUND,) * 3,
    )
    for box in sample.boxes:
        _draw_box(tile, box, transform, _OBJECT_COLOR, 1)
    for item, color in ((error.truth, _OBJECT_COLOR), (error.detection, _DETECTION_COLOR)):
        if item is not None:
            _draw_box(tile, np.array(item.box), transform, color, 2)
    return np.asarray(tile, np.uint8)


def _crop(error: DetectionError, width: int, height: int) -> tuple[float, float, float]:
    """Choose the region of an image of `width` × `height` to show, with a tile's aspect ratio.

    Returns:
        Left and top edge in pixels of the image, and the scale from image to tile.
    """
    boxes = np.array([item.box for item in (error.detection, error.truth) if item is not None])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    size = high - low
    size = np.maximum(size + 2 * _MARGIN * size.max(), _MIN_CROP_SIZE)
    tile, image = np.array([TILE_WIDTH, TILE_HEIGHT]), np.array([width, height])
    # The scale never falls below that of the whole image. The region is moved inside the image,
    # or centered where it is larger.
    scale = max(float((tile / size).min()), float((tile / image).min()))
    region = tile / scale
    corner = np.clip((low + high - region) / 2, 0, np.maximum(image - region, 0))
    left, top = np.where(region > image, (image - region) / 2, corner)
    return float(left), float(top), scale


def _draw_box(
    tile: Image,
    box: NDArray[np.floating[Any]],
    transform: NDArray[np.float64],
    color: tuple[int, int, int],
    thickness: int,
) -> None:
    corners = np.asarray(box, np.float64).reshape(2, 2) * transform[0, 0] + transform[:, 2]
    top_left, bottom_right = (tuple(int(v) for v in corner) for corner in np.rint(corners))
    if thickness > 1:
        white = (255, 255, 255)
        cv2.rectangle(tile, top_left, bottom_right, white, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(tile, top_left, bottom_right, color, thickness, cv2.LINE_AA)
