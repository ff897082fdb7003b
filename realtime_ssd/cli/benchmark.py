"""`realtime-ssd benchmark`: how fast it is on this machine, and compared with an earlier run."""

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
    overwrite: bool = False,
) -> None:
    """Measure the network alone, each stage, and the whole loop from memory, from file and paced.

    Every number is the median of five repeats after a warm-up, with the spread of the repeats;
    p90, p99 and max are those of all batches, in the whole loop from capture to result.

    Args:
        model: Name of a model or ONNX file; the same default as for detection.
        source: Video file, photos or demo[:WxH].
        backend: auto, onnxruntime or tensorrt.
        precision: fp32, fp16 or int8; the backend's own by default.
        batch: Batch sizes, as in 1,8,32.
        streams: Sources at once in the whole loop; each reads the same.
        paced: Frames a second of the paced run, in which clocks may fall.
        duration: Seconds each measurement may take.
        json: Also write everything to this file.
        plot: Also draw a chart into this file.
        against: JSON file of an earlier run; tells how many times as fast it is now, and noise.
        overwrite: Replace existing files.
    """
    from realtime_ssd.profiling.compare import read
    from realtime_ssd.profiling.plan import Plan, run
    from realtime_ssd.zoo import find_model

    _check_files([file for file in (json, plot) if file is not None], plot, overwrite=overwrite)
    before = None if against is None else read(against)
    sizes = _sizes(batch)
    path, remark = find_model(model)
    if remark:
        print(remark, file=sys.stderr)
    plan = Plan(path, source, backend, precision, sizes, streams, paced, duration)
    result = run(plan, _tell)
    _show(result)
    if before is not None:
        _show_changes(result, before)
    if json is not None:
        _write(json, result)
    if plot is not None:
        from realtime_ssd.profiling.plot import plot as draw

        draw(result, plot)


def _check_files(files: list[Path], plot: Path | None, *, overwrite: bool) -> None:
    """Find out before the measurements that a file cannot be written after them."""
    from realtime_ssd.cli.outputs import check_place, check_targets

    check_targets(files, (), overwrite=overwrite)
    for file in files:
        check_place(file)
    if plot is not None:
        from realtime_ssd.profiling.plot import check

        check(plot)


def _write(path: Path, result: dict[str, Any]) -> None:
    from realtime_ssd.core.errors import RealtimeSSDError
    from realtime_ssd.core.files import replace_file

    try:
        replace_file(path, (jsonlib.dumps(result, indent=1) + "\n").encode())
    except OSError as error:
        raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None


def _sizes(text: str) -> tuple[int, ...]:
    from realtime_ssd.core.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--batch takes sizes such as 1,8,32, not '{text}'")
    return tuple(dict.fromkeys(int(word) for word in words))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console

    table = _table("", "batch", "FPS", "ms", "±", "p90", "p99", "max ms")
    for row in result["rows"]:
        shares = row["percentiles"]
        middle = row["value"] if row["unit"] == "ms" else shares.get("p50")
        times = [middle, *(shares.get(name) for name in ("p90", "p99", "max"))]
        words = ["" if value is None else f"{value:.2f}" for value in times]
        words.insert(1, f"{row['noise']:.1%}")
        table.add_row(row["what"], str(row["batch"]), f"{row['fps']:.1f}", *words)
    console, machine = Console(), result["machine"]
    place = ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["gpus"]])
    width, height = result["picture"]
    console.print(f"{result['model']['name']} on {result['backend']}, {place}", highlight=False)
    console.print(
        f"{result['source']}, {width} × {height}, streams: {result['streams']}", highlight=False
    )
    console.print(table)
    if result["dropped"]:
        console.print(f"paced: {result['dropped']} frames dropped for newer ones", highlight=False)
    console.print(result["verdict"], highlight=False)


def _show_changes(result: dict[str, Any], before: dict[str, Any]) -> None:
    from rich.console import Console

    from realtime_ssd.profiling.compare import compare, differences

    table = _table("", "batch", "times as fast", "±", "verdict")
    for change in compare(result, before):
        words = (f"{change.ratio:.3f}", f"{change.noise:.1%}", change.verdict)
        table.add_row(change.what, str(change.batch), *words)
    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print("nothing was measured in both", highlight=False)
    other = differences(result, before)
    if other:
        console.print(f"not the same in both: {', '.join(other)}", highlight=False)


def _table(*titles: str) -> Table:
    """Make a table that 80 columns hold: a name, then figures aligned at their right."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    return table
