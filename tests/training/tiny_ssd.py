"""A detector of a few hundred weights, a dataset and a training function for tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Sample
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.run_folder import EpochMetrics, RunFolder
from realtime_ssd_training.engine.trainer import Trainer, TrainingResult
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.ssd import FeatureMaps
from realtime_ssd_training.recipe import Recipe, from_dict
from torch import Tensor, nn

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.spec import InputSpec, ModelSpec

LABELS = ("background", "bright")
SIDE, CELLS = 32, 4
SINGLE_PROCESS = DistributedContext(0, 1, torch.device("cpu"))


class TinyMaps(FeatureMaps):
    """Two convolutions with batch normalization and dropout, which have state and randomness."""

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
    """Bright squares on noise.

    Args:
        count: Number of images.
        before_read: Called with the index before an image is read.
    """

    def __init__(self, count: int = 12, before_read: Callable[[int], None] | None = None) -> None:
        super().__init__("squares", LABELS, (0, 1))
        self.count, self.before_read = count, before_read

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
        if self.before_read:
            self.before_read(index)
        truth = self.annotation(index)
        image = np.random.default_rng([8, index]).integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        x1, y1, x2, y2 = truth.boxes[0].astype(int)
        image[y1:y2, x1:x2] = 240
        return Sample.of(image, truth)


class RecordingReporter:
    """Records the progress of a run.

    Args:
        stop_at: Epoch and batch after which to raise a signal in this process.
        number: The signal.
    """

    def __init__(
        self, stop_at: tuple[int, int] | None = None, number: int = signal.SIGTERM
    ) -> None:
        self.stop_at, self.number = stop_at, number
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.epochs: list[EpochMetrics] = []
        self.problems: list[Problem] = []

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        self.losses.append(loss)
        self.rates.append(lr)
        if self.stop_at == (epoch, batch):
            signal.raise_signal(self.number)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)

    def on_problems(self, problems: Sequence[Problem]) -> None:
        self.problems += problems


def tiny_recipe(**overrides: Any) -> Recipe:
    """Return a recipe with some values replaced; `run__epochs` replaces "run.epochs"."""
    data: dict[str, Any] = {
        "name": "tiny",
        "model": {"name": "tiny"},
        "optimizer": {"lr": 0.05},
        "run": {"epochs": 3, "batch": 4, "workers": 0, "ema": 0.9},
    }
    for key, value in overrides.items():
        section, name = key.split("__")
        data.setdefault(section, {})[name] = value
    return from_dict(data)


def train(
    folder: Path,
    recipe: Recipe,
    *,
    model: SSD | None = None,
    resume: bool = False,
    reporter: RecordingReporter | None = None,
    data: Dataset | None = None,
    val: Dataset | None = None,
) -> tuple[Trainer, TrainingResult]:
    """Train the tiny detector; return the trainer and its result."""
    torch.set_num_threads(1)
    trainer = Trainer(
        model or tiny_ssd(dropout=0.3),
        recipe,
        data or Squares(),
        val,
        RunFolder(folder, resume=resume),
        SINGLE_PROCESS,
        reporter or RecordingReporter(),
    )
    if resume:
        trainer.resume()
    return trainer, trainer.run()


def without_times(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return checkpoint metadata without durations and the number of workers."""
    metadata = dict(metadata)
    metadata["progress"] = {k: v for k, v in metadata["progress"].items() if k != "seconds"}
    metadata["rows"] = [
        {k: v for k, v in row.items() if "second" not in k} for row in metadata["rows"]
    ]
    recipe = metadata["recipe"]
    metadata["recipe"] = {**recipe, "run": {**recipe["run"], "workers": 0}}
    return metadata
