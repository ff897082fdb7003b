"""The folder of a training run: what was run, how it went, and what came out.

- `config.json`: recipe, data, command line, versions and git state
- `metrics.csv`: one row an epoch
- `curves.png`: loss, learning rate and mAP over the epochs
- `tensorboard/`: the same for TensorBoard
- `last.safetensors`: everything needed to go on
- `best.safetensors`: weights of the best score
- `model.onnx`: the best weights, ready for `realtime-ssd --model`
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
from realtime_ssd.core.files import replace_file

__all__ = ["Row", "RunFolder", "git_state"]


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch in numbers.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Steps done so far.
        lr: Learning rate of the last step.
        loss: Mean loss of a step.
        score_loss: Its part from the classes.
        offset_loss: Its part from the boxes.
        images_per_second: Images trained on a second, the wait for data included.
        score: mAP on the validation set; None if it was not scored.
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
        """Give the row by column name."""
        return {name: getattr(self, name) for name in self.__slots__}


class RunFolder:
    """Writes the files of a run.

    Args:
        path: Folder; it is made if need be.
        resume: Whether a run in it goes on; otherwise it must hold none.

    Raises:
        UsageError: If there is a run where none should be, or none where one should.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        if resume and not self.last.exists():
            raise UsageError(f"there is no run to resume in '{path}'; leave --resume out")
        if not resume and self.last.exists():
            raise UsageError(f"'{path}' holds a run already; add --resume or choose another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder '{path}' cannot be made: {error.strerror}") from None

    @property
    def last(self) -> Path:
        """Where the state of the run lies."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """Where the best weights lie."""
        return self.path / "best.safetensors"

    @property
    def onnx(self) -> Path:
        """Where the exported model lies."""
        return self.path / "model.onnx"

    @property
    def board(self) -> Path:
        """Where TensorBoard's files lie."""
        return self.path / "tensorboard"

    def write_config(self, facts: Mapping[str, Any]) -> None:
        """Note what is run, by which versions, from which state of the sources.

        Raises:
            RealtimeSSDError: If it cannot be written.
        """
        import torch

        about = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": [redact(word) for word in sys.argv],
            "git": git_state(Path.cwd()),
            "realtime_ssd": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
        }
        with self.writing():
            text = json.dumps({**about, **facts}, indent=1) + "\n"
            replace_file(self.path / "config.json", text.encode())

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write `metrics.csv` and `curves.png` anew.

        Raises:
            RealtimeSSDError: If they cannot be written.
        """
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(Row.__slots__))
        writer.writeheader()
        writer.writerows(row.values() for row in rows)
        with self.writing():
            replace_file(self.path / "metrics.csv", table.getvalue().encode())
            if rows:
                replace_file(self.path / "curves.png", _drawn(rows))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what goes wrong while files are written here into one sentence."""
        try:
            yield
        except OSError as error:
            raise RealtimeSSDError(
                f"the run's folder '{self.path}' cannot be written ({error.strerror}); free some "
                "space or choose another folder"
            ) from error


def git_state(folder: Path) -> dict[str, Any] | None:
    """Say which commit a folder is at and whether files differ from it; None outside of git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def _drawn(rows: Sequence[Row]) -> bytes:
    """Draw the curves as a PNG."""
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
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    return picture.getvalue()
