"""A detector of a few hundred weights, its data and its trainer, for tests of the loop itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Sample
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.run_folder import Row, RunFolder
from realtime_ssd_training.engine.train import Outcome, Trainer
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.ssd import FeatureMaps
from realtime_ssd_training.recipe import Recipe, as_dict, from_dict
from torch import Tensor, nn

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.spec import InputSpec, ModelSpec

LABELS = ("background", "bright")
SIDE, CELLS = 32, 4


class TinyMaps(FeatureMaps):
    """Two convolutions with everything that has a state of its own: statistics and chance."""

    def __init__(self, norm: bool, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
        )
        self.channels = (8,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]


def tiny_ssd(*, norm: bool = True, dropout: float = 0.0, seed: int = 0) -> SSD:
    torch.manual_seed(seed)
    sizes = ((0.25, 0.25), (0.5, 0.5))
    layer = AnchorLayer(CELLS, CELLS, 1 / CELLS, 1 / CELLS, sizes)
    spec = ModelSpec(
        name="tiny",
        input=InputSpec(SIDE, SIDE, "BGR", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
        boxes=AnchorSpec((layer,)),
        labels=LABELS,
    )
    heads = [nn.Conv2d(8, len(sizes) * len(LABELS), 1)], [nn.Conv2d(8, len(sizes) * 4, 1)]
    return SSD(spec, TinyMaps(norm, dropout), *heads)


class Squares(Dataset):
    """Bright squares on noise."""

    def __init__(self, count: int = 12, before: Callable[[int], None] | None = None) -> None:
        super().__init__("squares", LABELS, (0, 1))
        self.count, self.before = count, before

    def __len__(self) -> int:
        return self.count

    def annotation(self, index: int) -> Annotation:
        rng = np.random.default_rng([9, index])
        x, y = rng.integers(0, 16, 2)
        boxes = np.array([[x, y, x + 14, y + 14]], np.float32)
        no = np.zeros(1, np.bool_)
        areas = np.array([196], np.float32)
        name = f"square{index}"
        return Annotation(name, SIDE, SIDE, boxes, np.array([1]), no, no, areas)

    def image_id(self, index: int) -> int:
        return index + 1

    def __getitem__(self, index: int) -> Sample:
        if self.before:
            self.before(index)
        truth = self.annotation(index)
        image = np.random.default_rng([8, index]).integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        x1, y1, x2, y2 = truth.boxes[0].astype(int)
        image[y1:y2, x1:x2] = 240
        return Sample.of(image, truth)


class Listener:
    """Hears of a run; can stop it after a step as Ctrl+C or SIGTERM does."""

    def __init__(
        self, stop_at: tuple[int, int] | None = None, number: int = signal.SIGTERM
    ) -> None:
        self.stop_at, self.number = stop_at, number
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.rows: list[Row] = []

    def step(self, epoch: int, done: int, total: int, loss: float, lr: float) -> None:
        self.losses.append(loss)
        self.rates.append(lr)
        if self.stop_at == (epoch, done):
            signal.raise_signal(self.number)

    def epoch(self, row: Row) -> None:
        self.rows.append(row)

    def problems(self, found: Sequence[Problem]) -> None:
        raise AssertionError(found)


def tiny_recipe(**changes: Any) -> Recipe:
    """Give a recipe with some values changed, named as run__epochs."""
    start = Recipe("tiny", from_dict({"name": "x", "model": {"name": "tiny"}}).model)
    values = as_dict(start)
    values["run"].update(epochs=3, batch=4, workers=0, ema=0.9, channels_last=True)
    values["optimizer"].update(lr=0.05)
    for key, value in changes.items():
        part, name = key.split("__")
        values[part][name] = value
    return from_dict(values)


def train(
    folder: Path,
    recipe: Recipe,
    *,
    model: SSD | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    data: Dataset | None = None,
    val: Dataset | None = None,
    world: World | None = None,
) -> tuple[Trainer, Outcome]:
    """Train the tiny detector; give trainer and outcome."""
    torch.set_num_threads(1)
    run = RunFolder(folder, resume=resume)
    alone = World(0, 1, torch.device("cpu"))
    trainer = Trainer(
        model or tiny_ssd(dropout=0.3),
        recipe,
        data or Squares(),
        val,
        run,
        world or alone,
        listener or Listener(),
    )
    if resume:
        trainer.resume()
    return trainer, trainer.run()


def without_times(facts: dict[str, Any]) -> dict[str, Any]:
    """Drop what the clock says from a checkpoint's facts."""
    facts = dict(facts)
    facts["progress"] = {k: v for k, v in facts["progress"].items() if k != "seconds"}
    facts["rows"] = [{k: v for k, v in r.items() if "second" not in k} for r in facts["rows"]]
    facts["recipe"] = {**facts["recipe"], "run": {**facts["recipe"]["run"], "workers": 0}}
    return facts
