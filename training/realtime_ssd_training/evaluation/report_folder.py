"""The folder that `realtime-ssd evaluate --report` writes.

- `evaluation.json`: all figures, and the worst mistakes by kind
- `precision_recall.png`: the curve of every class
- `sizes.png`: how well small, medium and large objects are found
- `errors.png`: crops of the worst mistakes
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd_training.evaluation.error_sheet import write_error_sheet
from realtime_ssd_training.evaluation.evaluate import Evaluation
from realtime_ssd_training.evaluation.mistakes import KINDS
from realtime_ssd_training.evaluation.plots import draw_curves, draw_sizes

__all__ = ["FILES", "check_free", "write_json", "write_report"]

FILES = ("evaluation.json", "precision_recall.png", "sizes.png", "errors.png")

LISTED = 50
"""Most mistakes of a kind that the JSON file lists."""


def check_free(json_file: Path | None, folder: Path | None, *, overwrite: bool) -> None:
    """Make sure, before the work, that its results will find a place; make the folders.

    Args:
        json_file: File for the figures, if any.
        folder: Folder for the report, if any.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If a file is there already, or a folder cannot be made or written.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; give the name of a folder for the report")
    files = [json_file] if json_file else []
    files += [folder / name for name in FILES] if folder else []
    for file in files:
        if file.is_dir():
            raise UsageError(f"'{file}' is a folder; give the name of a file")
        if file.exists() and not overwrite:
            raise UsageError(f"'{file}' exists; set `overwrite` to replace it")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise _unwritable(file, error) from None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write figures in one move.

    Raises:
        UsageError: If that is not possible.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"'{path}' cannot be written: {error.strerror}; choose another place")


def write_report(folder: Path, result: Evaluation) -> None:
    """Write figures and pictures.

    Args:
        folder: An existing folder; files of an earlier report in it are replaced.
        result: The evaluation.

    Raises:
        UsageError: If a file cannot be written.
    """
    data = result.data
    title = f"{result.spec.name} ({result.backend}) on {_short(data.name)}, {len(data)} images"
    worst = [
        item.to_dict(data.labels) for kind in KINDS for item in result.mistakes.of(kind, LISTED)
    ]
    write_json(folder / FILES[0], {**result.to_dict(), "worst": worst})
    draw_curves(folder / FILES[1], result.score, title)
    draw_sizes(folder / FILES[2], result.sizes(), result.mistakes, title)
    write_error_sheet(folder / FILES[3], result.mistakes, data, title)


def _short(name: str) -> str:
    """Shorten the paths in the name of a data set to their last two parts."""
    return ":".join("/".join(Path(part).parts[-2:]) for part in name.split(":"))
