"""The training loop: steps, evaluation, checkpoints, and resuming after an interruption.

Source of the procedure: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2;
the moving average of the weights and mixed precision are later additions.
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from math import isnan
from typing import Any, NoReturn

import torch

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.signals import answer_signals, stop_on_signals
from realtime_ssd.core.spec import spec_from_json
from realtime_ssd_training.data.sample import Dataset, Problem
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.loader import Batch
from realtime_ssd_training.engine.loader_workers import WorkerError
from realtime_ssd_training.engine.optim import (
    ExponentialMovingAverage,
    build_optimizer,
    build_schedule,
    load_optimizer_tensors,
    optimizer_tensors,
)
from realtime_ssd_training.engine.run_folder import EpochMetrics, RunFolder
from realtime_ssd_training.engine.training_components import (
    build_loader,
    build_loss,
    build_network,
    freeze_parts,
    load_workers,
    set_train_mode,
    with_device_defaults,
)
from realtime_ssd_training.engine.training_log import Reporter
from realtime_ssd_training.engine.training_step import NotFiniteError, TrainingStep
from realtime_ssd_training.engine.validation import StopRequested, score_model
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from realtime_ssd_training.recipe import Recipe, differences, from_dict, to_dict

__all__ = ["Trainer", "TrainingResult"]

_STOPPING = "stopping after this step, then saving; Ctrl+C again ends without saving"

StopSignal = Callable[[], int]
"""Returns the number of the signal that requested a stop, or 0."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The end of a run.

    Attributes:
        epochs: Complete epochs.
        stop_signal: Signal that stopped the run before its last epoch, or 0.
    """

    epochs: int
    stop_signal: int = 0


@dataclass(slots=True)
class _Progress:
    """Position and running sums of a run; saved in checkpoints."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    images: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains a network according to a recipe.

    Args:
        model: Network to train; it is moved to the device of `context`.
        recipe: The settings.
        train: Training set.
        val: Validation set; None keeps the last weights as the best.
        folder: Folder of the run.
        context: The processes of the run.
        reporter: Receives the progress.

    Raises:
        UsageError: If the recipe does not fit the model or the number of processes.
    """

    def __init__(
        self,
        model: SSD,
        recipe: Recipe,
        train: Dataset,
        val: Dataset | None,
        folder: RunFolder,
        context: DistributedContext,
        reporter: Reporter,
    ) -> None:
        recipe = with_device_defaults(recipe, context.device)
        layout = torch.channels_last if recipe.run.channels_last else torch.preserve_format
        self.model: SSD = model.to(context.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.recipe, self.val, self.folder = recipe, val, folder
        self.context, self.reporter = context, reporter
        self.frozen = freeze_parts(model, recipe.model)
        self.loader = build_loader(model, recipe, train, context)
        self.loss = build_loss(model, recipe)
        self.optimizer = build_optimizer(model, recipe.optimizer)
        network = build_network(model, recipe, context)
        self.ema = ExponentialMovingAverage(model, recipe.run.ema) if recipe.run.ema else None
        self.step = TrainingStep(
            model, network, recipe, self.loss, self.optimizer, context, self.ema
        )
        self.learning_rate = build_schedule(
            recipe.schedule, recipe.optimizer.lr, len(self.loader), recipe.run.epochs
        )
        self.progress, self.history = _Progress(), list[EpochMetrics]()
        self._reported: set[Problem] = set()

    def resume(self) -> None:
        """Restore the state of the run in the folder.

        Raises:
            UsageError: If that run has another recipe, other classes or other default boxes.
            ModelError: If its checkpoint is damaged.
        """
        source = str(self.folder.last)
        checkpoint = read_checkpoint(self.folder.last)
        self._check_same_run(checkpoint, source)
        load_weights(self.model, checkpoint.tensors["model"], source)
        load_optimizer_tensors(self.optimizer, checkpoint.tensors.get("optimizer", {}))
        state = checkpoint.metadata
        if self.ema:
            for name, value in self.ema.tensors.items():
                value.copy_(checkpoint.tensors["ema"][name])
            self.ema.updates = int(state["updates"])
        self.step.scaler.load_state_dict(state["scaler"])
        progress = state["progress"]
        self.progress = _Progress(**{**progress, "sums": tuple(progress["sums"])})
        self.history = [EpochMetrics(**row) for row in state["rows"]]

    def _check_same_run(self, checkpoint: Checkpoint, source: str) -> None:
        """Raise an error unless a checkpoint belongs to a run with the same settings."""
        if "progress" not in checkpoint.metadata:
            raise UsageError(f"'{source}' contains weights but no run to resume; use `init`")
        changed = differences(self.recipe, from_dict(checkpoint.metadata["recipe"], source))
        if changed:
            raise UsageError(
                f"the run in '{self.folder.path}' has another recipe (it differs in "
                f"{', '.join(changed)}); resume it with the same recipe or choose another folder"
            )
        old, new = spec_from_json(checkpoint.spec), self.model.spec
        if (old.labels, old.boxes, old.input) != (new.labels, new.boxes, new.input):
            raise UsageError(
                f"the run in '{self.folder.path}' has other classes or default boxes than this "
                "dataset and recipe; resume it with the same ones or choose another folder"
            )

    def run(self) -> TrainingResult:
        """Train to the last epoch or until SIGTERM or Ctrl+C, and save the state.

        Raises:
            RealtimeSSDError: If the loss is not finite (the message names the images), or a data
                loading process is killed.
        """
        try:
            answer = answer_signals(_STOPPING) if self.context.is_main else nullcontext()
            with closing(self.loader), stop_on_signals() as stop_signal, answer:
                stopped_by = self._train_epochs(stop_signal)
        except WorkerError as error:
            raise WorkerError(f"{error}{self._saved_state_hint()}") from error
        except RuntimeError as error:
            # PyTorch raises it from a signal handler, wherever the main thread is.
            if "DataLoader worker" not in str(error):
                raise
            raise RealtimeSSDError(
                "a data loading process was killed, possibly because memory ran out; try fewer "
                f"`workers`{self._saved_state_hint()}"
            ) from error
        return TrainingResult(self.progress.epoch, stopped_by)

    def _train_epochs(self, stop_signal: StopSignal) -> int:
        """Train the remaining epochs; return the signal that stopped them, or 0."""
        stopped_by = 0
        while self.progress.epoch < self.recipe.run.epochs and not stopped_by:
            stopped_by = self._train_epoch(stop_signal) or self._finish_epoch(stop_signal)
            self._save()
            if self.context.is_main:
                self.folder.write_history(self.history)
            if self._is_out_of_patience():
                break
        return stopped_by

    def _is_out_of_patience(self) -> bool:
        """Return whether no recent epoch had a better score, on all processes."""
        scored = [row for row in self.history if row.score is not None]
        patience, late = self.recipe.run.patience, False
        if patience and scored:
            best = max(scored, key=lambda row: row.score or 0.0)
            late = self.history[-1].epoch - best.epoch >= patience
        flag = torch.tensor([float(late and self.context.is_main)], device=self.context.device)
        return bool(self.context.all_reduce(flag).item())

    def _saved_state_hint(self) -> str:
        last = self.folder.last
        if not last.exists():
            return ""
        return f"; the state of the last complete epoch is in '{last}'"

    def _train_epoch(self, stop_signal: StopSignal) -> int:
        """Train the rest of an epoch; return the signal if the run has to stop, or 0."""
        set_train_mode(self.model, self.frozen)
        state, total = self.progress, len(self.loader)
        begin = time.perf_counter()
        for batch in self.loader.epoch(state.epoch, state.batch):
            if batch.problems:
                self.reporter.on_problems(batch.problems)
            rate, received = self.learning_rate(state.step), stop_signal()
            try:
                result = self.step.run(batch, state.step, rate, received)
            except NotFiniteError:
                self._raise_not_finite(batch)
            losses = result.losses
            state.sums = tuple(a + b for a, b in zip(state.sums, losses, strict=True))
            state.batch, state.step = state.batch + 1, state.step + 1
            state.images += len(batch) * self.context.world_size
            begin, previous = time.perf_counter(), begin
            state.seconds += begin - previous
            self.reporter.on_step(state.epoch, state.batch, total, result.loss, rate)
            if result.stop_requested:
                return received or signal.SIGTERM
        return 0

    def _raise_not_finite(self, batch: Batch) -> NoReturn:
        state, names = self.progress, self.context.all_gather(batch.names)
        raise RealtimeSSDError(
            f"loss or gradient is not finite at step {state.step + 1} (epoch {state.epoch + 1}) on "
            f"the images {', '.join(names)}; check these images and lower the learning rate"
            f"{self._saved_state_hint()}"
        )

    def _finish_epoch(self, stop_signal: StopSignal) -> int:
        """Evaluate, record the epoch, and keep the weights if they are the best so far.

        Returns:
            The signal if one stopped the evaluation, which is then repeated on resume, or 0.
        """
        state, score, stopped_by = self.progress, None, 0
        if self.val is not None:
            self._save()  # evaluation may be slow, and the process may be killed before it ends
        if self.context.is_main:
            try:
                score = self._evaluate_and_keep_best(stop_signal)
            except StopRequested:
                stopped_by = stop_signal()
        flag = torch.tensor([float(stopped_by)], device=self.context.device)
        stopped_by = int(self.context.all_reduce(flag))
        if stopped_by:
            return stopped_by
        count = max(1, state.batch)
        speed = state.images / max(state.seconds, 1e-9)
        loss, score_loss, offset_loss = (value / count for value in state.sums)
        rate = self.learning_rate(max(0, state.step - 1))
        metrics = EpochMetrics(
            state.epoch + 1, state.step, rate, loss, score_loss, offset_loss, speed, score
        )
        self.history.append(metrics)
        best = max((row.score for row in self.history if row.score is not None), default=None)
        self.progress = _Progress(epoch=state.epoch + 1, step=state.step, best=best)
        self.reporter.on_epoch(metrics)
        return 0

    def _evaluate_and_keep_best(self, stop_signal: StopSignal) -> float | None:
        """Evaluate the weights if this epoch is due, and keep them unless others were better."""
        run, epoch = self.recipe.run, self.progress.epoch + 1
        if self.val is not None and epoch % run.evaluate_every and epoch < run.epochs:
            return None
        model, score = self._averaged_model(), None
        if self.val is not None:
            score = score_model(
                model,
                self.val,
                run.metric,
                workers=load_workers(self.recipe),
                stop_requested=stop_signal,
                on_problems=self._report_new_problems,
            ).mean
            # Without any object the mean is undefined.
            score = None if isnan(score) else score
        if score is None or score >= (self.progress.best or 0.0):
            metadata = {"epoch": epoch, "score": score, "recipe": to_dict(self.recipe)}
            save_checkpoint(self.folder.best, model, metadata=metadata)
        return score

    def _report_new_problems(self, problems: Sequence[Problem]) -> None:
        """Report problems of the validation set, each only once per run."""
        if new := [problem for problem in problems if problem not in self._reported]:
            self._reported.update(new)
            self.reporter.on_problems(new)

    def _averaged_model(self) -> SSD:
        """Return a copy of the network with the weights that are evaluated and kept."""
        model = copy.deepcopy(self.model)
        if self.ema:
            model.load_state_dict(self.ema.tensors)
        return model.eval()

    def _save(self) -> None:
        """Write the state needed to resume, from the main process."""
        if not self.context.is_main:
            return
        groups = {"optimizer": optimizer_tensors(self.optimizer)}
        if self.ema:
            groups["ema"] = self.ema.tensors
        metadata: dict[str, Any] = {
            "progress": {name: getattr(self.progress, name) for name in _Progress.__slots__},
            "rows": [row.values() for row in self.history],
            "updates": self.ema.updates if self.ema else 0,
            "scaler": self.step.scaler.state_dict(),
            "recipe": to_dict(self.recipe),
        }
        save_checkpoint(self.folder.last, self.model, groups, metadata)
