"""The training loop: batches in, better weights out, and everything a broken run needs to go on.

Source of the procedure: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2;
the moving average of the weights and mixed precision are what today's recipes add.
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from realtime_ssd.errors import RealtimeSSDError
from training.checkpoint import load_weights, read_checkpoint, save_checkpoint
from training.data.sample import Dataset, Problem
from training.distributed import World
from training.loader import Batch, Loader, LoaderOptions
from training.loss import MultiBoxLoss
from training.models import SSD
from training.optim import Average, build_optimizer, learning_rate, load_state, state_tensors
from training.recipe import Recipe, as_dict
from training.run import Row, RunFolder
from training.scoring import score_model
from training.sets import build_augmentation

__all__ = ["Outcome", "Reporter", "Trainer"]

DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Reporter(Protocol):
    """What wants to hear how a run goes."""

    def step(self, epoch: int, done: int, total: int, loss: float, lr: float) -> None:
        """A step is done.

        Args:
            epoch: Number of the epoch, from 0.
            done: Batches of the epoch done so far.
            total: Batches of the epoch.
            loss: Loss of the step.
            lr: Learning rate of the step.
        """

    def epoch(self, row: Row) -> None:
        """An epoch is done."""

    def problems(self, found: Sequence[Problem]) -> None:
        """Images could not be read and were left out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        epochs: Whole epochs done.
        best: Best score, or None if nothing was scored.
        stopped: Whether it was asked to stop before its last epoch.
    """

    epochs: int
    best: float | None
    stopped: bool


@dataclass(slots=True)
class _Progress:
    """Where a run is: all plain values that a checkpoint keeps."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    seconds: float = 0.0


