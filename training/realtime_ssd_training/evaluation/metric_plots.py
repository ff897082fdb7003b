"""Plots of an evaluation: precision-recall curves, and detection rate by object size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.evaluation.error_analysis import ErrorAnalysis
from realtime_ssd_training.evaluation.voc_metrics import SIZES, ClassResult, MetricResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_sizes", "new_figure", "save_figure"]

MAX_SHARED_CURVES = 10
"""Maximum number of classes in one diagram; with more, each class gets a small diagram."""

MAX_SMALL_DIAGRAMS = 100
"""Maximum number of small diagrams; the classes with the most objects are shown."""

_COLUMNS = 10  # small diagrams per row
_BLUE, _RED = "#2166ac", "#d6604d"

SizeTable = Mapping[str, Mapping[str, float | int | None]]


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Create an empty figure that is rendered without a window.

    Args:
        width: Width in inches.
        height: Height in inches.
        layout: Layout engine; None for manual layout, which is faster for many axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UsageError: If the file cannot be written.
    """
    try:
        with warnings.catch_warnings():
            # Characters missing from the font are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(path, dpi=110)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from None


def draw_curves(path: Path, result: MetricResult, title: str) -> None:
    """Draw the precision-recall curve of every class, with the point of the best F1.

    Args:
        path: PNG file to write.
        result: The metrics.
        title: First line of the heading.

    Raises:
        UsageError: If the file cannot be written.
    """
    shared = len(result.classes) <= MAX_SHARED_CURVES
    figure = _shared_diagram(result) if shared else _small_diagrams(result)
    # A manual layout does not reserve space for the heading.
    position = {} if shared else {"y": 1 - 0.1 / figure.get_figheight(), "va": "top"}
    figure.suptitle(f"{title}\n{_means(result)}", fontsize=11, parse_math=False, **position)
    save_figure(figure, path)


def _means(result: MetricResult) -> str:
    keys = [key for key in ("mAP", "AP", "AP50", "AP75") if key in result.summary]
    return "   ".join(f"{key} {result.summary[key]:.3f}" for key in keys)


def _curve_area(item: ClassResult) -> tuple[str, float]:
    """Return name and value of the metric that is the area under the plotted curve."""
    key = "AP50" if "AP50" in item.values else "AP"
    return key, item.values[key]


def _envelope(item: ClassResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall and precision of the monotonically decreasing curve, ending at 0."""
    envelope = np.maximum.accumulate(item.precision[::-1])[::-1]
    last = item.recall[-1:]
    recall = np.concatenate([[0.0], item.recall, last])
    start = envelope[:1] if len(envelope) else [0.0]
    return recall, np.concatenate([start, envelope, np.zeros(len(last))])


def _plot_curve(axes: Axes, item: ClassResult, color: Any, label: str, linewidth: float) -> None:
    axes.plot(
        *_envelope(item), color=color, label=label, linewidth=linewidth, drawstyle="steps-pre"
    )
    best = item.best_f1()
    if best is not None:
        axes.plot(best.recall, best.precision, "o", color=color, markersize=2.5 * linewidth + 1)


def _set_limits(axes: Axes) -> None:
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    axes.grid(alpha=0.3)


def _shared_diagram(result: MetricResult) -> Figure:
    figure = new_figure(9.5, 5.6)
    axes = figure.subplots()
    for k, item in enumerate(sorted(result.classes, key=lambda item: -_curve_area(item)[1])):
        key, value = _curve_area(item)
        best = item.best_f1()
        point = "nothing detected" if best is None else f"best F1 {best.f1:.2f} at {best.score:.2f}"
        label = f"{_escape(item.label)}: {key} {value:.3f}, {item.objects} objects\n{point}"
        _plot_curve(axes, item, f"C{k}", label, 1.8)
    axes.set(xlabel="recall", ylabel="precision")
    axes.set_title("IoU 0.5; dots mark the best F1", fontsize=9)
    _set_limits(axes)
    figure.legend(loc="outside right center", fontsize=9, frameon=False)
    return figure


def _escape(text: str) -> str:
    """Escape a label that matplotlib would read as a formula or omit from the legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _small_diagrams(result: MetricResult) -> Figure:
    classes = sorted(result.classes, key=lambda item: -item.objects)[:MAX_SMALL_DIAGRAMS]
    classes.sort(key=lambda item: -_curve_area(item)[1])
    rows = ceil(len(classes) / _COLUMNS)
    width, height = 1.75 * _COLUMNS, 1.75 * rows + 1.5
    figure = new_figure(width, height, None)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    figure.subplots_adjust(
        left=0.7 / width,
        right=1 - 0.15 / width,
        top=1 - 0.95 / height,
        bottom=0.6 / height,
        wspace=0.12,
        hspace=0.25,
    )
    for index, axes in enumerate(grid.flat):
        if index >= len(classes):
            axes.set_axis_off()
            continue
        _small_diagram(axes, classes[index])
        if index % _COLUMNS:
            axes.set_yticklabels([])
        if index + _COLUMNS < len(classes):
            axes.set_xticklabels([])
    hidden = len(result.classes) - len(classes)
    note = f"; {hidden} classes with fewer objects are not shown" if hidden else ""
    text = f"recall (IoU 0.5; dots mark the best F1{note})"
    figure.supxlabel(text, fontsize=9, y=0.12 / height, va="bottom")
    figure.supylabel("precision", fontsize=9, x=0.1 / width, ha="left")
    return figure


def _small_diagram(axes: Axes, item: ClassResult) -> None:
    recall, precision = _envelope(item)
    axes.fill_between(recall, precision, step="pre", color=_BLUE, alpha=0.2, linewidth=0)
    _plot_curve(axes, item, _BLUE, "", 1.2)
    key, value = _curve_area(item)
    best = item.best_f1()
    point = "" if best is None else f"\nF1 {best.f1:.2f} at {best.score:.2f}"
    axes.set_title(item.label[:20], fontsize=9, parse_math=False)
    text = f"{key} {value:.2f}\n{item.objects} obj.{point}"
    # The text goes where a curve of this area leaves space.
    x, y, ha, va = (0.05, 0.05, "left", "bottom") if value > 0.5 else (0.96, 0.96, "right", "top")
    axes.text(x, y, text, fontsize=7, transform=axes.transAxes, ha=ha, va=va)
    _set_limits(axes)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)


