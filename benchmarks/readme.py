"""The README's table and chart of results: `python -m benchmarks.readme` writes both.

Everything comes from the newest `results/<machine>-<date>.json` of each machine; a test fails when
README and files disagree.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cpu.nms_baselines import OWN
from benchmarks.machine import RESULTS
from benchmarks.readme_chart import Bar, draw

__all__ = ["CHART", "README", "Line", "inserted", "lines_of", "main", "newest", "section"]

README = RESULTS.parents[1] / "README.md"
CHART = RESULTS / "chart.svg"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

WHY = {
    "whole program to H.264": "the bound leaves out drawing, the conversion for the encoder and "
    "what is said of the program without output, and encoder and networks take each other's cache",
    "whole program beside": "the same, and a network beside another one takes more processor time "
    "than one beside an idle core, whatever program runs them",
    "whole program": "the bound leaves out pre-processing and decode + NMS (0.6 ms of processor "
    "time a frame), that decoder, pictures and networks take each other's cache, and what threads "
    "and Python cost; the cores are busy {busy:.0%} of the time",
    "OpenCV DNN": "the cores are busy nearly all the time, and decoding costs both the same",
    "> 0.3": "few candidates pass this threshold, so that reading all scores once, which "
    "everybody must, is most of the time",
    "> 0.1": "hundreds of boxes compete in numpy, where the others' NMS is compiled",
    "> 0.01": "thousands of crowded boxes compete in numpy",
    "ONNX Runtime": "decoding and the network share the same cores",
}


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        what: What is compared.
        ours: Our figure with its unit.
        other: The other's.
        ratio: How many times better ours is; None where only our figure counts.
        goal: What was aimed at, in words.
        met: Whether it was reached; None without a goal.
    """

    what: str
    ours: str
    other: str
    ratio: float | None
    goal: str
    met: bool | None


def newest() -> list[Path]:
    """List the newest result of each machine."""
    found: dict[str, Path] = {}
    for path in sorted(RESULTS.glob("*.json")):
        hit = re.fullmatch(r"(.+)-\d{4}-\d{2}-\d{2}", path.stem)
        if hit:
            found[hit[1]] = path
    return list(found.values())


def lines_of(result: dict[str, Any]) -> list[Line]:
    """Read the comparisons out of a result."""
    return [
        *_loops(result.get("loops", {})),
        *_ssdlite(result.get("ssdlite", {})),
        *_nms(result.get("nms", {})),
        *_int8(result.get("int8", {})),
        *_annotate(result.get("annotate", {})),
        *_program(result),
    ]


def _loops(clips: dict[str, Any]) -> Iterator[Line]:
    goals = {"OpenCV DNN": 2.5, "ONNX Runtime": 1.15}
    for clip, rows in clips.items():
        if not isinstance(rows, dict):
            continue
        fps, times = rows["realtime-ssd"]["fps"], rows["realtime-ssd"].get("clip_in_a_row", 1)
        file = clip if times == 1 else f"{clip} × {times}"
        for name, row in rows.items():
            short = name.rsplit(" + ", maxsplit=1)[-1]
            what = f"video file to detections, {file}: {name}"
            if "skipped" in row:
                yield Line(
                    what, f"{statistics.median(fps):.0f} FPS", "not measured", None, "", None
                )
            elif row is not rows["realtime-ssd"]:
                pairs = zip(fps, row["fps"], strict=True)
                share = statistics.median(a / b for a, b in pairs)
                what += _doubt(row)
                yield _against(what, fps, row["fps"], "FPS", share, goals.get(short))


def _doubt(row: dict[str, Any]) -> str:
    return "" if row.get("same_answers", True) else " (its answers differ)"


def _against(
    what: str, ours: list[float], other: list[float], unit: str, share: float, goal: float | None
) -> Line:
    figures = [f"{statistics.median(values):.3g} {unit}" for values in (ours, other)]
    words, met = ("", None) if goal is None else (f"≥ {goal:g} ×", share >= goal)
    return Line(what, *figures, share, words, met)


def _ssdlite(values: dict[str, Any]) -> Iterator[Line]:
    what = "the same ssdlite320 weights, video file to detections: torchvision"
    if "fps" in values:
        ours, other = values["fps"]["realtime-ssd"], values["fps"]["torchvision"]
        what += _doubt(values)
        yield _against(what, ours, other, "FPS", values["ratio"], 3.0)


def _nms(heads: dict[str, Any]) -> Iterator[Line]:
    goals = {"torchvision": 5.0, OWN: 5.0, "supervision": 5.0}
    for name, part in heads.items():
        if not isinstance(part, dict) or "rows" not in part:
            continue
        ours = part["rows"]["realtime-ssd"]["ms"]
        for peer in (*goals, "OpenCV"):
            row = part["rows"].get(peer, {})
            what = f"decode + NMS, {name.replace(' x ', ' × ').replace('above', '>')}: {peer}"
            if "ms" in row:
                what += _doubt(row)
                share = row["ms"] / ours
                yield _against(what, [ours], [row["ms"]], "ms", share, goals.get(peer))


def _int8(values: dict[str, Any]) -> Iterator[Line]:
    if not values:
        return
    for row in values["speed"]:
        what = f"INT8 against FP32, network alone, threads: {row['threads']}"
        figures = ([row["int8_ms"]["median"]], [row["fp32_ms"]["median"]])
        yield _against(what, *figures, "ms", row["ratio"], values["goal"]["ratio"])
    for name, change in values["ap_change"].items():
        limit, ap = values["goal"]["ap_change"], values["ap"]
        good = abs(change) <= limit
        figures = (f"AP {ap['int8'][name]:.4f}", f"AP {ap['fp32'][name]:.4f}")
        yield Line(f"INT8 against FP32, {name}", *figures, None, f"within {limit:g}", good)


