"""`realtime-ssd evaluate`: how good a model is on annotated images."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.evaluate import Evaluation

__all__ = ["evaluate"]


def evaluate(
    *,
    model: str,
    data: str,
    metric: str = "coco",
    json: Path | None = None,
    score_threshold: float = 0.02,
    backend: str = "auto",
    batch: int = 1,
    overwrite: bool = False,
) -> None:
    """Score a checkpoint, an ONNX file or an engine on annotated images, all on the same path.

    Args:
        model: Checkpoint (.safetensors), ONNX file or name of a model.
        data: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR, csv:FILE or
            demo:FIRST-LAST.
        metric: coco, voc07 (11 points) or voc (every point).
        json: Also write the result to this file.
        score_threshold: Detections must score above this; low, for the whole curve.
        backend: auto, onnxruntime or tensorrt.
        batch: Images that go through the network together.
        overwrite: Replace an existing JSON file.
    """
    from realtime_ssd.errors import RealtimeSSDError, UsageError
    from realtime_ssd.zoo import find_model

    if json is not None and json.exists() and not overwrite:
        raise UsageError(f"'{json}' exists; add --overwrite to replace it")
    try:
        from training.data import open_dataset
        from training.evaluate import METRICS, open_model
        from training.evaluate import evaluate as score
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"evaluating needs '{error.name}'; install it with pip install 'realtime-ssd[train]'"
        ) from None
    if metric not in METRICS:
        raise UsageError(f"metric '{metric}' is unknown; choose {', '.join(METRICS)}")
    path = Path(model) if model.endswith(".safetensors") else find_model(model)[0]
    annotated = open_dataset(data)
    with open_model(path, backend, score_threshold, batch) as opened:
        result = score(opened, annotated, metric, _progress)
    print(file=sys.stderr)
    _show(result)
    if json is not None:
        try:
            json.write_text(jsonlib.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RealtimeSSDError(f"'{json}' cannot be written: {error.strerror}") from None


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)


def _show(result: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "class", "objects", *(result.score.classes[0].values if result.score.classes else ())
    )
    for one in result.score.classes:
        table.add_row(one.label, str(one.objects), *(f"{v:.4f}" for v in one.values.values()))
    console = Console()
    console.print(table)
    summary = "  ".join(f"{name} {value:.4f}" for name, value in result.score.summary.items())
    console.print(summary, highlight=False)
    if result.unknown:
        console.print(f"unknown to the model, left out: {', '.join(result.unknown)}")
