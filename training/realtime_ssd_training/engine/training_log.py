"""How a run tells what it does: a progress bar, lines a person can read, and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from realtime_ssd_training.data import Dataset, Problem, summarise
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.run_folder import Row, RunFolder

__all__ = ["Report"]

EVERY = 20  # steps between two points in TensorBoard


class Report:
    """Reports of one run; only the first process speaks.

    Args:
        folder: Folder of the run, for TensorBoard's files.
        world: The processes that take part.
        data: Training set; its problems are told at the start.
    """

    def __init__(self, folder: RunFolder, world: World, data: Dataset) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._console = Console(quiet=not world.first)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)
        with folder.writing():
            self._board = SummaryWriter(str(folder.board)) if world.first else None
        if data.problems:
            self._console.print(
                summarise(data.problems), style="yellow", markup=False, soft_wrap=True
            )

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._board:
            self._board.close()

    def step(self, epoch: int, done: int, total: int, loss: float, lr: float) -> None:
        """See `realtime_ssd_training.engine.train.Reporter.step`."""
        text = f"epoch {epoch + 1} loss {loss:.3f}"
        self._bar.update(self._task, description=text, completed=done, total=total)
        number = epoch * total + done
        if self._board and number % EVERY == 0:
            self._board.add_scalar("step/loss", loss, number)
            self._board.add_scalar("step/learning rate", lr, number)

    def epoch(self, row: Row) -> None:
        """See `realtime_ssd_training.engine.train.Reporter.epoch`."""
        score = "" if row.score is None else f"  mAP {row.score:.4f}"
        self._console.print(
            f"epoch {row.epoch}  loss {row.loss:.4f} = classes {row.score_loss:.4f} + boxes "
            f"{row.offset_loss:.4f}{score}  {row.images_per_second:.1f} images/s",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if self._board:
            for name, value in row.values().items():
                if value is not None and name not in ("epoch", "step"):
                    self._board.add_scalar(f"epoch/{name}", value, row.epoch)

    def problems(self, found: Sequence[Problem]) -> None:
        """See `realtime_ssd_training.engine.train.Reporter.problems`."""
        self._console.print(summarise(found), style="yellow", markup=False, soft_wrap=True)
