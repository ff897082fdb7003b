"""`realtime-ssd benchmark`: measure speed on this machine, and compare it with an earlier run."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["benchmark"]


def benchmark(
    *,
    model: str | None = None,
    source: str = "demo:1280x720",
    backend: str = "auto",
    precision: str | None = None,
    batch: str = "1",
    streams: int = 1,
    paced: float = 30.0,
    duration: float = 3.0,
    json: Path | None = None,
    plot: Path | None = None,
    against: Path | None = None,
    device: int | None = None,
    trust_model: bool = False,
    overwrite: bool = False,
) -> None:
    """Measure the network alone, each stage, and the whole pipeline from memory, file and paced.

    Every number is the median of five repeats after a warm-up, with the spread of the repeats;
    p90, p99 and max are over all batches, for the whole pipeline from capture to result.

    Args:
        model: Name of a model or ONNX file; the same default as for detection.
        source: Video file, photos or demo[:WxH].
        backend: Name of an installed backend; auto takes the fastest one on this machine.
        precision: fp32, fp16 or int8; the backend's own by default.
        batch: Batch sizes, as in 1,8,32.
        streams: Number of sources of the whole pipeline; all read the same.
        paced: Frames per second of the paced run, in which the machine idles between frames.
        duration: Seconds each measurement may take.
        json: Also write everything to this file.
        plot: Also draw a chart into this file (.png, .svg or .pdf).
        against: JSON file of an earlier run to compare with.
        device: Number of the GPU that runs the model, from 0; the first by default.
        trust_model: Run a graph with operators or sizes that SSDs do not need.
        overwrite: Replace existing files.
    """
    from realtime_ssd.core.files import write_output
    from realtime_ssd.profiling.benchmark import BenchmarkOptions, run
    from realtime_ssd.profiling.compare import read_result
    from realtime_ssd.zoo import find_model

    _check_files([file for file in (json, plot) if file is not None], plot, overwrite=overwrite)
    before = None if against is None else read_result(against)
    sizes = _batch_sizes(batch)
    path, remark = find_model(model)
    if remark:
        _report(remark)
    options = BenchmarkOptions(
        path, source, backend, precision, sizes, streams, paced, duration, trust_model, device
    )
    result = run(options, _report)
    _print_result(result)
    if before is not None:
        _print_changes(result, before)
    if json is not None:
        write_output(json, (jsonlib.dumps(result, indent=1) + "\n").encode())
    if plot is not None:
        from realtime_ssd.profiling.chart import draw_chart

        draw_chart(result, plot)


def _check_files(files: list[Path], plot: Path | None, *, overwrite: bool) -> None:
    """Check before the measurements that the files can be written after them."""
    from realtime_ssd.cli.outputs import check_output_files

    check_output_files(files, (), overwrite=overwrite)
    if plot is not None:
        from realtime_ssd.profiling.chart import check_chart

        check_chart(plot)


def _batch_sizes(text: str) -> tuple[int, ...]:
    from realtime_ssd.core.errors import UsageError

    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isascii() and size.isdigit() for size in sizes):
        raise UsageError(f"`batch` must be sizes such as 1,8,32, not '{text}'")
    return tuple(dict.fromkeys(int(size) for size in sizes))


def _report(line: str) -> None:
    from realtime_ssd.core.printable import printable

    print(printable(line), file=sys.stderr, flush=True)


def _print_result(result: dict[str, Any]) -> None:
    from rich.console import Console

    from realtime_ssd.core.printable import printable

    table = _table("", "batch", "FPS", "ms", "±", "p90", "p99", "max ms")
    for row in result["rows"]:
        percentiles = row["percentiles"]
        median = row["value"] if row["unit"] == "ms" else percentiles.get("p50")
        times = [median, *(percentiles.get(name) for name in ("p90", "p99", "max"))]
        cells = ["" if value is None else f"{value:.2f}" for value in times]
        cells.insert(1, f"{row['noise']:.1%}")
        table.add_row(row["what"], str(row["batch"]), f"{row['fps']:.1f}", *cells)
    console, machine = Console(markup=False, highlight=False), result["machine"]
    devices = ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["gpus"]])
    width, height = result["picture"]
    console.print(
        f"{result['model']['name']} on {result['backend']}, {devices}",
    )
    console.print(
        f"{printable(result['source'])}, {width} × {height}, streams: {result['streams']}",
    )
    console.print(table)
    if result["dropped"]:
        console.print(
            f"paced: {result['dropped']} frames replaced by newer ones",
            highlight=False,
            markup=False,
        )
    console.print(result["verdict"])


def _print_changes(result: dict[str, Any], before: dict[str, Any]) -> None:
    from rich.console import Console

    from realtime_ssd.profiling.compare import changed_settings, compare

    table = _table("", "batch", "speed ratio", "±", "verdict")
    for change in compare(result, before):
        cells = (f"{change.ratio:.3f}", f"{change.noise:.1%}", change.verdict)
        table.add_row(change.what, str(change.batch), *cells)
    console = Console(markup=False, highlight=False)
    if table.row_count:
        console.print(table)
    else:
        console.print(
            "the two results have no measurement in common", highlight=False, markup=False
        )
    changed = changed_settings(result, before)
    if changed:
        console.print(
            f"different in the two results: {', '.join(changed)}", highlight=False, markup=False
        )


def _table(*titles: str) -> Table:
    """Return a table that fits 80 columns: a name, then right-aligned figures."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    return table
