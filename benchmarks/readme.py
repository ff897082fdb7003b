"""Tables and chart of the README: `python -m benchmarks.readme` writes both.

All figures come from the newest `results/<machine>-<date>.json` of each machine; a test fails when
README and result files differ.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cpu.nms_baselines import TORCHVISION_SSD
from benchmarks.readme_chart import Bar, draw_chart
from benchmarks.result_file import RESULTS

__all__ = [
    "CHART",
    "README",
    "Comparison",
    "comparisons",
    "insert_section",
    "machine_section",
    "main",
    "newest_results",
    "render",
]

README = RESULTS.parents[1] / "README.md"
CHART = RESULTS / "chart.svg"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

REASONS = {
    "whole program to H.264": "The bound omits drawing, the conversion for the encoder and "
    "everything listed for the program without output; encoder and networks also compete for "
    "cache.",
    "bound from idle cores": "As above; in addition, a network takes more processor time while "
    "another core is busy than while it is idle, whatever program runs it.",
    "whole program": "The bound omits pre-processing and decode + NMS (0.6 ms of processor time "
    "per frame), cache contention between decoder, images and networks, and the overhead of "
    "threads and Python; the cores are busy {utilization:.0%} of the time.",
    "OpenCV DNN": "The cores are busy nearly all the time, and decoding costs both programs the "
    "same.",
    "> 0.3": "Few candidates pass this threshold, so that reading all scores once, which every "
    "implementation must do, takes most of the time.",
    "> 0.1": "NMS over hundreds of candidates runs in numpy; the baselines' NMS is compiled.",
    "> 0.01": "NMS over thousands of crowded candidates runs in numpy.",
    "ONNX Runtime": "Decoding and the network share the same cores.",
}
"""Why a target is missed, by a part of the row's title; the first match counts."""


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
        title: What is measured.
        ours: Figure of this project with its unit.
        baseline: Figure of the baseline with its unit; empty without one.
        speedup: How many times as fast this project is; None without a baseline.
        target: The target as text; empty without one.
        met: Whether the target is met; None without one.
    """

    title: str
    ours: str
    baseline: str
    speedup: float | None
    target: str
    met: bool | None


def newest_results() -> list[Path]:
    """Return the newest result file of each machine."""
    newest: dict[str, Path] = {}
    for path in sorted(RESULTS.glob("*.json")):
        match = re.fullmatch(r"(.+)-\d{4}-\d{2}-\d{2}", path.stem)
        if match:
            newest[match[1]] = path
    return list(newest.values())


def comparisons(results: dict[str, Any]) -> list[Comparison]:
    """Return the rows of a result file."""
    return [
        *_loops(results.get("loops", {})),
        *_ssdlite(results.get("ssdlite", {})),
        *_nms(results.get("nms", {})),
        *_int8(results.get("int8", {})),
        *_annotate(results.get("annotate", {})),
        *_absolute_figures(results),
    ]


def _loops(clips: dict[str, Any]) -> Iterator[Comparison]:
    targets = {"OpenCV DNN": 2.5, "ONNX Runtime": 1.15}
    for clip, rows in clips.items():
        if not isinstance(rows, dict):
            continue
        ours = rows["realtime-ssd"]
        fps, repeats = ours["fps"], ours.get("clip_in_a_row", 1)
        file = clip if repeats == 1 else f"{clip} × {repeats}"
        for name, row in rows.items():
            title = f"video file to detections, {file}: {name}"
            if "skipped" in row:
                figure = f"{statistics.median(fps):.0f} FPS"
                yield Comparison(title, figure, "not measured", None, "", None)
            elif row is not ours:
                pairs = zip(fps, row["fps"], strict=True)
                speedup = statistics.median(a / b for a, b in pairs)
                target = targets.get(name.rsplit(" + ", maxsplit=1)[-1])
                title += _difference(row)
                yield _compare(title, fps, row["fps"], "FPS", speedup, target)


def _difference(row: dict[str, Any]) -> str:
    """Return a remark for a baseline whose detections differ."""
    return "" if row.get("same_answers", True) else " (different detections)"


def _compare(
    title: str,
    ours: list[float],
    baseline: list[float],
    unit: str,
    speedup: float,
    target: float | None,
) -> Comparison:
    return Comparison(
        title,
        f"{statistics.median(ours):.3g} {unit}",
        f"{statistics.median(baseline):.3g} {unit}",
        speedup,
        "" if target is None else f"≥ {target:g} ×",
        None if target is None else speedup >= target,
    )


def _ssdlite(values: dict[str, Any]) -> Iterator[Comparison]:
    if "fps" in values:
        title = "same ssdlite320 weights, video file to detections: torchvision"
        title += _difference(values)
        ours, baseline = values["fps"]["realtime-ssd"], values["fps"]["torchvision"]
        yield _compare(title, ours, baseline, "FPS", values["ratio"], 3.0)


def _nms(heads: dict[str, Any]) -> Iterator[Comparison]:
    targets = {"torchvision": 5.0, TORCHVISION_SSD: 5.0, "supervision": 5.0, "OpenCV": None}
    for name, part in heads.items():
        if not isinstance(part, dict) or "rows" not in part:
            continue
        ours = part["rows"]["realtime-ssd"]["ms"]
        size = name.replace(" x ", " × ").replace("above", ">")
        for baseline, target in targets.items():
            row = part["rows"].get(baseline, {})
            if "ms" in row:
                title = f"decode + NMS, {size}: {baseline}{_difference(row)}"
                yield _compare(title, [ours], [row["ms"]], "ms", row["ms"] / ours, target)


def _int8(values: dict[str, Any]) -> Iterator[Comparison]:
    if not values:
        return
    for row in values["speed"]:
        title = f"INT8 vs. FP32, network only, threads: {row['threads']}"
        ours, baseline = [row["int8_ms"]["median"]], [row["fp32_ms"]["median"]]
        yield _compare(title, ours, baseline, "ms", row["ratio"], values["goal"]["ratio"])
    limit, ap = values["goal"]["ap_change"], values["ap"]
    for name, change in values["ap_change"].items():
        yield Comparison(
            f"INT8 vs. FP32, {name}",
            f"AP {ap['int8'][name]:.4f}",
            f"AP {ap['fp32'][name]:.4f}",
            None,
            f"within {limit:g}",
            abs(change) <= limit,
        )


def _annotate(clips: dict[str, Any]) -> Iterator[Comparison]:
    for clip, row in clips.items():
        if isinstance(row, dict) and "ratio" in row:
            title = f"video file to annotated file, {clip}: cv2.VideoCapture + VideoWriter"
            ours, baseline = row["fps"]["realtime-ssd"], row["fps"]["opencv"]
            comparison = _compare(title, ours, baseline, "FPS", row["ratio"], None)
            yield replace(
                comparison,
                ours=f"{comparison.ours}, {_written_file(row, 'realtime-ssd')}",
                baseline=f"{comparison.baseline}, {_written_file(row, 'opencv')}",
            )


def _written_file(row: dict[str, Any], name: str) -> str:
    """Describe a written file: its codec, and what of the source is missing."""
    properties = {
        "frames": "frames",
        "seconds_first_to_last": "duration",
        "audio_packets": "audio",
    }
    same = row["same_as_source"][name]
    missing = [text for key, text in properties.items() if not same.get(key, True)]
    content = f"{' and '.join(missing)} missing" if missing else "complete"
    return f"{row['written'][name]['codec']}, {content}"


def _absolute_figures(results: dict[str, Any]) -> Iterator[Comparison]:
    """Yield the figures that have a target but no baseline."""
    for row in results.get("postprocess", {}).get("rows", []):
        size = f"{row['boxes']} × {row['classes']} > {row['score_threshold']:g}"
        yield _absolute(
            f"decode + NMS of photos, {size}",
            f"{row['ms']:.2f} ms",
            f"≤ {row['goal_ms']:g} ms",
            row["met"],
        )
    if "pipeline" in results:
        yield from _shares(results["pipeline"])
    if "latency" in results:
        row = results["latency"]
        yield _absolute(
            "p99 latency that the pipeline adds for a live source",
            f"{row['added_p99_ms']:.2f} ms",
            f"≤ {row['goal_added_p99_ms']:g} ms",
            row["met"],
        )
    if "memory" in results:
        row = results["memory"]
        yield _absolute(
            "memory growth over 100,000 frames",
            f"{row['growth_mb_per_100000_frames']:.2f} MB",
            f"≤ {row['goal_growth_mb']:g} MB",
            row["met"],
        )


def _absolute(title: str, ours: str, target: str, met: bool) -> Comparison:
    return Comparison(title, ours, "", None, target, met)


def _shares(row: dict[str, Any]) -> Iterator[Comparison]:
    """Yield which share of the frame rate that the cores allow the program reaches."""
    for name, title in (
        ("share_of_bound", "whole program, share of the bound, 720p file"),
        ("share_of_idle_bound", "whole program, share of the bound from idle cores, 720p file"),
        ("share_with_output", "whole program to H.264, share of the bound, 720p file"),
    ):
        if name in row:
            yield _absolute(title, f"{row[name]:.2f}", "≥ 0.9", row[name] >= 0.9)


def _hardware(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["gpus"]])


def machine_section(path: Path) -> str:
    """Return the table of one result file, followed by the reasons for missed targets."""
    results = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"**{_hardware(results)}** ([{path.name}](benchmarks/results/{path.name}))",
        "",
        "| | realtime-ssd | baseline | speed-up | target |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    rows = comparisons(results)
    utilization = _utilization(results)
    reasons = list(dict.fromkeys(_reason(row, utilization) for row in rows if row.met is False))
    for row in rows:
        speedup, target = "" if row.speedup is None else f"{row.speedup:.2f}", row.target
        if row.met is False:
            target = f"**{target}, missed** ({reasons.index(_reason(row, utilization)) + 1})"
        lines.append(f"| {row.title} | {row.ours} | {row.baseline} | {speedup} | {target} |")
    if reasons:
        lines += ["", "Why targets are missed:", ""]
        lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines)


def _reason(row: Comparison, utilization: float) -> str:
    matches = (
        text.format(utilization=utilization) for key, text in REASONS.items() if key in row.title
    )
    return next(matches, "The reason is unknown.")


def _utilization(results: dict[str, Any]) -> float:
    """Return the share of the time in which the cores were busy with the whole program."""
    row = results.get("pipeline")
    return row["cpu_ms"] / 1000 * row["fps"] / results["machine"]["cores"] if row else 0.0


def insert_section(readme: str, section: str) -> str:
    """Return the README with `section` between its markers.

    Raises:
        SystemExit: If the markers are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise SystemExit(f"README.md has no markers {BEGIN} and {END}")
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{section}\n{END}{rest.split(END, 1)[1]}"


def render() -> tuple[str, str]:
    """Return the text between the markers, and the chart as SVG."""
    files = newest_results()
    bars: dict[str, list[Bar]] = {}
    for path in files:
        results = json.loads(path.read_text(encoding="utf-8"))
        bars[_hardware(results)] = [
            (row.title, row.speedup, row.met)
            for row in comparisons(results)
            if row.speedup is not None
        ]
    link = CHART.relative_to(README.parent).as_posix()
    image = f"![Speed-up of realtime-ssd over each baseline]({link})"
    return "\n\n".join([image, *map(machine_section, files)]), draw_chart(bars)


def main() -> None:
    """Write README and chart."""
    section, chart = render()
    readme = insert_section(README.read_text(encoding="utf-8"), section)
    README.write_text(readme, encoding="utf-8")
    CHART.write_text(chart, encoding="utf-8")
    print(f"{README.name} and {CHART.name} written from {len(newest_results())} result files")


if __name__ == "__main__":
    main()
