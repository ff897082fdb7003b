"""Chart of a benchmark result."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.extras import require
from realtime_ssd.core.files import write_output

__all__ = ["check_chart", "draw_chart"]

SUFFIXES = (".png", ".svg", ".pdf")


def check_chart(path: Path) -> None:
    """Check before the measurements that a chart can be drawn after them.

    Raises:
        UsageError: If the file name does not end in .png, .svg or .pdf.
        RealtimeSSDError: If matplotlib is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"`plot` must end in {', '.join(SUFFIXES)}, not '{path}'")
    require("train", "matplotlib", purpose="`plot`")


def draw_chart(result: dict[str, Any], path: Path) -> None:
    """Draw rates and latencies of a result.

    Args:
        result: Return value of `realtime_ssd.profiling.benchmark.run`.
        path: Image to write (.png, .svg or .pdf).

    Raises:
        UsageError: If the file name has another suffix.
        RealtimeSSDError: If matplotlib is missing or the file cannot be written.
    """
    check_chart(path)
    from matplotlib.figure import Figure

    rates, times = (
        [row for row in result["rows"] if row["unit"] == unit] for unit in ("fps", "ms")
    )
    heights = [2 + len(rates), 2 + len(times)]
    figure = Figure(figsize=(9, 1 + 0.4 * sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    _draw_bars(upper, rates, "frames per second")
    _draw_bars(lower, times, "milliseconds per batch")
    width, height = result["picture"]
    figure.suptitle(
        f"{result['model']['name']} ({result['precision']}) on {result['backend']}, "
        f"{width} × {height}\n{result['machine']['cpu']}, {result['machine']['cores']} cores"
        + "".join(f", {name}" for name in result["machine"]["gpus"])
    )
    image = BytesIO()
    figure.savefig(image, dpi=110, format=path.suffix[1:].lower())
    write_output(path, image.getvalue())


def _draw_bars(axes: Any, rows: list[dict[str, Any]], title: str) -> None:
    """Draw a bar with an error bar for each row, and a dot at p99 for durations."""
    names = [f"{row['what']}, batch {row['batch']}" for row in rows]
    values = [row["value"] for row in rows]
    spreads = [row["value"] * row["noise"] for row in rows]
    positions = list(range(len(rows)))
    axes.barh(positions, values, xerr=spreads, color="#3b7dd8", ecolor="#1d3557", height=0.6)
    ends = [value + spread for value, spread in zip(values, spreads, strict=True)]
    texts = [f"{value:.3g}" for value in values]
    if rows and rows[0]["unit"] == "ms":
        tails = [row["percentiles"].get("p99", row["value"]) for row in rows]
        texts = [f"{text} (p99 {tail:.3g})" for text, tail in zip(texts, tails, strict=True)]
        axes.plot(tails, positions, "o", color="#d1495b", label="p99")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
        ends = [max(pair) for pair in zip(ends, tails, strict=True)]
    for position, text, end in zip(positions, texts, ends, strict=True):
        axes.annotate(text, (end, position), (7, 0), textcoords="offset points", va="center")
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    axes.margins(x=0.3)
    axes.spines[["top", "right"]].set_visible(False)
