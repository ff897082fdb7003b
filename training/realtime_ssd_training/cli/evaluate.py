"""`realtime-ssd evaluate`: measure the accuracy of a model on annotated images."""

from __future__ import annotations

import shlex
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from realtime_ssd_training.evaluation.evaluator import Evaluation

__all__ = ["evaluate"]

MAX_AP_DIFFERENCE = 0.001
"""Largest accepted difference in AP between an engine and its ONNX file."""

_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
"""Metrics per class in the terminal; the JSON file has all."""


def evaluate(
    model: str,
    *,
    data: str,
    metric: str = "coco",
    classes: str | None = None,
    remap: str | None = None,
    json: Path | None = None,
    report: Path | None = None,
    score_threshold: float = 0.02,
    backend: str = "auto",
    batch: int = 1,
    tile: str | None = None,
    overlap: float = 0.2,
    reference: str | None = None,
    trust_model: bool = False,
    overwrite: bool = False,
) -> None:
    """Evaluate a checkpoint, an ONNX file or an engine on annotated images.

    Args:
        model: Checkpoint (.safetensors), ONNX file, engine (.engine) or name of a model.
        data: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES[:SPLIT]] or demo:FIRST-LAST.
        metric: coco, voc07 (11 points) or voc (every point).
        classes: Classes of the data to evaluate, as in "person,car", by their new names; all by
            default.
        remap: New names of the data's classes, as in "van=car,lorry=truck".
        json: Also write the metrics to this file.
        report: Also write a folder with precision_recall.png, sizes.png (small, medium and large
            objects), errors.png (the worst errors), confusion.png (what the objects of each class
            are detected as) and evaluation.json, and print the best score threshold of each class.
        score_threshold: Minimum score of a detection, exclusive; low, for the whole
            precision-recall curve.
        backend: auto, onnxruntime or tensorrt.
        batch: Images per inference.
        tile: Also run the model on tiles of larger images, WIDTHxHEIGHT in pixels, to find small
            objects; auto takes twice the input of the model.
        overlap: Smallest overlap of neighboring tiles, as a fraction of their side.
        reference: ONNX file or name of a model that ONNX Runtime evaluates on the same images; AP
            may differ by 0.001 at most, as between an engine and the file it was built from.
        trust_model: Run a graph with operators or sizes that SSDs do not need.
        overwrite: Replace existing files.
    """
    from realtime_ssd.core.tiles import parse_tile
    from realtime_ssd_training.data import open_dataset, summarize
    from realtime_ssd_training.data.classes import parse_classes, parse_remap
    from realtime_ssd_training.evaluation.evaluator import check_metric, open_model
    from realtime_ssd_training.evaluation.evaluator import evaluate as score
    from realtime_ssd_training.evaluation.report_folder import (
        check_outputs,
        write_json,
        write_report,
    )

    checked_metric = check_metric(metric)
    tiles = parse_tile(tile, overlap)
    _check_packages(model, data)
    check_outputs(json, report, overwrite=overwrite)
    path = _find_model(model)
    dataset = open_dataset(data, None, parse_remap(remap), parse_classes(classes))
    if dataset.problems:
        print(summarize(dataset.problems), file=sys.stderr)
    with open_model(
        path, backend, score_threshold, batch, trust_model=trust_model, tile=tiles
    ) as opened:
        result = score(opened, dataset, checked_metric, _print_progress)
    print(file=sys.stderr)
    if result.data.problems:
        print(summarize(result.data.problems), file=sys.stderr)
    _print_result(result)
    if json is not None:
        write_json(json, result.to_dict())
    if report is not None:
        write_report(report, result)
        _print_thresholds(result)
        print(f"{report}: precision-recall curves, object sizes, worst errors, all metrics")
    if reference is not None:
        path = _find_model(reference)
        with open_model(path, "onnxruntime", score_threshold, batch, tile=tiles) as opened:
            expected = score(opened, dataset, checked_metric, _print_progress)
        print(file=sys.stderr)
        _compare_with_reference(result, expected)


def _check_packages(model: str, data: str) -> None:
    """Check that the packages that read the model and the dataset are installed.

    Raises:
        RealtimeSSDError: If a package is missing.
    """
    from realtime_ssd.core.extras import require
    from realtime_ssd_training.data.dataset_factory import required_packages

    packages = [*required_packages(data)]
    if Path(model).suffix == ".safetensors":
        packages += ["torch", "safetensors"]
    require("train", *packages, purpose="evaluating")