class Trainer:
    """Trains one network as a recipe says.

    Args:
        model: Network to train; it is moved to the device of `world`.
        recipe: How.
        train: What to train on.
        val: What to score on, or None to keep the last weights as the best.
        folder: Where everything goes.
        world: The processes that take part.
        reporter: Hears of every step.

    Raises:
        UsageError: If the recipe does not fit.
    """

    def __init__(
        self,
        model: SSD,
        recipe: Recipe,
        train: Dataset,
        val: Dataset | None,
        folder: RunFolder,
        world: World,
        reporter: Reporter,
    ) -> None:
        layout = torch.channels_last if recipe.run.channels_last else torch.preserve_format
        self.model: SSD = model.to(world.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.recipe, self.val, self.folder = recipe, val, folder
        self.world, self.reporter = world, reporter
        if recipe.model.norm == "frozen":
            _freeze_norms(model)
        self.loader = _loader(model, recipe, train, world)
        self.loss = _loss(model, recipe)
        self.optimizer = build_optimizer(model, recipe.optimizer)
        self.average = Average(model, recipe.run.ema) if recipe.run.ema else None
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.run.amp == "fp16")
        self.network = _wrapped(model, recipe, world)
        self.rate = learning_rate(
            recipe.schedule, recipe.optimizer.lr, len(self.loader), recipe.run.epochs
        )
        self.progress, self.rows = _Progress(), list[Row]()

    def resume(self) -> None:
        """Go on where the run in the folder was left.

        Raises:
            ModelError: If its checkpoint does not fit this recipe.
        """
        found = read_checkpoint(self.folder.last)
        where = str(self.folder.last)
        load_weights(self.model, found.tensors["model"], where)
        load_state(self.optimizer, found.tensors.get("optimizer", {}))
        if self.average and "ema" in found.tensors:
            for name, value in self.average.tensors.items():
                value.copy_(found.tensors["ema"][name])
            self.average.updates = int(found.facts["updates"])
        self.scaler.load_state_dict(found.facts["scaler"])
        values = found.facts["progress"]
        self.progress = _Progress(**{**values, "sums": tuple(values["sums"])})
        self.rows = [Row(**row) for row in found.facts["rows"]]

    def run(self) -> Outcome:
        """Train to the end, or until SIGTERM or Ctrl+C; either way the state is saved.

        Raises:
            RealtimeSSDError: If the loss is no longer a number; the message names the images.
        """
        stopped = False
        with closing(self.loader), _stop_requests() as requested:
            while self.progress.epoch < self.recipe.run.epochs and not stopped:
                stopped = self._epoch(requested)
                if not stopped:
                    self._finish_epoch()
                self._save()
        return Outcome(self.progress.epoch, self.progress.best, stopped)

    def _epoch(self, requested: Callable[[], bool]) -> bool:
        """Train the rest of an epoch; tell whether the run has to stop."""
        _train_mode(self.model, frozen=self.recipe.model.norm == "frozen")
        state = self.progress
        for batch in self.loader.epoch(state.epoch, state.batch):
            begin = time.perf_counter()
            if batch.problems:
                self.reporter.problems(batch.problems)
            parts, stop = self._step(batch, stop=requested())
            state.sums = tuple(a + b for a, b in zip(state.sums, parts, strict=True))
            state.batch, state.step = state.batch + 1, state.step + 1
            state.seconds += time.perf_counter() - begin
            rate = float(self.optimizer.param_groups[0]["lr"])
            self.reporter.step(state.epoch, state.batch, len(self.loader), parts[0], rate)
            if stop:
                return True
        return False

    def _step(self, batch: Batch, *, stop: bool) -> tuple[tuple[float, float, float], bool]:
        """Move the weights once.

        Returns:
            Loss of the whole batch over all processes with its two parts, and whether any process
            was asked to stop.
        """
        recipe, world = self.recipe, self.world
        torch.manual_seed(
            recipe.run.seed * 1_000_003 + self.progress.step * world.size + world.rank
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.progress.step)
        part = batch.to(world.device)
        if recipe.data.difficult == "use":
            part = replace(part, difficult=torch.zeros_like(part.difficult))
        images = part.inputs(self.model.spec.input)
        kind = DTYPES[recipe.run.amp]
        with torch.autocast(world.device.type, kind, enabled=kind is not torch.float32):
            scores, offsets = self.network(images)
        losses = self.loss.parts(scores, offsets, part.targets)
        sums = torch.stack([losses.scores.detach(), losses.offsets.detach()]).double()
        facts = torch.cat([sums, losses.matched[None].double(), sums.new_tensor([float(stop)])])
        whole = world.total(facts)
        matched = whole[2].clamp(min=1)
        # Processes average their gradients, so each scales its share of the sum up again.
        loss = (losses.scores + self.loss.alpha * losses.offsets) * (world.size / matched.float())
        self._move(loss, batch)
        first, second = (whole[:2] / matched).tolist()
        return (first + self.loss.alpha * second, first, second), bool(whole[3])

    def _move(self, loss: Tensor, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        limit = self.recipe.optimizer.clip or torch.inf
        length = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        # With fp16 the scaler skips a step whose gradients overflow and takes smaller ones next.
        sound = torch.isfinite(loss.detach()) & (torch.isfinite(length) | self.scaler.is_enabled())
        if not bool(sound):
            self._give_up(batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.model)

    def _give_up(self, batch: Batch) -> None:
        state = self.progress
        kept = f"the last good weights are in '{self.folder.last}'"
        raise RealtimeSSDError(
            f"the loss or its gradient is no longer a number at step {state.step + 1} (epoch "
            f"{state.epoch + 1}) on the images {', '.join(batch.names)}; look at these and lower "
            f"the learning rate{'; ' + kept if self.folder.last.exists() else ''}"
        )

    def _finish_epoch(self) -> None:
        """Score, note the epoch and keep the weights if they are the best."""
        state, recipe = self.progress, self.recipe
        score = self._score_and_keep() if self.world.first else None
        count = max(1, state.batch)
        speed = state.batch * recipe.run.batch / max(state.seconds, 1e-9)
        loss, first, second = (value / count for value in state.sums)
        rate = self.rate(max(0, state.step - 1))
        row = Row(state.epoch + 1, state.step, rate, loss, first, second, speed, score)
        self.rows.append(row)
        best = max((r.score for r in self.rows if r.score is not None), default=None)
        self.progress = _Progress(epoch=state.epoch + 1, step=state.step, best=best)
        self.reporter.epoch(row)

    def _score_and_keep(self) -> float | None:
        """Score the weights if it is time to, and keep them if none before were better."""
        run, number = self.recipe.run, self.progress.epoch + 1
        if self.val is not None and number % run.evaluate_every and number < run.epochs:
            return None
        model, score = self._averaged(), None
        if self.val is not None:
            score = score_model(model, self.val, run.metric, workers=run.workers).mean
        if score is None or score >= (self.progress.best or 0.0):
            facts = {"epoch": number, "score": score, "recipe": as_dict(self.recipe)}
            save_checkpoint(self.folder.best, model, facts=facts)
        return score

    def _averaged(self) -> SSD:
        """Give a copy of the network with the weights that are scored and kept."""
        other = copy.deepcopy(self.model)
        if self.average:
            other.load_state_dict(self.average.tensors)
        return other.eval()

    def _save(self) -> None:
        """Write everything that is needed to go on, from the first process."""
        if not self.world.first:
            return
        groups = {"optimizer": state_tensors(self.optimizer)}
        if self.average:
            groups["ema"] = self.average.tensors
        facts: dict[str, Any] = {
            "progress": {name: getattr(self.progress, name) for name in _Progress.__slots__},
            "rows": [row.values() for row in self.rows],
            "updates": self.average.updates if self.average else 0,
            "scaler": self.scaler.state_dict(),
            "recipe": as_dict(self.recipe),
        }
        save_checkpoint(self.folder.last, self.model, groups, facts)
        self.folder.write_history(self.rows)


def _loader(model: SSD, recipe: Recipe, train: Dataset, world: World) -> Loader:
    options = LoaderOptions(
        batch_size=world.share(recipe.run.batch),
        workers=recipe.run.workers,
        seed=recipe.run.seed,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
    return Loader(
        train, model.spec.input, options, build_augmentation(model.spec.input, recipe.augment)
    )


def _loss(model: SSD, recipe: Recipe) -> MultiBoxLoss:
    part = recipe.loss
    return MultiBoxLoss(
        model.spec,
        model.default_boxes,
        iou_threshold=part.iou_threshold,
        negatives=part.negatives,
        alpha=part.alpha,
        first=part.first,
    ).to(model.default_boxes.device)


def _wrapped(model: SSD, recipe: Recipe, world: World) -> nn.Module:
    """Compile the network and let it share gradients, where asked for."""
    network: nn.Module = model
    gpus = world.size > 1 and world.device.type == "cuda"
    if gpus:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if recipe.run.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    if world.size > 1:
        return nn.parallel.DistributedDataParallel(network, [world.device] if gpus else None)
    return network


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in model.modules() if isinstance(layer, _BatchNorm))


def _freeze_norms(model: nn.Module) -> None:
    for layer in _norms(model):
        layer.requires_grad_(False)


def _train_mode(model: nn.Module, *, frozen: bool) -> None:
    model.train()
    if frozen:
        for layer in _norms(model):
            layer.eval()


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl+C into a question that the loop asks after each step."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield lambda: asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