def draw_sizes(path: Path, sizes: SizeTable, analysis: ErrorAnalysis, title: str) -> None:
    """Draw metrics and detection rate by object size.

    Args:
        path: PNG file to write.
        sizes: Metrics by COCO's object sizes, from `Evaluation.sizes`.
        analysis: Sizes of the objects and which were detected.
        title: Heading.

    Raises:
        UsageError: If the file cannot be written.
    """
    figure = new_figure(11, 4.4)
    figure.suptitle(title, fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2)
    _draw_size_metrics(left, sizes)
    _draw_detection_rate(right, analysis)
    save_figure(figure, path)


def _draw_size_metrics(axes: Axes, sizes: SizeTable) -> None:
    names = [key for key in next(iter(sizes.values())) if key != "objects"]
    positions, width = np.arange(len(sizes)), 0.8 / len(names)
    for k, name in enumerate(names):
        values = [float(row[name] or 0) for row in sizes.values()]
        bars = axes.bar(
            positions + (k - (len(names) - 1) / 2) * width,
            values,
            width * 0.92,
            label=name,
            color=(_BLUE, "#92c5de")[k % 2],
        )
        labels = ["" if row[name] is None else f"{row[name]:.2f}" for row in sizes.values()]
        axes.bar_label(bars, labels, fontsize=9, padding=2)
    axes.set_xticks(positions, [_size_label(name, row) for name, row in sizes.items()])
    axes.set(ylim=(0, 1.08), title="By COCO's object sizes, mean over classes")
    axes.legend(fontsize=9, loc="upper left")
    axes.grid(alpha=0.3, axis="y")


def _size_label(name: str, row: Mapping[str, float | int | None]) -> str:
    low, high = (side**0.5 for side in SIZES[name])
    limits = f"{low:.0f}² to {high:.0f}²" if isfinite(high) else f"from {low:.0f}²"
    limits = f"below {high:.0f}²" if not low else limits
    return f"{name}\n{limits} pixels\n{row['objects']} objects"


def _draw_detection_rate(axes: Axes, analysis: ErrorAnalysis) -> None:
    edges = _bin_edges(analysis.sides)
    total, _ = np.histogram(analysis.sides, edges)
    detected, _ = np.histogram(analysis.sides[analysis.detected], edges)
    positions = np.arange(len(total))
    axes.bar(positions, detected, 0.92, color=_BLUE, label="detected")
    bars = axes.bar(positions, total - detected, 0.92, bottom=detected, color=_RED, label="missed")
    rates = [f"{100 * d / t:.0f} %" if t else "" for d, t in zip(detected, total, strict=True)]
    axes.bar_label(bars, rates, fontsize=8, padding=2)
    axes.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:.0f}" for edge in edges], fontsize=8)
    axes.set(
        xlabel="object size in pixels (square root of the area)",
        ylabel="objects",
        title=f"Detected at IoU 0.5 and score ≥ {analysis.score:.2f}",
    )
    axes.margins(y=0.12)
    axes.legend(fontsize=9)


def _bin_edges(sides: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return powers of two that cover all sides, so that COCO's 32 pixels can be an edge."""
    values = np.asarray(sides, np.float64)
    values = values[values > 0]
    low = int(np.floor(np.log2(values.min()))) if len(values) else 4
    high = int(np.floor(np.log2(values.max()))) + 1 if len(values) else 8
    return np.asarray(2.0 ** np.arange(low, max(high, low + 1) + 1), np.float64)
