"""The report folder of `realtime-ssd evaluate --report`.

- `evaluation.json`: all metrics and the worst errors of every kind
- `precision_recall.png`: precision-recall curve of every class
- `sizes.png`: detection rate by object size
- `errors.png`: crops of the worst errors
- `confusion.png`: which classes the objects of each class are detected as
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.extras import require
from realtime_ssd.core.files import check_output, make_folder, replace_file
from realtime_ssd_training.evaluation.confusion import ThresholdAdvice
from realtime_ssd_training.evaluation.confusion_plot import draw_confusions
from realtime_ssd_training.evaluation.error_analysis import KINDS
from realtime_ssd_training.evaluation.error_sheet import write_error_sheet
from realtime_ssd_training.evaluation.evaluator import Evaluation
from realtime_ssd_training.evaluation.metric_plots import draw_curves, draw_sizes

__all__ = ["FILES", "check_outputs", "write_json", "write_report"]

FILES = ("evaluation.json", "precision_recall.png", "sizes.png", "errors.png", "confusion.png")

MAX_ERRORS = 50
"""Maximum number of errors of a kind in the JSON file."""


def check_outputs(json_file: Path | None, folder: Path | None, *, overwrite: bool) -> None:
    """Check before the evaluation that its results can be written; create their folders.

    Args:
        json_file: File for the metrics, if any.
        folder: Folder for the report, if any.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If a file exists or cannot be written.
        RealtimeSSDError: If a report needs a package that is not installed.
    """
    if folder is not None:
        require("train", "matplotlib", purpose="a report", alternative="omit `report`")
        if folder.is_file():
            raise UsageError(f"'{folder}' is a file; `report` must be a folder")
        make_folder(folder)
    files = [json_file] if json_file else []
    files += [folder / name for name in FILES] if folder else []
    for file in files:
        check_output(file, overwrite=overwrite)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values as JSON atomically.

    Raises:
        UsageError: If the file cannot be written.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write metrics, plots and error crops; existing report files are replaced.

    Args:
        folder: An existing folder.
        evaluation: The evaluation.

    Raises:
        UsageError: If a file cannot be written.
    """
    data, errors = evaluation.data, evaluation.errors
    title = (
        f"{evaluation.spec.name} ({evaluation.backend}) on {_short_name(data.name)}, "
        f"{len(data)} images"
    )
    worst = [item.to_dict(data.labels) for kind in KINDS for item in errors.worst(kind, MAX_ERRORS)]
    confusion, thresholds = evaluation.confusion(), evaluation.thresholds()
    values = {
        **evaluation.to_dict(),
        "thresholds": {item.label: _without_label(item) for item in thresholds},
        "confusion": confusion.to_dict(),
        "worst": worst,
    }
    write_json(folder / FILES[0], values)
    draw_curves(folder / FILES[1], evaluation.metrics, title)
    draw_sizes(folder / FILES[2], evaluation.sizes(), errors, title)
    write_error_sheet(folder / FILES[3], errors, data, title)
    draw_confusions(folder / FILES[4], confusion, title)


def _without_label(item: ThresholdAdvice) -> dict[str, float]:
    return {key: round(value, 6) for key, value in asdict(item).items() if key != "label"}


def _short_name(name: str) -> str:
    """Shorten the paths in the name of a dataset to their last two parts."""
    return ":".join("/".join(Path(part).parts[-2:]) for part in name.split(":"))
