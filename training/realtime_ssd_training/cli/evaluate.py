"""`realtime-ssd evaluate`: how good a model is on annotated images."""

from __future__ import annotations

import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from realtime_ssd_training.evaluation.evaluator import Evaluation

__all__ = ["evaluate"]

GAP = 0.001
"""Largest difference in AP between an engine and its ONNX file."""

_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
"""Figures of a class that the terminal shows; the JSON file has them all."""


def evaluate(
    *,
    model: str,
    data: str,
    metric: str = "coco",
    classes: str | None = None,
    remap: str | None = None,
    json: Path | None = None,
    report: Path | None = None,
    score_threshold: float = 0.02,
    backend: str = "auto",
    batch: int = 1,
    reference: str | None = None,
    overwrite: bool = False,
) -> None:
    """Score a checkpoint, an ONNX file or an engine on annotated images, all on the same path.

    Args:
        model: Checkpoint (.safetensors), ONNX file, engine (.engine) or name of a model.
        data: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES] or demo:FIRST-LAST.
        metric: coco, voc07 (11 points) or voc (every point).
        classes: Classes of the data to score, as in "person,car", by their new names; all by
            default.
        remap: New names of the data's classes, as in "van=car,lorry=truck".
        json: Also write the result to this file.
        report: Also write a folder with precision_recall.png, sizes.png (small, medium and large
            objects), errors.png (the worst mistakes) and evaluation.json.
        score_threshold: Detections must score above this; low, for the whole curve.
        backend: auto, onnxruntime or tensorrt.
        batch: Images that go through the network together.
        reference: ONNX file or name of a model that ONNX Runtime scores on the same images; AP
            may differ by 0.001 at most, as between an engine and the file it was built from.
        overwrite: Replace existing files.
    """
    from realtime_ssd.core.errors import RealtimeSSDError

    try:
        from realtime_ssd_training.data import open_dataset, summarise
        from realtime_ssd_training.data.classes import parse_classes, parse_remap
        from realtime_ssd_training.evaluation.evaluator import check_metric, open_model
        from realtime_ssd_training.evaluation.evaluator import evaluate as score
        from realtime_ssd_training.evaluation.report_folder import (
            check_outputs,
            write_json,
            write_report,
        )
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"evaluating needs '{error.name}'; install it with pip install 'realtime-ssd[train]'"
        ) from None
    checked = check_metric(metric)
    check_outputs(json, report, overwrite=overwrite)
    path = _find(model)
    annotated = open_dataset(data, None, parse_remap(remap), parse_classes(classes))
    if annotated.problems:
        print(summarise(annotated.problems), file=sys.stderr)
    with open_model(path, backend, score_threshold, batch) as opened:
        result = score(opened, annotated, checked, _progress)
    print(file=sys.stderr)
    if result.data.problems:
        print(summarise(result.data.problems), file=sys.stderr)
    _show(result)
    if json is not None:
        write_json(json, result.to_dict())
    if report is not None:
        write_report(report, result)
        print(f"{report}: precision-recall curves, sizes, worst mistakes, all figures")
    if reference is not None:
        with open_model(_find(reference), "onnxruntime", score_threshold, batch) as opened:
            other = score(opened, annotated, checked, _progress)
        print(file=sys.stderr)
        _hold_against(result, other)


def _hold_against(result: Evaluation, other: Evaluation) -> None:
    """Refuse a model whose AP is not that of its reference."""
    from realtime_ssd.core.errors import ModelError

    gap = abs(result.metrics.mean - other.metrics.mean)
    told = (
        f"AP {result.metrics.mean:.4f} on {result.backend}, "
        f"{other.metrics.mean:.4f} on the reference, |ΔAP| {gap:.4f}"
    )
    if not gap <= GAP:
        raise ModelError(
            f"the model does not score what its reference scores: {told}, at most {GAP} is right; "
            "see the engine's layers with realtime-ssd build --layers, or build it with "
            "--precision fp32"
        )
    print(told)


def _find(model: str) -> Path:
    from realtime_ssd.core.errors import UsageError
    from realtime_ssd.zoo import find_model

    path = Path(model).expanduser()
    if (path / "best.safetensors").is_file():
        raise UsageError(f"'{model}' is the folder of a run; give best.safetensors in it")
    if path.suffix not in (".safetensors", ".engine"):
        return find_model(model)[0]
    if not path.is_file():
        raise UsageError(f"model file '{model}' does not exist")
    return path


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)


def _show(result: Evaluation) -> None:
    """Print the classes, the sizes, the means and the mistakes."""
    from rich.console import Console

    console = Console()
    _show_classes(console, result)
    _show_sizes(console, result)
    summary = "  ".join(
        f"{k} {_figure(v)}" for k, v in result.metrics.summary.items() if "_" not in k
    )
    wrong = result.errors
    counts = ", ".join(f"{count} {kind}" for kind, count in wrong.counts.items())
    lines = [
        summary,
        f"from score {wrong.score:.2f} on, where F1 is best: "
        f"{wrong.true_positives} of {wrong.objects} objects found; mistakes: {counts}",
    ]
    if result.unknown_classes:
        lines.append(f"unknown to the model, left out: {', '.join(result.unknown_classes)}")
    console.print("\n".join(lines), highlight=False, markup=False)


def _show_classes(console: Console, result: Evaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    keys = [key for key in _COLUMNS if key in result.metrics.classes[0].values]
    table = Table("class", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in ("objects", *(key.replace("AP_", "") for key in keys)):
        table.add_column(name, justify="right", min_width=6, no_wrap=True)
    for one in result.metrics.classes:
        figures = (_figure(one.values[key]) for key in keys)
        table.add_row(Text(one.label), str(one.objects), *figures)
    console.print(table)


def _show_sizes(console: Console, result: Evaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = result.sizes()
    names = list(rows["small"])
    table = Table("size", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", min_width=6)
    for size, row in rows.items():
        table.add_row(size, str(row["objects"]), *(_figure(row[name]) for name in names[1:]))
    console.print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.4f}"
