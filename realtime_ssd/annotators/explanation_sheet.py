"""A sheet that shows where the detections of an image come from."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.annotators.palette import Color, color_of
from realtime_ssd.annotators.text import draw_text, label_plate
from realtime_ssd.core.explanation import BoxOrigin, Candidate, Explanation, Rival
from realtime_ssd.core.frames import Image

__all__ = ["describe_candidate", "describe_detection", "draw_explanation"]

MAX_TILES = 9
"""Largest number of detections with a tile of their own."""

MAX_RIVALS = 12
"""Largest number of suppressed boxes drawn in a tile."""

_WIDTH, _COLUMNS, _GAP = 1500, 3, 12
_PICTURE_HEIGHT, _LINE, _FONT = 300, 20, 14
_BACKGROUND: Color = (32, 32, 32)
_TEXT: Color = (235, 235, 235)
_GRAY: Color = (170, 170, 170)
_WHITE: Color = (255, 255, 255)
_MARGIN = 0.25

Box = Sequence[float]


def draw_explanation(image: Image, explanation: Explanation, title: str) -> Image:
    """Draw the image with numbered detections and near misses, and a tile per detection.

    A tile shows the detection (thick), its default box (white, dashed) with its center, and the
    boxes that it suppressed (thin, gray).

    Args:
        image: H × W × 3 uint8 BGR.
        explanation: What was detected in it.
        title: First line of the sheet.

    Returns:
        The sheet, H × 1500 × 3 uint8 BGR.
    """
    tiles = [
        _tile(image, number, item.candidate, item.rivals)
        for number, item in enumerate(explanation.detections[:MAX_TILES], start=1)
    ]
    parts = [_lines([title, *_summary(explanation)]), _overview(image, explanation)]
    for start in range(0, len(tiles), _COLUMNS):
        row = tiles[start : start + _COLUMNS]
        blank = np.full_like(row[0], _BACKGROUND)
        parts.append(np.hstack([*row, *[blank] * (_COLUMNS - len(row))]))
    return np.vstack([_fit(part) for part in parts])


def describe_detection(number: int, candidate: Candidate, rivals: Sequence[Rival]) -> list[str]:
    """Return lines of text about a detection."""
    lines = [f"{number}  {candidate.label} {candidate.score:.3f}", *_describe_origin(candidate)]
    if not rivals:
        return [*lines, "it suppressed no other box"]
    best = rivals[0]
    noun = "box" if len(rivals) == 1 else "boxes"
    return [
        *lines,
        f"it suppressed {len(rivals)} {noun}, the best: {best.candidate.label} "
        f"{best.candidate.score:.3f}, IoU {best.iou:.2f}",
    ]


def describe_candidate(number: int, candidate: Candidate) -> str:
    """Return one line of text about a near miss, with its letter on the sheet."""
    name = _letter(number)
    origin = candidate.origin
    place = f", feature map {origin.feature_map} of {origin.feature_maps}"
    return (
        f"{name}  {candidate.label} {candidate.score:.3f}, threshold {candidate.threshold:g}"
        f"{place if origin.feature_map else ''}"
    )


def _describe_origin(candidate: Candidate) -> list[str]:
    origin = candidate.origin
    if not origin.feature_map:
        lines = [f"default box {origin.index}"]
    else:
        rows, columns = origin.grid
        row, column = origin.cell
        lines = [
            f"feature map {origin.feature_map} of {origin.feature_maps} ({rows} x {columns} "
            f"cells), row {row}, column {column}"
        ]
    if origin.box is None:
        return [*lines, "the graph decodes its boxes itself"]
    width, height = origin.box[2] - origin.box[0], origin.box[3] - origin.box[1]
    which = f"default box {origin.shape} of {origin.shapes}" if origin.shapes else "its size"
    return [*lines, f"{which}: {width:.0f} x {height:.0f} pixels, IoU {origin.iou:.2f}"]


def _summary(explanation: Explanation) -> list[str]:
    count, shown = len(explanation.detections), min(MAX_TILES, len(explanation.detections))
    rivals = sum(len(item.rivals) for item in explanation.detections)
    first = (
        f"{explanation.candidates} candidates above the threshold, {count} detections, {rivals} "
        f"suppressed with IoU > {explanation.iou_threshold:g}"
    )
    dropped = explanation.candidates - count - rivals
    if dropped:
        first += f", {dropped} beyond the limits of the model"
    more = f"; the first {shown} are explained below" if shown < count else ""
    lines = [first + more]
    misses = [describe_candidate(k, item) for k, item in enumerate(explanation.near_misses)]
    if misses:
        lines.append("dashed, just below the threshold:")
        lines += ["     ".join(misses[k : k + 3]) for k in range(0, len(misses), 3)]
    return lines


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26)


def _lines(texts: Sequence[str]) -> Image:
    part = np.full((_LINE * len(texts) + _GAP, _WIDTH, 3), _BACKGROUND, np.uint8)
    for number, text in enumerate(texts):
        draw_text(part, text, (_GAP, number * _LINE + _GAP // 2), _FONT, _TEXT)
    return part


def _fit(part: Image) -> Image:
    """Extend a part to the width of the sheet."""
    canvas = np.full((part.shape[0], _WIDTH, 3), _BACKGROUND, np.uint8)
    canvas[:, : part.shape[1]] = part
    return canvas


def _overview(image: Image, explanation: Explanation) -> Image:
    """Draw all detections and near misses on the image, scaled to the width of the sheet."""
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, 1000 / height)
    canvas = _resize(image, scale)
    for number, miss in enumerate(explanation.near_misses):
        box = np.array(miss.box) * scale
        _dashed(canvas, box, color_of(miss.class_id))
        _plate(canvas, f"{_letter(number)} {miss.score:.2f}", box, color_of(miss.class_id))
    for number, item in reversed(list(enumerate(explanation.detections, start=1))):
        box = np.array(item.candidate.box) * scale
        color = color_of(item.candidate.class_id)
        _rectangle(canvas, box, color, 3)
        _plate(canvas, f"{number} {item.candidate.label}", box, color)
    return canvas


def _tile(image: Image, number: int, candidate: Candidate, rivals: Sequence[Rival]) -> Image:
    """Draw one detection above its description."""
    width = _WIDTH // _COLUMNS - _GAP
    shown = [rival.candidate for rival in rivals[:MAX_RIVALS]]
    picture = _picture(image, candidate, shown, width)
    lines = describe_detection(number, candidate, rivals)
    tile = np.full(
        (_PICTURE_HEIGHT + _LINE * 5 + _GAP, _WIDTH // _COLUMNS, 3), _BACKGROUND, np.uint8
    )
    tile[:_PICTURE_HEIGHT, _GAP // 2 : _GAP // 2 + width] = picture
    for row, text in enumerate(lines):
        top = _PICTURE_HEIGHT + _LINE * row + 4
        draw_text(
            tile, text, (_GAP // 2, top), _FONT, _TEXT if row else color_of(candidate.class_id)
        )
    return tile


def _picture(image: Image, candidate: Candidate, rivals: Sequence[Candidate], width: int) -> Image:
    """Draw the surroundings of a detection."""
    default = candidate.origin.box
    boxes = np.array([candidate.box, *([default] if default else [])])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = _MARGIN * (high - low).max() + 8
    low, high = low - margin, high + margin
    scale = float(min(width / (high - low)[0], _PICTURE_HEIGHT / (high - low)[1]))
    shift = (np.array([width, _PICTURE_HEIGHT]) - (low + high) * scale) / 2
    transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = (width, _PICTURE_HEIGHT)
    picture = cv2.warpAffine(image, transform, size, flags=method, borderValue=_BACKGROUND)
    canvas = np.ascontiguousarray(picture, np.uint8)

    def place(box: Box) -> NDArray[np.float64]:
        return np.asarray(np.array(box) * scale + np.tile(shift, 2))

    for rival in reversed(rivals):
        _rectangle(canvas, place(rival.box), _GRAY, 1)
    if default:
        _draw_default(canvas, place(default), candidate.origin)
    _rectangle(canvas, place(candidate.box), color_of(candidate.class_id), 3)
    return canvas


def _draw_default(canvas: Image, box: NDArray[np.float64], origin: BoxOrigin) -> None:
    """Draw a default box and its center."""
    _dashed(canvas, box, _WHITE)
    center = (round(float(box[0] + box[2]) / 2), round(float(box[1] + box[3]) / 2))
    cv2.circle(canvas, center, 5, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, center, 4, _WHITE, cv2.FILLED, cv2.LINE_AA)


def _resize(image: Image, scale: float) -> Image:
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.array(cv2.resize(image, size, interpolation=method), np.uint8)


def _corners(canvas: Image, box: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Round a box to pixels; far outside the canvas its position does not matter."""
    limit = 4 * max(canvas.shape[:2])
    x1, y1, x2, y2 = (round(min(max(float(value), -limit), limit)) for value in box)
    return x1, y1, x2, y2


