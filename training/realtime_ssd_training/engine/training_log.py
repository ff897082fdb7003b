"""Progress of a run: the `Reporter` interface, and output to the terminal and TensorBoard."""

from __future__ import annotations

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

__all__ = ["Reporter", "TrainingLog"]

TENSORBOARD_INTERVAL = 20  # steps between two points


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


class TrainingLog(Closeable):
    """A progress bar, lines of text and TensorBoard files; silent except in the main process.

    Args:
        folder: Folder of the run, for TensorBoard.
        context: The processes of the run.
        dataset: Training set; its problems are printed first.
    """

    def __init__(self, folder: RunFolder, context: DistributedContext, dataset: Dataset) -> None:
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
        text = f"epoch {epoch + 1} loss {loss:.3f}"
        self._bar.update(self._task, description=text, completed=batch, total=total)
        step = epoch * total + batch
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
