"""Plot of a confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realtime_ssd_training.evaluation.confusion import ConfusionMatrix
from realtime_ssd_training.evaluation.metric_plots import new_figure, save_figure

__all__ = ["draw_confusions"]

MAX_CLASSES = 30
"""Largest number of classes that are drawn: those with the most objects and detections."""


def draw_confusions(path: Path, matrix: ConfusionMatrix, title: str) -> None:
    """Draw a confusion matrix with the counts, colored by the fraction of the objects of a row.

    Args:
        path: PNG file to write.
        matrix: The matrix.
        title: First line of the heading.

    Raises:
        UsageError: If the file cannot be written.
    """
    shown = _most_frequent(matrix)
    counts = matrix.counts[np.ix_(shown, shown)]
    labels = [matrix.labels[k][:18] for k in shown]
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(5.0, 1.6 + 0.42 * len(shown))
    figure = new_figure(side + 1.2, side + 0.6)
    totals = matrix.counts.sum(axis=0) + matrix.counts.sum(axis=1)
    hidden = np.count_nonzero(totals[:-1]) - (len(shown) - 1)
    note = f"; {hidden} classes with fewer objects are not shown" if hidden else ""
    heading = f"{title}\nobjects detected as (IoU 0.5, best F1 thresholds{note})"
    figure.suptitle(heading, fontsize=10, parse_math=False)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    columns = [*labels[:-1], "missed"]
    axes.set_xticks(range(len(shown)), columns, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(shown)), [*labels[:-1], "no object"], fontsize=8, parse_math=False)
    axes.set(xlabel="detected class", ylabel="class of the object")
    for row, column in np.argwhere(counts).tolist():
        color = "white" if fractions[row, column] > 0.5 else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    save_figure(figure, path)


def _most_frequent(matrix: ConfusionMatrix) -> list[int]:
    """Return the classes to draw in their order, without those that occur nowhere."""
    totals = matrix.counts.sum(axis=0) + matrix.counts.sum(axis=1)
    classes = np.arange(len(matrix.labels) - 1)
    order = classes[np.argsort(-totals[:-1], kind="stable")][:MAX_CLASSES]
    return [*sorted(k for k in order.tolist() if totals[k]), len(classes)]
