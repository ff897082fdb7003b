"""Pictures over a frame of the built-in street: default boxes, matching, hard negatives."""

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
from realtime_ssd_training.illustrate.canvas import BLUE, GREY, INK, ORANGE, RED, boxes, new_figure
from realtime_ssd_training.illustrate.canvas import picture as show
from realtime_ssd_training.illustrate.diagrams import MAPS
from realtime_ssd_training.models.ssd300_vgg16 import BOXES

__all__ = ["Mined", "default_boxes", "hard_negatives_picture", "matching", "mine"]

SEED, NUMBER = 900, 0
WIDTH, HEIGHT = 768, 448
_STYLES = {INK: ":"}


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """One frame through the bundled model, matched and mined.

    Attributes:
        spec: Contract of the model.
        image: HEIGHT × WIDTH × 3, BGR.
        objects: N × 4, x1, y1, x2, y2 in pixels, without difficult ones.
        ignored: M × 4, the difficult ones.
        first: P booleans: default boxes matched in the first step, one for each object.
        matched: P booleans: all matched default boxes.
        hard: P booleans: hard negatives.
        easy: P booleans: background boxes that do not count.
        entropy: P cross-entropies of the trained model; 0 for ignored default boxes.
        untrained: P cross-entropies of a network that gives every class the same score.
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
def mine() -> Mined:
    """Match a frame's objects, run the bundled model, choose the hard negatives."""
    image, truth = StreetScene(WIDTH, HEIGHT, seed=SEED).frame(NUMBER)
    spec = read_spec(BUNDLED)
    rows = np.array([item.box for item in truth], np.float32)
    difficult = np.array([item.difficult for item in truth])
    labels = torch.tensor([spec.labels.index(item.label) for item in truth])
    fractions = torch.from_numpy(rows / np.array([WIDTH, HEIGHT] * 2, np.float32))
    default = torch.from_numpy(spec.boxes.boxes())
    ignored = torch.from_numpy(difficult)
    first = match(default, fractions, labels, 2.0, ignored=ignored)
    both = match(default, fractions, labels, ignored=ignored)
    scores = torch.from_numpy(_scores(spec, image))
    entropy, untrained = (
        functional.cross_entropy(each, both.labels, ignore_index=-1, reduction="none")
        for each in (scores, torch.zeros_like(scores))
    )
    hard = hard_negatives(entropy[None], both.labels[None], 3.0)[0]
    easy = (both.labels == 0) & ~hard
    objects = rows[~difficult], rows[difficult]
    return Mined(
        spec, image, *objects, first.matched, both.matched, hard, easy, entropy, untrained
    )  # fmt: skip


def _scores(spec: ModelSpec, image: Image) -> NDArray[np.float32]:
    session = open_session(BUNDLED, 1)
    feed = {spec.input.name: preprocess(image, spec.input)[None]}
    scores: NDArray[np.float32] = session.run([spec.scores_output], feed)[0][0]
    return scores


def default_boxes() -> Figure:
    """Draw the default boxes of one cell of each feature map of SSD300."""
    image = StreetScene(600, 600, seed=SEED).render(NUMBER)
    figure = new_figure(9.4, 6.8)
    for axes, name, layer in zip(
        figure.subplots(2, 3).flat, MAPS, BOXES["voc"].layers, strict=True
    ):
        show(axes, image, pale=0.55)
        for edge in np.arange(1, layer.columns) * layer.step_x * 600:
            axes.axvline(edge, color=INK, lw=0.35, alpha=0.35)
            axes.axhline(edge, color=INK, lw=0.35, alpha=0.35)
        # The cell that holds a point on the white car.
        row, column = int(0.62 / layer.step_y), int(0.40 / layer.step_x)
        own = layer.boxes().reshape(layer.rows, layer.columns, -1, 4)[row, column] * 600
        x, y = own[0, :2]
        boxes(axes, to_corners(own).tolist(), RED, 2.0)
        axes.plot([x], [y], "o", color=BLUE, ms=5)
        count = len(layer.sizes)
        axes.set_title(f"{name}: {layer.rows} × {layer.columns} cells, {count} boxes", fontsize=12)
    return figure


def _pixels(mined: Mined, rows: Tensor) -> Any:
    size = np.array([WIDTH, HEIGHT] * 2, np.float32)
    return (to_corners(mined.spec.boxes.boxes()[rows.numpy()]) * size).tolist()


def matching(mined: Mined) -> Figure:
    """Draw both steps of matching side by side."""
    figure = new_figure(11, 4.15)
    steps = (
        ("step 1: its best default box for each object", mined.first),
        ("step 2: and every default box with IoU ≥ 0.5", mined.matched),
    )
    for axes, (title, rows) in zip(figure.subplots(1, 2), steps, strict=True):
        _scene(axes, mined)
        boxes(axes, _pixels(mined, rows), RED, 1.2)
        axes.set_title(f"{title} ({int(rows.sum())})", fontsize=12)
    _legend(figure, ((BLUE, "object"), (INK, "ignored object"), (RED, "matched default box")))
    return figure


def hard_negatives_picture(mined: Mined) -> Figure:
    """Draw the negatives that count, and the cross-entropies they were chosen by."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _scene(left, mined)
    boxes(left, _pixels(mined, mined.hard), ORANGE, 0.9)
    left.set_title(
        f"{int(mined.matched.sum())} matched, {int(mined.hard.sum())} hard negatives", fontsize=12
    )
    negatives = mined.entropy[mined.hard | mined.easy].sort(descending=True).values.numpy()
    count, places = int(mined.hard.sum()), np.arange(1, len(negatives) + 1)
    right.loglog(places, negatives, color=GREY, lw=2.5)
    right.loglog(places[:count], negatives[:count], color=ORANGE, lw=4)
    right.axvline(count, color=INK, lw=1, ls="--")
    right.set_xlabel("background boxes, hardest first", fontsize=12)
    right.set_title("cross-entropy", fontsize=12)
    right.set(ylim=(1e-6, None))
    right.text(count * 0.8, 2e-6, f"3 N = {count}", ha="right", fontsize=12)
    right.grid(alpha=0.3)
    _legend(figure, ((BLUE, "object"), (INK, "ignored object"), (ORANGE, "hard negative")))
    return figure


def _scene(axes: Any, mined: Mined) -> None:
    show(axes, mined.image, pale=0.5)
    boxes(axes, mined.ignored.tolist(), INK, 1.8, ls=":")
    boxes(axes, mined.objects.tolist(), BLUE, 2.2)


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=color, lw=2.5, ls=_STYLES.get(color, "-")) for color, _ in entries
    ]
    names = [name for _, name in entries]
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize=12, frameon=False)
