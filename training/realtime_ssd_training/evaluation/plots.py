"""Pictures of how good a model is: precision-recall curves, and what the size of objects does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.evaluation.metrics import SIZES, ClassScore, Score
from realtime_ssd_training.evaluation.mistakes import Mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_sizes", "new_figure", "save"]

TOGETHER = 10
"""Most classes whose curves share one diagram; more get a small diagram each."""

MOST = 100
"""Most small diagrams; the classes with the most objects are shown."""

_WIDE = 10  # small diagrams side by side
_BLUE, _RED = "#2166ac", "#d6604d"


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Make an empty picture of a size in inches, without a window.

    Args:
        width: Its width.
        height: Its height.
        layout: How diagrams are placed; None for by hand, which is faster for many.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG.

    Raises:
        UsageError: If that is not possible.
    """
    try:
        with warnings.catch_warnings():
            # Letters that the font lacks become boxes.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(path, dpi=110)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from None


def draw_curves(path: Path, score: Score, title: str) -> None:
    """Draw the precision-recall curve of every class, with the point of the best F1.

    Args:
        path: PNG file to write.
        score: The result.
        title: What was scored.

    Raises:
        UsageError: If the file cannot be written.
    """
    few = len(score.classes) <= TOGETHER
    figure = _one_diagram(score) if few else _many_diagrams(score)
    # Only a constrained layout makes room for the title; elsewhere it gets a place of its own.
    place = {} if few else {"y": 1 - 0.1 / figure.get_figheight(), "va": "top"}
    figure.suptitle(f"{title}\n{_means(score)}", fontsize=11, parse_math=False, **place)
    save(figure, path)


def _means(score: Score) -> str:
    means = {
        key: score.summary[key] for key in ("mAP", "AP", "AP50", "AP75") if key in score.summary
    }
    return "   ".join(f"{key} {value:.3f}" for key, value in means.items())


def _shown(item: ClassScore) -> tuple[str, float]:
    """Give the name and value of the figure that is the area under the drawn curve."""
    key = "AP50" if "AP50" in item.values else "AP"
    return key, item.values[key]


def _envelope(item: ClassScore) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the curve that the average precision is the area of: never rising, down to 0."""
    best = np.maximum.accumulate(item.precision[::-1])[::-1]
    last = item.recall[-1:]
    recall = np.concatenate([[0.0], item.recall, last])
    precision = np.concatenate([best[:1] if len(best) else [0.0], best, np.zeros(len(last))])
    return recall, precision


def _curve(axes: Axes, item: ClassScore, color: Any, label: str, size: float) -> None:
    axes.plot(*_envelope(item), color=color, label=label, linewidth=size, drawstyle="steps-pre")
    best = item.best()
    if best is not None:
        axes.plot(best.recall, best.precision, "o", color=color, markersize=2.5 * size + 1)


def _limits(axes: Axes) -> None:
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    axes.grid(alpha=0.3)


def _one_diagram(score: Score) -> Figure:
    figure = new_figure(9.5, 5.6)
    axes = figure.subplots()
    for k, item in enumerate(sorted(score.classes, key=lambda one: -_shown(one)[1])):
        key, value = _shown(item)
        best = item.best()
        point = "nothing found" if best is None else f"best F1 {best.f1:.2f} at {best.score:.2f}"
        label = f"{_plain(item.label)}: {key} {value:.3f}, {item.objects} objects\n{point}"
        _curve(axes, item, f"C{k}", label, 1.8)
    axes.set(xlabel="recall", ylabel="precision")
    axes.set_title("IoU 0.5; the dot is the score threshold of the best F1", fontsize=9)
    _limits(axes)
    figure.legend(loc="outside right center", fontsize=9, frameon=False)
    return figure


def _plain(text: str) -> str:
    """Keep a label from being read as a formula, or as one to leave out of the legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _many_diagrams(score: Score) -> Figure:
    classes = sorted(score.classes, key=lambda one: -one.objects)[:MOST]
    classes.sort(key=lambda one: -_shown(one)[1])
    rows = ceil(len(classes) / _WIDE)
    width, height = 1.75 * _WIDE, 1.75 * rows + 1.5
    figure = new_figure(width, height, None)
    grid = figure.subplots(rows, _WIDE, squeeze=False)
    figure.subplots_adjust(
        left=0.7 / width,
        right=1 - 0.15 / width,
        top=1 - 0.95 / height,
        bottom=0.6 / height,
        wspace=0.12,
        hspace=0.25,
    )
    for number, axes in enumerate(grid.flat):
        if number >= len(classes):
            axes.set_axis_off()
            continue
        _small_diagram(axes, classes[number])
        if number % _WIDE:
            axes.set_yticklabels([])
        if number + _WIDE < len(classes):
            axes.set_xticklabels([])
    left_out = len(score.classes) - len(classes)
    more = f"; {left_out} classes with fewer objects are not shown" if left_out else ""
    text = f"recall (IoU 0.5; the dot is the score threshold of the best F1{more})"
    figure.supxlabel(text, fontsize=9, y=0.12 / height, va="bottom")
    figure.supylabel("precision", fontsize=9, x=0.1 / width, ha="left")
    return figure