def _compare_with_reference(result: Evaluation, reference: Evaluation) -> None:
    """Print the AP of both models.

    Raises:
        ModelError: If they differ by more than `MAX_AP_DIFFERENCE`.
    """
    from realtime_ssd.core.errors import ModelError

    difference = abs(result.metrics.mean - reference.metrics.mean)
    text = (
        f"AP {result.metrics.mean:.4f} on {result.backend}, {reference.metrics.mean:.4f} of the "
        f"reference, |ΔAP| {difference:.4f}"
    )
    if not difference <= MAX_AP_DIFFERENCE:
        raise ModelError(
            f"the AP of the model differs from its reference: {text}, at most {MAX_AP_DIFFERENCE} "
            "is accepted; inspect the engine's layers with realtime-ssd build --layers, or build "
            "it with --precision fp32"
        )
    print(text)


def _find_model(name: str) -> Path:
    from realtime_ssd.core.errors import UsageError
    from realtime_ssd.zoo import find_model

    path = Path(name).expanduser()
    if (path / "best.safetensors").is_file():
        raise UsageError(f"'{name}' is the folder of a run; use best.safetensors in it")
    if path.suffix not in (".safetensors", ".engine"):
        return find_model(name)[0]
    if not path.is_file():
        raise UsageError(f"model file '{name}' does not exist")
    return path


def _print_progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)


def _print_result(result: Evaluation) -> None:
    """Print the metrics by class and by object size, the means and the errors."""
    from rich.console import Console

    console = Console()
    _print_classes(console, result)
    _print_sizes(console, result)
    summary = "  ".join(
        f"{name} {_format(value)}"
        for name, value in result.metrics.summary.items()
        if "_" not in name
    )
    errors = result.errors
    counts = ", ".join(f"{count} {kind}" for kind, count in errors.counts.items())
    lines = [
        summary,
        f"at score {errors.score:.2f}, the best F1: {errors.true_positives} of {errors.objects} "
        f"objects detected; errors: {counts}",
    ]
    if result.unknown_classes:
        names = ", ".join(result.unknown_classes)
        lines.append(f"excluded, not classes of the model: {names}")
    console.print("\n".join(lines), highlight=False, markup=False)


def _print_thresholds(result: Evaluation) -> None:
    """Print the score thresholds with the best F1 as an option of the command line."""
    from realtime_ssd_training.evaluation.evaluator import match_labels

    advice = result.thresholds()
    if advice:
        # The option takes the names of the model.
        columns = match_labels(result.spec, result.data.labels).tolist()
        names = {result.data.labels[k]: result.spec.labels[c] for c, k in enumerate(columns) if k}
        scores = ",".join(f"{names[item.label]}={item.score:.3f}" for item in advice)
        f1 = sum(item.f1 for item in advice) / len(advice)
        print(f"best thresholds (mean F1 {f1:.3f}): --score-threshold {shlex.quote(scores)}")


def _print_classes(console: Console, result: Evaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    keys = [key for key in _COLUMNS if key in result.metrics.classes[0].values]
    shown, omitted = _fitting_columns(console.width, result, keys)
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("class", min_width=_class_width(result), overflow="fold")
    for name in ("objects", *(key.replace("AP_", "") for key in shown)):
        table.add_column(name, justify="right", min_width=6, no_wrap=True)
    for item in result.metrics.classes:
        values = (_format(item.values[key]) for key in shown)
        table.add_row(Text(item.label), str(item.objects), *values)
    console.print(table)
    if omitted:
        names = ", ".join(key.replace("AP_", "") for key in omitted)
        console.print(f"no room for {names}; widen the terminal or use --json", highlight=False)


def _class_width(result: Evaluation) -> int:
    """Return the width of the longest class name, up to a limit above which names are wrapped."""
    return min(20, max(len(item.label) for item in result.metrics.classes))


def _fitting_columns(
    width: int, result: Evaluation, keys: list[str]
) -> tuple[list[str], list[str]]:
    """Return the first columns that leave room for class names, and the others."""
    room = width - 2 - _class_width(result) - len(" objects")
    count = max(1, room // 7)
    return keys[:count], keys[count:]


def _print_sizes(console: Console, result: Evaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = result.sizes()
    names = list(rows["small"])
    table = Table("size", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", min_width=6)
    for size, row in rows.items():
        table.add_row(size, str(row["objects"]), *(_format(row[name]) for name in names[1:]))
    console.print(table)


def _format(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.4f}"