def _annotate(clips: dict[str, Any]) -> Iterator[Line]:
    for clip, row in clips.items():
        if isinstance(row, dict) and "ratio" in row:
            what = f"video file to annotated file, {clip}: cv2.VideoCapture + VideoWriter"
            ours, other = row["fps"]["realtime-ssd"], row["fps"]["opencv"]
            line = _against(what, ours, other, "FPS", row["ratio"], None)
            facts = {name: _written(row, name) for name in ("realtime-ssd", "opencv")}
            yield replace(
                line,
                ours=f"{line.ours}, {facts['realtime-ssd']}",
                other=f"{line.other}, {facts['opencv']}",
            )


def _written(row: dict[str, Any], name: str) -> str:
    """Say how a file was written, and what of its source it lacks."""
    names = {
        "frames": "frames",
        "seconds_first_to_last": "duration",
        "audio_packets": "sound",
    }
    lost = [names[key] for key, same in row["same_as_source"][name].items() if not same]
    kept = f"without its {' and '.join(lost)}" if lost else "all of it"
    return f"{row['written'][name]['codec']}, {kept}"


def _program(result: dict[str, Any]) -> Iterator[Line]:
    """Figures that stand for themselves."""
    for row in result.get("postprocess", {}).get("rows", []):
        what = f"decode + NMS alone, {row['boxes']} × {row['classes']} > {row['score_threshold']:g}"
        yield Line(what, f"{row['ms']:.2f} ms", "", None, f"≤ {row['goal_ms']:g} ms", row["met"])
    if "pipeline" in result:
        yield from _shares(result["pipeline"])
    if "latency" in result:
        row = result["latency"]
        goal = f"≤ {row['goal_added_p99_ms']:g} ms"
        what = "what the loop adds to the p99 latency of a live source"
        yield Line(what, f"{row['added_p99_ms']:.2f} ms", "", None, goal, row["met"])
    if "memory" in result:
        row = result["memory"]
        what, goal = "growth of memory over 100,000 frames", f"≤ {row['goal_growth_mb']:g} MB"
        figure = f"{row['growth_mb_per_100000_frames']:.2f} MB"
        yield Line(what, figure, "", None, goal, row["met"])


def _shares(row: dict[str, Any]) -> Iterator[Line]:
    """Of the frames a second that the cores allow, the share that the program reaches."""
    for name, what in (
        ("share_of_bound", "whole program, share of what busy cores allow, 720p file"),
        ("share_of_idle_bound", "whole program beside parts measured on idle cores"),
        ("share_with_output", "whole program to H.264, share of what busy cores allow"),
    ):
        if name in row:
            yield Line(what, f"{row[name]:.2f}", "", None, "≥ 0.9", row[name] >= 0.9)


def _place(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["gpus"]])


def section(path: Path) -> str:
    """Write the table of one result, and under it why goals are missed."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        f"**{_place(result)}** ([{path.name}](benchmarks/results/{path.name}))",
        "",
        "| | realtime-ssd | the other | times as fast | goal |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines = lines_of(result)
    busy = _busy(result)
    reasons = list(dict.fromkeys(_why(line, busy) for line in lines if line.met is False))
    for line in lines:
        share, goal = "" if line.ratio is None else f"{line.ratio:.2f}", line.goal
        if line.met is False:
            goal = f"**{goal}, missed** ({reasons.index(_why(line, busy)) + 1})"
        rows.append(f"| {line.what} | {line.ours} | {line.other} | {share} | {goal} |")
    if reasons:
        rows += ["", "Why goals are missed:", ""]
        rows += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(rows)


def _why(line: Line, busy: float) -> str:
    reasons = (text.format(busy=busy) for key, text in WHY.items() if key in line.what)
    return next(reasons, "the reason is not known yet")


def _busy(result: dict[str, Any]) -> float:
    """Give the share of their time in which the cores worked while the whole program ran."""
    row = result.get("pipeline")
    return row["cpu_ms"] / 1000 * row["fps"] / result["machine"]["cores"] if row else 0.0


def inserted(readme: str, text: str) -> str:
    """Put a text between the marks of the README.

    Raises:
        SystemExit: If the marks are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise SystemExit(f"README.md lacks the marks {BEGIN} and {END}")
    head, rest = readme.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def made() -> tuple[str, str]:
    """Make the text between the marks, and the chart."""
    files = newest()
    bars: dict[str, list[Bar]] = {}
    for path in files:
        result = json.loads(path.read_text(encoding="utf-8"))
        lines = (line for line in lines_of(result) if line.ratio is not None)
        bars[_place(result)] = [(line.what, line.ratio or 0.0, line.met) for line in lines]
    picture = f"![Times as fast as the others]({CHART.relative_to(README.parent).as_posix()})"
    return "\n\n".join([picture, *map(section, files)]), draw(bars)


def main() -> None:
    """Write README and chart."""
    text, chart = made()
    README.write_text(inserted(README.read_text(encoding="utf-8"), text), encoding="utf-8")
    CHART.write_text(chart, encoding="utf-8")
    print(f"{README.name} and {CHART.name} written from {len(newest())} results")


if __name__ == "__main__":
    main()