def _small_diagram(axes: Axes, item: ClassScore) -> None:
    recall, precision = _envelope(item)
    axes.fill_between(recall, precision, step="pre", color=_BLUE, alpha=0.2, linewidth=0)
    _curve(axes, item, _BLUE, "", 1.2)
    key, value = _shown(item)
    best = item.best()
    at = "" if best is None else f"\nF1 {best.f1:.2f} at {best.score:.2f}"
    axes.set_title(item.label[:20], fontsize=9, parse_math=False)
    facts = f"{key} {value:.2f}\n{item.objects} obj.{at}"
    x, y, side, end = (
        (0.05, 0.05, "left", "bottom") if value > 0.5 else (0.96, 0.96, "right", "top")
    )
    axes.text(x, y, facts, fontsize=7, transform=axes.transAxes, ha=side, va=end)
    _limits(axes)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)


def draw_sizes(
    path: Path,
    sizes: Mapping[str, Mapping[str, float | int | None]],
    mistakes: Mistakes,
    title: str,
) -> None:
    """Draw how well objects of each size are found.

    Args:
        path: PNG file to write.
        sizes: Figures by COCO's sizes (see `realtime_ssd_training.evaluation.evaluate.Evaluation.sizes`).
        mistakes: Which objects were found, with their sides.
        title: What was scored.

    Raises:
        UsageError: If the file cannot be written.
    """
    figure = new_figure(11, 4.4)
    figure.suptitle(title, fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2)
    _bars(left, sizes)
    _histogram(right, mistakes)
    save(figure, path)


def _bars(axes: Axes, sizes: Mapping[str, Mapping[str, float | int | None]]) -> None:
    names = [key for key in next(iter(sizes.values())) if key != "objects"]
    places, width = np.arange(len(sizes)), 0.8 / len(names)
    for k, name in enumerate(names):
        values = [float(row[name] or 0) for row in sizes.values()]
        bars = axes.bar(
            places + (k - (len(names) - 1) / 2) * width,
            values,
            width * 0.92,
            label=name,
            color=(_BLUE, "#92c5de")[k % 2],
        )
        told = ["" if row[name] is None else f"{row[name]:.2f}" for row in sizes.values()]
        axes.bar_label(bars, told, fontsize=9, padding=2)
    axes.set_xticks(places, [_size(name, row) for name, row in sizes.items()])
    axes.set(ylim=(0, 1.08), title="By COCO's sizes, over all classes")
    axes.legend(fontsize=9, loc="upper left")
    axes.grid(alpha=0.3, axis="y")


def _size(name: str, row: Mapping[str, float | int | None]) -> str:
    low, high = (side**0.5 for side in SIZES[name])
    span = f"{low:.0f}² to {high:.0f}²" if isfinite(high) else f"from {low:.0f}²"
    span = f"below {high:.0f}²" if not low else span
    return f"{name}\n{span} pixels\n{row['objects']} objects"


def _histogram(axes: Axes, mistakes: Mistakes) -> None:
    edges = _edges(mistakes.sides)
    total, _ = np.histogram(mistakes.sides, edges)
    found, _ = np.histogram(mistakes.sides[mistakes.found], edges)
    places = np.arange(len(total))
    axes.bar(places, found, 0.92, color=_BLUE, label="found")
    bars = axes.bar(places, total - found, 0.92, bottom=found, color=_RED, label="not found")
    told = [f"{100 * f / t:.0f} %" if t else "" for f, t in zip(found, total, strict=True)]
    axes.bar_label(bars, told, fontsize=8, padding=2)
    axes.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:.0f}" for edge in edges], fontsize=8)
    axes.set(
        xlabel="side of the object in pixels (root of its area)",
        ylabel="objects",
        title=f"RawDetections at IoU 0.5 with a score of {mistakes.score:.2f} and more",
    )
    axes.margins(y=0.12)
    axes.legend(fontsize=9)


def _edges(sides: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose bins whose edges double, COCO's limits of 32 pixels among them."""
    values = np.asarray(sides, np.float64)
    values = values[values > 0]
    low = int(np.floor(np.log2(values.min()))) if len(values) else 4
    high = int(np.floor(np.log2(values.max()))) + 1 if len(values) else 8
    return np.asarray(2.0 ** np.arange(low, max(high, low + 1) + 1), np.float64)
