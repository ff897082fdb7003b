"""Figures on a frame of the synthetic street: default boxes, matching, hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.boxes import to_corners
from realtime_ssd.core.frames import Image
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.synthetic import StreetScene
from realtime_ssd.zoo import BUNDLED
from realtime_ssd_training.engine.loss import hard_negatives
from realtime_ssd_training.engine.matching import match
from realtime_ssd_training.illustrate.diagrams import MAPS
from realtime_ssd_training.illustrate.figure_style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    RED,
    draw_boxes,
    new_figure,
    show_image,
)
from realtime_ssd_training.models.ssd300_vgg16 import BOXES

__all__ = ["MinedFrame", "default_boxes", "hard_negatives_figure", "matching", "mine_frame"]

SEED, FRAME = 900, 0
WIDTH, HEIGHT = 768, 448
_LINE_STYLES = {INK: ":"}


@dataclass(frozen=True, slots=True, eq=False)
class MinedFrame:
    """Matching and hard negative mining of one frame with the bundled model.

    Attributes:
        spec: Specification of the model, with P default boxes.
        image: HEIGHT × WIDTH × 3, BGR.
        objects: N × 4 boxes x1, y1, x2, y2 in pixels, excluding difficult ones.
        ignored: M × 4 boxes of the difficult objects.
        first: P booleans: default boxes matched in the first step, one per object.
        matched: P booleans: all matched default boxes.
        hard: P booleans: hard negatives.
        easy: P booleans: all other negatives.
        entropy: P cross-entropies of the trained model; 0 for ignored default boxes.
        untrained: P cross-entropies of a network with the same score for every class.
    """

    spec: ModelSpec
    image: Image
    objects: NDArray[np.float32]
    ignored: NDArray[np.float32]
    first: Tensor
    matched: Tensor
    hard: Tensor
    easy: Tensor
    entropy: Tensor
    untrained: Tensor


@cache
def mine_frame() -> MinedFrame:
    """Match the objects of a frame, run the bundled model and select the hard negatives."""
    image, truth = StreetScene(WIDTH, HEIGHT, seed=SEED).frame(FRAME)
    spec = read_spec(BUNDLED)
    rows = np.array([item.box for item in truth], np.float32)
    difficult = np.array([item.difficult for item in truth])
    labels = torch.tensor([spec.labels.index(item.label) for item in truth])
    fractions = torch.from_numpy(rows / np.array([WIDTH, HEIGHT] * 2, np.float32))
    default = torch.from_numpy(spec.boxes.boxes())
    ignored = torch.from_numpy(difficult)
    first = match(default, fractions, labels, 2.0, ignored=ignored)
    complete = match(default, fractions, labels, ignored=ignored)
    scores = torch.from_numpy(_scores(spec, image))
    entropy, untrained = (
        functional.cross_entropy(each, complete.labels, ignore_index=-1, reduction="none")
        for each in (scores, torch.zeros_like(scores))
    )
    hard = hard_negatives(entropy[None], complete.labels[None], 3.0)[0]
    easy = (complete.labels == 0) & ~hard
    objects = rows[~difficult], rows[difficult]
    matched = (first.matched, complete.matched)
    return MinedFrame(spec, image, *objects, *matched, hard, easy, entropy, untrained)


def _scores(spec: ModelSpec, image: Image) -> NDArray[np.float32]:
    session = open_session(BUNDLED, 1)
    feed = {spec.input.name: preprocess(image, spec.input)[None]}
    scores: NDArray[np.float32] = session.run([spec.scores_output], feed)[0][0]
    return scores


def default_boxes() -> Figure:
    """Draw the default boxes of one cell of each feature map of SSD300."""
    image = StreetScene(600, 600, seed=SEED).render(FRAME)
    figure = new_figure(9.4, 6.8)
    for axes, name, layer in zip(
        figure.subplots(2, 3).flat, MAPS, BOXES["voc"].layers, strict=True
    ):
        show_image(axes, image, whiten=0.55)
        for edge in np.arange(1, layer.columns) * layer.step_x * 600:
            axes.axvline(edge, color=INK, lw=0.35, alpha=0.35)
            axes.axhline(edge, color=INK, lw=0.35, alpha=0.35)
        # The cell that holds a point on the white car.
        row, column = int(0.62 / layer.step_y), int(0.40 / layer.step_x)
        cell = layer.boxes().reshape(layer.rows, layer.columns, -1, 4)[row, column] * 600
        x, y = cell[0, :2]
        draw_boxes(axes, to_corners(cell).tolist(), RED, 2.0)
        axes.plot([x], [y], "o", color=BLUE, ms=5)
        count = len(layer.sizes)
        axes.set_title(f"{name}: {layer.rows} × {layer.columns} cells, {count} boxes", fontsize=12)
    return figure


def _selected_boxes(mined: MinedFrame, selected: Tensor) -> Any:
    """Return the selected default boxes in pixels."""
    size = np.array([WIDTH, HEIGHT] * 2, np.float32)
    return (to_corners(mined.spec.boxes.boxes()[selected.numpy()]) * size).tolist()


def matching() -> Figure:
    """Draw both steps of matching side by side."""
    mined = mine_frame()
    figure = new_figure(11, 4.15)
    steps = (
        ("step 1: one default box per object", mined.first),
        ("step 2: also default boxes with IoU ≥ 0.5", mined.matched),
    )
    for axes, (title, selected) in zip(figure.subplots(1, 2), steps, strict=True):
        _draw_objects(axes, mined)
        draw_boxes(axes, _selected_boxes(mined, selected), RED, 1.2)
        axes.set_title(f"{title} ({int(selected.sum())})", fontsize=12)
    _legend(figure, ((BLUE, "object"), (INK, "ignored object"), (RED, "matched default box")))
    return figure


def hard_negatives_figure() -> Figure:
    """Draw the hard negatives and the cross-entropies that select them."""
    mined = mine_frame()
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_objects(left, mined)
    draw_boxes(left, _selected_boxes(mined, mined.hard), ORANGE, 0.9)
    left.set_title(
        f"{int(mined.matched.sum())} matched, {int(mined.hard.sum())} hard negatives", fontsize=12
    )
    negatives = mined.entropy[mined.hard | mined.easy].sort(descending=True).values.numpy()
    count, ranks = int(mined.hard.sum()), np.arange(1, len(negatives) + 1)
    right.loglog(ranks, negatives, color=GRAY, lw=2.5)
    right.loglog(ranks[:count], negatives[:count], color=ORANGE, lw=4)
    right.axvline(count, color=INK, lw=1, ls="--")
    right.set_xlabel("negatives, hardest first", fontsize=12)
    right.set_title("cross-entropy", fontsize=12)
    right.set(ylim=(1e-6, None))
    right.text(count * 0.8, 2e-6, f"3 N = {count}", ha="right", fontsize=12)
    right.grid(alpha=0.3)
    _legend(figure, ((BLUE, "object"), (INK, "ignored object"), (ORANGE, "hard negative")))
    return figure


def _draw_objects(axes: Any, mined: MinedFrame) -> None:
    show_image(axes, mined.image, whiten=0.5)
    draw_boxes(axes, mined.ignored.tolist(), INK, 1.8, ls=":")
    draw_boxes(axes, mined.objects.tolist(), BLUE, 2.2)


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=color, lw=2.5, ls=_LINE_STYLES.get(color, "-")) for color, _ in entries
    ]
    names = [name for _, name in entries]
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize=12, frameon=False)
