"""`realtime-ssd benchmark`: how fast it is on this machine, and compared with an earlier run."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

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

    Every number is the median of five repeats after a warm-up, with the spread of the repeats.

    Args:
        model: Name of a model or ONNX file; the same default as for detection.
        source: Video file or demo[:WxH].
        backend: auto, onnxruntime or tensorrt.
        precision: fp32, fp16 or int8; the backend's own by default.
        batch: Batch sizes, as in 1,8,32.
        streams: Sources at once in the whole loop.
        paced: Frames a second of the paced run, in which clocks may fall.
        duration: Seconds each measurement may take.
        json: Also write everything to this file.
        plot: Also draw a chart into this file.
        against: JSON file of an earlier run to compare with.
        overwrite: Replace existing files.
    """
    from realtime_ssd.benchmark.compare import read
    from realtime_ssd.benchmark.plan import Plan, run
    from realtime_ssd.errors import UsageError
    from realtime_ssd.zoo import find_model

    for file in (json, plot):
        if file is not None and file.exists() and not overwrite:
            raise UsageError(f"'{file}' exists; add --overwrite to replace it")
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"'{file}' cannot be written: there is no such folder")
    before = None if against is None else read(against)
    path, remark = find_model(model)
    if remark:
        print(remark, file=sys.stderr)
    plan = Plan(path, source, backend, precision, _sizes(batch), streams, paced, duration)
    result = run(plan, _tell)
    if json is not None:
        json.write_text(jsonlib.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(result)
    if before is not None:
        _show_changes(result, before)
    if plot is not None:
        from realtime_ssd.benchmark.plot import plot as draw

        draw(result, plot)


def _sizes(text: str) -> tuple[int, ...]:
    from realtime_ssd.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() for word in words):
        raise UsageError(f"--batch takes sizes such as 1,8,32, not '{text}'")
    return tuple(dict.fromkeys(int(word) for word in words))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(result: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("", "median", "±", "p90", "p99", "max ms", box=SIMPLE, show_edge=False)
    for row in result["rows"]:
        shares = row["percentiles"]
        tail = [f"{shares[name]:.2f}" for name in ("p90", "p99", "max") if name in shares]
        unit = "FPS" if row["unit"] == "fps" else "ms"
        name = f"{row['what']}, batch {row['batch']}"
        table.add_row(name, f"{row['value']:.2f} {unit}", f"{row['noise']:.1%}", *tail)
    console, machine = Console(), result["machine"]
    place = ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["gpus"]])
    console.print(f"{result['model']['name']} on {result['backend']}, {place}", highlight=False)
    console.print(table)
    console.print(result["verdict"], highlight=False)


def _show_changes(result: dict[str, Any], before: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from realtime_ssd.benchmark.compare import compare, differences

    table = Table("", "times as fast", "±", "", box=SIMPLE, show_edge=False)
    for change in compare(result, before):
        name = f"{change.what}, batch {change.batch}"
        table.add_row(name, f"{change.ratio:.3f}", f"{change.noise:.1%}", change.verdict)
    console = Console()
    console.print(table)
    other = differences(result, before)
    if other:
        console.print(f"not the same in both: {', '.join(other)}", highlight=False)
