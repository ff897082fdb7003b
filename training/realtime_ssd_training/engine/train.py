"""The training loop: batches in, better weights out, and everything a broken run needs to go on.

Source of the procedure: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2;
the moving average of the weights and mixed precision are what today's recipes add.
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.spec import spec_from_json
from realtime_ssd_training.data.sample import Dataset, Problem
from realtime_ssd_training.engine.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.factory import (
    build_loader,
    build_loss,
    build_network,
    freeze_norms,
    train_mode,
)
from realtime_ssd_training.engine.interrupt import Asked, Interrupted, stop_requests
from realtime_ssd_training.engine.loader import Batch
from realtime_ssd_training.engine.optim import (
    Average,
    build_optimizer,
    learning_rate,
    load_state,
    set_rate,
    state_tensors,
)
from realtime_ssd_training.engine.run_folder import Row, RunFolder
from realtime_ssd_training.evaluation.validation import score_model
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe, as_dict, differences, from_dict

__all__ = ["Outcome", "Reporter", "Trainer"]

DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_SCALE = 2.0**-14
"""With fp16 a loss that has to be scaled down this far has no gradient any more."""


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
        stopped: The signal that stopped it before its last epoch, or 0.
    """

    epochs: int
    best: float | None
    stopped: int = 0


@dataclass(slots=True)
class _Progress:
    """Where a run is: all plain values that a checkpoint keeps."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    images: int = 0
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
        self.frozen = recipe.model.norm == "frozen"
        if self.frozen:
            freeze_norms(model)
        self.loader = build_loader(model, recipe, train, world)
        self.loss = build_loss(model, recipe)
        self.optimizer = build_optimizer(model, recipe.optimizer)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.run.amp == "fp16")
        self.network = build_network(model, recipe, world)
        self.average = Average(model, recipe.run.ema) if recipe.run.ema else None
        self.rate = learning_rate(
            recipe.schedule, recipe.optimizer.lr, len(self.loader), recipe.run.epochs
        )
        self.progress, self.rows, self._told = _Progress(), list[Row](), set[Problem]()

    def resume(self) -> None:
        """Go on where the run in the folder was left.

        Raises:
            UsageError: If it was run with another recipe or other classes.
            ModelError: If its checkpoint is damaged.
        """
        found = read_checkpoint(self.folder.last)
        where = str(self.folder.last)
        self._check(found, where)
        load_weights(self.model, found.tensors["model"], where)
        load_state(self.optimizer, found.tensors.get("optimizer", {}))
        if self.average:
            for name, value in self.average.tensors.items():
                value.copy_(found.tensors["ema"][name])
            self.average.updates = int(found.facts["updates"])
        self.scaler.load_state_dict(found.facts["scaler"])
        values = found.facts["progress"]
        self.progress = _Progress(**{**values, "sums": tuple(values["sums"])})
        self.rows = [Row(**row) for row in found.facts["rows"]]

    def _check(self, found: Checkpoint, where: str) -> None:
        """Refuse to go on with a run that was another one."""
        if "progress" not in found.facts:
            raise UsageError(f"'{where}' holds weights but no run to go on with; use --init")
        other = differences(self.recipe, from_dict(found.facts["recipe"], where))
        if other:
            raise UsageError(
                f"the run in '{self.folder.path}' has another recipe, it differs in "
                f"{', '.join(other)}; go on with the same one, or choose another folder"
            )
        old, new = spec_from_json(found.spec), self.model.spec
        if (old.labels, old.boxes, old.input) != (new.labels, new.boxes, new.input):
            raise UsageError(
                f"the run in '{self.folder.path}' has other classes or default boxes than these "
                "data and this recipe give; go on with the same ones, or choose another folder"
            )

    def run(self) -> Outcome:
        """Train to the end, or until SIGTERM or Ctrl+C; either way the state is saved.

        Raises:
            RealtimeSSDError: If the loss is no longer a number (the message names the images), or a
                process that reads images dies.
        """
        try:
            with closing(self.loader), stop_requests() as asked:
                stopped = self._epochs(asked)
        except RuntimeError as error:
            # PyTorch raises it from a signal, in the middle of whatever is being done.
            if "DataLoader worker" not in str(error):
                raise
            raise RealtimeSSDError(
                "a process that reads images was ended from outside, perhaps because memory was "
                f"short; try fewer --workers{self._kept()}"
            ) from error
        return Outcome(self.progress.epoch, self.progress.best, stopped)

    def _epochs(self, asked: Asked) -> int:
        """Train all epochs that are left; give the signal that stopped them, or 0."""
        stopped = 0
        while self.progress.epoch < self.recipe.run.epochs and not stopped:
            stopped = self._epoch(asked) or self._finish_epoch(asked)
            self._save()
            if self.world.first:
                self.folder.write_history(self.rows)
        return stopped

    def _kept(self) -> str:
        """Say what there is to go on from."""
        last = self.folder.last
        return f"; the state of the last whole epoch is in '{last}'" if last.exists() else ""

    def _epoch(self, asked: Asked) -> int:
        """Train the rest of an epoch; give the signal if the run has to stop."""
        train_mode(self.model, frozen=self.frozen)
        state, total = self.progress, len(self.loader)
        begin = time.perf_counter()
        for batch in self.loader.epoch(state.epoch, state.batch):
            if batch.problems:
                self.reporter.problems(batch.problems)
            parts, stop = self._step(batch, asked())
            state.sums = tuple(a + b for a, b in zip(state.sums, parts, strict=True))
            state.batch, state.step = state.batch + 1, state.step + 1
            state.images += len(batch) * self.world.size
            begin, before = time.perf_counter(), begin
            state.seconds += begin - before
            self.reporter.step(state.epoch, state.batch, total, parts[0], self.rate(state.step - 1))
            if stop:
                return stop
        return 0

    def _step(self, batch: Batch, asked: int) -> tuple[tuple[float, float, float], int]:
        """Move the weights once.

        Returns:
            Loss of the whole batch over all processes with its two parts, and the signal if any
            process was asked to stop.
        """
        recipe, world = self.recipe, self.world
        # All chance of a step follows from its number, so that no generator has to be saved.
        torch.manual_seed(
            recipe.run.seed * 1_000_003 + self.progress.step * world.size + world.rank
        )
        set_rate(self.optimizer, self.rate(self.progress.step))
        part = batch.to(world.device)
        if recipe.data.difficult == "use":
            part = part.difficult_used()
        scores, offsets = self._heads(part)
        losses = self.loss.parts(scores, offsets, part.targets)
        sums = torch.stack([losses.scores.detach(), losses.offsets.detach(), losses.matched])
        whole = world.total(torch.cat([sums, sums.new_tensor([float(asked)])]))
        matched = whole[2].clamp(min=1)
        # Processes average their gradients, so each scales its share of the sum up again.
        loss = (losses.scores + self.loss.alpha * losses.offsets) * (world.size / matched)
        length = self._backward(loss)
        # All numbers at once: each look at the GPU waits for it.
        first, second, count, stop, grown = torch.cat([whole, length[None]]).tolist()
        if not (isfinite(first + second) and (isfinite(grown) or self._scales())):
            self._give_up(batch)
        self._move()
        first, second = first / max(count, 1), second / max(count, 1)
        number = (asked or signal.SIGTERM) if stop else 0
        return (first + self.loss.alpha * second, first, second), number

    def _heads(self, part: Batch) -> tuple[Tensor, Tensor]:
        """Run the network on a batch, in the precision and memory layout of the recipe."""
        images = part.inputs(self.model.spec.input)
        if not self.recipe.run.channels_last:
            images = images.contiguous()
        kind = DTYPES[self.recipe.run.amp]
        try:
            with torch.autocast(self.world.device.type, kind, enabled=kind is not torch.float32):
                scores, offsets = self.network(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                "a network with batch normalisation cannot learn from one image a step; give more "
                'images, --batch at least two for each process, or model.norm = "frozen"'
            ) from error
        return scores, offsets

    def _backward(self, loss: Tensor) -> Tensor:
        """Compute the gradient, clip it and give the length it had."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        limit = self.recipe.optimizer.clip or torch.inf
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _scales(self) -> bool:
        """Tell whether a gradient that overflowed is skipped and the next one scaled smaller."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE

    def _move(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update()

    def _give_up(self, batch: Batch) -> None:
        state, names = self.progress, self.world.gather(batch.names)
        raise RealtimeSSDError(
            f"the loss or its gradient is no longer a number at step {state.step + 1} (epoch "
            f"{state.epoch + 1}) on the images {', '.join(names)}; look at these and lower the "
            f"learning rate{self._kept()}"
        )

    def _finish_epoch(self, asked: Asked) -> int:
        """Score, note the epoch and keep the weights if they are the best.

        Returns:
            The signal if it came while the scoring ran; then the epoch is finished another time.
        """
        state, score, stopped = self.progress, None, 0
        if self.val is not None:
            self._save()  # scoring may take long, and whoever stops the run may not wait
        if self.world.first:
            try:
                score = self._score_and_keep(asked)
            except Interrupted:
                stopped = asked()
        mark = torch.tensor([float(stopped)], device=self.world.device)
        stopped = int(self.world.total(mark))
        if stopped:
            return stopped
        count = max(1, state.batch)
        speed = state.images / max(state.seconds, 1e-9)
        loss, first, second = (value / count for value in state.sums)
        rate = self.rate(max(0, state.step - 1))
        row = Row(state.epoch + 1, state.step, rate, loss, first, second, speed, score)
        self.rows.append(row)
        best = max((r.score for r in self.rows if r.score is not None), default=None)
        self.progress = _Progress(epoch=state.epoch + 1, step=state.step, best=best)
        self.reporter.epoch(row)
        return 0

    def _score_and_keep(self, asked: Asked) -> float | None:
        """Score the weights if it is time to, and keep them if none before were better."""
        run, number = self.recipe.run, self.progress.epoch + 1
        if self.val is not None and number % run.evaluate_every and number < run.epochs:
            return None
        model, score = self._averaged(), None
        if self.val is not None:
            score = score_model(
                model,
                self.val,
                run.metric,
                workers=run.workers,
                stop_requested=asked,
                on_problems=self._tell_once,
            ).mean
            # Without any object there is nothing to compare by.
            score = None if isnan(score) else score
        if score is None or score >= (self.progress.best or 0.0):
            facts = {"epoch": number, "score": score, "recipe": as_dict(self.recipe)}
            save_checkpoint(self.folder.best, model, facts=facts)
        return score

    def _tell_once(self, found: Sequence[Problem]) -> None:
        """Report what has not been told of after an earlier epoch."""
        if fresh := [problem for problem in found if problem not in self._told]:
            self._told.update(fresh)
            self.reporter.problems(fresh)

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
