"""`train`: train a model from Python, as `realtime-ssd train` does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.engine.run_folder import EpochMetrics, RunFolder
from realtime_ssd_training.engine.training_log import Callback, Reporter
from realtime_ssd_training.models.checkpoint import load_model, read_checkpoint
from realtime_ssd_training.training_run import TrainingRun, recipe_changes

if TYPE_CHECKING:
    from realtime_ssd import Detector
    from realtime_ssd_training.models import SSD

__all__ = ["Callback", "TrainedModel", "train"]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished training run.

    Attributes:
        folder: Folder of the run, with checkpoints, curves and TensorBoard files.
        onnx: The exported model; it does not exist if the run was stopped.
        checkpoint: The best weights.
        score: mAP of the best weights on the validation set; None without one.
        best_epoch: Epoch of the best weights, from 1.
        epochs: Complete epochs.
        history: Metrics of all epochs since the start of this call.
        stopped: Whether a signal stopped the run; the same call with `resume=True` continues it.
    """

    folder: Path
    onnx: Path
    checkpoint: Path
    score: float | None
    best_epoch: int
    epochs: int
    history: tuple[EpochMetrics, ...]
    stopped: bool

    def detector(self, **options: Any) -> Detector:
        """Return a detector with the exported model; `options` are those of `Detector`."""
        from realtime_ssd import Detector

        return Detector(self.onnx, **options)

    def network(self) -> SSD:
        """Return the PyTorch network with the best weights, in evaluation mode."""
        return load_model(self.checkpoint)


class _History(Callback):
    """Keeps the metrics of all epochs."""

    def __init__(self) -> None:
        self.epochs: list[EpochMetrics] = []

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """See `Reporter.on_epoch`."""
        self.epochs.append(metrics)


def train(
    recipe: str | Path = "custom",
    *,
    data: str | None = None,
    val: str | None = None,
    output: str | Path | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    callbacks: Sequence[Reporter] = (),
    **overrides: Any,
) -> TrainedModel:
    """Train a model and export its best weights to ONNX.

    Args:
        recipe: Name of a recipe, or a TOML file.
        data: Training set, such as "voc:ROOT:train"; the recipe's by default.
        val: Validation set.
        output: Folder of the run; a new temporary folder by default.
        init: Detector to start from; see `realtime-ssd train --init`.
        resume: Continue the run in `output`.
        overwrite: Replace an earlier run in `output`.
        device: "auto", "cpu", "cuda" or "cuda:NUMBER".
        callbacks: Receive the progress; see `Callback`.
        overrides: Further options of `realtime-ssd train`, such as `epochs`, `batch`, `lr`,
            `classes` (a list), `remap` (a dictionary), `backbone`, `freeze` or `patience`.

    Returns:
        Scores, paths, and the model.

    Raises:
        UsageError: If an option is unknown or invalid.
        RealtimeSSDError: If the run fails.

    Example:
        >>> from realtime_ssd_training import train
        >>> result = train("custom", data="voc:ROOT:train", val="voc:ROOT:val")  # doctest: +SKIP
        >>> result.score, result.detector()("photo.jpg")  # doctest: +SKIP
    """
    if resume and output is None:
        raise UsageError("`resume` needs the folder of the run; set `output`")
    if output is None:
        output = tempfile.mkdtemp(prefix="realtime-ssd-run-")
    history = _History()
    run = TrainingRun(
        str(recipe),
        Path(output),
        recipe_changes({"data": data, "val": val, **overrides}),
        resume=resume,
        overwrite=overwrite,
        init=None if init is None else Path(init),
        device=device,
        callbacks=(*callbacks, history),
    )
    result = run.run()
    folder = RunFolder(Path(output), resume=True)
    best = read_checkpoint(folder.best).metadata if folder.best.exists() else {}
    return TrainedModel(
        folder=folder.path,
        onnx=folder.onnx,
        checkpoint=folder.best,
        score=best.get("score"),
        best_epoch=int(best.get("epoch", 0)),
        epochs=result.epochs,
        history=tuple(history.epochs),
        stopped=bool(result.stop_signal),
    )
