"""Progress of a run: the `Reporter` interface, and output to the terminal and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from realtime_ssd.core.closeable import Closeable
from realtime_ssd_training.data import Dataset, Problem, summarize
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.run_folder import EpochMetrics, RunFolder

__all__ = ["Callback", "Reporter", "ReporterGroup", "TrainingLog"]

TENSORBOARD_INTERVAL = 20  # steps between two points
LINE_INTERVAL = 50  # steps between two lines without a terminal


class Reporter(Protocol):
    """Receives the progress of a run."""

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        """Receive the result of a training step.

        Args:
            epoch: Index of the epoch, from 0.
            batch: Batches of the epoch done so far.
            total: Batches of the epoch.
            loss: Loss of the step.
            lr: Learning rate of the step.
        """

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Receive the metrics of a finished epoch."""

    def on_problems(self, problems: Sequence[Problem]) -> None:
        """Receive the images that could not be read and were skipped."""


class Callback:
    """A `Reporter` that does nothing; base class for those that need only some of its methods."""

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        """See `Reporter.on_step`."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """See `Reporter.on_epoch`."""

    def on_problems(self, problems: Sequence[Problem]) -> None:
        """See `Reporter.on_problems`."""


class ReporterGroup:
    """Passes the progress on to several reporters, in order."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        """See `Reporter.on_step`."""
        for reporter in self._reporters:
            reporter.on_step(epoch, batch, total, loss, lr)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """See `Reporter.on_epoch`."""
        for reporter in self._reporters:
            reporter.on_epoch(metrics)

    def on_problems(self, problems: Sequence[Problem]) -> None:
        """See `Reporter.on_problems`."""
        for reporter in self._reporters:
            reporter.on_problems(problems)


class TrainingLog(Closeable):
    """A progress bar, lines of text and TensorBoard files; silent except in the main process.

    Args:
        folder: Folder of the run, for TensorBoard.
        context: The processes of the run.
        dataset: Training set; its problems are printed first.
        epochs: Epochs of the run, for the remaining time.
    """

    def __init__(
        self, folder: RunFolder, context: DistributedContext, dataset: Dataset, epochs: int = 1
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._console = Console(quiet=not context.is_main)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._epochs, self._clock = epochs, _RunClock()
        with folder.explain_write_errors():
            self._writer = SummaryWriter(str(folder.tensorboard)) if context.is_main else None
        if dataset.problems:
            self.on_problems(dataset.problems)
        self._bar.start()

    def close(self) -> None:
        """Remove the progress bar and finish the TensorBoard files."""
        self._bar.stop()
        if self._writer:
            self._writer.close()

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        """See `Reporter.on_step`."""
        step, steps = epoch * total + batch, self._epochs * total
        text = f"epoch {epoch + 1}/{self._epochs} loss {loss:.3f}"
        self._bar.update(self._task, description=text, completed=step, total=steps)
        remaining = self._clock.remaining(step, steps)
        if not self._console.is_terminal and batch % LINE_INTERVAL == 0:
            self._console.print(
                f"epoch {epoch + 1}/{self._epochs}  step {batch}/{total}  loss {loss:.4f}  "
                f"lr {lr:.3g}  {remaining}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if self._writer and step % TENSORBOARD_INTERVAL == 0:
            self._writer.add_scalar("step/loss", loss, step)
            self._writer.add_scalar("step/learning rate", lr, step)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """See `Reporter.on_epoch`."""
        score = "" if metrics.score is None else f"  mAP {metrics.score:.4f}"
        self._console.print(
            f"epoch {metrics.epoch}  loss {metrics.loss:.4f} = classes {metrics.score_loss:.4f} + "
            f"boxes {metrics.offset_loss:.4f}{score}  {metrics.images_per_second:.1f} images/s",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if self._writer:
            for name, value in metrics.values().items():
                if value is not None and name not in ("epoch", "step"):
                    self._writer.add_scalar(f"epoch/{name}", value, metrics.epoch)

    def on_problems(self, problems: Sequence[Problem]) -> None:
        """See `Reporter.on_problems`."""
        self._console.print(summarize(problems), style="yellow", markup=False, soft_wrap=True)


class _RunClock:
    """Estimates the remaining time of a run from the steps since its start or resumption."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def remaining(self, step: int, steps: int) -> str:
        """Return the remaining time after a step, as in "12 min left"."""
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        done, seconds = step - self._first[0], now - self._first[1]
        if done <= 0:
            return ""
        left = seconds / done * (steps - step)
        return f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"