def _rectangle(canvas: Image, box: NDArray[np.float64], color: Color, thickness: int) -> None:
    x1, y1, x2, y2 = _corners(canvas, box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)


def _dashed(canvas: Image, box: NDArray[np.float64], color: Color) -> None:
    """Draw a dashed rectangle, with dark gaps so that it is visible on any background."""
    x1, y1, x2, y2 = _corners(canvas, box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), 2)
    for x in range(x1, x2, 12):
        for y in (y1, y2):
            cv2.line(canvas, (x, y), (min(x + 6, x2), y), color, 2)
    for y in range(y1, y2, 12):
        for x in (x1, x2):
            cv2.line(canvas, (x, y), (x, min(y + 6, y2)), color, 2)


def _plate(canvas: Image, text: str, box: NDArray[np.float64], color: Color) -> None:
    """Draw a label above a box, or inside it at the border of the canvas."""
    plate = label_plate((text,), _FONT, color)
    height, width = plate.shape[:2]
    x1, y1, *_ = _corners(canvas, box)
    left = min(max(x1, 0), max(0, canvas.shape[1] - width))
    top = min(max(y1 - height if y1 >= height else y1, 0), max(0, canvas.shape[0] - height))
    target = canvas[top : top + height, left : left + width]
    target[:] = plate[: target.shape[0], : target.shape[1]]
