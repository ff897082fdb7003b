"""The chart of a benchmark."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import RealtimeSSDError, UsageError

__all__ = ["check", "plot"]

ENDINGS = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """Find out before the measurements that no chart can be drawn after them.

    Raises:
        UsageError: If the file's ending is none of a picture's.
        RealtimeSSDError: If matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--plot draws {', '.join(ENDINGS)}, not '{path}'")
    if find_spec("matplotlib") is None:
        raise RealtimeSSDError("--plot needs matplotlib; run pip install matplotlib")


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw rates and latencies of a result.

    Args:
        result: What `run` gave.
        path: Picture to write (.png, .svg or .pdf).

    Raises:
        UsageError: If the file's ending is none of these.
        RealtimeSSDError: If matplotlib is missing or the file cannot be written.
    """
    check(path)
    from matplotlib.figure import Figure

    fast, slow = ([row for row in result["rows"] if row["unit"] == unit] for unit in ("fps", "ms"))
    heights = [2 + len(fast), 2 + len(slow)]
    figure = Figure(figsize=(9, 1 + 0.4 * sum(heights)), layout="constrained")
    rates, times = figure.subplots(2, 1, height_ratios=heights)
    _bars(rates, fast, "frames a second")
    _bars(times, slow, "milliseconds a batch")
    width, height = result["picture"]
    figure.suptitle(
        f"{result['model']['name']} ({result['precision']}) on {result['backend']}, "
        f"{width} × {height}\n{result['machine']['cpu']}, {result['machine']['cores']} cores"
        + "".join(f", {name}" for name in result["machine"]["gpus"])
    )
    try:
        figure.savefig(str(path), dpi=110)
    except (OSError, ValueError) as error:
        raise RealtimeSSDError(f"'{path}' cannot be written: {error}") from None


def _bars(axes: Any, rows: list[dict[str, Any]], title: str) -> None:
    """Draw one bar a row with the noise of its repeats, and a dot at p99 of durations."""
    names = [f"{row['what']}, batch {row['batch']}" for row in rows]
    values = [row["value"] for row in rows]
    spread = [row["value"] * row["noise"] for row in rows]
    places = list(range(len(rows)))
    axes.barh(places, values, xerr=spread, color="#3b7dd8", ecolor="#1d3557", height=0.6)
    ends = [value + noise for value, noise in zip(values, spread, strict=True)]
    words = [f"{value:.3g}" for value in values]
    if rows and rows[0]["unit"] == "ms":
        tails = [row["percentiles"].get("p99", row["value"]) for row in rows]
        words = [f"{word} (p99 {tail:.3g})" for word, tail in zip(words, tails, strict=True)]
        axes.plot(tails, places, "o", color="#d1495b", label="p99")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
        ends = [max(pair) for pair in zip(ends, tails, strict=True)]
    for place, word, end in zip(places, words, ends, strict=True):
        axes.annotate(word, (end, place), (7, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    axes.margins(x=0.3)
    axes.spines[["top", "right"]].set_visible(False)
