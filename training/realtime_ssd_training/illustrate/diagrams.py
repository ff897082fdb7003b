"""Diagrams without an image: feature maps, the worked example, losses, small objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from realtime_ssd.core.boxes import AnchorSpec, to_corners
from realtime_ssd_training.illustrate.figure_style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    RED,
    draw_boxes,
    new_figure,
)
from realtime_ssd_training.illustrate.matching_statistics import match_statistics
from realtime_ssd_training.illustrate.worked_example import OBJECTS, SIDE, SPEC, solve
from realtime_ssd_training.models import ssd300_vgg16, ssd512_vgg16

__all__ = ["MAPS", "losses", "pyramid", "small_objects", "worked_example"]

MAPS = ("conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")
"""Names of the feature maps of SSD300 in the paper."""

_LABEL_BOX = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "lw": 1.0}
# Position of a number on its box in the example, as fractions of width and height.
_NUMBER_POSITIONS = {
    **{2: (0.2, 0.0), 3: (0.8, 1.0), 5: (0.2, 0.0), 8: (0.5, 1.0)},
    **{9: (0.85, 0.0), 10: (0.2, 1.0)},
}


def pyramid() -> Figure:
    """Draw the grids of the feature maps of SSD300, with their numbers of default boxes."""
    layers = ssd300_vgg16.BOXES["voc"].layers
    figure = new_figure(11, 5)
    axes = figure.subplots()
    left = 0.0
    for name, layer in zip(MAPS, layers, strict=True):
        middle = left + max(layer.columns, 17) / 2
        _grid(axes, middle - layer.columns / 2, layer.rows, layer.columns)
        text = f"{layer.rows} × {layer.columns} cells\n× {len(layer.sizes)} boxes\n= {layer.count}"
        axes.text(middle, 41, name, ha="center", va="bottom", fontsize=13, weight="bold")
        axes.text(middle, -1.5, text, ha="center", va="top", fontsize=13, linespacing=1.5)
        left += max(layer.columns, 17) + 3
    total = sum(layer.count for layer in layers)
    axes.text(
        left / 2 - 1.5, -16.5, f"{total} default boxes in total", ha="center", va="top",
        fontsize=14, color=RED, weight="bold",
    )  # fmt: skip
    axes.set(xlim=(-1, left - 2), ylim=(-19.5, 45.5), aspect="equal")
    axes.axis("off")
    return figure


def _grid(axes: Any, left: float, rows: int, columns: int) -> None:
    axes.add_patch(Rectangle((left, 0), columns, rows, fc="#ddeeff", ec=BLUE, lw=1.2))
    axes.vlines(left + np.arange(1, columns), 0, rows, color=BLUE, lw=0.5)
    axes.hlines(np.arange(1, rows), left, left + columns, color=BLUE, lw=0.5)


def worked_example() -> Figure:
    """Draw the worked example: default boxes, matches, hard negatives."""
    solution = solve()
    boxes = to_corners(SPEC.boxes.boxes()) * SIDE
    matched, hard = (solution.labels > 0).numpy(), solution.hard.numpy()
    figure = new_figure(11, 4.1)
    panels = figure.subplots(1, 3)
    for axes in panels:
        _draw_image_area(axes)
    _draw_cells(panels[0])
    panels[0].set_title("boxes of the first cell, and 12, 13", fontsize=12)
    draw_boxes(panels[0], boxes[:3].tolist(), BLUE, 2)
    draw_boxes(panels[0], boxes[12:].tolist(), GREEN, 2)
    for axes in panels[1:]:
        _draw_objects(axes)
    panels[1].set_title(f"N = {matched.sum()} matched", fontsize=12)
    _draw_numbered(panels[1], boxes, np.flatnonzero(matched), RED)
    unused = np.flatnonzero(~matched & ~hard)
    panels[2].set_title(f"{hard.sum()} hard negatives, {len(unused)} not used", fontsize=12)
    _draw_numbered(panels[2], boxes, unused, GRAY, ls=":")
    _draw_numbered(panels[2], boxes, np.flatnonzero(hard), ORANGE)
    return figure


def _draw_image_area(axes: Any) -> None:
    axes.add_patch(Rectangle((0, 0), SIDE, SIDE, fc="#f6f8fa", ec=INK, lw=1.2))
    ticks = (0, 25, 50, 75, 100)
    axes.set(xlim=(-6, 106), ylim=(106, -6), aspect="equal", xticks=ticks, yticks=ticks)
    axes.tick_params(labelsize=11)


def _draw_cells(axes: Any) -> None:
    axes.plot([50, 50], [0, 100], color=GRAY, lw=1)
    axes.plot([0, 100], [50, 50], color=GRAY, lw=1)
    names = (("0 1 2", 25, 25), ("3 4 5", 75, 25), ("6 7 8", 25, 75), ("9 10 11", 75, 75))
    for name, x, y in names:
        axes.plot([x], [y], "o", color=BLUE, ms=5)
        axes.text(x, y + 2.5, name, ha="center", va="top", fontsize=12, bbox=_LABEL_BOX, zorder=5)
    axes.plot([50], [50], "o", color=GREEN, ms=6)
    axes.text(50, 53, "12 13", ha="center", va="top", fontsize=12, bbox=_LABEL_BOX, zorder=5)


def _draw_objects(axes: Any) -> None:
    for x1, y1, x2, y2, label in OBJECTS:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fc=BLUE, alpha=0.25))
        axes.text(
            (x1 + x2) / 2, (y1 + y2) / 2, SPEC.labels[label], ha="center", va="center",
            fontsize=12, color=BLUE, rotation=90 if y2 - y1 > x2 - x1 else 0,
        )  # fmt: skip


def _draw_numbered(axes: Any, boxes: Any, indices: Any, color: str, **style: Any) -> None:
    """Draw default boxes with their numbers on an edge."""
    draw_boxes(axes, boxes[indices].tolist(), color, 2, **style)
    for number in indices.tolist():
        across, down = _NUMBER_POSITIONS.get(number, (0.5, 0.0))
        x1, y1, x2, y2 = boxes[number]
        x, y = x1 + (x2 - x1) * across, y1 + (y2 - y1) * down
        label_box = {**_LABEL_BOX, "ec": color}
        axes.text(
            x, y, str(number), ha="center", va="center", fontsize=11, bbox=label_box, zorder=5
        )


def losses() -> Figure:
    """Draw cross-entropy and smooth L1."""
    figure = new_figure(11, 3.9)
    left, right = figure.subplots(1, 2)
    p = np.linspace(0.005, 1, 400)
    left.plot(p, -np.log(p), color=BLUE, lw=3)
    left.set_title("cross-entropy: −ln ĉ of the target class", fontsize=13)
    left.set_xlabel("probability ĉ", fontsize=12)
    x = np.linspace(-3, 3, 601)
    right.plot(x, x**2 / 2, color=GRAY, lw=2, ls="--", label="x² / 2")
    right.plot(x, np.abs(x), color=GRAY, lw=2, ls=":", label="|x|")
    smooth = np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)
    right.plot(x, smooth, color=RED, lw=3, label="smooth L1")
    right.set(ylim=(0, 3))
    right.set_title("smooth L1: quadratic up to 1, linear beyond", fontsize=13)
    right.set_xlabel("predicted offset − target offset", fontsize=12)
    right.legend(fontsize=12)
    _style_axes((left, right))
    return figure


def small_objects() -> Figure:
    """Draw the number of default boxes that match a square object, by object size."""
    curves: tuple[tuple[str, AnchorSpec, str], ...] = (
        ("SSD300, boxes from 30 px (VOC)", ssd300_vgg16.BOXES["voc"], BLUE),
        ("SSD300, boxes from 21 px (COCO)", ssd300_vgg16.BOXES["coco"], GREEN),
        ("SSD512, boxes from 21 px (VOC)", ssd512_vgg16.BOXES["voc"], RED),
    )
    figure = new_figure(11, 4.3)
    counts, unmatched = figure.subplots(1, 2)
    sizes = np.unique(np.concatenate([np.arange(6, 40), np.arange(40, 292, 4)]))
    for name, anchors, color in curves:
        rows = [match_statistics(anchors, float(size) / 300) for size in sizes]
        counts.plot(sizes, [row.mean for row in rows], color=color, lw=2.5, label=name)
        unmatched.plot(sizes, [100 * row.unmatched for row in rows], color=color, lw=2.5)
    counts.set(xscale="log", xticks=(8, 16, 32, 64, 128, 256), ylim=(0, None))
    counts.set_xticklabels(["8", "16", "32", "64", "128", "256"])
    counts.minorticks_off()
    counts.set_title("default boxes with IoU ≥ 0.5", fontsize=13)
    unmatched.set(xlim=(6, 40))
    unmatched.set_title("positions without any, per cent", fontsize=13)
    for axes in (counts, unmatched):
        axes.set_xlabel("side of a square object, pixels of a 300 × 300 image", fontsize=12)
    figure.legend(loc="outside lower center", ncols=3, fontsize=12, frameon=False)
    _style_axes((counts, unmatched))
    return figure


def _style_axes(panels: Sequence[Any]) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=12)
        axes.spines[["top", "right"]].set_visible(False)
