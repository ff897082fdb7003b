"""`realtime-ssd data`: check a dataset, and convert it to another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from rich.console import Console

    from realtime_ssd_training.data import Dataset
    from realtime_ssd_training.data.statistics import DatasetStatistics
    from realtime_ssd_training.engine.box_coverage import Coverage, Proposal

__all__ = ["app"]

app = App(name="data", help="Check a dataset, or convert it to another format.")

_RECIPES = ("custom", "coco_ssdlite320", "voc_ssd300")
_MAX_PROBLEMS = 20


@app.command
def check(
    data: str,
    *,
    recipe: str | None = None,
    output: Path | None = None,
    json: Path | None = None,
    classes: str | None = None,
    remap: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a dataset contains, its problems, and which recipe fits its objects.

    Args:
        data: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES[:SPLIT]] or demo:FIRST-LAST; several joined by " + ".
        recipe: Compare the boxes of this recipe too, a TOML file or a name.
        output: Also write a sheet of annotated images to this file.
        json: Also write everything, with all problems, to this file.
        classes: Classes to keep, as in "person,car", by their new names; all by default.
        remap: New names of classes, as in "van=car,lorry=truck".
        overwrite: Replace existing files.
    """
    from realtime_ssd.core.extras import require
    from realtime_ssd.core.files import check_output, write_output

    require("train", "torch", "msgspec", purpose="checking a dataset")
    for path in filter(None, (output, json)):
        check_output(path, overwrite=overwrite)
    from realtime_ssd_training.data.statistics import collect_statistics
    from realtime_ssd_training.engine import box_coverage
    from realtime_ssd_training.recipe import load_recipe

    loaded = {name: load_recipe(name) for name in dict.fromkeys((recipe, *_RECIPES)) if name}
    dataset = _open(data, classes, remap)
    statistics = collect_statistics(dataset)
    boxes = box_coverage.sample_objects(statistics.boxes)
    coverages = [box_coverage.coverage_of(item, name, boxes) for name, item in loaded.items()]
    proposal = box_coverage.propose_recipe(boxes, statistics.aspect) if len(boxes) else None
    _print_report(dataset, statistics, coverages, proposal)
    if json is not None:
        write_output(json, _to_json(dataset, statistics, coverages, proposal))
    if output is not None:
        from realtime_ssd_training.data.dataset_sheet import write_dataset_sheet

        write_dataset_sheet(output, dataset)
        print(f"{output}: annotated images")


