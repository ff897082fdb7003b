"""The output folder of a training run.

- `config.json`: recipe, data, command line, versions and git state
- `metrics.csv`: one row per epoch
- `curves.png`: loss, learning rate and mAP per epoch
- `tensorboard/`: the same for TensorBoard
- `last.safetensors`: the state needed to resume
- `best.safetensors`: the weights with the best score
- `model.onnx`: the best weights, exported for detection
"""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from realtime_ssd import __version__
from realtime_ssd.core.errors import RealtimeSSDError, UsageError, redact
from realtime_ssd.core.files import check_output, make_folder, replace_file

__all__ = ["EpochMetrics", "RunFolder", "git_state"]


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """The metrics of one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Steps since the start of the run.
        lr: Learning rate of the last step.
        loss: Mean loss per step.
        score_loss: Mean classification loss.
        offset_loss: Mean localization loss.
        images_per_second: Training throughput, including data loading.
        score: mAP on the validation set; None if it was not evaluated.
    """

    epoch: int
    step: int
    lr: float
    loss: float
    score_loss: float
    offset_loss: float
    images_per_second: float
    score: float | None = None

    def values(self) -> dict[str, float | None]:
        """Return the metrics by column name."""
        return {name: getattr(self, name) for name in self.__slots__}


_FILES = (
    *(f"{name}.{suffix}" for name in ("last", "best") for suffix in ("safetensors", "json")),
    *("config.json", "metrics.csv", "curves.png", "model.onnx"),
)


class RunFolder:
    """Checks the folder of a run and writes its files.

    Args:
        path: Folder; created with the first file.
        resume: Whether to resume the run in the folder. Otherwise it must contain no file of a
            run, unless `overwrite` is set.
        overwrite: Whether files of an earlier run may be replaced.

    Raises:
        UsageError: If there is no run to resume, a file of a run exists but neither `resume` nor
            `overwrite` is set, both are set, or a file cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool, overwrite: bool = False) -> None:
        self.path = path
        if resume and overwrite:
            raise UsageError("`resume` continues a run and `overwrite` replaces it; set only one")
        if resume and not self.last.exists():
            raise UsageError(f"'{path}' contains no run to resume; omit `resume`")
        if not resume and not overwrite and self.last.exists():
            raise UsageError(
                f"'{path}' already contains a run; set `resume` to continue it, set `overwrite` to "
                "replace it, or choose another folder"
            )
        for name in _FILES:
            check_output(path / name, overwrite=resume or overwrite)

    def start(self) -> None:
        """Create the folder and remove the files of an earlier run, which could be mixed up.

        Raises:
            UsageError: If the folder cannot be created.
            RealtimeSSDError: If a file cannot be removed.
        """
        make_folder(self.path)
        events = self.tensorboard.glob("events.out.tfevents.*")
        with self.explain_write_errors():
            for file in (*(self.path / name for name in _FILES), *events):
                file.unlink(missing_ok=True)

    @property
    def last(self) -> Path:
        """The checkpoint of the current state."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint of the best weights."""
        return self.path / "best.safetensors"

    @property
    def onnx(self) -> Path:
        """The exported model."""
        return self.path / "model.onnx"

    @property
    def tensorboard(self) -> Path:
        """The folder of the TensorBoard files."""
        return self.path / "tensorboard"

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write `config.json`: settings, command line, versions and git state.

        Args:
            settings: Plain values that JSON can hold, such as the recipe.

        Raises:
            RealtimeSSDError: If the file cannot be written.
        """
        import torch

        environment = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": [redact(arg) for arg in sys.argv],
            "git": git_state(Path.cwd()),
            "realtime_ssd": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
        }
        with self.explain_write_errors():
            text = json.dumps({**environment, **settings}, indent=1) + "\n"
            replace_file(self.path / "config.json", text.encode())

    def write_history(self, rows: Sequence[EpochMetrics]) -> None:
        """Replace `metrics.csv` and `curves.png`.

        Args:
            rows: All epochs of the run so far.

        Raises:
            RealtimeSSDError: If a file cannot be written.
        """
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(EpochMetrics.__slots__))
        writer.writeheader()
        writer.writerows(row.values() for row in rows)
        with self.explain_write_errors():
            replace_file(self.path / "metrics.csv", table.getvalue().encode())
            if rows:
                replace_file(self.path / "curves.png", _plot(rows))

    @contextmanager
    def explain_write_errors(self) -> Iterator[None]:
        """Convert an `OSError` while writing to the folder to an error of one sentence."""
        try:
            yield
        except OSError as error:
            raise RealtimeSSDError(
                f"run folder '{self.path}' cannot be written ({error.strerror}); free some "
                "space or choose another folder"
            ) from error


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a folder and whether files differ from it; None outside git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *args: str) -> str:
    process = subprocess.run(
        ["git", *args], cwd=folder, capture_output=True, text=True, check=True, timeout=20
    )
    return process.stdout.strip()


def _plot(rows: Sequence[EpochMetrics]) -> bytes:
    """Plot losses, scores and learning rate; return a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.08, right=0.92, bottom=0.13, top=0.91, wspace=0.18)
    losses, scores = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    for name in ("loss", "score_loss", "offset_loss"):
        values = [getattr(row, name) for row in rows]
        losses.plot(epochs, values, ".-", label=name.replace("_", " "))
    losses.set(xlabel="epoch", ylabel="loss", yscale="log", title="Training loss")
    losses.legend()
    scored = [(row.epoch, row.score) for row in rows if row.score is not None]
    scores.plot([epoch for epoch, _ in scored], [score for _, score in scored], "o-", color="C2")
    scores.set(xlabel="epoch", ylim=(0, 1), title="Validation mAP and learning rate")
    scores.set_ylabel("mAP", color="C2")
    rates = scores.twinx()
    rates.plot(epochs, [row.lr for row in rows], color="0.5", linestyle="--")
    rates.set_ylabel("learning rate (dashed)", color="0.5")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    png = io.BytesIO()
    figure.savefig(png, dpi=110, format="png")
    return png.getvalue()