@app.command
def convert(
    data: str,
    output: Path,
    *,
    to: Literal["coco", "voc", "yolo", "csv"],
    split: str = "train",
    classes: str | None = None,
    remap: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a dataset in another format, with its images.

    Images that EXIF rotates are written upright, so that every tool reads the boxes alike. A
    second split may be added to the same folder.

    Args:
        data: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES[:SPLIT]] or demo:FIRST-LAST; several joined by " + ".
        output: Folder to write.
        to: Format: coco (instances_SPLIT.json), voc (Pascal VOC folders), yolo (Ultralytics
            folders and data.yaml) or csv (SPLIT.csv).
        split: Name of the split.
        classes: Classes to keep, as in "person,car", by their new names; all by default.
        remap: New names of classes, as in "van=car,lorry=truck".
        overwrite: Replace the files of a split.
    """
    from realtime_ssd_training.data.dataset_writers import DatasetWriter

    writer = DatasetWriter(output, to, split, overwrite=overwrite)
    dataset = _open(data, classes, remap)
    _print_problems(dataset)
    written = writer.write(dataset, _print_progress)
    for problem in written.problems[:_MAX_PROBLEMS]:
        print(problem, file=sys.stderr)
    print(f"{written.spec}: {written.images} images, {written.objects} objects")


def _open(data: str, classes: str | None, remap: str | None) -> Dataset:
    from realtime_ssd_training.data.classes import parse_classes, parse_remap
    from realtime_ssd_training.data.concat import open_datasets

    return open_datasets(data, remap=parse_remap(remap), classes=parse_classes(classes))


def _print_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} images", end=end, file=sys.stderr, flush=True)


def _print_problems(data: Dataset) -> None:
    from realtime_ssd_training.data import summarize

    if data.problems:
        print(summarize(data.problems, _MAX_PROBLEMS), file=sys.stderr)


def _print_report(
    data: Dataset,
    statistics: DatasetStatistics,
    coverages: list[Coverage],
    proposal: Proposal | None,
) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    (width, height), most = statistics.image_sizes[0]
    others = len(statistics.image_sizes) - 1
    sizes = f"{width}x{height} pixels" + (f" ({most}) and {others} other sizes" if others else "")
    console.print(f"{statistics.images} images, {statistics.empty} without objects, {sizes}")
    _print_classes(console, statistics)
    if proposal is not None:
        _print_coverage(console, coverages)
        _print_proposal(console, proposal)
    print(f"problems: {len(data.problems) or 'none'}")
    console.file.flush()
    _print_problems(data)


def _print_classes(console: Console, statistics: DatasetStatistics) -> None:
    from math import isnan

    from realtime_ssd_training.data.statistics import AREAS

    names = [name for name, *_ in AREAS]
    columns = ("images", "objects", "difficult", "crowds", *names, "median side")
    rows = [
        (
            item.label,
            *(item.images, item.objects, item.difficult, item.crowds),
            *item.sizes,
            "-" if isnan(item.median_side) else f"{item.median_side:.0f}",
        )
        for item in statistics.classes
    ]
    _print_table(console, ("class", *columns), rows)


def _print_coverage(console: Console, coverages: list[Coverage]) -> None:
    from itertools import pairwise

    from realtime_ssd_training.engine.box_coverage import SIDES

    console.print("objects with at most one default box, by object size (share of image side)")
    ranges = [
        f"from {low:.0%}" if high > 1 else f"{low:.0%}-{high:.0%}" for low, high in pairwise(SIDES)
    ]
    rows: list[tuple[object, ...]] = [("objects", "", *coverages[0].objects, "")]
    for item in coverages:
        shares = (
            f"{single / number:.0%} ({mean:.1f})" if number else "-"
            for single, number, mean in zip(item.single, item.objects, item.mean, strict=True)
        )
        rows.append((item.recipe, item.default_boxes, *shares, f"{item.single_fraction:.0%}"))
    _print_table(console, ("recipe", "boxes", *ranges, "all"), rows)
    console.print("in parentheses: mean number of default boxes with IoU of at least 0.5")


def _print_table(console: Console, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(header[0], box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in header[1:]:
        table.add_column(name, justify="right", min_width=6)
    for first, *cells in rows:
        table.add_row(Text(str(first)), *map(str, cells))
    console.print(table)


def _print_proposal(console: Console, proposal: Proposal) -> None:
    from realtime_ssd_training.engine.box_coverage import ACCEPTED

    share = f"{proposal.coverage.single_fraction:.0%}"
    if not proposal.changed:
        console.print(f"proposed recipe: custom ({share} of the objects get one default box)")
        return
    size = f"columns = {proposal.options['columns']}, rows = {proposal.options['rows']}"
    console.print(
        f"proposed recipe: custom with {size} in its [model] options ({share} of the objects get "
        "one default box)"
    )
    if not proposal.sufficient:
        console.print(
            f"more than {ACCEPTED:.0%} remain: cut the images into tiles, or use larger images"
        )


def _to_json(
    data: Dataset,
    statistics: DatasetStatistics,
    coverages: list[Coverage],
    proposal: Proposal | None,
) -> bytes:
    from dataclasses import asdict
    from json import dumps

    values = {
        "data": data.name,
        **statistics.to_dict(),
        "default_boxes": [
            {**asdict(item), "single_fraction": item.single_fraction} for item in coverages
        ],
        "proposal": None if proposal is None else asdict(proposal),
        "problems": [{"file": item.file, "text": item.text} for item in data.problems],
    }
    return (dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
